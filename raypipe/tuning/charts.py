"""Pictures of a search: heat maps, learning curves, effects of parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from raypipe.findings.page.figures import COLOURS, FAINT, GREY, INK, canvas, label, name_rows
from raypipe.tuning.analysis import Results, Setting, short, show
from raypipe.tuning.stability import Effect

Draw = Callable[[str], Figure]
MAP = "YlGnBu"
LEAST_SPAN = 0.03  # of macro F1 or AUC, from the lightest to the darkest colour
DARK_FIELD = 0.55  # share of the scale above which white letters are read more easily


def heat_map(results: Results) -> Draw:
    """Mean of the metric (points) by the two axes, with its interval and the number of trials; the best is framed.

    Colours run over this model's own values, and over LEAST_SPAN at least: noise is not to look like a landscape.
    """
    down = results.levels[results.keys[0]]
    across = results.levels[results.keys[1]] if len(results.keys) > 1 else [None]
    values = [setting.estimate.value for setting in results.settings]
    middle, span = (max(values) + min(values)) / 2, max(max(values) - min(values), LEAST_SPAN)

    def draw(theme: str) -> Figure:
        figure, axes = canvas(theme, height=1.1 + 0.82 * len(down))
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        for setting in results.settings:
            share = (setting.estimate.value - middle) / span + 0.5
            x, y = across.index(setting.values[1]) if len(setting.values) > 1 else 0, down.index(setting.values[0])
            colour, ink = colormaps[MAP](0.06 + 0.86 * share), "#ffffff" if share > DARK_FIELD else "#14202b"
            _field(axes, x, y, setting, colour, ink, frame=INK[theme] if setting is results.best else None)
        name_rows(axes, [show(value) for value in down])
        axes.set_xlim(-0.5, len(across) - 0.5)
        axes.set_xticks(range(len(across)), [_column_name(results, value) for value in across])
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_ylabel(label(short(results.keys[0])), color=INK[theme])
        if len(results.keys) > 1:
            axes.set_xlabel(label(results.keys[1]))
        return figure

    return draw


def _field(axes: Any, x: int, y: int, setting: Setting, colour: Any, ink: str, frame: str | None) -> None:
    """One setting: its mean, interval and number of trials in `ink`; in a `frame` if it is the best."""
    box = {"facecolor": colour, "edgecolor": frame or "none", "linewidth": 2.4, "zorder": 3 if frame else 2}
    axes.add_patch(Rectangle((x - 0.475, y - 0.46), 0.95, 0.92, **box))
    e, text = setting.estimate, {"ha": "center", "va": "center", "color": ink, "zorder": 4}
    axes.text(x, y - 0.13, f"{100 * e.value:.1f}", fontsize=13, weight="bold", **text)
    detail = f"[{100 * e.low:.1f}, {100 * e.high:.1f}]   n={len(setting.trial_ids)}"
    axes.text(x, y + 0.22, detail, fontsize=8.5, **text)


def _column_name(results: Results, value: Any) -> str:
    """A level of the axis across; a fraction of the depth also as the layer that it is in this model."""
    if len(results.keys) < 2 or short(results.keys[1]) != "layer" or not isinstance(value, float):
        return show(value) if value is not None else ""
    layers = {s.layer for s in results.settings if s.values[1] == value}
    return f"{show(value)} (layer {layers.pop()})" if len(layers) == 1 and value < 1 else show(value)


def curves(points: Mapping[str, Sequence[tuple[float, float]]], best: Sequence[str], metric: str) -> Draw:
    """The metric (its name) by epoch of fine-tuning, a line per trial; those of the best setting in colour."""

    def draw(theme: str) -> Figure:
        figure, axes = canvas(theme, height=3.3)
        for trial_id, line in sorted(points.items(), key=lambda item: item[0] in best):
            is_best = trial_id in best
            colour = COLOURS[theme][0] if is_best else GREY[theme]
            style = {"linewidth": 2.0 if is_best else 1.0, "alpha": 1.0 if is_best else 0.45}
            axes.plot(*np.transpose([(x, 100 * y) for x, y in line]), color=colour, marker="o", markersize=3, **style)
        for name, colour in (("best setting", COLOURS[theme][0]), ("other trials", GREY[theme])):
            axes.plot([], [], color=colour, label=name)
        axes.legend(loc="lower right", frameon=False, labelcolor=INK[theme])
        axes.set_xlabel("epochs of fine-tuning")
        axes.set_ylabel(f"dev {metric}, points", color=INK[theme])
        axes.grid(axis="y", color=FAINT[theme], linewidth=0.7)
        axes.xaxis.get_major_locator().set_params(integer=True)
        return figure

    return draw


def effects(by_model: Mapping[str, Sequence[Effect]], metric: str) -> Draw:
    """Share of the variance of `metric` (its name) that each parameter explains, a bar per model.

    The mark is what a parameter without effect would reach.
    """
    keys = list(dict.fromkeys(effect.key for of_model in by_model.values() for effect in of_model))

    def draw(theme: str) -> Figure:
        figure, axes = canvas(theme, height=0.8 + (0.2 + 0.24 * len(by_model)) * len(keys))
        thick = 0.75 / len(by_model)
        for m, (model, of_model) in enumerate(by_model.items()):
            colour = COLOURS[theme][m % len(COLOURS[theme])]
            for effect in of_model:
                y = keys.index(effect.key) + (m + 0.5) * thick - 0.375
                axes.barh(y, 100 * effect.share, height=0.85 * thick, color=colour)
                axes.plot([100 * effect.by_chance] * 2, [y - thick / 2, y + thick / 2], color=INK[theme], linewidth=1.8)
            axes.barh([0], [0], color=colour, label=label(model))
        name_rows(axes, [short(key) if short(key) != "seed" else key for key in keys])
        axes.set_xlabel(f"share of the variance of dev {metric}, %")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, labelcolor=INK[theme])
        return figure

    return draw
