"""A small project in which everything is right: tables, tasks, a model folder, a config; and its run, finished."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.bad_input.case import CANARY, RUN_AT, run
from tests.tiny_models import TEXTS, tiny_model, tiny_tokenizer

TRAINING = {"max_steps": 2, "batch_rows": 4, "learning_rate": 1e-3}
CONFIG: dict[str, Any] = {
    "name": "bad",
    "runs": "runs",
    "data": {
        "notes": "notes.csv",
        "labels": "labels.csv",
        "tasks": "tasks.yaml",
        "columns": {"group_id": "patient"},
        "max_error_rate": 1,
    },
    "model": {"path": "model"},
    "prompt": {"question": "\n{question}", "max_tokens": 200},
    "finetune": TRAINING,
    "train": TRAINING,
    "arms": {"sft": {}, "decselfmask": {"masking": {"ratio": 0.3}}},
    "evaluation": {"bootstrap": 100},
    "resources": {"ray": False},
}
TASKS = {
    "tasks": [
        {"id": "fever", "question": "febbre?", "options": ["1", "0"], "verbalizers": {"1": "sì", "0": "no"}},
        {"id": "kind", "kind": "multiclass", "question": "dolore?", "options": ["acuto", "cronico", "assente"]},
    ]
}
SPLITS = ["train"] * 8 + ["dev"] * 4 + ["test"] * 4
NOTES = [
    {"note_id": f"{CANARY}-{i}", "text": f"{TEXTS[i % len(TEXTS)]} {CANARY}{i}", "patient": f"{CANARY} p{i}"}
    for i in range(24)
]
LABELS = [
    {
        "task_id": task["id"],
        "note_id": NOTES[i]["note_id"],
        "label": task["options"][i % len(task["options"])],
        "split": split,
    }
    for task in TASKS["tasks"]
    for i, split in enumerate(SPLITS)
]


@dataclass(frozen=True)
class Ground:
    """Folders that cases copy."""

    project: Path  # tables, tasks, config, model
    run: Path  # the same with runs/bad, finished


def lay(folder: Path) -> Ground:
    """Make both. The run is made where cases will have it: its input's paths are among its settings."""
    project, done = folder / "project", folder / RUN_AT
    for place in (project, done):
        place.mkdir(parents=True)
        write_csv(place / "notes.csv", NOTES)
        write_csv(place / "labels.csv", LABELS)
        (place / "tasks.yaml").write_text(yaml.safe_dump(TASKS, allow_unicode=True))
        write_config(place)
        _model().save_pretrained(place / "model")
        tiny_tokenizer().save_pretrained(place / "model")
    result = run(["run", "--config", "c.yaml"], done)
    assert result.code == 0, result.err
    shutil.move(done, folder / "run")
    return Ground(project, folder / "run")


@cache
def _model() -> Any:
    return tiny_model()


def write_config(folder: Path, **changes: Any) -> None:
    """The config with other values at dotted keys (`data__notes=...`)."""
    config = json.loads(json.dumps(CONFIG))
    for key, value in changes.items():
        *sections, last = key.split("__")
        section = config
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    (folder / "c.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))


def write_csv(path: Path, table: list[dict[str, Any]]) -> None:
    """A CSV file with a header."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
