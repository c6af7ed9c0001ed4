"""The studies of a search on disk, one per model, and their trials as one set of tables.

<run>/tune/<model>/settings.json  what was searched, in which config: another space or config is refused
<run>/tune/<model>/written.yaml   the config as the user wrote it, with this model
<run>/tune/<model>/facts.json     trial_tables.ModelFacts
<run>/tune/<model>/best.yaml      the best setting, as `raypipe run --config` takes it, for all notes
<run>/tune/<model>/base/          the run that all trials share (base_run.py)
<run>/tune/<model>/trials/<id>/   a run per setting, and its trial.json
<run>/tune/<model>/ray/           Ray Tune's own state, from which the same command goes on
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from raypipe import rows
from raypipe.records import forget_halves, write_json
from raypipe.runs import integrity
from raypipe.runs.folder import State, StepFolder, refuse_links
from raypipe.runs.run import Run
from raypipe.settings import configfile
from raypipe.settings.config import Config
from raypipe.tuning import analysis, base_run, trial, trial_tables
from raypipe.tuning.plan import NOT_IN_RESULTS, StudyPlan, configure
from raypipe.tuning.space import Space
from raypipe.tuning.trial_tables import FINISHED, LABELS_ONLY, ModelFacts, Search

FACTS = "facts.json"


def root_of(config: Config) -> Path:
    """The folder of a search."""
    return Path(config.runs).resolve() / config.name / "tune"


def claim(plan: StudyPlan) -> Path:
    """The study's folder. Raises `InputError` if another space or config was searched there, or if it holds links."""
    config = plan.backbone.config({})
    folder = root_of(config) / plan.backbone.name
    own = {"space": plan.space.described(), "arm": plan.arm, "sample": config.tune.max_unlabelled}
    settings = config.model_dump(mode="json", exclude=NOT_IN_RESULTS | {"name"}) | own
    refuse_links(folder.parents[1])
    forget_halves(folder.parent)
    study = StepFolder(folder, settings)
    if study.state is not State.ABSENT:  # older studies recorded sections that change no trial
        study.settings |= {key: value for key, value in study.recorded.items() if key in NOT_IN_RESULTS}
    study.open()
    text = yaml.safe_dump(json.loads(json.dumps(plan.backbone.written)), sort_keys=False, allow_unicode=True, width=120)
    (folder / "written.yaml").write_text(text)
    return folder


def records(folder: Path) -> list[trial.Record]:
    """The records of a study's trials, in the order of their names."""
    return [trial.read(path.parent) for path in sorted((folder / "trials").glob(f"*/{trial.RECORD}"))]


def facts_of(plan: StudyPlan, base: Run, folder: Path) -> ModelFacts:
    """What the analysis reads of a study beside its trials; also written into its folder."""
    model = plan.backbone
    facts = ModelFacts(model.name, model.family, model.depth, plan.arm, base_run.seconds_of(base.folder))
    save_facts(folder, facts)
    return facts


def save_facts(folder: Path, facts: ModelFacts) -> None:
    """Write facts.json of a study."""
    write_json(folder / FACTS, vars(facts))


def searched_before(folders: Sequence[Path]) -> list[ModelFacts]:
    """Other models whose studies stand beside these and differ in the model alone. They belong in the same tables."""
    others = [path.parent for path in sorted(folders[0].parent.glob(f"*/{FACTS}")) if path.parent not in folders]
    same = [folder for folder in others if _but_model(folder) == _but_model(folders[0])]
    return [ModelFacts.of(json.loads((folder / FACTS).read_text())) for folder in same]


def _but_model(folder: Path) -> dict[str, Any]:
    settings = integrity.read_json(folder / "settings.json")
    return {key: value for key, value in settings.items() if key not in ("model", "pretrain")}


def collect(name: str, space: Space, root: Path, base: Run, models: Sequence[ModelFacts]) -> Search:
    """The tables of a search from what its studies left so far."""
    by_model = {facts.name: records(root / facts.name) for facts in models}
    every = [record for of_model in by_model.values() for record in of_model]
    predictions = [trial_tables.PREDICTIONS.empty_table()]
    for model, of_model in by_model.items():
        for record in of_model:
            if record["status"] == FINISHED:
                folder = root / model / "trials" / record["trial_id"] / "evaluate"
                paths = [folder / f"{student}.parquet" for student in record["students"]]
                predictions += _predictions(paths, model, record["trial_id"])
        scored = [root / model / "base" / "evaluate" / student / "data" for student in base.students(LABELS_ONLY)]
        predictions += _predictions(scored, model, LABELS_ONLY)
    return Search(
        name,
        tuple(base.corpus.tasks),
        tuple(models),
        trial_tables.trials_table(every),
        trial_tables.curves_table(every, space.metric),
        pa.concat_tables(predictions),
        space.doc,
        space.metric,
    )


def _predictions(paths: Sequence[Path], model: str, trial_id: str) -> list[pa.Table]:
    return [trial_tables.tagged(rows.read(path), model, trial_id, n) for n, path in enumerate(paths)]


def write_best(search: Search, plan: StudyPlan, folder: Path) -> Path | None:
    """best.yaml of a model; None if no trial has finished."""
    facts = next(facts for facts in search.models if facts.name == plan.backbone.name)
    results = analysis.results(search, facts)
    if results is None:
        return None
    params = trial.read(folder / "trials" / results.best.trial_ids[0])["params"]
    values = {key: value for key, value in params.items() if not analysis.is_seed(key)}
    config = plan.best(values, f"{search.name}-best-{plan.backbone.name}"[:64])
    path = folder / "best.yaml"
    path.write_text(configfile.dump(configure(config, {"tune.models": ()})))
    return path
