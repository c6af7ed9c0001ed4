"""Writes notes, labels, tasks and model shapes of a stated size: to plan a job whose data and models are not here.

    python benchmarks/plan_corpus.py FOLDER [--tasks 136] [--notes 2000] [--words 235]
    raypipe plan --config FOLDER/plan.yaml --model-config FOLDER/llama-1b.json --notes 1900000 --peak 990e12

The notes are sentences of the demo's generator, put together to lengths that spread like those of clinical notes
(log-normal, sigma 0.6). Every task has 200 training and 50 test labels. The shapes are those of Llama 3.2 1B and
Llama 3.1 8B as their configs have them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from raypipe.notes import synthetic

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "dtype": "bfloat16",
}
SHAPES = {
    "llama-1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64},
    "llama-8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "head_dim": 128},
}
LABELLED = {"train": 200, "test": 50}
ADAPTERS = {"lora": {"rank": 32, "alpha": 64}}


def notes(n: int, n_words: int) -> list[str]:
    """Texts of `n_words` on average."""
    generated = synthetic.generate(0, n_labelled=8, n_unlabelled=400, n_dev=8, n_test=8, n_pretraining=1)
    words = " ".join(generated.notes["text"].to_pylist()).split(" ")
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(np.log(n_words) - 0.18, 0.6, n).clip(8, 4000).astype(int)
    starts = rng.integers(0, len(words), n)
    return [
        " ".join(words[(start + i) % len(words)] for i in range(k)) for start, k in zip(starts, lengths, strict=True)
    ]


def labels(n_tasks: int) -> dict[str, list[str]]:
    """Labels of all tasks for the first notes, half of them positive."""
    splits = [split for split, n in LABELLED.items() for _ in range(n)]
    every = [
        (f"task{t}", f"note{n}", str((t + n) % 2), split) for t in range(n_tasks) for n, split in enumerate(splits)
    ]
    return dict(zip(("task_id", "note_id", "label", "split"), map(list, zip(*every, strict=True)), strict=True))


def settings(folder: Path) -> dict[str, Any]:
    """A run with one arm of each kind."""
    return {
        "name": "plan",
        "runs": str(folder / "runs"),
        "data": {name: str(folder / file) for name, file in _FILES.items()},
        "model": {"path": str(folder)},
        "prompt": {"question": "\n\n{question} ({options})"},
        "attribution": {"tasks_per_note": None},
        "finetune": {"epochs": 3, **ADAPTERS},
        "train": {"precision": "bfloat16", **ADAPTERS},
        "arms": {"sft": {}, "decselfmask": {"masking": {"ratio": 0.15}}},
        "resources": {"training_workers": 8},
    }


_FILES = {"notes": "notes.parquet", "labels": "labels.parquet", "tasks": "tasks.yaml"}


def main() -> None:
    """Writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", type=int, default=136)
    parser.add_argument("--notes", type=int, default=2000)
    parser.add_argument("--words", type=int, default=235)
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    texts = notes(options.notes, options.words)
    pq.write_table(
        pa.table({"note_id": [f"note{n}" for n in range(len(texts))], "text": texts}), folder / "notes.parquet"
    )
    pq.write_table(pa.table(labels(options.tasks)), folder / "labels.parquet")
    verbalizers = {"1": "sì", "0": "no"}
    tasks = [
        {"id": f"task{t}", "question": f"Il paziente presenta il reperto numero {t}?"} for t in range(options.tasks)
    ]
    whole = {"defaults": {"verbalizers": verbalizers}, "tasks": tasks}
    (folder / "tasks.yaml").write_text(yaml.safe_dump(whole, allow_unicode=True))
    (folder / "plan.yaml").write_text(yaml.safe_dump(settings(folder), sort_keys=False, allow_unicode=True))
    for name, shape in SHAPES.items():
        tied = {"tie_word_embeddings": name == "llama-1b"}
        (folder / f"{name}.json").write_text(json.dumps(LLAMA | shape | tied, indent=1))


if __name__ == "__main__":
    main()
