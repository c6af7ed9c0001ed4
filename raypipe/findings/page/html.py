"""A report as one HTML page that needs no network, and no script to be complete.

Names and note text come from outside: jinja escapes everything, nothing is marked safe, the only inline styles are
numbers of ours, and the page's own policy forbids frames, any address but data: images, and every script but the one
whose hash it names (script.js: sorts and searches tables).
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from itertools import islice
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from raypipe.evaluation.uncertainty import CAVEATS, Estimate, caveats_of
from raypipe.findings.page import figures, heatmap
from raypipe.findings.page.report import Report, outcome, verdict
from raypipe.findings.page.terms import terms_of
from raypipe.findings.probing import shown
from raypipe.guard.terminal import printable
from raypipe.runs import progress

MINUS, NOTHING = "\u2212", "\u2013"
CAVEAT_MARKS = dict(zip(CAVEATS, "†‖‡¶§◊", strict=True))


def html(report: Report) -> str:
    """The page. Characters that it cannot carry become U+FFFD."""
    # where a gate failed, there is no picture that invites a ranking
    differing = [(r.name, r.difference.estimate) for r in report.arms if r.difference and not report.failed_gates]
    calibrated = dict(islice(report.calibration.items(), figures.MAX_ARMS))
    return _template().render(
        report=report,
        outcome=outcome,
        verdict_of={row.name: verdict(row, report) for row in report.arms},
        forest=figures.differences(differing, report.reference) if differing else None,
        gains=figures.gains(report.gains, report.reference) if report.gains else None,
        per_task=figures.per_task(report.tasks, report.reference) if report.tasks else [],
        faithfulness=figures.faithfulness(report.faithfulness) if report.faithfulness else None,
        layers=figures.layers(report.probing) if report.probing else None,
        shown=shown,
        calibration=figures.calibration(calibrated, report.reference) if calibrated else None,
        training=figures.training(report.curves, report.reference) if report.curves else None,
        n_answer_rows=sum(len(task.classes) for of_arm in report.answers.values() for task in of_arm.values()),
        task_ids=list(next(iter(report.tasks.values()), {})),
        used_caveats=_used_caveats(report),
        caveat_marks=CAVEAT_MARKS,
        stretches=heatmap.stretches,
        ranked=heatmap.ranked,
        max_chars=heatmap.MAX_CHARS,
        shades=range(1, heatmap.SHADES + 1),
        max_tasks=figures.MAX_TASKS,
        max_arms=figures.MAX_ARMS,
        total_seconds=sum(step.seconds for step in report.steps),
    )


@cache
def _template() -> Template:
    return environment().get_template("template.html")


def environment(*folders: Path) -> Environment:
    """Templates of these folders and of this one, everything escaped, with our number formats."""
    templates = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # type, not isinstance: what jinja has escaped already is a subclass of str, and must stay one
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    templates.filters |= {"points": points, "signed": signed, "count": count, "duration": duration, "plain": plain}
    script = templates.get_template("script.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    templates.globals |= {"terms_of": terms_of, "script_hash": f"sha256-{digest}"}
    return templates


def points(share: float | None) -> str:
    """0.6234 -> 62.3; nothing measured -> an en dash."""
    return NOTHING if share is None or share != share else f"{100 * share:.1f}".replace("-", MINUS)


def signed(share: float) -> str:
    """0.031 -> +3.1."""
    return f"{100 * share:+.1f}".replace("-", MINUS)


def count(number: float | None) -> str:
    """12345 -> 12,345; a thin dash for nothing."""
    return NOTHING if number is None else f"{number:,}"


def plain(number: float | None) -> str:
    """A measured value of unknown unit: up to three decimals."""
    return NOTHING if number is None else f"{number:.3f}".rstrip("0").rstrip(".").replace("-", MINUS)


def duration(seconds: float) -> str:
    """7.21 -> 7.2 s, 75 -> 1 min 15 s."""
    return f"{seconds:.1f} s" if seconds < 60 else progress.duration(seconds)


def _used_caveats(report: Report) -> dict[str, str]:
    """Mark -> sentence, of the caveats that some estimate of the tables of differences has."""
    estimates: list[Estimate] = [row.macro_f1 for row in report.arms]
    estimates += [pair.estimate for pair in report.pairs]
    estimates += [row.difference.estimate for row in report.arms if row.difference]
    estimates += [e for row in report.gains for e in (row.gain, row.auc_gain) if e]
    return {CAVEAT_MARKS[caveat]: sentence for caveat, sentence in caveats_of(estimates).items()}
