"""`raypipe faithfulness`: which method, target and layer to start from, on this scorer and these notes.

A few hundred questions on labelled dev notes, in this process: no Ray. What it leaves lies in `<run>/faithfulness`:
report.html and metrics.json (reporting/), and table.csv. It is a proxy; what counts is the arms' macro F1.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from raypipe.settings import configfile
from raypipe.attribution.decoder import Decoder
from raypipe.attribution.scores import values_of
from raypipe.errors import InputError, Problem
from raypipe.evaluation.faithfulness import Deciding, faithfulness_table
from raypipe.evaluation.variants import variants
from raypipe.stream.frequencies import token_idf
from raypipe.hashing import stable_hash
from raypipe.models import loading
from raypipe.models.prompts import EncodedNote
from raypipe.findings.page.faithfulness_table import FaithfulnessRow
from raypipe.findings.page.report import Report
from raypipe.findings.page.text import text_table
from raypipe.findings.page.write import write_report
from raypipe.runs.run import SCORER, Run
from raypipe.runs.folder import versions

SPLIT = "dev"
Asked = dict[str, list[str]]  # note id -> task ids


def faithfulness(run: Run) -> Path:
    """Measure every variant, print the table, and return the page's path. Done once: then the table is shown again."""
    if not run.is_done(f"finetune/{SCORER}"):
        raise InputError(f"{run.folder} has no scorer yet: run `raypipe finetune` first")
    step = run.step("faithfulness")
    page = step.folder / "report.html"
    if step.done:
        print((step.folder / "table.txt").read_text(), end="")
        return page
    built = _measured(run)
    write_report(built, step.folder)
    _write_csv(built.faithfulness, step.folder / "table.csv")
    table = text_table(built)
    (step.folder / "table.txt").write_text(table + "\n")
    print(table)
    step.finish(variants=len(built.faithfulness), questions=built.counts["questions"])
    return page


def _measured(run: Run) -> Report:
    settings, scorer, encoder = run.settings, loading.load(run.model(SCORER)), run.encoder()
    labelled = {note["note_id"]: (note["text"], labels) for note, labels in run.corpus.labelled(SPLIT)}
    labels = {note_id: labels for note_id, (_, labels) in labelled.items()}
    asked = choose(labels, settings.faithfulness.questions, settings.seed)
    if not asked:
        raise InputError([Problem("data.labels", f"no note of the split {SPLIT} has a label to measure with")])
    chosen = [(note_id, labelled[note_id][0], task_ids) for note_id, task_ids in asked.items()]
    idf_V = token_idf(run.corpus, encoder.tokenizer) if "tfidf" in settings.faithfulness.methods else None
    compared, refused = variants(scorer, settings.faithfulness, settings.attribution, idf_V)
    for what in refused:
        run.say(f"left out: {what}")
    table = faithfulness_table(
        scorer,
        encoder,
        chosen,
        compared,
        deciding=_deciding(run),
        top_share=settings.faithfulness.top_share,
        n_bootstrap=settings.faithfulness.bootstrap,
        seed=settings.seed,
        idf_V=idf_V,
        say=run.say,
    )
    right = _accuracy(run, Decoder(scorer), [encoder.encode(*note) for note in chosen], labels)
    n_questions = sum(map(len, asked.values()))
    return Report(
        title=f"raypipe: {settings.name}, faithfulness",
        subtitle=f"{n_questions} questions on {len(chosen)} labelled {SPLIT} notes, tasks and labels in turn",
        summary=f"The scorer answers {100 * right:.1f} % of them right; if that is chance, the table says little.",
        faithfulness=tuple(FaithfulnessRow(**row) for row in table),
        counts={"questions": n_questions, "notes": len(chosen)},
        facts={**versions(), "seed": str(settings.seed)},
        config=configfile.dump(settings),
    )


def choose(labels: dict[str, dict[str, str]], n_questions: int, seed: int) -> Asked:
    """Tasks to ask of each note: tasks and labels in turn, so that rare labels count as much; by hashed ids."""
    cells: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    pairs = [(note_id, task_id) for note_id, of_note in labels.items() for task_id in of_note]
    for note_id, task_id in sorted(pairs, key=lambda pair: stable_hash(seed, *pair)):
        cells[task_id, labels[note_id][task_id]].append((note_id, task_id))
    in_turn = (pair for pair in chain.from_iterable(zip_longest(*(cells[c] for c in sorted(cells)))) if pair)
    asked: Asked = defaultdict(list)
    for _, (note_id, task_id) in zip(range(n_questions), in_turn, strict=False):
        asked[note_id].append(task_id)
    return dict(asked)


def _deciding(run: Run) -> Deciding | None:
    if not run.corpus.deciding_path.exists():
        return None
    words: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for row in pq.read_table(run.corpus.deciding_path).to_pylist():
        words[row["note_id"], row["task_id"]].append((row["start"], row["end"]))
    return words


def _accuracy(run: Run, decoder: Decoder, notes: Sequence[EncodedNote], labels: dict[str, dict[str, str]]) -> float:
    options = {task.id: task.options for task in run.corpus.tasks}
    found = values_of(decoder, notes, "label_margin", run.settings.attribution.batch_tokens)
    right = [
        options[question.task_id][best] == labels[note.note_id][question.task_id]
        for note, values in zip(notes, found, strict=True)
        for question, best in zip(note.questions, values.chosen_Q2[:, 0], strict=True)
    ]
    return float(np.mean(right))


def _write_csv(rows: Sequence[FaithfulnessRow], path: Path) -> None:
    """One line per variant, best first."""
    table: list[dict[str, Any]] = [row.flat() for row in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table[0].keys())
        writer.writeheader()
        writer.writerows(table)
