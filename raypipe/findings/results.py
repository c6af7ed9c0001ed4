"""From the files of a run to its report: metrics with intervals, gates, agreement with known words, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.evaluation import metrics, uncertainty
from raypipe.evaluation.operating_point import answers, calibration
from raypipe.findings import finetunings, known_words, material, model_cards, probing, training_curves
from raypipe.findings.coverage import prediction_sets
from raypipe.findings.gates import compare_by_auc, gates
from raypipe.findings.heat_maps import heat_maps
from raypipe.findings.meanings import meanings
from raypipe.findings.page.report import Report, arm_rows
from raypipe.findings.page.write import write_report
from raypipe.findings.predictions import Pooled, predictions
from raypipe.findings.summary import Scope, of_arms
from raypipe.notes.tasks import Task
from raypipe.records import versions
from raypipe.runs import compare, driver, integrity
from raypipe.runs.folder import State
from raypipe.runs.names import SCORER
from raypipe.runs.run import Run
from raypipe.runs.steps import scorer_is_measured
from raypipe.settings import config, configfile
from raypipe.settings.arms import pseudo_of


def write(run: Run, cells: Mapping[compare.Cell, Run] | None = None) -> tuple[Report, Path]:
    """Write report.html, metrics.json and model cards, from what the steps left; the report and its page.

    `cells`: those of a comparison; None: those that the run's folder has. Raises `InputError` with the damaged files if
    it fails because of them.
    """
    with integrity.blamed(integrity.finished(run.folder)):
        cells = compare.opened(run) if cells is None else cells
        built = build(run, cells)
        page = write_report(built, run.folder / "report")
        model_cards.write(_per_seed(run, cells)[0], built, page.parent / "model-cards")
    return built, page


def _per_seed(run: Run, cells: Mapping[compare.Cell, Run]) -> Sequence[Run]:
    """A comparison's runs with all labels, one per seed; without a comparison, the run itself."""
    return compare.by_budget(cells)[0] or [run]


def build(run: Run, of_comparison: Mapping[compare.Cell, Run] | None = None) -> Report:
    """The report of a run or comparison, from the arms that were evaluated."""
    of_comparison = of_comparison or {}
    cells, settings = _per_seed(run, of_comparison), run.settings
    of_split = run.corpus.labels_of(settings.evaluation.split)
    tasks = metrics.measurable(run.corpus.tasks, of_split)
    pooled = predictions(cells, tasks)
    arms = pooled.tables
    reference = next((arm for arm in settings.arms if run.is_labels_only(arm)), next(iter(arms)))
    declared = [(arm, reference) for arm in arms if arm != reference] if reference in arms else []
    declared += [pair for pair in settings.comparison.pairs if set(pair) <= set(arms)]
    declared = list({frozenset(pair): pair for pair in reversed(declared)}.values())[::-1]  # Holm counts a pair once
    options: dict[str, Any] = {"seed": settings.seed, "seeds": pooled.seeds}
    n_bootstrap = settings.evaluation.bootstrap
    compared = uncertainty.compare_arms(arms, tasks, declared, n_bootstrap=n_bootstrap, **options)
    by_auc = compare_by_auc(arms, tasks, declared, n_bootstrap=n_bootstrap, **options)
    measured = {arm: [metrics.evaluate(table, tasks) for table in tables] for arm, tables in arms.items()}
    fewer_labels = compare.by_budget(of_comparison)[1]
    fewer = {budget: predictions(runs, tasks, cells) for budget, runs in fewer_labels.items()}
    n_quarter = run.corpus.labels_per_task // compare.QUARTER
    quarter = (n_quarter, fewer[n_quarter]) if n_quarter in fewer else None
    start = next((arm for arm, a in settings.arms.items() if a.start == "random" and arm in arms), None)
    agreements = list(known_words.agreements(cells))
    by_finetuning = compare.by_finetuning(of_comparison)
    resampled = {"n_bootstrap": n_bootstrap, "seed": settings.seed}
    built = Report(
        title=f"raypipe: {settings.name}",
        subtitle=_subtitle(run, cells),
        reference=reference,
        pairs=tuple(d for d in compared.differences if d.reference != reference),
        budgets=_budgets(run, tasks, compared, fewer),
        gains=tuple(finetunings.gains(by_finetuning, tasks, reference)),
        arms=arm_rows(compared, measured, reference, by_auc),
        meanings=meanings(settings, arms),
        tasks=compared.tasks,
        answers={arm: answers(runs, tasks, pooled.seeds[arm], **resampled) for arm, runs in arms.items()},
        wordings={task.id: dict(zip(task.options, task.answers, strict=True)) for task in tasks},
        calibration={arm: calibration(runs, tasks, pooled.seeds[arm], **resampled) for arm, runs in arms.items()},
        curves=tuple(training_curves.curves(cells[0])),
        gates=tuple(gates(pooled, quarter, tasks, reference, start, agreements, scorer_is_measured(settings))),
        agreement=tuple(agreements),
        conformal=dict(prediction_sets(cells)),
        probing=probing.curves(cells[0]),
        heat_maps=tuple(heat_maps(cells[0])),
        material=tuple(material.learned_from(cells)),
        steps=tuple(material.step_times(run)),
        counts=material.counts(cells[0]),
        dead_letters={code: n for code, n in material.errors(cells[0]).items() if code.startswith("E_")},
        remarks={
            **_left_out(run, tasks, pooled, fewer, finetunings.left_out(by_finetuning)),
            **_pseudo_labels(cells),
            **_mixed(settings),
            **_own_trainings(settings),
            **training_curves.undone(cells, reference),
            **_not_read(cells),
        },
        facts={**versions(), "seed": str(settings.seed)},
        config=configfile.dump(settings),
    )
    return replace(built, summary=of_arms(built, _scope(run, cells, tasks, of_split)))


