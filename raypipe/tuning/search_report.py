"""`raypipe tune-report --config RUN`: a search, finished or running, as a page, tables, pictures, and `best.yaml`s.

<run>/tune/report/report.html            everything, in one file
<run>/tune/report/settings.csv .parquet  a row per model and setting
<run>/tune/report/trials.csv             trials.parquet for spreadsheets
<run>/tune/report/*.png                  the pictures
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.csv import write_csv

from raypipe import rows
from raypipe.evaluation.uncertainty import Estimate, PairedDifference
from raypipe.findings.page import figures as look
from raypipe.findings.page.figures import Chart
from raypipe.findings.page.html import environment
from raypipe.findings.page.report import without_gates
from raypipe.findings.page.terms import TERMS
from raypipe.findings.summary import counted
from raypipe.records import versions
from raypipe.runs.folder import refuse_links
from raypipe.tuning import analysis, charts, stability
from raypipe.tuning.analysis import Results
from raypipe.tuning.stability import Effect, RankAgreement
from raypipe.tuning.trial_tables import CONFIG, ModelFacts, Search

SHARES = "Share of variance by parameter; the same numbers stand in the table"


@dataclass(frozen=True)
class Neighbour:
    """The best setting against another one."""

    name: str
    estimate: Estimate
    difference: PairedDifference

    @property
    def verdict(self) -> str:
        """better, worse, or why neither may be said; by the rule of all reports."""
        return without_gates(self.difference)


@dataclass(frozen=True)
class Cost:
    """Seconds of a model's search. Means are over finished trials."""

    n_trials: int
    per_trial: float
    steps: dict[str, float]  # mean seconds of each step of a trial
    shared: dict[str, float]  # seconds of the steps that were done once


@dataclass(frozen=True)
class ModelPage:
    """One model on the page."""

    facts: ModelFacts
    statuses: dict[str, int]
    errors: dict[str, int]
    results: Results | None = None
    heat_map: Results | None = None  # by the axes of the heat map alone, other parameters pooled
    best: str = ""
    against: tuple[Neighbour, ...] = ()
    effects: tuple[Effect, ...] = ()
    over_tasks: RankAgreement | None = None
    cost: Cost | None = None


def model_pages(search: Search) -> list[ModelPage]:
    """What the page and the terminal say of each model."""
    return [_model_page(search, facts) for facts in search.models]


