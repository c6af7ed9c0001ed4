"""The pages of `raypipe probe` and `raypipe faithfulness`; that of a run or comparison is results.py."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raypipe.evaluation.agreement import Agreement
from raypipe.evaluation.faithfulness_table import FaithfulnessRow
from raypipe.findings.page.report import Report
from raypipe.findings.page.text import text_table
from raypipe.findings.page.write import write_report
from raypipe.findings.probing import curves
from raypipe.guard.terminal import say
from raypipe.records import versions
from raypipe.runs.faithfulness import MEASURED
from raypipe.runs.run import Run
from raypipe.settings import configfile


def probing_page(run: Run) -> Path:
    """Write the page of the finished probes, print their table, and return the page's path."""
    report = Report(
        title=f"raypipe: {run.settings.name}, probing",
        subtitle=f"frozen states, {run.settings.probe.head} heads, {len(run.corpus.tasks)} tasks",
        probing=curves(run),
        **_about(run),
    )
    say(text_table(report))
    return write_report(report, run.folder / "probe")


def faithfulness_page(run: Run) -> Path:
    """Write page and tables of a finished `raypipe faithfulness`, print the table, and return the page's path."""
    folder = run.needed("faithfulness").output
    if not (folder / MEASURED).exists():  # of an earlier version, which left the page and the printed table alone
        say((folder / "table.txt").read_text().rstrip("\n"))
        return folder / "report.html"
    measured = json.loads((folder / MEASURED).read_text())
    rows = [FaithfulnessRow(**row | {"agreement": _agreement(row["agreement"])}) for row in measured["rows"]]
    right = 100 * measured["scorer_accuracy"]
    title = f"{measured['questions']} questions on {measured['notes']} labelled {measured['split']} notes"
    report = Report(
        title=f"raypipe: {run.settings.name}, faithfulness",
        subtitle=f"{title}, tasks and labels in turn",
        summary=f"The scorer answers {right:.1f} % of them right; if that is chance, the table says little.",
        faithfulness=tuple(rows),
        counts={"questions": measured["questions"], "notes": measured["notes"]},
        **_about(run),
    )
    table = text_table(report)
    say(table)
    (folder / "table.txt").write_text(table + "\n")
    _write_csv(rows, folder / "table.csv")
    return write_report(report, folder)


def _about(run: Run) -> dict[str, Any]:
    facts = {**versions(), "seed": str(run.settings.seed)}
    return {"facts": facts, "config": configfile.dump(run.settings)}


def _agreement(values: dict[str, Any] | None) -> Agreement | None:
    """JSON has no tuples."""
    if values is None:
        return None
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Agreement(**plain)


def _write_csv(rows: Sequence[FaithfulnessRow], path: Path) -> None:
    """One line per variant, best first."""
    table: list[dict[str, Any]] = [row.flat() for row in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table[0].keys())
        writer.writeheader()
        writer.writerows(table)
