"""The report's tables as aligned plain text, for the terminal. Holds no note text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raypipe.evaluation.faithfulness_table import where_to_start
from raypipe.evaluation.uncertainty import CAVEATS, Estimate
from raypipe.findings.page.layer_curves import shown
from raypipe.findings.page.report import ArmRow, Report, outcome, verdict
from raypipe.findings.probing import Probing
from raypipe.guard.terminal import printable


def text_table(report: Report) -> str:
    """Headline, agreement, gates and methods, as far as the report has them; macro F1, AUC and shares in points."""
    parts = [_headline(report), _pairs(report), _budgets(report), _gains(report), _material(report)]
    parts += [_agreement(report), _gates(report), _conformal(report), _faithfulness(report), _probing(report.probing)]
    return "\n\n".join(part for part in parts if part)


def _headline(report: Report) -> str:
    if not report.arms:
        return ""
    lines = [["arm", "macro F1", "95 % interval", f"vs {report.reference}", "95 % interval", "W/T/L"]]
    lines[0] += ["p (Holm)", "AUC", "AUC difference", "F1 matched", "F1 cv", "verdict"]
    lines += [_arm(row, report) for row in report.arms]
    notes = [f"  note: {_one_line(f'{name}: {what}')}" for name, what in report.remarks.items()]
    return "\n".join([_align(lines), *_caveats(report), *notes])


def _caveats(report: Report) -> Iterator[str]:
    """A line for each caveat, with the arms it holds for, or does not, whichever are fewer."""
    for caveat, sentence in CAVEATS.items():
        has_it = {row.name: any(caveat in e.caveats for e in _estimates(row)) for row in report.arms}
        those, others = ([name for name, has in has_it.items() if has is wanted] for wanted in (True, False))
        if those:
            on = f" on {', '.join(those)}" if len(those) <= len(others) else f" on all but {', '.join(others)}"
            yield _one_line(f"  note{on if others else ''}: {sentence}")


def _estimates(row: ArmRow) -> list[Estimate]:
    return [row.macro_f1, *([row.difference.estimate] if row.difference else [])]


def _arm(row: ArmRow, report: Report) -> list[str]:
    cells = [row.name, _points(row.macro_f1.value), f"[{_points(row.macro_f1.low)}, {_points(row.macro_f1.high)}]"]
    if row.difference:
        e, d = row.difference.estimate, row.difference
        cells += [
            f"{100 * e.value:+.1f}",
            f"[{100 * e.low:+.1f}, {100 * e.high:+.1f}]",
            f"{d.wins}/{d.ties}/{d.losses}",
            f"{d.p_holm:.3f}",
        ]
    else:
        cells += ["", "", "", ""]
    by_auc = "" if row.auc_difference is None else _signed(row.auc_difference)
    return [*cells, _points(row.auc), by_auc, _points(row.matched_f1), _points(row.cv_f1), verdict(row, report)]


def _signed(e: Estimate) -> str:
    return f"{100 * e.value:+.1f} [{100 * e.low:+.1f}, {100 * e.high:+.1f}]"


def _pairs(report: Report) -> str:
    lines = [["arm", "against", "macro F1", "W/T/L", "p (Holm)", "verdict"]]
    for d in report.pairs:
        tasks = f"{d.wins}/{d.ties}/{d.losses}"
        lines.append([d.arm, d.reference, _signed(d.estimate), tasks, f"{d.p_holm:.3f}", outcome(d, report)])
    return _align(lines) if report.pairs else ""


def _budgets(report: Report) -> str:
    lines = [["macro F1 by labels per task", *report.budgets, ""]]
    for arm in report.arms_by_budget:
        of_arm = [estimates.get(arm) for estimates in report.budgets.values()]
        shown = ["-" if e is None else f"{_points(e.value)} [{_points(e.low)}, {_points(e.high)}]" for e in of_arm]
        lines.append([arm, *shown, ""])
    return _align(lines) if report.budgets else ""


def _gains(report: Report) -> str:
    lines = [["fine-tuning", "labels", "steps", "settings", "arm", "macro F1", "gain", "AUC", "gain in AUC", ""]]
    for row in report.gains:
        measured = [(row.macro_f1, row.gain), (row.auc, row.auc_gain)]
        shown = [cell for e, gain in measured for cell in (_points(e.value), "" if gain is None else _signed(gain))]
        lines.append([row.finetuning, row.labels, f"{row.n_steps:,}", row.settings, row.arm, *shown, ""])
    return _align(lines) if report.gains else ""


def _material(report: Report) -> str:
    lines = [["learned from", "masking ratio", "words to hide", "tokens with a loss", "tokens read", "steps", ""]]
    for m in report.material:
        counts = (m.planned_words, m.weighted_tokens, m.read_tokens, m.optimiser_steps)
        ratio = "-" if m.masking_ratio is None else f"{m.masking_ratio:.4f}"
        lines.append([m.arm, ratio, *("-" if n is None else f"{n:,}" for n in counts), ""])
    return _align(lines) if report.material else ""


def _agreement(report: Report) -> str:
    if not report.agreement:
        return ""
    lines = [["relevance", "top words that decide", "95 % interval", "chance", "least relevant", "AP", "AP by chance"]]
    for row in report.agreement:
        a = row.agreement
        interval = f"[{_points(a.hit_interval[0])}, {_points(a.hit_interval[1])}]"
        shares = (a.chance, a.least_relevant_share, a.average_precision, a.average_precision_chance)
        lines.append([row.name, f"{_points(a.hit_share)} %", interval, *(_points(share) for share in shares)])
    return _align(lines)


def _gates(report: Report) -> str:
    lines = [["gate", "measured", "threshold", "outcome"]]
    for gate in report.gates:
        outcome = {True: "passed", False: "FAILED", None: "not measurable"}[gate.passed]
        numbers = ["-" if x is None else f"{x:.3f}" for x in (gate.measured, gate.threshold)]
        lines.append([gate.name, *numbers, outcome])
    return _align(lines) if report.gates else ""


def _faithfulness(report: Report) -> str:
    if not report.faithfulness:
        return ""
    lines = [["relevance", "compreh.", "suffic.", "soft NC", "soft NS", "reversed", "vs random", "95 % interval"]]
    lines[0] += ["vs best", "95 % interval"]
    lines[0] += ["top words that decide", "chance", "least relevant", "seconds", ""]
    for row in report.faithfulness:
        found = row.agreement
        shares = (row.comprehensiveness, row.sufficiency, row.soft_nc, row.soft_ns, row.reversed, row.vs_random)
        decide = (found.hit_share, found.chance, found.least_relevant_share) if found else (None, None, None)
        interval = f"[{_points(row.vs_random_low)}, {_points(row.vs_random_high)}]"
        behind = [_points(row.vs_best), f"[{_points(row.vs_best_low)}, {_points(row.vs_best_high)}]"]
        cells = [row.variant, *map(_points, shares), interval, *behind, *map(_points, decide), f"{row.seconds:.1f}", ""]
        lines.append(cells)
    parts = (report.subtitle, report.summary, _align(lines), where_to_start(report.faithfulness))
    return "\n".join(part for part in parts if part)


def _conformal(report: Report) -> str:
    lines = [["prediction sets", "wanted", "coverage", "mean size", "single answers", ""]]
    for arm, sets in report.conformal.items():
        shares = (_points(1 - sets.alpha), _points(sets.coverage), f"{sets.size:.2f}", _points(sets.singletons))
        lines.append([arm, *shares, ""])
    return _align(lines) if report.conformal else ""


def _probing(probing: Probing | None) -> str:
    if probing is None:
        return ""
    lines = [["probe, best layer", "layer", "pooling", "macro F1", "95 % interval", "vs backbone", "selectivity", ""]]
    for best in probing.best:
        e, beyond = best.score.macro_f1, best.score.selectivity
        cells = [shown(best.score.student), str(best.score.layer), best.score.pooling, _points(e.value)]
        cells += [f"[{_points(e.low)}, {_points(e.high)}]", _signed(best.difference) if best.difference else ""]
        lines.append([*cells, _points(beyond.value if beyond else None), ""])
    return _align(lines)


def _points(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _one_line(text: str) -> str:
    """A name must not break the table."""
    return printable(text).replace("\n", " ").replace("\t", " ")


def _align(lines: Sequence[Sequence[str]]) -> str:
    """First and last column to the left, the others to the right; a rule below the head."""
    lines = [[_one_line(cell) for cell in line] for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    outer = {0, len(widths) - 1}
    rows = [
        "  ".join(c.ljust(w) if i in outer else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    return "\n".join(row.rstrip() for row in [rows[0], "-" * len(rows[0]), *rows[1:]])
