"""The charts of the report as SVG in data: addresses, once for light and once for dark pages.

Dots with intervals, not bars: macro F1 has a floor near .47, so bars from zero would show mostly the floor. Arms differ
in marker and colour, and the reference has the ink's. The colours stay apart for colour-blind readers, too: a test
simulates how they see.
"""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from raypipe.evaluation.faithfulness_table import FaithfulnessRow
from raypipe.evaluation.layer_scores import LayerScore
from raypipe.evaluation.operating_point import Calibration
from raypipe.evaluation.uncertainty import Estimate
from raypipe.findings.finetunings import Gain
from raypipe.findings.probing import NAMES, POOLINGS, STAGES, Probing, shown
from raypipe.findings.training_curves import Curve
from raypipe.guard.terminal import printable
from raypipe.runs.names import BACKBONE, SCORER

MARKERS = "osD^vPX*"
MAX_TASKS, MAX_ARMS = 40, 8  # on one chart; the rest of the tasks are in the table
LINE = 32  # letters of a name beside each other
LEGEND_WIDTH = 90  # characters beside each other in a legend as wide as the chart
GREY = {"light": "#6b7280", "dark": "#9aa4b2"}  # of lines that are no arm's
REFERENCE = {"light": "#1f2933", "dark": "#f2f5f8"}
COLOURS = {
    "light": ("#0072b2", "#d55e00", "#b042fa", "#bf8158", "#0606ee", "#4a1e01", "#666666"),
    "dark": ("#56b4e9", "#f0894a", "#b1439b", "#eeaf9f", "#0663ee", "#a2f91f", "#d02446"),
}
INK = {"light": "#1f2933", "dark": "#dde3ea"}
FAINT = {"light": "#d9dee5", "dark": "#3a424d"}


@dataclass(frozen=True)
class Chart:
    """One picture for both kinds of page."""

    light: str  # data: address
    dark: str
    alt: str  # what it shows, for who cannot see it


def differences(rows: Sequence[tuple[str, Estimate]], reference: str) -> Chart:
    """Each arm's difference from the reference, in points, with its interval around a line at zero."""

    def draw(theme: str) -> Figure:
        figure, axes = canvas(theme, height=0.55 + 0.42 * len(rows))
        axes.axvline(0, color=GREY[theme], linewidth=1.2)
        for y, (_, estimate) in enumerate(rows):
            _dot(axes, y, estimate, _style(theme, y + 1))
        name_rows(axes, [name for name, _ in rows])
        axes.set_xlabel(f"macro F1 less that of {label(reference)}, points")
        return figure

    alt = "; ".join(f"{name} {100 * e.value:+.1f} [{100 * e.low:+.1f}, {100 * e.high:+.1f}]" for name, e in rows)
    return chart(draw, f"Differences from {reference} in points: {alt}")


def gains(rows: Sequence[Gain], reference: str) -> Chart:
    """Gain over labels alone against steps of fine-tuning, with all labels: macro F1 and AUC, one line per arm."""
    shown = [row for row in rows if row.labels is None and row.gain is not None]
    arms = list(dict.fromkeys(row.arm for row in shown))

    def draw(theme: str) -> Figure:
        figure, grid = _panels(theme, 1, 2)
        for axes, measure in zip(grid[0], ("gain", "auc_gain"), strict=True):
            axes.axhline(0, color=GREY[theme], linewidth=1.2)
            axes.set_title({"gain": "macro F1", "auc_gain": "AUC"}[measure], color=INK[theme], fontsize=10)
            axes.set_xscale("log")
            steps = sorted({row.n_steps for row in shown})
            axes.set_xticks(steps, [f"{n:,}" for n in steps])
            axes.minorticks_off()
            axes.set_xlabel("optimiser steps of fine-tuning")
            for number, arm in enumerate(arms, start=1):
                _gain_curve(axes, [row for row in shown if row.arm == arm], measure, _style(theme, number), number)
        grid[0][0].set_ylabel(f"gain over {label(reference)}, points")
        _legend_of_panels(figure, theme, {arm: _style(theme, i) for i, arm in enumerate(arms, start=1)})
        return figure

    steps = "; ".join(f"{r.arm} at {r.n_steps} steps {100 * r.gain.value:+.1f}" for r in shown if r.gain is not None)
    return chart(draw, f"Gain in macro F1 over {reference}: {steps}; the same numbers stand in the table")


