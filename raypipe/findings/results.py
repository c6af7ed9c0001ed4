"""From the files of a run to its report: metrics with intervals, gates, agreement with known words, costs."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from heapq import nsmallest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
import pyarrow.parquet as pq

from raypipe import rows
from raypipe.evaluation import baselines, metrics, uncertainty
from raypipe.findings import known_words
from raypipe.findings.coverage import prediction_sets
from raypipe.findings.gates import AUC_RESAMPLES, EMBEDDINGS, QUARTER, TFIDF, Pooled, gates
from raypipe.findings.page.heatmap import HeatMap, Panel
from raypipe.findings.page.report import Material, Report, arm_rows
from raypipe.findings.page.report import Step as StepTime
from raypipe.findings.page.text import text_table
from raypipe.findings.page.write import write_report
from raypipe.hashing import stable_hash
from raypipe.masking.tally import tally
from raypipe.notes.tasks import Task
from raypipe.runs import probing
from raypipe.runs.folder import versions
from raypipe.runs.run import SCORER, Run
from raypipe.settings import config, configfile
from raypipe.settings.arms import pseudo_of

UNLABELLED_FOR_IDF = 5000


def report(run: Run, cells: Sequence[Run] = (), fewer_labels: Mapping[int, Sequence[Run]] | None = None) -> Path:
    """Write report.html and metrics.json from what the steps left; print the table; return the page's path."""
    built = build(run, cells, fewer_labels)
    page = write_report(built, run.folder / "report")
    print(text_table(built))
    return page


def build(run: Run, cells: Sequence[Run] = (), fewer_labels: Mapping[int, Sequence[Run]] | None = None) -> Report:
    """The report of a run, from the arms that were evaluated.

    `cells`: a comparison's runs (compare.py), one per seed; none: the run itself. `fewer_labels`: its runs with smaller
    label budgets, by budget.
    """
    cells, settings = cells or [run], run.settings
    of_split = run.corpus.labels.filter(pc.equal(run.corpus.labels["split"], settings.evaluation.split))
    tasks = metrics.measurable(run.corpus.tasks, of_split)
    pooled = predictions(cells, tasks)
    arms = pooled.tables
    reference = next((arm for arm in settings.arms if run.student_of(arm) == SCORER), next(iter(arms)))
    declared = [(arm, reference) for arm in arms if arm != reference] if reference in arms else []
    declared += [pair for pair in settings.comparison.pairs if set(pair) <= set(arms)]
    options: dict[str, Any] = {"seed": settings.seed, "seeds": pooled.seeds}
    n_bootstrap = settings.evaluation.bootstrap
    compared = uncertainty.compare_arms(arms, tasks, declared, n_bootstrap=n_bootstrap, **options)
    n_auc = min(n_bootstrap, AUC_RESAMPLES)
    by_auc = uncertainty.compare_arms(arms, tasks, declared, measure="auc", n_bootstrap=n_auc, **options)
    measured = {arm: [metrics.evaluate(table, tasks) for table in tables] for arm, tables in arms.items()}
    fewer = {budget: predictions(runs, tasks, cells) for budget, runs in (fewer_labels or {}).items()}
    n_quarter = run.corpus.labels_per_task // QUARTER
    quarter = (n_quarter, fewer[n_quarter]) if n_quarter in fewer else None
    start = next((arm for arm, a in settings.arms.items() if a.start == "random" and arm in arms), None)
    found = known_words.agreement_of(cells)
    return Report(
        title=f"raypipe: {settings.name}",
        subtitle=_subtitle(run, cells),
        reference=reference,
        pairs=tuple(d for d in compared.differences if d.reference != reference),
        budgets=_budgets(run, tasks, compared, fewer),
        arms=arm_rows(compared, measured, reference, by_auc),
        tasks=compared.tasks,
        gates=tuple(gates(pooled, quarter, tasks, reference, start, found)),
        agreement=tuple(known_words.agreements(cells, found)),
        conformal=dict(prediction_sets(cells, _tfidf)),
        probing=probing.found(cells[0]),
        heat_maps=tuple(_heat_maps(cells[0])),
        material=tuple(_material(cells)),
        steps=tuple(_steps(run)),
        counts=_counts(cells[0]),
        dead_letters={code: n for code, n in _errors(cells[0]).items() if code.startswith("E_")},
        remarks={**_left_out(run, tasks, pooled, fewer), **_pseudo_labels(cells), **_mixed(settings)},
        facts={**versions(), "seed": str(settings.seed)},
        config=configfile.dump(settings),
    )


