"""A search that nobody ran: its predictions are drawn so that ratio 0.3 and layer 0.25 are best."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa

from raypipe import rows
from raypipe.evaluation.metrics import evaluate
from raypipe.notes.tasks import Task
from raypipe.tuning import space, trial_tables
from raypipe.tuning.trial_tables import LABELS_ONLY, ModelFacts, Search

RATIO, LAYER, SEED = "arms.decselfmask.masking.ratio", "attribution.layer", "train.seed"
RATIOS, LAYERS, SEEDS = (0.075, 0.15, 0.3, 0.45), (0.0, 0.25, 0.5), (0, 1)
BEST = (0.3, 0.25)


def made_tasks(n: int = 6) -> tuple[Task, ...]:
    return tuple(Task(f"task_{i}", "binary", f"Question {i}?", ("yes", "no"), ("sì", "no")) for i in range(n))


def chance_of_right(ratio: float, layer: float) -> float:
    """Falls by the distance from the planted optimum."""
    steps = abs(RATIOS.index(ratio) - RATIOS.index(BEST[0])) + abs(LAYERS.index(layer) - LAYERS.index(BEST[1]))
    return 0.92 - 0.09 * steps


def predictions(p_right: float, tasks: tuple[Task, ...], n_notes: int, seed: int) -> pa.Table:
    """rows.PREDICTIONS of a system that is right with this probability."""
    rng = np.random.default_rng(seed)
    out: list[dict[str, Any]] = []
    for task in tasks:
        for n in range(n_notes):
            gold = task.options[n % 2]
            said = gold if rng.random() < p_right else task.options[1 - n % 2]
            scores = [0.0, -1.0] if said == task.options[0] else [-1.0, 0.0]
            out.append({"task_id": task.id, "note_id": f"n{n}", "label": gold, "predicted": said, "scores": scores})
    return rows.table(out, rows.PREDICTIONS)


def made_search(
    models: tuple[str, ...] = ("llama", "qwen3"),
    n_notes: int = 40,
    name: str = "made",
    seeds: tuple[int, ...] = SEEDS,
    repeats: int = 1,
    metric: str = space.METRIC,
) -> Search:
    """Every setting of the grid with each seed, fine-tuned so many times; one trial failed and one was stopped."""
    tasks, records, tables = made_tasks(), [], []
    for m, model in enumerate(models):
        for number, (ratio, layer, seed) in enumerate(product(RATIOS, LAYERS, seeds)):
            trial_id, right = f"t{number:05d}", chance_of_right(ratio, layer)
            runs = [
                predictions(right, tasks, n_notes, seed=100_000 * run + 1000 * m + number) for run in range(repeats)
            ]
            record = _record(name, model, trial_id, runs, tasks)
            record |= {"params": {RATIO: ratio, LAYER: layer, SEED: seed}, "layer": round(layer * 4)}
            records.append(record)
            tables += [trial_tables.tagged(table, model, trial_id, run) for run, table in enumerate(runs)]
        tables.append(trial_tables.tagged(predictions(0.7, tasks, n_notes, seed=m), model, LABELS_ONLY, 0))
        more: dict[str, Any] = {"study": name, "model": model, "params": {RATIO: 0.15, LAYER: 0.0, SEED: 2}}
        records.append({**more, "trial_id": "t00098", "status": "failed", "error": "RuntimeError at raypipe/x.py:1"})
        records.append(
            {**more, "trial_id": "t00099", "status": "stopped", "curve": [[1.0, 0.51]], "steps": {"mask": 1}}
        )
    facts = tuple(
        ModelFacts(model, model, 4, "decselfmask", {"pretrain": 30.0, "finetune/scorer": 12.0, "attribute": 9.0})
        for model in models
    )
    return Search(
        name, tasks, facts, trial_tables.trials_table(records), trial_tables.curves_table(records, metric),
        pa.concat_tables(tables), "Generated for tests.", metric,
    )  # fmt: skip


def _record(study: str, model: str, trial_id: str, runs: list[pa.Table], tasks: tuple[Task, ...]) -> dict[str, Any]:
    scores = [evaluate(table, tasks) for table in runs]
    first, value = scores[0], float(np.mean([score.macro_f1 for score in scores]))
    return {
        "study": study, "model": model, "trial_id": trial_id, "status": "finished",
        "dev_macro_f1": {"value": value, "low": value - 0.05, "high": value + 0.05,
                         "n_runs": len(runs), "n_tasks": len(tasks)},
        "dev_auc": float(np.mean([score.auc for score in scores])),
        "tasks": {task.task_id: task.macro_f1 for task in first.tasks},
        "steps": {"mask": 1.0, "train/rows": 0.5, "train": 6.0, "finetune": 8.0, "evaluate": 1.5},
        "seconds": 17.0,
        "curve": [[1.0, value - 0.2], [2.0, value - 0.05], [3.0, value]],
    }  # fmt: skip
