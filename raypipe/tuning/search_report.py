"""`raypipe tune-report RUN`: a finished (or running) search as a page, tables, pictures, and `best.yaml` per model.

<run>/tune/report/report.html            everything, in one file
<run>/tune/report/settings.csv .parquet  a row per model and setting
<run>/tune/report/trials.csv             trials.parquet for spreadsheets
<run>/tune/report/*.png                  the pictures
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.evaluation.uncertainty import Estimate, PairedDifference
from raypipe.findings.page import figures as look
from raypipe.findings.page.figures import Chart
from raypipe.findings.page.html import environment
from raypipe.findings.page.report import Report, outcome
from raypipe.runs.folder import versions
from raypipe.tuning import analysis, charts, stability
from raypipe.tuning.analysis import Results
from raypipe.tuning.stability import Agreement, Effect
from raypipe.tuning.trial_tables import CONFIG, ModelFacts, Search


@dataclass(frozen=True)
class Neighbour:
    """The best setting against another one."""

    name: str
    estimate: Estimate
    difference: PairedDifference

    @property
    def verdict(self) -> str:
        """What may be said, as in every report."""
        return outcome(self.difference, Report(""))


@dataclass(frozen=True)
class Cost:
    """Seconds of a model's search. Means are over finished trials."""

    n_trials: int
    per_trial: float
    steps: dict[str, float]  # mean seconds of each step of a trial
    shared: dict[str, float]  # seconds of the steps that were done once
    again: tuple[float, float, float] | None  # mean seconds of the trials that were done again: ModelFacts.alone

    @property
    def attributing(self) -> float | None:
        """How much longer a trial takes that attributes for itself; backbone and scorer are shared."""
        return self.again[1] / self.again[0] if self.again else None

    @property
    def alone(self) -> float | None:
        """How much longer a trial takes with nothing shared."""
        return self.again[2] / self.again[0] if self.again else None


@dataclass(frozen=True)
class ModelPage:
    """One model on the page."""

    facts: ModelFacts
    statuses: dict[str, int]
    errors: dict[str, int]
    results: Results | None = None
    cells: Results | None = None  # the same over the heat map's axes alone
    best: str = ""
    against: tuple[Neighbour, ...] = ()
    effects: tuple[Effect, ...] = ()
    over_tasks: Agreement | None = None
    proxy: Agreement | None = None
    cost: Cost | None = None


def write(search: Search, folder: Path) -> Path:
    """Write everything but best.yaml into `folder` and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = [_model_page(search, facts) for facts in search.models]
    shown = [page for page in pages if page.results]
    table = settings_table([page.results for page in shown if page.results])
    pq.write_table(table, folder / "settings.parquet", compression="zstd")
    _write_csv(table, folder / "settings.csv")
    _write_csv(search.trials, folder / "trials.csv")
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
        shades=(),
    )  # fmt: skip


def settings_table(every: Sequence[Results]) -> pa.Table:
    """A row per model and setting, best first."""
    out: list[dict[str, Any]] = []
    for results in every:
        for rank, s in enumerate(results.settings, start=1):
            e = s.estimate
            values = {CONFIG + key: value for key, value in zip(results.keys, s.values, strict=True)}
            numbers = {"dev_macro_f1": e.value, "low": e.low, "high": e.high, "n_trials": len(s.trial_ids)}
            more = {"n_runs": e.n_runs, "n_tasks": e.n_tasks, "layer": s.layer}
            out.append({"model": results.model.name, "rank": rank, **values, **numbers, **more})
    return pa.Table.from_pylist(out)


def text(search: Search) -> str:
    """What the terminal gets: the best setting of each model, and what was counted."""
    lines = []
    for facts in search.models:
        page = _model_page(search, facts)
        counted = ", ".join(f"{n} {status}" for status, n in page.statuses.items())
        lines.append(f"{facts.name}: {counted or 'no trials'}")
        if page.results:
            e = page.results.best.estimate
            interval = f"{100 * e.value:.1f} [{100 * e.low:.1f}, {100 * e.high:.1f}]"
            lines.append(f"  best on dev: {page.best}: macro F1 {interval}")
            lines += [f"    vs {n.name}: {100 * n.difference.estimate.value:+.1f}, {n.verdict}" for n in page.against]
            lines += [f"    note: {caveat}" for caveat in page.results.caveats]
        if page.cost and page.cost.again:
            cost, (shared, attributing, alone) = page.cost, page.cost.again
            lines.append(f"  a trial done again takes {shared:.1f} s")
            lines.append(f"    with attribution of its own {attributing:.1f} s, {cost.attributing:.1f} times as long")
            lines.append(f"    with nothing shared {alone:.1f} s, {cost.alone:.1f} times as long")
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
        stability.proxy(results),
        _cost(search, facts),
    )


def _against(results: Results) -> Iterator[Neighbour]:
    for setting, difference in zip(results.neighbours, results.differences, strict=False):
        yield Neighbour(results.name(setting.values), setting.estimate, difference)
    if results.labels_only is not None:
        yield Neighbour("labels only (the scorer)", results.labels_only, results.differences[-1])


def _cost(search: Search, facts: ModelFacts) -> Cost:
    trials = search.of(facts.name)

    def mean(of: Sequence[float | None]) -> float:
        known = [value for value in of if value is not None]
        return sum(known) / max(1, len(known))

    steps = {step: mean([trial[f"seconds/{step}"] for trial in trials]) for step in search.steps}
    shared, attributing, alone = zip(*facts.alone.values(), strict=True) if facts.alone else ((), (), ())
    return Cost(
        len(trials),
        mean([trial["seconds"] for trial in trials]),
        {step: seconds for step, seconds in steps.items() if seconds},
        facts.shared_seconds,
        (mean(shared), mean(attributing), mean(alone)) if facts.alone else None,
    )


def _pictures(search: Search, pages: Sequence[ModelPage]) -> Iterator[tuple[str, charts.Draw, str]]:
    """File name, picture, and what it shows in words."""
    for page in pages:
        if page.cells and page.cells.keys:
            said = "; ".join(f"{page.cells.name(s.values)}: {100 * s.estimate.value:.1f}" for s in page.cells.settings)
            draw = charts.heat_map(page.cells)
            yield f"heat_map_{page.facts.name}", draw, f"Dev macro F1 of {page.facts.name}: {said}"
    found = {page.facts.name: page.effects for page in pages if page.effects}
    if found:
        yield "effects", charts.effects(found), "Share of variance by parameter; the same numbers stand in the table"
    for page in pages:
        lines = _curves(search, page.facts.name)
        if page.results and any(len(line) > 1 for line in lines.values()):
            draw = charts.curves(lines, page.results.best.trial_ids)
            yield f"curves_{page.facts.name}", draw, f"Dev macro F1 of {len(lines)} trials by epoch"


def _curves(search: Search, model: str) -> dict[str, list[tuple[float, float]]]:
    out: dict[str, list[tuple[float, float]]] = {}
    for row in search.curves.to_pylist():
        if row["model"] == model:
            out.setdefault(row["trial_id"], []).append((row["epoch"], row["dev_macro_f1"]))
    return {trial_id: sorted(line) for trial_id, line in out.items()}


def _write_csv(table: pa.Table, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table.column_names)
        writer.writeheader()
        writer.writerows(table.to_pylist())
