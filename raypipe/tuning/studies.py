"""The studies of a search on disk: what all trials of a model share, and their trials as one set of tables.

<run>/tune/<model>/settings.json  what was searched, in which config: another space or config is refused
<run>/tune/<model>/written.yaml   the config as the user wrote it, with this model
<run>/tune/<model>/best.yaml      the best setting, as `raypipe run --config` takes it, for all notes
<run>/tune/<model>/base/          a run: corpus, backbone, scorer, relevance at all layers, each done once
<run>/tune/<model>/trials/<id>/   a run per setting, and its trial.json
<run>/tune/<model>/ray/           Ray Tune's own state, from which the same command goes on
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from raypipe.runs import steps
from raypipe.runs.folder import Step, write_json
from raypipe.runs.run import Run
from raypipe.settings import configfile
from raypipe.settings.config import Arm, Config
from raypipe.tuning import analysis, proxy, trial, trial_tables
from raypipe.tuning.plan import Plan, configure
from raypipe.tuning.trial import RECORD
from raypipe.tuning.trial_tables import FINISHED, LABELS_ONLY, ModelFacts, Search

# Sections on which no trial's result depends. (The proxy depends on `faithfulness`, but is measured once.)
FREE = {"name", "runs", "resources", "tune", "comparison", "faithfulness"}
FACTS = "facts.json"


def root_of(config: Config) -> Path:
    """The folder of a search."""
    return (Path(config.runs) / config.name / "tune").resolve()


def claim(plan: Plan) -> Path:
    """The study's folder. Refused if another space or config was searched there."""
    config = plan.backbone.config({})
    folder = root_of(config) / plan.backbone.name
    said = config.model_dump(mode="json", exclude=FREE)
    Step(
        folder, {"space": plan.space.described(), "arm": plan.arm, "config": said, "sample": config.tune.max_unlabelled}
    )
    text = yaml.safe_dump(json.loads(json.dumps(plan.backbone.written)), sort_keys=False, allow_unicode=True, width=120)
    (folder / "written.yaml").write_text(text)
    return folder


def base_run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Run:
    """The run whose steps the trials share, done as far as they need it; and the scorer's dev score."""
    settings = plan.config(plan.constants, "base", str(folder))
    run = Run(settings.model_copy(update={"arms": {**settings.arms, LABELS_ONLY: Arm()}}))
    run.say = lambda what: say(f"{plan.backbone.name}: {what}")  # type: ignore[method-assign]
    trial.share(run)
    steps.corpus_statistics(run)
    steps.learn(run, LABELS_ONLY)
    steps.evaluate(run, LABELS_ONLY)
    return run


def shipped(base: Run) -> Run:
    """The base run as workers get it."""
    run = base.inline()
    vars(run).pop("say", None)
    return run


def records(folder: Path) -> list[dict[str, Any]]:
    """What the trials of a study left, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted((folder / "trials").glob(f"*/{RECORD}"))]


def model_facts(plan: Plan, base: Run, folder: Path) -> ModelFacts:
    """What the analysis needs to know of a study beside its trials; the proxy is measured once, if it is wanted."""
    backbone, before = plan.backbone, load_facts(folder)
    known = before.proxy if before else None
    if known is None and backbone.config({}).tune.proxy_keep is not None:
        known = proxy.measure(base.inline())
    alone = before.alone if before else {}
    found = ModelFacts(
        backbone.name, backbone.family, backbone.depth, plan.arm, trial.seconds_of(base.folder), alone, known
    )
    save_facts(folder, found)
    return found


def save_facts(folder: Path, facts: ModelFacts) -> None:
    """Keep them beside the study."""
    write_json(folder / FACTS, vars(facts))


def load_facts(folder: Path) -> ModelFacts | None:
    """What `save_facts` kept."""
    path = folder / FACTS
    return trial_tables.facts_of(json.loads(path.read_text())) if path.exists() else None


def searched_before(folders: Sequence[Path]) -> list[ModelFacts]:
    """Other models whose studies stand beside these and differ in the model alone: the tables hold them, too."""
    others = [path.parent for path in sorted(folders[0].parent.glob(f"*/{FACTS}")) if path.parent not in folders]
    alike = [folder for folder in others if _but_model(folder) == _but_model(folders[0])]
    return [facts for folder in alike if (facts := load_facts(folder)) is not None]


def _but_model(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((folder / "settings.json").read_text())
    config = {key: value for key, value in settings["config"].items() if key not in ("model", "pretrain")}
    return settings | {"config": config}


def collect(name: str, doc: str, root: Path, base: Run, models: Iterable[ModelFacts]) -> Search:
    """The tables of a search from what its studies left so far."""
    every: list[dict[str, Any]] = []
    tables = [trial_tables.PREDICTIONS.empty_table()]
    known = list(models)
    for facts in known:
        found = records(root / facts.name)
        every += found
        for record in found:
            if record["status"] == FINISHED:
                folder = root / facts.name / "trials" / record["trial_id"] / "evaluate"
                paths = [folder / f"{student}.parquet" for student in record["students"]]
                tables += [_tagged(path, facts.name, record["trial_id"], n) for n, path in enumerate(paths)]
        scored = sorted((root / facts.name / "base" / "evaluate").glob("*/data"))
        tables += [_tagged(path, facts.name, LABELS_ONLY, n) for n, path in enumerate(scored)]
    return Search(
        name, tuple(base.corpus.tasks), tuple(known), trial_tables.trials_table(every), trial_tables.tasks_table(every),
        trial_tables.curves_table(every), pa.concat_tables(tables), doc,
    )  # fmt: skip


def write_best(search: Search, plan: Plan, folder: Path) -> Path | None:
    """best.yaml of a model; None if no trial has finished."""
    facts = next(facts for facts in search.models if facts.name == plan.backbone.name)
    found = analysis.results(search, facts)
    if found is None:
        return None
    params = trial.read(folder / "trials" / found.best.trial_ids[0])["params"]
    values = {key: value for key, value in params.items() if not analysis.is_seed(key)}
    config = plan.best(_tuples(values), f"{search.name}-best-{plan.backbone.name}"[:64])
    path = folder / "best.yaml"
    path.write_text(configfile.dump(configure(config, {"tune.models": ()})))
    return path


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as a config takes them: JSON has no tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _tagged(path: Path, model: str, trial_id: str, run: int) -> pa.Table:
    table = pq.read_table(path)
    n = len(table)
    tags = {"model": pa.array([model] * n, pa.string()), "trial_id": pa.array([trial_id] * n, pa.string()),
            "run": pa.array([run] * n, pa.int16())}  # fmt: skip
    return pa.table({**tags, **{name: table[name] for name in table.column_names}}).select(
        trial_tables.PREDICTIONS.names
    ).cast(trial_tables.PREDICTIONS)  # fmt: skip