def predictions(cells: Sequence[Run], tasks: Sequence[Task], unlabelled: Sequence[Run] = ()) -> Pooled:
    """Of the arms whose repeats are all there in every cell, and of the baselines.

    `unlabelled`: the run of each cell's seed that read the unlabelled notes; none: the cells themselves.
    """
    pooled = Pooled({task.id for task in tasks})
    for arm in cells[0].settings.arms:
        steps = [[cell.of(arm).step(f"evaluate/{student}") for student in cell.students(arm)] for cell in cells]
        if all(step.done for of_cell in steps for step in of_cell):  # other seeds would be another comparison
            for place, of_cell in enumerate(steps):
                pooled.add(arm, place, *(pq.read_table(step.data) for step in of_cell))
    for place, cell in enumerate(cells):
        pooled.add(TFIDF, place, _tfidf(cell, cell.settings.evaluation.split, (unlabelled or cells)[place]))
    embeddings = [table for cell in cells if (table := probing.backbone_answers(cell)) is not None]
    for place, table in enumerate(embeddings if len(embeddings) == len(cells) else ()):
        pooled.add(EMBEDDINGS, place, table)
    return pooled


def _tfidf(run: Run, split: str, unlabelled: Run | None = None) -> pa.Table:
    """TF-IDF + logistic regression on the same labels; IDF also from unlabelled notes, as the arms see them."""
    masked, texts = _masked(unlabelled or run), []
    if masked is not None:
        dataset = pds.dataset(masked)
        ids = dataset.to_table(columns=["note_id"], filter=pc.field("text").is_valid())["note_id"].to_pylist()
        some = pa.array(nsmallest(UNLABELLED_FOR_IDF, ids, key=stable_hash), pa.string())
        texts = dataset.to_table(columns=["text"], filter=pc.field("note_id").isin(some))["text"].to_pylist()
    notes, labels = pq.read_table(run.corpus.labelled_path), run.corpus.labels
    return baselines.tfidf_logistic(notes, labels, run.corpus.tasks, texts, split)


def _budgets(
    run: Run, tasks: Sequence[Task], compared: uncertainty.ComparisonResult, fewer: Mapping[int, Pooled]
) -> dict[str, dict[str, uncertainty.Estimate]]:
    """Macro F1 by label budget, smallest first."""
    if not fewer:
        return {}
    options: dict[str, Any] = {"n_bootstrap": run.settings.evaluation.bootstrap, "seed": run.settings.seed}
    tables = {
        str(budget): uncertainty.compare_arms(pooled.tables, tasks, seeds=pooled.seeds, **options).arms
        for budget, pooled in sorted(fewer.items())
    }
    return {**tables, "all": compared.arms}


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
    layer = known_words.layer_of(run)
    first = pq.ParquetFile(sorted(_masked(run).glob("*.parquet"))[0]).read()  # type: ignore[union-attr]
    for note in first.sort_by("note_id").to_pylist():
        asked = [t for t in note["task_id"] or [] if not deciding or (note["note_id"], t) in deciding]
        if wanted and asked and note["error"] is None:
            wanted -= 1
            yield _heat_map(note, asked[0], question[asked[0]], deciding[note["note_id"], asked[0]], layer)


def _heat_map(
    note: dict[str, Any], task_id: str, question: str, deciding: list[tuple[int, int]], layer: int | None
) -> HeatMap:
    words_W2, relevance_QW = rows.words_and_relevance(note, layer)
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


def _material(cells: Sequence[Run]) -> Iterator[Material]:
    """What each arm learned from, mean over cells."""
    folders = {path for cell in cells for arm in cell.settings.arms if (path := _masked(cell.of(arm)))}
    planned = [tally(path) for path in sorted(folders)]
    for arm in cells[0].settings.arms:
        if not cells[0].reconstructs(arm):
            continue
        steps = [cell.of(arm).step(f"train/{arm}") for cell in cells]
        facts = [step.manifest for step in steps if step.done]
        plans = [found[arm] for found in planned if arm in found]
        yield Material(
            arm,
            masking_ratio=float(np.mean([p.ratio for p in plans])) if plans else None,
            planned_words=_mean([p.n_masked for p in plans]),
            weighted_tokens=_mean([f["target_tokens"] for f in facts]),
            read_tokens=_mean([f["tokens"] for f in facts]),
            optimiser_steps=_mean([f["steps"] for f in facts]),
        )


