"""What a search found, as tables: written from the JSON that each trial leaves, never from Ray's own (pickled) state.

<run>/tune/study.json             models, tasks, what the shared steps cost
<run>/tune/trials.parquet         a row per trial: its parameters, its dev macro F1 with interval, its seconds
<run>/tune/trial_tasks.parquet    the same by task
<run>/tune/curves.parquet         dev macro F1 on the way, by epoch of fine-tuning
<run>/tune/predictions.parquet    rows.PREDICTIONS of every finished trial, and of the scorer (labels only)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe import rows
from raypipe.errors import InputError, Problem
from raypipe.notes.tasks import Task
from raypipe.runs.folder import write_json

CONFIG, SECONDS = "config/", "seconds/"  # begin the columns of parameters, and of the time of each step
FINISHED, STOPPED, FAILED, RUNNING = "finished", "stopped", "failed", "running"
LABELS_ONLY = "labels_only"  # the trial id of the scorer's predictions

# `trials.parquet` without the columns of the space. Shares, not points; intervals are 95 %.
TRIALS = pa.schema(
    [
        ("study", pa.string()),
        ("model", pa.string()),
        ("trial_id", pa.string()),
        ("status", pa.string()),  # finished, stopped (by the scheduler), failed, or running
        ("error", pa.string()),  # what kind, and where in the code
        ("layer", pa.int16()),  # of attribution, in this model
        ("dev_macro_f1", pa.float64()),
        ("dev_macro_f1_low", pa.float64()),
        ("dev_macro_f1_high", pa.float64()),
        ("dev_auc", pa.float64()),
        ("n_runs", pa.int16()),
        ("n_tasks", pa.int32()),
        ("reports", pa.int32()),  # dev scores that were reported, the last included
        ("seconds", pa.float64()),
    ]
)
TASKS = pa.schema(
    [("model", pa.string()), ("trial_id", pa.string()), ("task_id", pa.string()), ("macro_f1", pa.float64())]
)
CURVES = pa.schema(
    [("model", pa.string()), ("trial_id", pa.string()), ("epoch", pa.float64()), ("dev_macro_f1", pa.float64())]
)
PREDICTIONS = pa.schema([("model", pa.string()), ("trial_id", pa.string()), ("run", pa.int16()), *rows.PREDICTIONS])


@dataclass(frozen=True)
class ModelFacts:
    """One study."""

    name: str
    family: str
    depth: int
    arm: str
    shared_seconds: dict[str, float]  # steps that were done once for all trials
    # trials that were done again: trial id -> seconds with all shared, with relevance of its own, with nothing shared
    alone: dict[str, tuple[float, float, float]]
    proxy: dict[str, float] | None = None  # comprehensiveness by "<layer>/<share of words removed>"


@dataclass(frozen=True)
class Search:
    """All studies of a search: what `tune-report` and the notebook read."""

    name: str
    tasks: tuple[Task, ...]
    models: tuple[ModelFacts, ...]
    trials: pa.Table
    per_task: pa.Table
    curves: pa.Table
    predictions: pa.Table
    doc: str = ""

    @property
    def keys(self) -> list[str]:
        """Config keys that were searched."""
        return [name.removeprefix(CONFIG) for name in self.trials.column_names if name.startswith(CONFIG)]

    @property
    def steps(self) -> list[str]:
        """Steps whose time is known."""
        return [name.removeprefix(SECONDS) for name in self.trials.column_names if name.startswith(SECONDS)]

    def of(self, model: str, status: str | None = FINISHED) -> list[dict[str, Any]]:
        """Trials of a model as dicts, in the order of their ids."""
        mine = self.trials.filter(pc.equal(self.trials["model"], model)).sort_by("trial_id").to_pylist()
        return [row for row in mine if status is None or row["status"] == status]

    def runs(self, model: str, trial_id: str) -> list[pa.Table]:
        """Predictions of each fine-tuning of a trial (rows.PREDICTIONS)."""
        mine = self._predictions_of.get((model, trial_id))
        if mine is None:
            return []
        numbers = pc.unique(mine["run"]).sort().to_pylist()
        return [mine.filter(pc.equal(mine["run"], n)).select(rows.PREDICTIONS.names) for n in numbers]

    @cached_property
    def _predictions_of(self) -> dict[tuple[str, str], pa.Table]:
        table = self.predictions
        every = table.group_by(["model", "trial_id"]).aggregate([]).to_pylist()
        return {
            (row["model"], row["trial_id"]): table.filter(
                pc.and_(pc.equal(table["model"], row["model"]), pc.equal(table["trial_id"], row["trial_id"]))
            )
            for row in every
        }


def trials_table(records: Sequence[Mapping[str, Any]]) -> pa.Table:
    """`trials.parquet` of trial records (`trial.json` with `study`): the columns of the space follow the fixed ones."""
    keys = list(dict.fromkeys(key for record in records for key in record["params"]))
    steps = list(dict.fromkeys(step for record in records for step in record.get("steps", {})))
    table = rows.table([_flat(record) for record in records], TRIALS)
    for key in keys:
        table = table.append_column(CONFIG + key, _column([record["params"].get(key) for record in records]))
    for step in steps:
        seconds = [record.get("steps", {}).get(step) for record in records]
        table = table.append_column(SECONDS + step, pa.array(seconds, pa.float64()))
    return table


def tasks_table(records: Iterable[Mapping[str, Any]]) -> pa.Table:
    """`trial_tasks.parquet` of trial records."""
    every = [(r["model"], r["trial_id"], task, value) for r in records for task, value in r.get("tasks", {}).items()]
    return rows.table([dict(zip(TASKS.names, row, strict=True)) for row in every], TASKS)


def curves_table(records: Iterable[Mapping[str, Any]]) -> pa.Table:
    """`curves.parquet` of trial records. A trial that was tried again reported an epoch twice: the last one counts."""
    every = [(r["model"], r["trial_id"], *point) for r in records for point in sorted(dict(r.get("curve", ())).items())]
    return rows.table([dict(zip(CURVES.names, row, strict=True)) for row in every], CURVES)


def save(search: Search, folder: Path) -> None:
    """Write all files of a search into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("trials", "curves", "predictions"):
        pq.write_table(getattr(search, name), folder / f"{name}.parquet", compression="zstd")
    pq.write_table(search.per_task, folder / "trial_tasks.parquet", compression="zstd")
    facts = {"name": search.name, "doc": search.doc, "models": [asdict(model) for model in search.models]}
    write_json(folder / "study.json", facts | {"tasks": [asdict(task) for task in search.tasks]})


