"""Report -> files: `report.html` for people, `metrics.json` for programs."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from raypipe.findings.page.html import html
from raypipe.findings.page.report import Report
from raypipe.runs.folder import refuse_links


def write_report(report: Report, folder: Path) -> Path:
    """Write both files into `folder` (made if missing) and return the path of report.html.

    metrics.json holds every field but the heat maps: it never holds note text.
    """
    refuse_links(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "report.html"
    page.write_text(html(report), encoding="utf-8")
    numbers = json.dumps(metrics(report), indent=2, allow_nan=False)
    (folder / "metrics.json").write_text(numbers + "\n", encoding="utf-8")
    return page


def metrics(report: Report) -> dict[str, Any]:
    """The report as plain JSON values; what is not finite becomes null."""
    values = {f.name: getattr(report, f.name) for f in dataclasses.fields(report) if f.name != "heat_maps"}
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
