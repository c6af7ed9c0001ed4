"""Everything that can be wrong with a run, before any actor starts, and all at once.

report = check(config)                  # raises InputError with every problem
report, problems = examine(config)      # both, with what may spoil a run without stopping it
print(report)                           # one line per task, then warnings
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from raypipe.errors import InputError, Problem
from raypipe.notes.corpus import Corpus
from raypipe.runs.checking import of_model, of_settings, of_tables
from raypipe.runs.checking.check_report import CheckReport
from raypipe.runs.checking.collector import Collector
from raypipe.runs.checking.folded import folded
from raypipe.runs.checking.survey import survey
from raypipe.settings.config import Config
from raypipe.training import trackers


def check(config: Config, corpus: Corpus | None = None, with_model: bool = True) -> CheckReport:
    """Check config, tasks, labels, notes and model against each other.

    `corpus`: tables that passed this check before; only what other settings may have changed is checked again.
    `with_model`: False where the model need not be there yet. Raises
    `InputError` with every problem. Does not import ray; needs torch and transformers for the model only.
    """
    report, problems = _checked(config, corpus, with_model)
    if problems:
        raise InputError(problems)
    return report


def examine(config: Config) -> tuple[CheckReport, list[Problem]]:
    """The report, and every problem. Looks closer than `check`: at samples of the notes, and at their tokens."""
    report, problems = _checked(config, None)
    problems += trackers.problems(config.tracking)
    if report.is_generated or not report.n_notes:
        return report, problems
    encoder = None
    has_no_model = any(problem.where == "model.path" for problem in problems)
    if (model := of_model.tokenizer_of(config)) is not None and not has_no_model:
        with suppress(InputError):  # is among the problems
            encoder = of_model.encoder_of(config.model_copy(update={"model": model}), report.tasks)
    try:
        closer = survey(config, report.tasks, report.labels, encoder)
    except InputError as error:
        return report, folded([*problems, *error.problems])
    of_template = of_model.system_texts(config, encoder) if encoder is not None else ()
    return replace(report, lines=closer.lines, warnings=[*report.warnings, *closer.warnings, *of_template]), problems


def _checked(config: Config, corpus: Corpus | None, with_model: bool = True) -> tuple[CheckReport, list[Problem]]:
    tried = Collector()
    tried(lambda: tried.problems.extend(of_settings.problems(config)))
    if corpus is not None:
        report = CheckReport(corpus.tasks, corpus.labels, corpus.facts["notes"])
    elif config.data.source == "synthetic":  # the tables are made, and checked, when the run starts
        report = CheckReport(is_generated=True)
    else:
        report = of_tables.read(config, tried)
    if report.tasks and (report.labels.num_rows or not tried.problems):
        tried.problems += of_tables.of_splits(config, report.labels)
    if with_model:
        tried(lambda: tried.problems.extend(of_model.problems(config, report.tasks)))
    return replace(report, scored=config.evaluation.split), folded(
        of_tables.in_tasks_file(problem, config.data) for problem in tried.problems
    )
