"""From the files of a run to its report: metrics with intervals, gates, agreement with known words, costs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pds
import pyarrow.parquet as pq

from raypipe import configfile, pipeline
from raypipe.evaluation import baselines, metrics, uncertainty
from raypipe.evaluation.agreement import Agreement, agreement, cases_from_tables
from raypipe.reporting.heatmap import HeatMap, Panel
from raypipe.reporting.report import AgreementRow, Gate, Material, Report, arm_rows
from raypipe.reporting.report import Step as StepTime
from raypipe.reporting.text import text_table
from raypipe.reporting.write import write_report
from raypipe.run import SCORER, Run
from raypipe.run_dir import versions
from raypipe.stages.mask import words_and_relevance

TFIDF = "tfidf_logistic"
AUC_MARGIN = 0.05  # a decoder further below TF-IDF + logistic regression has not learned to read the note
UNLABELLED_FOR_IDF = 5000


def report(run: Run) -> Path:
    """Write report.html and metrics.json from what the steps left; print the table; return the page's path."""
    built = build(run)
    page = write_report(built, run.folder / "report")
    print(text_table(built))
    return page


def build(run: Run) -> Report:
    """The report of a run, from the arms that were evaluated."""
    arms = {arm: tables for arm in run.settings.arms if (tables := _predictions(run, arm))}
    arms[TFIDF] = [_tfidf(run)]
    reference = next((arm for arm in run.settings.arms if run.student_of(arm) == SCORER), next(iter(arms)))
    tasks = run.corpus.tasks
    others = [(arm, reference) for arm in arms if arm != reference] if reference in arms else []
    compared = uncertainty.compare(
        arms, tasks, others, n_bootstrap=run.settings.evaluation.bootstrap, seed=run.settings.seed
    )
    measured = {arm: [metrics.evaluate(table, tasks) for table in tables] for arm, tables in arms.items()}
    found = _agreement(run)
    return Report(
        title=f"raypipe: {run.settings.name}",
        subtitle=_subtitle(run),
        reference=reference,
        arms=arm_rows(compared, measured),
        tasks=compared.tasks,
        gates=tuple(_gates(run, measured, reference, found)),
        agreement=(AgreementRow(_scorer_name(run), found),) if found else (),
        heat_maps=tuple(_heat_maps(run)),
        material=tuple(_material(run)),
        steps=tuple(_steps(run)),
        counts=_counts(run),
        dead_letters={code: n for code, n in _errors(run).items() if code.startswith("E_")},
        facts={**versions(), "seed": str(run.settings.seed)},
        config=configfile.dump(run.settings),
    )


def _predictions(run: Run, arm: str) -> list[pa.Table]:
    """One table per repeat of the arm; none unless all are there."""
    steps = [run.step(f"evaluate/{student}") for student in run.students(arm)]
    return [pq.read_table(step.data) for step in steps] if all(step.done for step in steps) else []


def _tfidf(run: Run) -> pa.Table:
    """TF-IDF + logistic regression on the same labels; IDF also from unlabelled notes, as the arms see them."""
    masked, texts = _masked(run), []
    if masked is not None:
        some = pds.dataset(masked).head(UNLABELLED_FOR_IDF, columns=["note_id", "text"]).sort_by("note_id")
        texts = some["text"].drop_null().to_pylist()
    notes, labels = pq.read_table(run.corpus.labelled_path), run.corpus.labels
    split = run.settings.evaluation.split
    return baselines.tfidf_logistic(notes, labels, run.corpus.tasks, texts, split)


def _gates(
    run: Run, measured: dict[str, list[metrics.Metrics]], reference: str, found: Agreement | None
) -> Iterator[Gate]:
    """What must hold before arms may be ranked (pilot section 6)."""
    auc = {arm: [m.auc or 0.0 for m in runs] for arm, runs in measured.items()}
    random_start = next((arm for arm, a in run.settings.arms.items() if a.start == "random" and arm in auc), None)
    gain = float(np.mean(auc[reference]) - np.mean(auc[random_start])) if random_start else None
    passed = None if gain is None else gain > 0
    yield Gate(
        "The backbone beats random initial weights", gain, 0.0, passed, "AUC of labels-only students, difference"
    )
    behind = float(np.mean(auc[reference]) - np.mean(auc[TFIDF]))
    yield Gate(
        "The scorer is not behind TF-IDF + logistic regression",
        behind,
        -AUC_MARGIN,
        behind >= -AUC_MARGIN,
        "AUC, difference",
    )
    above = None if found is None else found.lift_interval[0]
    detail = "lower end of the 95 % interval of hit share less chance" if found else "no deciding words are known here"
    yield Gate(
        "Relevant words are deciding words, above chance", above, 0.0, None if above is None else above > 0, detail
    )


def _agreement(run: Run) -> Agreement | None:
    """Do the most relevant words fall on the deciding ones, where those are known?"""
    if not _masked(run) or not run.corpus.deciding_path.exists():
        return None
    columns = ["note_id", "task_id", "word_start", "word_end", "layers", "relevance", "error"]
    masked = pq.read_table(_masked(run), columns=columns)
    if masked["relevance"].null_count == len(masked):
        return None
    share = next(m.ratio for m in pipeline.masking_of(run.settings).values() if m.match_ratio_to is None)
    return agreement(list(cases_from_tables(masked, pq.read_table(run.corpus.deciding_path), _layer(run))), share)


