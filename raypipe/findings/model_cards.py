"""Model cards with figures: those of the arms' models, and what the report measured.

A model's own README.md is listed by the manifest of its step and stays as it is; the complete card lies in the folder
of the report, to replace it where the model is passed on.
"""

from __future__ import annotations

from pathlib import Path

from raypipe.evaluation.uncertainty import CAVEATS
from raypipe.findings.page.report import ArmRow, Report
from raypipe.runs import integrity
from raypipe.runs.model_card import FIGURES
from raypipe.runs.run import Run


def write(run: Run, report: Report, folder: Path) -> None:
    """Write `<arm>.md` into `folder` for each arm in the table whose first student's model has a card."""
    finetuned = [row for row in report.arms if row.name in run.settings.arms and run.settings.arms[row.name].finetune]
    for row in finetuned:  # the others are baselines, and the backbone as it is
        of_arm = run.of(row.name)
        step = of_arm.step(f"finetune/{of_arm.student_of(row.name)}").path
        card = step / "model" / "README.md"
        if (step / integrity.MANIFEST).exists() and card.exists():
            folder.mkdir(exist_ok=True)
            about = card.read_text(encoding="utf-8").partition(FIGURES)[0]
            (folder / f"{row.name}.md").write_text(f"{about}{FIGURES}\n\n{_figures(row, report)}", encoding="utf-8")


def _figures(row: ArmRow, report: Report) -> str:
    f1 = row.macro_f1
    lacks = "".join(f" Note: {CAVEATS[caveat]}." for caveat in f1.caveats)
    runs = "1 run" if f1.n_runs == 1 else f"{f1.n_runs:,} runs (seeds and repeats)"
    lines = [
        f"Of the arm `{row.name}` over {f1.n_tasks:,} tasks and {runs}, of which this model is one; "
        f"intervals are of 95 %.{lacks}",
        "",
        "| measure | mean | interval |",
        "|---|---|---|",
        f"| macro F1 | {f1.value:.3f} | {f1.low:.3f} to {f1.high:.3f} |",
    ]
    if row.difference is not None:
        d = row.difference.estimate
        lines.append(
            f"| macro F1, difference from `{report.reference}` | {d.value:+.3f} | {d.low:+.3f} to {d.high:+.3f} |"
        )
    if row.auc is not None:
        lines.append(f"| AUC | {row.auc:.3f} | |")
    lines += [
        f"| macro F1 of task `{task}` | {of_task.value:.3f} | {of_task.low:.3f} to {of_task.high:.3f} |"
        for task, of_task in report.tasks.get(row.name, {}).items()
    ]
    return "\n".join(lines) + "\n"