def _gain_curve(axes: Any, rows: Sequence[Gain], measure: str, style: Mapping[str, Any], number: int) -> None:
    """The intervals of several arms at the same steps lie beside each other."""
    at = [row.n_steps * 1.03**number for row in rows]
    estimates = [getattr(row, measure) for row in rows]
    axes.vlines(
        at, [100 * e.low for e in estimates], [100 * e.high for e in estimates], color=style["color"], linewidth=1.4
    )
    axes.plot(at, [100 * e.value for e in estimates], linewidth=1.2, **style)


def per_task(tasks: Mapping[str, Mapping[str, Estimate]], reference: str) -> list[Chart]:
    """Macro F1 of every arm on every task, sorted by the reference; the MAX_TASKS tasks on which arms differ most.

    As many pictures, on one scale, as it takes to have MAX_ARMS arms on each, the reference on all.
    """
    first = [reference] if reference in tasks else []
    others = [arm for arm in tasks if arm not in first]
    shown = _widest_spread(tasks)
    shown.sort(key=lambda task_id: tasks[[*first, *others][0]][task_id].value)
    n_pictures = max(1, math.ceil(len(others) / (MAX_ARMS - len(first))))
    parts = [others[len(others) * i // n_pictures : len(others) * (i + 1) // n_pictures] for i in range(n_pictures)]
    ends = [end for arm in tasks.values() for task_id in shown for end in (arm[task_id].low, arm[task_id].high)]
    limits = 100 * min(ends) - 1, 100 * max(ends) + 1
    return [_some_per_task(tasks, [*first, *part], shown, reference, limits) for part in parts]


def _some_per_task(
    tasks: Mapping[str, Mapping[str, Estimate]],
    arms: Sequence[str],
    shown: Sequence[str],
    reference: str,
    limits: tuple[float, float],
) -> Chart:
    offset_of = {arm: 0.62 * ((i + 0.5) / len(arms) - 0.5) for i, arm in enumerate(arms)}

    def draw(theme: str) -> Figure:
        figure, axes = canvas(theme, height=0.9 + len(shown) * max(0.3, 0.12 * len(arms)))
        for i, arm in enumerate(arms):
            style = _style(theme, i if arms[0] == reference else i + 1)
            for y, task_id in enumerate(shown):
                _dot(axes, y + offset_of[arm], tasks[arm][task_id], style)
            axes.plot([], [], label=label(arm), linestyle="", **style)
        axes.hlines(
            [y + 0.5 for y in range(len(shown) - 1)],
            0,
            1,
            colors=FAINT[theme],
            linewidth=0.5,
            transform=axes.get_yaxis_transform(),
        )
        name_rows(axes, shown)
        axes.set_xlim(*limits)
        axes.set_xlabel("macro F1, points")
        _legend(axes, theme, arms)
        return figure

    return chart(draw, f"Macro F1 of {len(arms)} arms on {len(shown)} tasks; the same numbers stand in the table below")


def faithfulness(rows: Sequence[FaithfulnessRow]) -> Chart:
    """Comprehensiveness of every variant less that of random relevance, with its interval around a line at zero."""
    shown = [row for row in rows if row.method != "random"]

    def draw(theme: str) -> Figure:
        figure, axes = canvas(theme, height=0.8 + 0.3 * len(shown))
        axes.axvline(0, color=GREY[theme], linewidth=1.2)
        colour_of = {name: i for i, name in enumerate(dict.fromkeys((row.method, row.reduction) for row in shown))}
        for y, row in enumerate(shown):
            style = _style(theme, colour_of[row.method, row.reduction] + 1)
            axes.plot([100 * row.vs_random_low, 100 * row.vs_random_high], [y, y], color=style["color"], linewidth=1.6)
            axes.plot([100 * row.vs_random], [y], linestyle="", **style)
        name_rows(axes, [row.variant for row in shown])
        axes.set_xlabel("comprehensiveness (AOPC) less that of random relevance, points of probability")
        return figure

    return chart(draw, f"Comprehensiveness of {len(shown)} variants less random; the same numbers stand in the table")


def calibration(arms: Mapping[str, Calibration], reference: str) -> Chart:
    """Share of right answers against confidence, a line per arm; on the diagonal, confidence can be believed."""

    def draw(theme: str) -> Figure:
        figure, axes = canvas(theme, height=4.2)
        lowest = min(b.confidence for c in arms.values() for b in c.bins)
        start = 100 * max(0.0, min(lowest, 0.95) - 0.05)
        axes.plot([start, 100], [start, 100], color=GREY[theme], linewidth=1.2, linestyle=":")
        for arm, style in _styles(theme, list(arms), reference):
            bins = [b for b in arms[arm].bins if b.right.value is not None]
            at = [100 * b.confidence for b in bins]
            ends = [[100 * (getattr(b.right, end) or 0.0) for b in bins] for end in ("low", "high")]
            axes.vlines(at, *ends, color=style["color"], linewidth=1.2, alpha=0.5)
            axes.plot(at, [100 * (b.right.value or 0.0) for b in bins], linewidth=1.2, label=label(arm), **style)
        axes.grid(axis="y", color=FAINT[theme], linewidth=0.7)
        axes.set_xlabel("probability that the model gives its answer, %")
        axes.set_ylabel("right answers, %")
        _legend(axes, theme, list(arms))
        return figure

    errors = "; ".join(f"{arm} {100 * c.error:.1f}" for arm, c in arms.items())
    return chart(draw, f"Calibration: mean distance of confidence and share of right answers in points: {errors}")


TRAININGS = {"pretrain": "pretraining", "train": "reconstruction", "finetune": "fine-tuning on labels"}


def training(curves: Sequence[Curve], reference: str) -> Chart:
    """Loss by step, a column per stage; dashed: the dev notes' loss. Below it their macro F1, and the learning rate.

    Only fine-tuning has a dev score: in the other columns the loss takes its room.
    """
    stages = [stage for stage in TRAININGS if any(curve.stage == stage for curve in curves)]
    students = list(dict.fromkeys(curve.student for curve in curves if curve.student))
    shown = [measure for measure in MEASURES if any(map(measure.is_of, curves))]

    def draw(theme: str) -> Figure:
        style_of = dict(_styles(theme, students, reference)) | {"": _style(theme, 0)}
        figure = Figure(figsize=(8.6, 3.2 + 1.4 * (len(shown) - 1)), layout="constrained")
        grid = figure.add_gridspec(len(shown), len(stages), height_ratios=[measure.height for measure in shown])
        columns = []
        for j, stage in enumerate(stages):
            of_stage = [(curve, style_of[curve.student]) for curve in curves if curve.stage == stage]
            own = [measure for measure in shown if any(measure.is_of(curve) for curve, _ in of_stage)]
            n_lost = len(shown) - len(own)
            places = [grid[: n_lost + 1, j], *(grid[n_lost + i, j] for i in range(1, len(own)))]
            columns.append(_column(figure, dict(zip(own, places, strict=True)), of_stage, theme))
            columns[-1][own[0]].set_title(TRAININGS[stage], color=INK[theme], fontsize=10)
        for measure in shown:
            next(column[measure] for column in columns if measure in column).set_ylabel(measure.label)
        if students:
            _legend_of_panels(figure, theme, {name: style_of[name] for name in students}, _columns(students))
        return figure

    ends = "; ".join(f"{curve.name} {curve.loss[-1]:.3f}" for curve in curves)
    return chart(draw, f"Loss of {len(curves)} trainings by step; last loss: {ends}")


def _column(
    figure: Figure, places: Mapping[Measure, Any], curves: Sequence[tuple[Curve, dict[str, Any]]], theme: str
) -> dict[Measure, Any]:
    """The axes of one stage, one below the other, with the same steps."""
    column: dict[Measure, Any] = {}
    for measure, place in places.items():
        axes = column[measure] = figure.add_subplot(place, sharex=next(iter(column.values()), None))
        _plain_axes(axes, theme, "y")
        for curve, style in curves:
            measure.plot(axes, curve, style)
        low, high = axes.get_ylim()
        if high - low < measure.least:
            axes.set_ylim((low + high - measure.least) / 2, (low + high + measure.least) / 2)
        axes.tick_params(labelbottom=len(column) == len(places))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_xlabel("optimiser step")
    return column


def _loss(axes: Any, curve: Curve, style: Mapping[str, Any]) -> None:
    """A marker at the end alone: a curve has many points."""
    line = {"color": style["color"], "linewidth": 1.3}
    axes.plot(curve.steps, curve.loss, marker=style["marker"], markevery=[-1], markersize=5, **line)
    if curve.dev:
        axes.plot(*zip(*curve.dev, strict=True), linestyle="--", marker=style["marker"], markersize=4, **line)


def _dev_f1(axes: Any, curve: Curve, style: Mapping[str, Any]) -> None:
    steps = [step for step, _ in curve.dev_f1]
    axes.plot(steps, [100 * value for _, value in curve.dev_f1], linestyle="--", linewidth=1.3, **style)


def _learning_rate(axes: Any, curve: Curve, style: Mapping[str, Any]) -> None:
    axes.plot(curve.steps[: len(curve.learning_rate)], curve.learning_rate, color=style["color"], linewidth=1.3)


@dataclass(frozen=True)
class Measure:
    """What is drawn of every training that has it."""

    label: str
    height: float
    is_of: Callable[[Curve], bool]
    plot: Callable[[Any, Curve, Mapping[str, Any]], None]
    least: float = 0.0  # that the axis shows, so that a difference of a few notes does not look like a mountain


MEASURES = (
    Measure("loss, nats per token", 3, lambda curve: True, _loss),
    Measure("dev macro F1", 1.2, lambda curve: bool(curve.dev_f1), _dev_f1, least=20.0),
    Measure("learning rate", 1, lambda curve: bool(curve.learning_rate), _learning_rate),
)


def _styles(theme: str, arms: Sequence[str], reference: str) -> list[tuple[str, dict[str, Any]]]:
    """Arms with their colours and markers, the reference in the ink's; where it is missing, the scorer."""
    first = reference if reference in arms else SCORER
    others = [arm for arm in arms if arm != first]
    return [(arm, _style(theme, others.index(arm) + 1 if arm in others else 0)) for arm in arms]


def _legend(axes: Any, theme: str, arms: Sequence[str]) -> None:
    """Above the axes, in as many columns as there is room for."""
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": _columns(arms)}
    axes.legend(**place, frameon=False, labelcolor=INK[theme])


def _legend_of_panels(figure: Figure, theme: str, style_of: Mapping[str, dict[str, Any]], columns: int = 5) -> None:
    """One above all panels, of the names with their styles."""
    handles = [Line2D([], [], label=label(name), **style) for name, style in style_of.items()]
    place = {"loc": "outside upper left", "ncols": min(columns, len(handles))}
    figure.legend(handles=handles, **place, frameon=False, labelcolor=INK[theme])


def _columns(names: Sequence[str]) -> int:
    """How many names have room beside each other in a legend."""
    return max(1, min(len(names), LEGEND_WIDTH // (6 + max(map(_width, names)))))


def layers(probing: Probing) -> Chart:
    """Macro F1 over the layers: one panel per pooling and stage, one line per student, the backbone in all."""
    stages = probing.stages or [""]
    arms = list(dict.fromkeys(name.partition("/")[2] for name in probing.students if name != BACKBONE))

    def draw(theme: str) -> Figure:
        figure, grid = _panels(theme, len(probing.poolings), len(stages))
        for (i, pooling), (j, stage) in product(enumerate(probing.poolings), enumerate(stages)):
            for number, arm in enumerate([BACKBONE, *arms]):
                curve = probing.curve(arm if arm == BACKBONE else f"{stage}/{arm}", pooling)
                _curve(grid[i][j], curve, _style(theme, number), with_interval=arm == BACKBONE)
            title = ", ".join(filter(None, (POOLINGS[pooling], STAGES.get(stage))))
            grid[i][j].set_title(title, color=INK[theme], fontsize=10)
        for axes in grid[-1]:
            axes.set_xlabel("layer")
        for row in grid:
            row[0].set_ylabel("macro F1, points")
        names = [NAMES.get(name, name) for name in (BACKBONE, *arms)]
        _legend_of_panels(figure, theme, {name: _style(theme, i) for i, name in enumerate(names)})
        return figure

    scores = ((shown(best.score.student), best.score) for best in probing.best)
    best = "; ".join(f"{name} {100 * score.macro_f1.value:.1f} at layer {score.layer}" for name, score in scores)
    return chart(draw, f"Macro F1 of probes over the layers. Best layers: {best}")


def _panels(theme: str, n_rows: int, n_columns: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(8.6, 0.5 + 2.5 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat:
        _plain_axes(axes, theme, "y")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, grid


def _curve(axes: Any, curve: Sequence[LayerScore], style: Mapping[str, Any], with_interval: bool) -> None:
    at = [score.layer for score in curve]
    if with_interval:
        low, high = ([100 * getattr(score.macro_f1, end) for score in curve] for end in ("low", "high"))
        axes.fill_between(at, low, high, color=style["color"], alpha=0.16, linewidth=0)
    axes.plot(at, [100 * score.macro_f1.value for score in curve], linewidth=1.6, **style)


def _widest_spread(tasks: Mapping[str, Mapping[str, Estimate]]) -> list[str]:
    task_ids = list(next(iter(tasks.values())))
    values_of = {task_id: [tasks[arm][task_id].value for arm in tasks] for task_id in task_ids}
    return sorted(task_ids, key=lambda t: min(values_of[t]) - max(values_of[t]))[:MAX_TASKS]


def _style(theme: str, i: int) -> dict[str, Any]:
    colour = REFERENCE[theme] if i == 0 else COLOURS[theme][(i - 1) % len(COLOURS[theme])]
    return {"color": colour, "marker": MARKERS[i % len(MARKERS)], "markersize": 5.5}


def _dot(axes: Any, y: float, estimate: Estimate, style: Mapping[str, Any]) -> None:
    axes.plot([100 * estimate.low, 100 * estimate.high], [y, y], color=style["color"], linewidth=1.6, alpha=0.75)
    axes.plot([100 * estimate.value], [y], linestyle="", **style)


def canvas(theme: str, height: float) -> tuple[Figure, Any]:
    """An empty figure as wide as the page, and its axes."""
    figure = Figure(figsize=(8.6, height), layout="constrained")
    axes = figure.add_subplot()
    _plain_axes(axes, theme, "x")
    return figure, axes


def _plain_axes(axes: Any, theme: str, grid: str) -> None:
    axes.patch.set_alpha(0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT[theme])
    axes.grid(axis=grid, color=FAINT[theme], linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK[theme])
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(INK[theme])


def name_rows(axes: Any, names: Sequence[str]) -> None:
    """Names down the left side, the first on top."""
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)


def label(name: str) -> str:
    """A name as a picture can show it: a long one on several lines, never cut."""
    lines = []
    while len(name) > LINE:
        at = max(name.rfind(separator, 0, LINE) for separator in "_-./, ") + 1 or LINE
        lines.append(name[:at].rstrip())
        name = name[at:]
    return printable("\n".join([*lines, name]))


def _width(name: str) -> int:
    """Letters of the longest line of its label."""
    return max(map(len, label(name).split("\n")))


def chart(draw: Callable[[str], Figure], alt: str) -> Chart:
    """What `draw` makes of "light" and "dark", as SVG."""
    addresses = []
    for theme in ("light", "dark"):
        svg = io.BytesIO()
        _save(draw, theme, svg, format="svg", metadata={"Date": None, "Creator": None})
        addresses.append("data:image/svg+xml;base64," + base64.b64encode(svg.getvalue()).decode())
    return Chart(addresses[0], addresses[1], alt)


def png(draw: Callable[[str], Figure], path: Path) -> None:
    """The light picture as a file, for slides."""
    _save(draw, "light", path, format="png", dpi=160, metadata={"Software": None})


def _save(draw: Callable[[str], Figure], theme: str, to: Any, **options: Any) -> None:
    # parse_math off: a dollar sign in a task id is no formula. hashsalt: the same report gives the same bytes.
    with mpl.rc_context({"text.parse_math": False, "svg.hashsalt": "raypipe", "svg.fonttype": "none", "font.size": 10}):
        mpl.rcParams["font.family"] = "sans-serif"
        with warnings.catch_warnings():
            # text stays text in the SVG: a letter that matplotlib's own font lacks, the reader's font has
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            draw(theme).savefig(to, transparent=options["format"] == "svg", **options)
