"""The results of a search as tables: written from the JSON that each trial leaves, never from Ray's pickled state.

<run>/tune/study.json             models, tasks, what the shared steps cost
<run>/tune/trials.parquet         a row per trial: its parameters, its dev macro F1 with interval and AUC, its seconds
<run>/tune/curves.parquet         what ranks the trials (dev macro F1 or AUC) on the way, by epoch of fine-tuning
<run>/tune/predictions.parquet    rows.PREDICTIONS of every finished trial, and of labels only
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.errors import InputError, Problem
from raypipe.notes.tasks import Task
from raypipe.records import json_of, of_json, write_json
from raypipe.tuning.space import MEASURES, METRIC, METRICS

CONFIG, SECONDS = "config/", "seconds/"  # begin the columns of parameters, and of the time of each step
TABLES = ("trials", "curves", "predictions")  # of a Search, each a file
FINISHED, STOPPED, FAILED, RUNNING = "finished", "stopped", "failed", "running"
LABELS_ONLY = "labels_only"  # the trial id of the predictions without reconstruction

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
CURVES = pa.schema([("model", pa.string()), ("trial_id", pa.string()), ("epoch", pa.float64())])  # and the metric
PREDICTIONS = pa.schema([("model", pa.string()), ("trial_id", pa.string()), ("run", pa.int16()), *rows.PREDICTIONS])


@dataclass(frozen=True)
class ModelFacts:
    """One study."""

    name: str
    family: str
    depth: int
    arm: str
    shared_seconds: dict[str, float]  # steps that were done once for all trials

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ModelFacts:
        """Facts as JSON has them. Keys that only earlier versions wrote are left out."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class Search:
    """All studies of a search: what `tune-report` and the notebook read."""

    name: str
    tasks: tuple[Task, ...]
    models: tuple[ModelFacts, ...]
    trials: pa.Table
    curves: pa.Table
    predictions: pa.Table
    doc: str = ""
    metric: str = METRIC  # what ranks the trials, one of space.METRICS

    @property
    def metric_name(self) -> str:
        """The metric as pages call it: macro F1 or AUC."""
        return MEASURES[METRICS[self.metric]]

    @property
    def keys(self) -> list[str]:
        """Config keys that were searched."""
        return [name.removeprefix(CONFIG) for name in self.trials.column_names if name.startswith(CONFIG)]

    @property
    def steps(self) -> list[str]:
        """Steps of trials whose time was measured."""
        return [name.removeprefix(SECONDS) for name in self.trials.column_names if name.startswith(SECONDS)]

    def of(self, model: str, status: str | None = FINISHED) -> list[dict[str, Any]]:
        """Trials of a model as dicts, in the order of their ids."""
        mine = self.trials.filter(pc.equal(self.trials["model"], model)).sort_by("trial_id").to_pylist()
        return [row for row in mine if status is None or row["status"] == status]

    def runs(self, model: str, trial_id: str) -> list[pa.Table]:
        """Predictions of each fine-tuning of a trial (rows.PREDICTIONS)."""
        mine = self.predictions.filter((pc.field("model") == model) & (pc.field("trial_id") == trial_id))
        numbers = pc.unique(mine["run"]).sort().to_pylist()
        return [mine.filter(pc.field("run") == n).select(rows.PREDICTIONS.names) for n in numbers]


def trials_table(records: Sequence[Mapping[str, Any]]) -> pa.Table:
    """`trials.parquet` of trial records (`trial.json` with `study`): the columns of the space follow the fixed ones."""
    keys = list(dict.fromkeys(key for record in records for key in record["params"]))
    steps = list(dict.fromkeys(step for record in records for step in record.get("steps", {})))
    table = rows.table([_columns(record) for record in records], TRIALS)
    for key in keys:
        table = table.append_column(CONFIG + key, _column([record["params"].get(key) for record in records]))
    for step in steps:
        seconds = [record.get("steps", {}).get(step) for record in records]
        table = table.append_column(SECONDS + step, pa.array(seconds, pa.float64()))
    return table


def curves_table(records: Iterable[Mapping[str, Any]], metric: str = METRIC) -> pa.Table:
    """`curves.parquet` of trial records. A trial that was tried again reported an epoch twice: the last one counts."""
    schema = CURVES.append(pa.field(metric, pa.float64()))
    every = [(r["model"], r["trial_id"], *point) for r in records for point in sorted(dict(r.get("curve", ())).items())]
    return rows.table([dict(zip(schema.names, row, strict=True)) for row in every], schema)


def tagged(predictions: pa.Table, model: str, trial_id: str, run: int) -> pa.Table:
    """A trial's predictions (rows.PREDICTIONS) as rows of PREDICTIONS; `run`: number of the fine-tuning."""
    tags = (("model", model), ("trial_id", trial_id), ("run", run))
    columns = {name: pa.repeat(value, len(predictions)) for name, value in tags}
    columns |= {name: predictions[name] for name in rows.PREDICTIONS.names}
    return pa.table(columns).cast(PREDICTIONS)


def save(search: Search, folder: Path) -> None:
    """Write all files of a search into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        rows.write(getattr(search, name), folder / f"{name}.parquet")
    facts = {
        "name": search.name,
        "doc": search.doc,
        "metric": search.metric,
        "models": [asdict(model) for model in search.models],
    }
    write_json(folder / "study.json", facts | {"tasks": [asdict(task) for task in search.tasks]})


def load(folder: Path) -> Search:
    """Read what `save` wrote. `folder` may be the run's."""
    inside = folder if (folder / "study.json").exists() else folder / "tune"
    if not (inside / "study.json").exists():
        raise InputError([Problem(str(folder), "holds no search: run `raypipe tune` first")])
    try:
        facts = json_of(inside / "study.json")
        return Search(
            name=facts["name"],
            doc=facts["doc"],
            metric=facts.get("metric", METRIC),  # earlier versions knew one metric and did not write it
            tasks=tuple(of_json(Task, task) for task in facts["tasks"]),
            models=tuple(ModelFacts.of(model) for model in facts["models"]),
            **{name: rows.read(inside / f"{name}.parquet") for name in TABLES},
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException) as error:
        what = f"holds tables that cannot be read ({type(error).__name__}); the same `raypipe tune` writes them again"
        raise InputError([Problem(str(inside), what)]) from None


def score_columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """The dev scores of a trial record, named as the columns of `trials.parquet` are; empty without them."""
    names = {"value": "dev_macro_f1", "low": "dev_macro_f1_low", "high": "dev_macro_f1_high"}
    columns = {names.get(key, key): value for key, value in record.get("dev_macro_f1", {}).items()}
    return columns | ({"dev_auc": record["dev_auc"]} if record.get("dev_auc") is not None else {})


def _columns(record: Mapping[str, Any]) -> dict[str, Any]:
    reports = len(dict(record.get("curve", ())))
    return {**record, "dev_macro_f1": None, **score_columns(record), "reports": reports}


def _column(values: Sequence[Any]) -> pa.Array:
    """Numbers as numbers, all else as text."""
    kinds = {type(v) for v in values if v is not None}
    if kinds <= {int, float}:
        return pa.array(values, pa.int64() if kinds == {int} else pa.float64())
    return pa.array([None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values], pa.string())
