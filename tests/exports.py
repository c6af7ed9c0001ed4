"""A hospital's export as users have it: one wide file, semicolons, odd column names, notes of several lines."""

from __future__ import annotations

import csv
from pathlib import Path

from raypipe.notes import synthetic

HEADER = ["Nr. referto", "Codice paziente", "Età", "Referto PS", "Febbre > 38?", "Dispnea", "Note amm."]


def wide_export(path: Path, delimiter: str = ";") -> Path:
    """84 notes, 60 of them with labels in two columns: codes in one, words in the other."""
    made = synthetic.generate(n_labelled=40, n_unlabelled=24, n_dev=8, n_test=12, n_pretraining=1)
    labels: dict[str, dict[str, str]] = {}
    for row in made.labels.to_pylist():
        labels.setdefault(row["note_id"], {})[row["task_id"]] = row["label"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(HEADER)
        for i, note in enumerate(made.notes.to_pylist()):
            of = labels.get(note["note_id"])
            code = {"sì": "1", "no": "0"}[of["febbre"]] if of else ""
            text = note["text"].replace(". ", ".\n", 1)
            word = of["dispnea"].upper() if of else ""
            writer.writerow([f"R{i:04d}", note["group_id"], 18 + i % 70, text, code, word, ""])
    return path
