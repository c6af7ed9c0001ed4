"""The pages of `raypipe probe` and `raypipe faithfulness`; that of a run or comparison is results.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raypipe.evaluation.agreement import Agreement
from raypipe.evaluation.faithfulness_table import FaithfulnessRow, where_to_start
from raypipe.evaluation.operating_point import wilson
from raypipe.findings import summary
from raypipe.findings.page.report import Report
from raypipe.findings.page.text import text_table
from raypipe.findings.page.write import write_report
from raypipe.findings.probing import curves
from raypipe.guard.terminal import say
from raypipe.records import of_json, versions, write_csv
from raypipe.runs.faithfulness import MEASURED
from raypipe.runs.run import Run
from raypipe.settings import configfile


def probing_page(run: Run) -> Path:
    """Write the page of the finished probes, print their table, and return the page's path."""
    probing = curves(run)
    report = Report(
        title=f"raypipe: {run.settings.name}, probing",
        subtitle=f"frozen states, {run.settings.probe.head} heads, {len(run.corpus.tasks)} tasks",
        summary=summary.of_probing(probing, len(run.corpus.tasks)),
        probing=probing,
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
    agreements = [row["agreement"] and of_json(Agreement, row["agreement"]) for row in measured["rows"]]
    rows = [FaithfulnessRow(**row | {"agreement": a}) for row, a in zip(measured["rows"], agreements, strict=True)]
    title = f"{measured['questions']} questions on {measured['notes']} labelled {measured['split']} notes"
    has_learned = None  # measured before this was recorded
    if "one_answer" in measured:
        has_learned = wilson(measured["scorer_accuracy"], measured["questions"])[0] > measured["one_answer"]
    report = Report(
        title=f"raypipe: {run.settings.name}, faithfulness",
        subtitle=f"{title}, tasks and labels in turn",
        summary=summary.of_faithfulness(rows, title, measured["scorer_accuracy"], has_learned),
        faithfulness=tuple(rows),
        where_to_start=where_to_start(rows, has_learned),
        counts={"questions": measured["questions"], "notes": measured["notes"]},
        **_about(run),
    )
    table = text_table(report)
    say(table)
    (folder / "table.txt").write_text(table + "\n")
    write_csv(folder / "table.csv", [row.flat() for row in rows])
    return write_report(report, folder)


def _about(run: Run) -> dict[str, Any]:
    facts = {**versions(), "seed": str(run.settings.seed)}
    return {"facts": facts, "config": configfile.dump(run.settings)}