def write(search: Search, pages: Sequence[ModelPage], folder: Path) -> Path:
    """Write everything but best.yaml into `folder` and return the page's path."""
    refuse_links(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shown = [page for page in pages if page.results]
    table = settings_table(search, [page.results for page in shown if page.results])
    rows.write(table, folder / "settings.parquet")
    write_csv(table, folder / "settings.csv")
    write_csv(search.trials, folder / "trials.csv")
    drawn = {name: (draw, alt) for name, draw, alt in _pictures(search, shown)}
    for name, (draw, _) in drawn.items():
        look.png(draw, folder / f"{name}.png")
    charts = {name: look.chart(draw, alt) for name, (draw, alt) in drawn.items()}
    page = folder / "report.html"
    page.write_text(html(search, pages, charts), encoding="utf-8")
    return page


def html(search: Search, pages: Sequence[ModelPage], charts: dict[str, Chart]) -> str:
    """The page."""
    every = [page.results for page in pages if page.results]
    costs = [page.cost for page in pages if page.cost is not None]
    return environment(Path(__file__).parent).get_template("report.html").render(
        search=search,
        summary=summary(search, pages),
        pages=pages,
        charts=charts,
        axes=[analysis.short(key) for key in analysis.axes(search)],
        pooled=[k for k in analysis.varying(search) if k not in analysis.axes(search)],
        seeds=[key for key in search.keys if analysis.is_seed(key)],
        between=stability.between_models(every),
        costed=[page for page in pages if page.cost is not None],
        trial_steps=list(dict.fromkeys(step for cost in costs for step in cost.steps)),
        shared_steps=list(dict.fromkeys(step for cost in costs for step in cost.shared)),
        versions=versions(),
        meanings={search.metric_name: TERMS[search.metric_name]},
        shades=(),
    )  # fmt: skip


def summary(search: Search, pages: Sequence[ModelPage]) -> str:
    """What was tried, what can be said of the best settings, and what cannot."""
    n_finished = sum(page.statuses.get("finished", 0) for page in pages)
    n_tasks = max([page.results.best.estimate.n_tasks for page in pages if page.results], default=len(search.tasks))
    left_out = len(search.tasks) - n_tasks
    n_settings = sum(len(page.results.settings) for page in pages if page.results)
    sentences = [
        f"{n_settings} settings of {counted(len(pages), 'model')} were measured in "
        f"{counted(n_finished, 'finished trial')}, on dev notes of {counted(n_tasks, 'task')}"
        f"{f' ({left_out} without {search.metric_name}, for want of two labels there)' if left_out else ''}."
    ]
    for page in pages:
        verdicts = [n.verdict for n in page.against]
        if page.results and verdicts:
            sentences.append(
                f"{page.facts.name}: best is {page.best}, clearly better than {verdicts.count('better')} of the "
                f"{len(verdicts)} it was compared with."
            )
    best_of_many = "The best of many settings is partly lucky, and test notes were not read"
    return " ".join([*sentences, f"{best_of_many}: how good it is, a run on them has to say."])


def settings_table(search: Search, every: Sequence[Results]) -> pa.Table:
    """A row per model and setting, best first."""
    out: list[dict[str, Any]] = []
    for results in every:
        for rank, s in enumerate(results.settings, start=1):
            e = s.estimate
            values = {CONFIG + key: value for key, value in zip(results.keys, s.values, strict=True)}
            numbers = {search.metric: e.value, "low": e.low, "high": e.high, "n_trials": len(s.trial_ids)}
            more = {"n_runs": e.n_runs, "n_tasks": e.n_tasks, "layer": s.layer}
            out.append({"model": results.model.name, "rank": rank, **values, **numbers, **more})
    return pa.Table.from_pylist(out)


def text(search: Search, pages: Sequence[ModelPage]) -> str:
    """For the terminal: what came out, the best setting of each model, and how its trials ended."""
    lines = [*textwrap.wrap(summary(search, pages), 100), ""]
    for page in pages:
        statuses = ", ".join(f"{n} {status}" for status, n in page.statuses.items())
        lines.append(f"{page.facts.name}: {statuses or 'no trials'}")
        if page.results:
            e = page.results.best.estimate
            interval = f"{100 * e.value:.1f} [{100 * e.low:.1f}, {100 * e.high:.1f}]"
            lines.append(f"  best on dev: {page.best}: {search.metric_name} {interval}")
            lines += [f"    vs {n.name}: {100 * n.difference.estimate.value:+.1f}, {n.verdict}" for n in page.against]
            lines += [f"    note: {caveat}" for caveat in page.results.caveats]
        lines += [f"  {n} x {error}" for error, n in page.errors.items()]
    return "\n".join(lines)


def _model_page(search: Search, facts: ModelFacts) -> ModelPage:
    trials = search.of(facts.name, None)
    statuses = dict(Counter(trial["status"] for trial in trials))
    errors = dict(Counter(trial["error"] for trial in trials if trial["error"]))
    results = analysis.results(search, facts)
    if results is None:
        return ModelPage(facts, statuses, errors)
    axes = analysis.axes(search)
    return ModelPage(
        facts,
        statuses,
        errors,
        results,
        results if results.keys == axes else analysis.results(search, facts, axes),
        results.name(results.best.values) or "the only setting",
        tuple(_against(results)),
        tuple(stability.effects(search, facts.name)),
        stability.over_tasks(results),
        _cost(search, facts),
    )


def _against(results: Results) -> Iterator[Neighbour]:
    for setting, difference in zip(results.neighbours, results.differences, strict=False):
        yield Neighbour(results.name(setting.values), setting.estimate, difference)
    if results.labels_only is not None:
        yield Neighbour("labels only", results.labels_only, results.differences[-1])


def _cost(search: Search, facts: ModelFacts) -> Cost:
    trials = search.of(facts.name)

    def mean(values: Sequence[float | None]) -> float:
        measured = [value for value in values if value is not None]
        return sum(measured) / max(1, len(measured))

    steps = {step: mean([trial[f"seconds/{step}"] for trial in trials]) for step in search.steps}
    return Cost(
        len(trials),
        mean([trial["seconds"] for trial in trials]),
        {step: seconds for step, seconds in steps.items() if seconds},
        facts.shared_seconds,
    )


def _pictures(search: Search, pages: Sequence[ModelPage]) -> Iterator[tuple[str, charts.Draw, str]]:
    """File name, picture, and what it shows in words."""
    for page in pages:
        if page.heat_map and page.heat_map.keys:
            settings = page.heat_map.settings
            values = "; ".join(f"{page.heat_map.name(s.values)}: {100 * s.estimate.value:.1f}" for s in settings)
            alt = f"Dev {search.metric_name} of {page.facts.name}: {values}"
            yield f"heat_map_{page.facts.name}", charts.heat_map(page.heat_map), alt
    effects = {page.facts.name: page.effects for page in pages if page.effects}
    if effects:
        yield "effects", charts.effects(effects, search.metric_name), SHARES
    for page in pages:
        lines = _curves(search, page.facts.name)
        if page.results and any(len(line) > 1 for line in lines.values()):
            draw = charts.curves(lines, page.results.best.trial_ids, search.metric_name)
            yield f"curves_{page.facts.name}", draw, f"Dev {search.metric_name} of {len(lines)} trials by epoch"


def _curves(search: Search, model: str) -> dict[str, list[tuple[float, float]]]:
    out: dict[str, list[tuple[float, float]]] = {}
    for row in search.curves.to_pylist():
        if row["model"] == model:
            out.setdefault(row["trial_id"], []).append((row["epoch"], row[search.metric]))
    return {trial_id: sorted(line) for trial_id, line in out.items()}
