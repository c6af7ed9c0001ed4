"""Colours that stay apart for colour-blind readers; names that are never cut."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from raypipe.findings.page import figures
from raypipe.findings.training_curves import Curve
from raypipe.runs.names import SCORER

# how red, green and blue light is seen without one kind of cone (Machado, Oliveira & Fernandes 2009, severity 1)
SEEN = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
PAGE = {"light": "#ffffff", "dark": "#1a2027"}


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    f = np.cbrt(np.maximum(XYZ @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883], 0.008856))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("sight", SEEN)
def test_no_two_arms_look_alike(theme: str, sight: str) -> None:
    colours = (figures.REFERENCE[theme], *figures.COLOURS[theme])
    assert len(colours) == figures.MAX_ARMS
    seen = {colour: lab(np.asarray(SEEN[sight]) @ linear(colour)) for colour in colours}
    for a, b in itertools.combinations(colours, 2):
        assert np.linalg.norm(seen[a] - seen[b]) > 15, (a, b)  # 2 to 3 is just noticeable


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_stands_out_from_the_page(theme: str) -> None:
    light = {c: float(XYZ[1] @ linear(c)) for c in (PAGE[theme], *figures.COLOURS[theme], figures.REFERENCE[theme])}
    for colour in light:
        high, low = sorted((light[colour], light[PAGE[theme]]), reverse=True)
        assert colour == PAGE[theme] or (high + 0.05) / (low + 0.05) >= 3, colour


def test_long_names_are_broken_and_not_cut() -> None:
    name = "specialty_cardiovascular_pulmonary_and_something_else_of_the_department"
    assert figures.label(name).replace("\n", "") == name
    assert max(map(len, figures.label(name).split("\n"))) <= figures.LINE
    assert figures.label("sft") == "sft"
    assert figures.label("x" * 70) == "\n".join(["x" * 32, "x" * 32, "x" * 6])


def test_the_reference_is_drawn_in_ink_wherever_it_stands() -> None:
    styles = dict(figures._styles("light", ["a", "sft", "b"], "sft"))
    assert styles["sft"]["color"] == figures.REFERENCE["light"]
    assert [styles[arm]["color"] for arm in "ab"] == list(figures.COLOURS["light"][:2])
    both, alone = (dict(figures._styles("light", arms, "sft")) for arms in (["sft", SCORER], [SCORER, "a"]))
    assert both[SCORER]["color"] != both["sft"]["color"], "a scorer of its own is another line"
    assert alone[SCORER]["color"] == figures.REFERENCE["light"]


def test_the_loss_takes_the_room_of_a_dev_score_that_a_stage_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, loss, rate = (1, 2, 3), (3.0, 2.0, 1.0), (0.1, 0.1, 0.1)
    curves = [
        Curve("train/a", steps, loss, rate, ()),
        Curve("finetune/scorer", steps, loss, rate, ((3, 1.5),), ((1, 0.31), (3, 0.33))),
        Curve("finetune/a", steps, loss, rate, ((3, 1.5),), ((1, 0.32), (3, 0.36))),
    ]
    monkeypatch.setattr(figures, "chart", lambda draw, alt: draw("light"))
    figure: Any = figures.training(curves, "scorer")
    rows = [(axes.get_subplotspec().colspan.start, list(axes.get_subplotspec().rowspan)) for axes in figure.axes]
    assert rows == [(0, [0, 1]), (0, [2]), (1, [0]), (1, [1]), (1, [2])]
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["loss, nats per token", "learning rate", "", "dev macro F1", ""]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "optimiser step", "", "", "optimiser step"]
    low, high = figure.axes[3].get_ylim()
    assert (low < 31, high > 36, high - low) == (True, True, pytest.approx(20)), "five points are no mountain"
    without: Any = figures.training([replace(curve, learning_rate=(), dev_f1=()) for curve in curves], "scorer")
    assert len(without.axes) == 2
