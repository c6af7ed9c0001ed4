"""The command line: one command per step, one for the whole job (app.py). Files by what a user does."""

from __future__ import annotations

# The order is that of `raypipe --help`.
# ruff: isort: skip_file
from raypipe.cli.app import app, main
from raypipe.cli.before import init, check, preview, plan, import_
from raypipe.cli.steps import pretrain, finetune, attribute, faithfulness, mask, train, evaluate, probe, repair
from raypipe.cli.jobs import run, compare, canaries, report, tune, tune_report
from raypipe.cli.looking import show, status, list_, schema, clean
from raypipe.cli.data import export, import_spans
from raypipe.cli.cluster import SUBMITTED, parsed, submit, upload, download, bundle

__all__ = [
    "SUBMITTED",
    "app",
    "attribute",
    "bundle",
    "canaries",
    "check",
    "clean",
    "compare",
    "download",
    "evaluate",
    "export",
    "faithfulness",
    "finetune",
    "import_",
    "import_spans",
    "init",
    "list_",
    "main",
    "mask",
    "parsed",
    "plan",
    "pretrain",
    "preview",
    "probe",
    "repair",
    "report",
    "run",
    "schema",
    "show",
    "status",
    "submit",
    "train",
    "tune",
    "tune_report",
    "upload",
]
