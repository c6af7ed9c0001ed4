"""Metrics -> tables, figures and one HTML file."""

from raypipe.reporting.heatmap import HeatMap, Panel
from raypipe.reporting.report import AgreementRow, ArmRow, Gate, Material, Report, Step, arm_rows
from raypipe.reporting.text import text_table
from raypipe.reporting.write import write_report

__all__ = [
    "AgreementRow",
    "ArmRow",
    "Gate",
    "HeatMap",
    "Material",
    "Panel",
    "Report",
    "Step",
    "arm_rows",
    "text_table",
    "write_report",
]