def load(folder: Path) -> Search:
    """Read what `save` wrote. `folder` may be the run's."""
    inside = folder if (folder / "study.json").exists() else folder / "tune"
    if not (inside / "study.json").exists():
        raise InputError([Problem(str(folder), "holds no search: run `raypipe tune` first")])
    facts = json.loads((inside / "study.json").read_text())
    tables = {name: pq.read_table(inside / f"{name}.parquet") for name in ("trials", "curves", "predictions")}
    return Search(
        name=facts["name"],
        doc=facts["doc"],
        tasks=tuple(_task(task) for task in facts["tasks"]),
        models=tuple(facts_of(model) for model in facts["models"]),
        per_task=pq.read_table(inside / "trial_tasks.parquet"),
        **tables,
    )


def facts_of(values: Mapping[str, Any]) -> ModelFacts:
    """Facts as JSON has them."""
    again = {key: tuple(took) for key, took in values["alone"].items() if len(took) == 3}  # earlier versions: two
    return ModelFacts(**{**values, "alone": again})


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    found = record.get("dev_macro_f1") or {}
    names = {"value": "dev_macro_f1", "low": "dev_macro_f1_low", "high": "dev_macro_f1_high"}
    numbers = {names.get(key, key): value for key, value in found.items()}
    return {**record, "dev_macro_f1": None, **numbers, "reports": len(dict(record.get("curve", ())))}


def _column(values: Sequence[Any]) -> pa.Array:
    """Numbers as numbers, all else as text."""
    kinds = {type(v) for v in values if v is not None}
    if kinds <= {int, float}:
        return pa.array(values, pa.int64() if kinds == {int} else pa.float64())
    return pa.array([None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values], pa.string())


def _task(values: Mapping[str, Any]) -> Task:
    known: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Task(**known)
