"""Every page in a real browser: at three widths, light and dark, with scripts and without, by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from raypipe.evaluation.uncertainty import PairedDifference
from raypipe.findings.finetunings import Gain
from raypipe.findings.gates import Gate
from raypipe.findings.page.heatmap import HeatMap, Panel
from raypipe.findings.page.report import Report
from raypipe.findings.page.write import write_report
from raypipe.tuning import search_report
from tests.chromium import PROGRAM, Browser, browser
from tests.findings.test_report import estimate, full_report, probing, task_answers
from tests.findings.test_summary import variant
from tests.tuning.searches import made_search

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine (apt-get install chromium)")

N_TASKS = 60
LONG = "specialty_cardiovascular_pulmonary_and_something_else_of_all"
LOOKS = list(product((390, 820, 1440), ("light", "dark")))


def run_report() -> Report:
    """Many tasks, one with a long name, and a note that was cut."""
    ids = [LONG, *(f"task_{i:02d}" for i in range(1, N_TASKS))]
    text = "Nega febbre e tosse. " * 12
    words = [(i * 21, i * 21 + 4) for i in range(12)]
    panels = [Panel(arm, [words[2]], [0.1 * i for i in range(12)], "1 of 12") for arm in ("random_word", "decselfmask")]
    return replace(
        full_report("decselfmask"),
        summary="Two ways were compared.",
        tasks={arm: {t: estimate(0.5 + i / 300 * k) for i, t in enumerate(ids)} for k, arm in enumerate(("sft", "x"))},
        answers={"x": {task_id: task_answers(task_id) for task_id in ids}},
        heat_maps=(HeatMap("n1: fever?", text, words, panels, [words[1]], "true label: “sì”", (0, 150)),),
    )


def comparison_report() -> Report:
    pair = PairedDifference("x", "y", estimate(-0.031, 0.01), {"t": -0.031}, 1, 2, 9, 0.001, 0.0321)
    gain = Gain(
        "short", None, 40, "2 epochs at 0.001", "x", estimate(0.6), estimate(0.7), estimate(0.02), estimate(0.01)
    )
    return replace(
        full_report("plain"),
        heat_maps=(),
        pairs=(pair,),
        budgets={"8": {"plain": estimate(0.51)}, "all": {"plain": estimate(0.62)}},
        gains=(gain, replace(gain, finetuning="long", n_steps=400)),
        gates=(Gate("a", None, 0, None, "add one: `random_init: {start: random}`"),),
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    faithful = tuple(variant(name, value, value / 2) for name, value in (("a layer 0", 0.3), ("random", 0.0)))
    reports = {
        "run": run_report(),
        "comparison": comparison_report(),
        "probing": Report("probing", summary="x", probing=probing("x")),
        "faithfulness": Report(
            "faithfulness", summary="x", faithfulness=faithful, where_to_start="No variant is first."
        ),
    }
    written = {name: write_report(report, folder / name) for name, report in reports.items()}
    search = made_search()
    page = search_report.write(search, search_report.model_pages(search), folder / "search")
    return written | {"search": page}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("name", ["run", "comparison", "probing", "faithfulness", "search"])
def test_each_page_at_each_width_in_both_themes(name: str, pages: dict[str, Path], tab: Browser) -> None:
    backgrounds = set()
    for width, theme in LOOKS:
        tab.open(pages[name], width, theme)
        tab.js("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert tab.js("document.documentElement.scrollWidth") <= width, "the page itself never scrolls sideways"
        loaded = "[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt.length > 0)"
        assert tab.js(loaded)
        source = "i.parentNode.firstElementChild.srcset" if theme == "dark" else "i.src"
        assert tab.js(f"[...document.images].every(i => i.currentSrc === {source})")
        # letters of a plot: 10 points on a picture of 8.6 inches
        assert tab.js("Math.min(...[...document.images].map(i => i.clientWidth / 619))") > 0.95, "legible plots"
        backgrounds.add(tab.js("getComputedStyle(document.body).backgroundColor"))
        wide = "[...document.querySelectorAll('.scroll')].filter(b => b.scrollWidth > b.clientWidth + 1)"
        assert tab.js(f"{wide}.every(b => b.classList.contains('wide') && b.tabIndex === 0)"), (
            "a hint and a way to scroll"
        )
        assert tab.js("document.querySelector('.summary').textContent.length") > 0
        assert tab.js("document.querySelectorAll('.terms dt').length") > 0
        assert not tab.complaints
        picture = pages[name].with_name(f"{width}-{theme}.png")  # kept where pytest keeps its folders: look at them
        tab.picture(picture)
        assert int.from_bytes(picture.read_bytes()[16:20], "big") == width, "the width in a PNG's head"
    assert len(backgrounds) == 2


def test_tables_sort_by_a_click_and_by_the_keyboard(pages: dict[str, Path], tab: Browser) -> None:
    tab.open(pages["run"], 1440, "light")
    tab.js("window.table = [...document.querySelectorAll('#tasks table')][0]; table.closest('details').open = true")
    column = "[...table.tBodies[0].rows].map(r => parseFloat(r.cells[2].textContent))"
    button = "table.tHead.rows[0].cells[2].querySelector('button')"
    tab.js(f"{button}.click()")
    assert tab.js("table.tHead.rows[0].cells[2].ariaSort") == "ascending"
    rising = tab.js(column)
    assert rising == sorted(rising)
    assert rising[0] < rising[-1]
    tab.js(f"{button}.focus()")
    tab.press("Enter")
    assert tab.js(column) == rising[::-1]
    assert tab.js("table.tHead.rows[0].cells[2].ariaSort") == "descending"


def test_long_tables_can_be_searched(pages: dict[str, Path], tab: Browser) -> None:
    tab.open(pages["run"], 390, "dark")
    tab.js("window.table = document.querySelector('#answers table'); table.closest('details').open = true")
    tab.js("window.field = table.parentNode.previousElementSibling.querySelector('input'); field.focus()")
    tab.ask("Input.insertText", text="cardiovascular")
    assert tab.js("[...table.tBodies[0].rows].filter(r => r.offsetHeight > 0).map(r => r.cells[0].textContent)") == [
        LONG
    ]
    assert tab.js("field.parentNode.querySelector('output').textContent") == f"1 of {N_TASKS} rows"
    assert tab.js("field.ariaLabel") == "Search this table"


def test_details_open_by_the_keyboard(pages: dict[str, Path], tab: Browser) -> None:
    tab.open(pages["run"], 820, "light")
    tab.js("window.summary = document.querySelector('#heat-maps .panels + details summary'); summary.focus()")
    tab.press("Enter")
    assert tab.js("summary.parentNode.open")
    words = tab.js("[...summary.parentNode.querySelectorAll('tbody tr')].map(r => r.cells[0].textContent)")
    assert len(words) == 12


def test_without_scripts_nothing_is_missing_and_nothing_is_dead(pages: dict[str, Path], tab: Browser) -> None:
    tab.open(pages["run"], 1440, "light", scripts=False)
    root = tab.ask("DOM.getDocument")["root"]["nodeId"]
    count = lambda what: len(tab.ask("DOM.querySelectorAll", nodeId=root, selector=what)["nodeIds"])  # noqa: E731
    assert count("button") == count("input") == 0
    assert count("#answers table tbody tr") == N_TASKS * 3  # rates, and two true labels
    assert count("#tasks tbody tr") == N_TASKS


def test_print_opens_what_is_closed(pages: dict[str, Path], tab: Browser) -> None:
    tab.open(pages["run"], 1440, "dark")
    tab.ask("Emulation.setEmulatedMedia", media="print")
    tab.js("document.querySelectorAll('details').forEach(d => { d.open = false; })")
    assert tab.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.js("document.querySelector('#answers tbody tr').getBoundingClientRect().height") > 0
