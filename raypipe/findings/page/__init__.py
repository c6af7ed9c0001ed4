"""Metrics -> tables, figures and one HTML file."""

from raypipe.findings.page.heatmap import HeatMap, Panel
from raypipe.findings.page.report import ArmRow, Report, arm_rows
from raypipe.findings.page.text import text_table
from raypipe.findings.page.write import write_report

__all__ = [
    "ArmRow",
    "HeatMap",
    "Panel",
    "Report",
    "arm_rows",
    "text_table",
    "write_report",
]
