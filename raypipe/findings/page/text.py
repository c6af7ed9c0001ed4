"""The report's tables as aligned plain text, as wide as the terminal at most. Holds no note text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from raypipe.evaluation.uncertainty import CAVEATS, Estimate
from raypipe.findings.page.report import ArmRow, Report, outcome, verdict
from raypipe.findings.probing import Probing, shown
from raypipe.guard.tables import align, columns, one_line


def text_table(report: Report) -> str:
    """Headline, agreement, gates and methods, as far as the report has them; macro F1, AUC and shares in points."""
    parts = [_headline(report), _beside(report), _pairs(report), _budgets(report), _gains(report), _material(report)]
    parts += [_agreement(report), _gates(report), _conformal(report), _faithfulness(report), _probing(report.probing)]
    parts += [] if report.faithfulness else [_wrapped(report.summary)]
    return "\n\n".join(part for part in parts if part)


def _headline(report: Report) -> str:
    if not report.arms:
        return ""
    lines = [["arm", "macro F1", "95 % interval", f"vs {report.reference}", "95 % interval", "W/T/L", "AUC", "verdict"]]
    lines += [_arm(row, report) for row in report.arms]
    warnings = [_wrapped(f"  warning: {sentence}", "    ") for sentence in report.single_answers]
    notes = [_wrapped(f"  note: {name}: {what}", "    ") for name, what in report.remarks.items()]
    return "\n".join([align(lines), *warnings, *_caveats(report), *notes])


def _caveats(report: Report) -> Iterator[str]:
    """A line for each caveat, with the arms it holds for, or does not, whichever are fewer."""
    for caveat, sentence in CAVEATS.items():
        has_it = {row.name: any(caveat in e.caveats for e in _estimates(row)) for row in report.arms}
        those, others = ([name for name, has in has_it.items() if has is side] for side in (True, False))
        if those:
            on = f" on {', '.join(those)}" if len(those) <= len(others) else f" on all but {', '.join(others)}"
            yield _wrapped(f"  note{on if others else ''}: {sentence}", "    ")


def _estimates(row: ArmRow) -> list[Estimate]:
    return [row.macro_f1, *([row.difference.estimate] if row.difference else [])]


def _arm(row: ArmRow, report: Report) -> list[str]:
    cells = [row.name, _points(row.macro_f1.value), _interval(row.macro_f1.low, row.macro_f1.high), "", "", ""]
    if row.difference:
        e, d = row.difference.estimate, row.difference
        signed, interval = f"{100 * e.value:+.1f}", f"[{100 * e.low:+.1f}, {100 * e.high:+.1f}]"
        cells[3:] = [signed, interval, f"{d.wins}/{d.ties}/{d.losses}"]
    return [*cells, _points(row.auc), verdict(row, report)]


def _beside(report: Report) -> str:
    """What else is measured of an arm."""
    lines = []
    for row in report.arms:
        p = f"{row.difference.p_holm:.3f}" if row.difference else ""
        by_auc = "" if row.auc_difference is None else _signed(row.auc_difference)
        lines.append([row.name, p, by_auc, _points(row.matched_f1), _points(row.cv_f1), ""])
    return _table(["arm", "p (Holm)", "AUC difference", "F1 matched", "F1 cv", ""], lines)


def _interval(low: float, high: float) -> str:
    return f"[{_points(low)}, {_points(high)}]"


def _signed(e: Estimate) -> str:
    return f"{100 * e.value:+.1f} [{100 * e.low:+.1f}, {100 * e.high:+.1f}]"


def _pairs(report: Report) -> str:
    lines = []
    for d in report.pairs:
        tasks = f"{d.wins}/{d.ties}/{d.losses}"
        lines.append([d.arm, d.reference, _signed(d.estimate), tasks, f"{d.p_holm:.3f}", outcome(d, report)])
    return _table(["arm", "against", "macro F1", "W/T/L", "p (Holm)", "verdict"], lines)


def _budgets(report: Report) -> str:
    lines = []
    for arm in report.arms_by_budget:
        of_arm = [estimates.get(arm) for estimates in report.budgets.values()]
        shown = ["-" if e is None else f"{_points(e.value)} {_interval(e.low, e.high)}" for e in of_arm]
        lines.append([arm, *shown, ""])
    return _table(["macro F1 by labels per task", *report.budgets, ""], lines)


def _gains(report: Report) -> str:
    lines = []
    for row in report.gains:
        measured = [(row.macro_f1, row.gain), (row.auc, row.auc_gain)]
        shown = [cell for e, gain in measured for cell in (_points(e.value), "" if gain is None else _signed(gain))]
        lines.append([row.finetuning, str(row.labels or "all"), f"{row.n_steps:,}", row.settings, row.arm, *shown, ""])
    head = ["fine-tuning", "labels", "steps", "settings", "arm", "macro F1", "gain", "AUC", "gain in AUC", ""]
    return _table(head, lines)


def _material(report: Report) -> str:
    lines = []
    for m in report.material:
        counts = (m.planned_words, m.weighted_tokens, m.read_tokens, m.optimiser_steps)
        ratio = "-" if m.masking_ratio is None else f"{m.masking_ratio:.4f}"
        lines.append([m.arm, ratio, *("-" if n is None else f"{n:,}" for n in counts), ""])
    head = ["learned from", "masking ratio", "words to hide", "tokens with a loss", "tokens read", "steps", ""]
    return _table(head, lines)


def _agreement(report: Report) -> str:
    lines = []
    for row in report.agreement:
        a = row.agreement
        shares = map(_points, (a.chance, a.least_relevant_share))
        lines.append([row.name, f"{_points(a.hit_share)} %", _interval(*a.hit_interval), *shares, ""])
    return _table(["relevance", "top words that decide", "95 % interval", "chance", "least relevant", ""], lines)


def _gates(report: Report) -> str:
    lines = []
    for gate in report.gates:
        outcome = {True: "passed", False: "FAILED", None: "not measurable"}[gate.passed]
        numbers = ["-" if x is None else f"{x:.3f}" for x in (gate.measured, gate.threshold)]
        lines.append([gate.name, "needed" if gate.is_needed else "not needed", *numbers, outcome])
    reasons = [
        _wrapped(f"  {gate.name}: {gate.detail}", "    ")
        for gate in report.gates
        if gate.passed is None and gate.is_needed and gate.detail
    ]
    return "\n".join([_table(["gate", "for a ranking", "measured", "threshold", "outcome"], lines), *reasons])


def _faithfulness(report: Report) -> str:
    """Two tables: what decides, and what stands beside it."""
    if not report.faithfulness:
        return ""
    first = [["relevance", "compreh.", "vs random", "95 % interval", "vs best", "95 % interval", ""]]
    second = [["relevance", "suffic.", "reversed", "soft NC", "soft NS", "words that decide", "chance", "least", "s"]]
    for row in report.faithfulness:
        random, best = _interval(row.vs_random_low, row.vs_random_high), _interval(row.vs_best_low, row.vs_best_high)
        first.append(
            [row.variant, *map(_points, (row.comprehensiveness, row.vs_random)), random, _points(row.vs_best), best, ""]
        )
        a = row.agreement
        decide = (a.hit_share, a.chance, a.least_relevant_share) if a else (None, None, None)
        shares = (row.sufficiency, row.reversed, row.soft_nc, row.soft_ns, *decide)
        second.append([row.variant, *map(_points, shares), f"{row.seconds:.1f}"])
    parts = [report.subtitle, _wrapped(report.summary), align(first), align(second), _wrapped(report.where_to_start)]
    return "\n\n".join(filter(None, parts))


def _conformal(report: Report) -> str:
    lines = []
    for arm, sets in report.conformal.items():
        shares = (_points(1 - sets.alpha), _points(sets.coverage), f"{sets.size:.2f}", _points(sets.singletons))
        lines.append([arm, *shares, ""])
    return _table(["prediction sets", "wanted", "coverage", "mean size", "single answers", ""], lines)


def _probing(probing: Probing | None) -> str:
    lines = []
    for best in probing.best if probing is not None else ():
        e, beyond = best.score.macro_f1, best.score.selectivity
        cells = [shown(best.score.student), str(best.score.layer), best.score.pooling, _points(e.value)]
        cells += [_interval(e.low, e.high), _signed(best.difference) if best.difference else ""]
        lines.append([*cells, _points(beyond.value if beyond else None), ""])
    head = ["probe, best layer", "layer", "pooling", "macro F1", "95 % interval", "vs backbone", "selectivity", ""]
    return _table(head, lines)


def _points(share: float | None) -> str:
    return "-" if share is None or share != share else f"{100 * share:.1f}"


def _wrapped(text: str, indent: str = "") -> str:
    return "\n".join(textwrap.wrap(one_line(text), columns(), subsequent_indent=indent, break_on_hyphens=False))


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Nothing if there are no lines."""
    return align([head, *lines]) if lines else ""