def _scope(run: Run, cells: Sequence[Run], tasks: Sequence[Task], of_split: pa.Table) -> Scope:
    ids = pa.array([task.id for task in tasks], pa.string())
    settings = run.settings
    masks = material.masks_of(cells[0])
    skipped = masks.manifest["errors"] if masks.is_readable else {}
    return Scope(
        n_tasks=len(tasks),
        n_scored=pc.count_distinct(of_split.filter(pc.is_in(of_split["task_id"], ids))["note_id"]).as_py(),
        split=settings.evaluation.split,
        n_learned=pc.count_distinct(cells[0].corpus.labels_of("train")["note_id"]).as_py(),
        n_unlabelled=masks.manifest["notes"] - sum(skipped.values()) if masks.is_readable else 0,
        n_seeds=len(cells),
        n_repeats=settings.repeats,
        is_generated=settings.data.source == "synthetic",
    )


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


def _pseudo_labels(cells: Sequence[Run]) -> dict[str, str]:
    """What became of the scorer's own answers, and how often its sure positive answers are right."""
    facts = {}
    for arm, settings in pseudo_of(cells[0].settings).items():
        steps = [cell.step("pseudo") for cell in cells]
        answers = [step.manifest["arms"][arm] for step in steps if step.done]
        right = [p for cell in cells if (p := _precision(cell, settings.confidence)) is not None]
        if answers:
            counts = ", ".join(f"{material.mean([a[name] for a in answers]):,} {name}" for name in answers[0])
            shown = f"{np.mean(right):.2f}" if right else "not measurable"
            facts[f"pseudo-labels of {arm}"] = f"{counts}; precision of sure positive answers on labelled notes {shown}"
    return facts


def _mixed(settings: config.Config) -> dict[str, str]:
    """Arms whose training rows are labelled ones in part, so that not every token with a loss was masked."""
    shares = {name: arm.label_share for name, arm in settings.arms.items() if arm.label_share}
    return {f"what {arm} learned from": f"{share:.0%} of its rows are labelled ones" for arm, share in shares.items()}


def _own_trainings(settings: config.Config) -> dict[str, str]:
    """Arms that learned from notes in another way than the others, so that they differ by more than their masks."""
    out = {}
    for name, arm in settings.arms.items():
        if arm.train is not None:
            keys = configfile.changed_keys(settings.train.model_dump(), arm.train.model_dump())
            differs = (f"{key} {reduce(getattr, key.split('.'), arm.train)}" for key in keys)
            out[f"how {name} learned from notes"] = ", ".join(differs) or "as the others"
    return out


def _precision(run: Run, confidence: float) -> float | None:
    """Share of right ones among the scorer's sure answers with the first option, over binary tasks.

    Pseudo-labels are chosen by the likeliest label, so only answers that were scored so tell of them.
    """
    if run.settings.evaluation.mode != "label":
        return None
    step, binary = run.step(f"evaluate/{SCORER}"), {t.id: t.options[0] for t in run.corpus.tasks if len(t.options) == 2}
    if not step.done:
        return None
    margin = np.log(confidence / (1 - confidence))  # of the two options' scores
    right = [
        row["label"] == row["predicted"]
        for row in rows.read(step.data).to_pylist()
        if row["predicted"] == binary.get(row["task_id"]) and np.ptp(row["scores"]) >= margin
    ]
    return float(np.mean(right)) if right else None


def _not_read(cells: Sequence[Run]) -> dict[str, str]:
    """Steps whose output was made with other settings than these: it is in no table."""
    other = []
    for cell in cells:
        for maker, names in driver.steps_by_run(cell):
            place = [cell.settings.name] * (len(cells) > 1) + [maker.settings.name] * (maker is not cell)
            other += ["/".join([*place, name]) for name in names if maker.step(name).state is State.OTHER]
    return {"steps not read (made with other settings)": ", ".join(dict.fromkeys(other))} if other else {}


def _left_out(
    run: Run,
    measured: Sequence[Task],
    pooled: Pooled,
    fewer: Mapping[int, Pooled],
    unfinished: Sequence[str],
) -> dict[str, str]:
    """What was asked for and is in no table, and why."""
    arms = [arm for arm in run.settings.arms if arm not in pooled.tables]
    for budget in sorted(fewer.keys() & set(run.settings.comparison.budgets)):  # `run` makes none of them
        arms += [f"{arm} of {budget} labels" for arm in run.settings.arms if arm not in fewer[budget].tables]
    left_out = {
        "tasks left out (one class, or few notes)": [task.id for task in run.corpus.tasks if task not in measured],
        "arms left out (not finished for every seed and repeat)": arms,
        "fine-tunings left out (not finished for every seed)": unfinished,
    }
    return {why: ", ".join(names) for why, names in left_out.items() if names}


def _subtitle(run: Run, cells: Sequence[Run]) -> str:
    source = "generated notes" if run.settings.data.source == "synthetic" else "notes from files"
    n_notes = len({note_id for note_id in run.corpus.labels["note_id"].to_pylist()})
    runs = f", {len(cells)} seeds x {run.settings.repeats} fine-tunings" if cells[0] is not run else ""
    return f"{source}, {len(run.corpus.tasks)} tasks, {n_notes:,} labelled notes{runs}"
