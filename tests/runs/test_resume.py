"""The stream of notes survives SIGKILL: the same command again loses nothing and doubles nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from raypipe.errors import InputError
from raypipe.runs import driver
from raypipe.runs.run import Run
from raypipe.settings import configfile
from raypipe.stream.cluster import WRITTEN
from tests.tiny_models import tiny_model, tiny_tokenizer

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]
N_NOTES = 300
BROKEN = {"n-0003": None, "n-0010": "  ", "n-0011": "."}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 short notes, one task, a tiny random scorer; three notes cannot be used."""
    folder = tmp_path_factory.mktemp("resume")
    for part in ("model", "finetuned"):
        tiny_model("llama").save_pretrained(folder / part)
        tiny_tokenizer().save_pretrained(folder / part)
    ids = [f"n-{i:04d}" for i in range(N_NOTES)]
    texts = [
        BROKEN.get(i, f"Paziente {n} con dispnea e febbre, nega dolore toracico da {n} giorni.")
        for n, i in enumerate(ids)
    ]
    pq.write_table(pa.table({"note_id": ids, "text": texts}), folder / "notes.parquet")
    splits = ["train"] * 20 + ["test"] * 20
    labels = {"task_id": ["t"] * 40, "note_id": ids[20:60], "label": ["sì", "no"] * 20, "split": splits}
    pq.write_table(pa.table(labels), folder / "labels.parquet")
    (folder / "tasks.yaml").write_text('tasks:\n  - {id: t, question: "dispnea", options: ["sì", "no"]}\n')
    settings = {
        "name": "resume",
        "runs": str(folder / "runs"),
        "data": {
            name: str(folder / f"{name}.{'yaml' if name == 'tasks' else 'parquet'}")
            for name in ("notes", "labels", "tasks")
        },
        "model": {"path": str(folder / "model")},
        "prompt": {"max_tokens": 128},
        "attribution": {"method": "occlusion"},  # slow enough to be killed on the way
        "finetune": {"max_steps": 1},
        "arms": {"relevant": {"masking": {"ratio": 0.2}}},
        "resources": {"rows_per_block": 20},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder / "config.yaml"


def _here(command: str, config: Path, *overrides: str) -> None:
    """The command in this process: no other Python and no other Ray starts for it."""
    driver.run_command(Run(configfile.load(config, overrides)).open(), command)


def _start(command: str, config: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "raypipe.cli", command, "--config", str(config)]
    return subprocess.Popen(
        arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def _finish(command: str, config: Path) -> tuple[int, str]:
    process = _start(command, config)
    out, _ = process.communicate(timeout=300)
    assert not re.search(r"\w\.cc:\d", out), "Ray's own lines go to its log, not to the terminal"
    return process.returncode, out


def _rows_of(part: Path) -> int:
    """0 if the kill left half a file."""
    try:
        return int(pq.read_metadata(part).num_rows)
    except pa.ArrowInvalid:
        return 0


def _committed(data: Path) -> list[Path]:
    """Files of rows of which Ray has recorded that they are whole."""
    records = {path.stem for path in (data.parent / WRITTEN).glob("*.parquet")}
    return [part for part in data.glob("*.parquet") if part.stem.rpartition("-")[0] in records]


def test_killed_and_started_again(config: Path) -> None:
    _here("finetune", config, "resources.ray=false")
    data = config.parent / "runs/resume/mask/data"
    process = _start("mask", config)
    try:
        while len(_committed(data)) < 3:
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    written = sum(_rows_of(part) for part in data.glob("*.parquet"))
    assert 0 < written < N_NOTES, "the kill must land in the middle"
    finished = {part: part.stat().st_mtime_ns for part in _committed(data)}
    assert finished

    code, out = _finish("mask", config)
    assert code == 0, out
    assert {part: part.stat().st_mtime_ns for part in finished} == finished, "what was written is not computed again"
    table = pq.read_table(data)
    assert Counter(table["note_id"].to_pylist()) == Counter(f"n-{i:04d}" for i in range(N_NOTES))
    errors = Counter(table["error"].to_pylist())
    assert errors == {None: N_NOTES - 23, "HELD_OUT": 20, "E_EMPTY": 2, "E_NULL": 1}
    letters = pq.read_table(data.parent / "dead_letters.parquet")
    assert sorted(letters["note_id"].to_pylist()) == sorted(BROKEN)
    assert letters.schema.names == ["note_id", "step", "error"]

    before = {path: path.stat().st_mtime_ns for path in data.glob("*.parquet")}
    _here("mask", config)
    assert {path: path.stat().st_mtime_ns for path in data.glob("*.parquet")} == before, "a finished step is repeated"
    with pytest.raises(InputError, match=r"attribution\.window"):
        _here("mask", config, "attribution.window=2")