def _mean(counts: Sequence[int]) -> int | None:
    return round(float(np.mean(counts))) if counts else None


def _pseudo_labels(cells: Sequence[Run]) -> dict[str, str]:
    """What became of the scorer's own answers, and how often its sure positive answers are right."""
    facts = {}
    for arm, settings in pseudo_of(cells[0].settings).items():
        steps = [cell.step("pseudo") for cell in cells]
        kept = [step.manifest["arms"][arm] for step in steps if step.done]
        right = [p for cell in cells if (p := _precision(cell, settings.confidence)) is not None]
        if kept:
            counts = ", ".join(f"{_mean([k[name] for k in kept]):,} {name}" for name in kept[0])
            shown = f"{np.mean(right):.2f}" if right else "not measurable"
            facts[f"pseudo-labels of {arm}"] = f"{counts}; precision of sure positive answers on labelled notes {shown}"
    return facts


def _mixed(settings: config.Config) -> dict[str, str]:
    """Whose reconstruction has steps of labels, too: its tokens with a loss are not all of masks."""
    shares = {name: arm.label_share for name, arm in settings.arms.items() if arm.label_share}
    return {f"what {arm} learned from": f"{share:.0%} of its rows are labelled ones" for arm, share in shares.items()}


def _precision(run: Run, confidence: float) -> float | None:
    """Share of right ones among the scorer's sure answers with the first option, over binary tasks."""
    step, binary = run.step(f"evaluate/{SCORER}"), {t.id: t.options[0] for t in run.corpus.tasks if len(t.options) == 2}
    if not step.done:
        return None
    margin = np.log(confidence / (1 - confidence))  # of the two options' scores
    right = [
        row["label"] == row["predicted"]
        for row in pq.read_table(step.data).to_pylist()
        if row["predicted"] == binary.get(row["task_id"]) and np.ptp(row["scores"]) >= margin
    ]
    return float(np.mean(right)) if right else None


def _left_out(run: Run, measured: Sequence[Task], pooled: Pooled, fewer: Mapping[int, Pooled]) -> dict[str, str]:
    """What was asked for and is in no table, and why."""
    arms = [arm for arm in run.settings.arms if arm not in pooled.tables]
    for budget in sorted(fewer.keys() & set(run.settings.comparison.budgets)):  # `run` makes none of them
        arms += [f"{arm} of {budget} labels" for arm in run.settings.arms if arm not in fewer[budget].tables]
    left_out = {
        "tasks left out (one class, or few notes)": [task.id for task in run.corpus.tasks if task not in measured],
        "arms left out (not finished for every seed and repeat)": arms,
    }
    return {why: ", ".join(names) for why, names in left_out.items() if names}


def _steps(run: Run) -> Iterator[StepTime]:
    """Time of the finished steps; those of cells and repeats added up."""
    seconds: dict[str, float] = defaultdict(float)
    at_peak: dict[str, float] = defaultdict(float)  # seconds that the work would take at the cards' matrix peak
    tokens: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for manifest in sorted(run.folder.rglob("manifest.json"), key=lambda path: path.stat().st_mtime):
        facts, name = json.loads(manifest.read_text()), str(manifest.parent.relative_to(run.folder))
        name = re.sub(r"^cells/[^/]+/|@\d+$", "", name)
        seconds[name] += facts["seconds"]
        tokens[name] += facts.get("tokens", 0)
        at_peak[name] += facts["seconds"] * (facts.get("peak_fraction") or 0.0)
        times[name] += 1
    for name, total in seconds.items():
        rate = f"{tokens[name] / max(total, 1e-9):,.0f} tokens/s" if tokens[name] else ""
        share = f"{at_peak[name] / total:.0%} of the measured bfloat16 peak" if at_peak[name] else ""
        often = f"{times[name]} times" if times[name] > 1 else ""
        yield StepTime(name, total, ", ".join(part for part in (rate, share, often) if part))


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


def _subtitle(run: Run, cells: Sequence[Run]) -> str:
    source = "generated notes" if run.settings.data.source == "synthetic" else "notes from files"
    n_notes = len({note_id for note_id in run.corpus.labels["note_id"].to_pylist()})
    runs = f", {len(cells)} seeds x {run.settings.repeats} fine-tunings" if cells[0] is not run else ""
    return f"{source}, {len(run.corpus.tasks)} tasks, {n_notes:,} labelled notes{runs}"