def _layer(run: Run) -> int | None:
    """The layer that masking read; None where only one is kept."""
    attribution = run.settings.attribution
    return pipeline.layer_of(attribution, run.model(SCORER)) if attribution.keep == "all" else None


def _heat_maps(run: Run) -> Iterator[HeatMap]:
    """Notes with the relevance of one task and what each arm hides of them."""
    wanted = run.settings.evaluation.heat_maps
    if not wanted or not _masked(run):
        return
    deciding = defaultdict(list)
    if run.corpus.deciding_path.exists():
        for row in pq.read_table(run.corpus.deciding_path).to_pylist():
            deciding[row["note_id"], row["task_id"]].append((row["start"], row["end"]))
    question = {task.id: task.question for task in run.corpus.tasks}
    first = pq.ParquetFile(sorted(_masked(run).glob("*.parquet"))[0]).read()  # type: ignore[union-attr]
    for note in first.sort_by("note_id").to_pylist():
        asked = [t for t in note["task_id"] or [] if not deciding or (note["note_id"], t) in deciding]
        if wanted and asked and note["error"] is None:
            wanted -= 1
            yield _heat_map(note, asked[0], question[asked[0]], deciding[note["note_id"], asked[0]], _layer(run))


def _heat_map(
    note: dict[str, Any], task_id: str, question: str, deciding: list[tuple[int, int]], layer: int | None
) -> HeatMap:
    words_W2, relevance_QW = words_and_relevance(note, layer)
    words, q = [(int(start), int(end)) for start, end in words_W2], note["task_id"].index(task_id)
    relevance = np.zeros(len(words)) if relevance_QW is None else relevance_QW[q]
    panels = []
    for plan in note["plans"]:
        if plan["task_id"] in (task_id, None) and plan["draw"] == 0:
            hidden = list(zip(plan["start"], plan["end"], strict=True))
            caption = f"{plan['n_masked']} of {plan['n_eligible']} eligible words"
            panels.append(Panel(plan["arm"], hidden, relevance.tolist(), caption))
    predicted = f"the scorer says {note['predicted'][q]}, margin {note['margin'][q]:.2f} nats"
    return HeatMap(f"{note['note_id']}: {question}", note["text"], words, panels, deciding, predicted)


def _material(run: Run) -> Iterator[Material]:
    """What each arm learned from: masked words, target tokens, steps."""
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    if _masked(run):
        for batch in pq.ParquetDataset(_masked(run)).read(columns=["plans"])["plans"].drop_null().chunks:
            plans = batch.flatten()
            columns = (plans.field(name).to_pylist() for name in ("arm", "n_masked", "n_eligible"))
            for arm, masked, eligible in zip(*columns, strict=True):
                totals[arm][0] += masked
                totals[arm][1] += eligible
    for arm, (masked, eligible) in totals.items():
        trained = run.step(f"train/{arm}")
        facts = trained.manifest if trained.done else {}
        yield Material(
            arm,
            masking_ratio=masked / max(1, eligible),
            masked_words=masked,
            target_tokens=facts.get("target_tokens"),
            trained_tokens=facts.get("tokens"),
            optimiser_steps=facts.get("steps"),
        )


def _steps(run: Run) -> Iterator[StepTime]:
    """Wall time of the finished steps."""
    for manifest in sorted(run.folder.rglob("manifest.json"), key=lambda path: path.stat().st_mtime):
        facts = json.loads(manifest.read_text())
        rate = f"{facts['tokens'] / max(facts['seconds'], 1e-9):,.0f} tokens/s" if "tokens" in facts else ""
        yield StepTime(str(manifest.parent.relative_to(run.folder)), facts["seconds"], rate)


def _counts(run: Run) -> dict[str, int]:
    counts = {"tasks": len(run.corpus.tasks), "labels": len(run.corpus.labels)}
    if _masked(run):
        tokens = pq.read_table(_masked(run), columns=["n_tokens", "n_cut_tokens"])
        counts |= {"notes read": len(tokens), "held out": _errors(run).get("HELD_OUT", 0)}
        for name, column in (("tokens attributed", "n_tokens"), ("tokens cut", "n_cut_tokens")):
            counts[name] = int(np.nansum(tokens[column].to_numpy(zero_copy_only=False).astype(float)))
    return counts


def _errors(run: Run) -> dict[str, int]:
    step = run.step("mask")
    return dict(step.manifest["errors"]) if step.done else {}


def _masked(run: Run) -> Path | None:
    step = run.step("mask")
    return step.data if step.done else None


def _scorer_name(run: Run) -> str:
    a = run.settings.attribution
    return f"{a.method}, {a.target}, layer {a.layer}"


def _subtitle(run: Run) -> str:
    source = "generated notes" if run.settings.data.source == "synthetic" else "notes from files"
    n_notes = len({note_id for note_id in run.corpus.labels["note_id"].to_pylist()})
    return f"{source}, {len(run.corpus.tasks)} tasks, {n_notes:,} labelled notes"
