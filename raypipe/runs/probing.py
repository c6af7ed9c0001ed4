"""`raypipe probe`: what can be read off the frozen states of every layer of the backbone and of the arms' students.

Two steps per student: `states/<student>` (one forward pass over the labelled notes; kept, so that another head starts
from it) and `probe/<student>` (classifiers). Both resume. The page lies in `<run>/probe`; `raypipe report` shows the
same curves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.settings import config, configfile
from raypipe.stream import pipeline
from raypipe.errors import InputError, Problem
from raypipe.evaluation.baselines import best_of_states
from raypipe.evaluation.layer_scores import best_layers, layer_scores
from raypipe.findings.page.layer_curves import BACKBONE, Probing
from raypipe.findings.page.report import Report
from raypipe.findings.page.text import text_table
from raypipe.findings.page.write import write_report
from raypipe.runs.run import Run
from raypipe.runs.folder import Step, settings_of, versions


@dataclass(frozen=True)
class Student:
    """A model to probe."""

    name: str  # backbone, train/<arm> or finetune/<arm>: its folder under states/ and probe/
    run: Run  # where it was learned: the arm may have a run of its own
    needs: str | None  # the step that makes it
    model: config.Model


def probe(run: Run) -> Path:
    """Probe every student that the config asks for, print the table, and return the page's path."""
    wanted = list(students(run))
    missing = [s.run.folder / s.needs for s in wanted if s.needs is not None and _finished(s.run, s.needs) is None]
    if missing:
        hint = "run `raypipe run` first, or leave it out by probe.after or probe.arms"
        raise InputError([Problem(str(folder), f"is not finished; {hint}") for folder in missing])
    for student in wanted:
        _probed(student)
    built = report(run)
    page = write_report(built, run.folder / "probe")
    print(text_table(built))
    return page


def students(run: Run) -> Iterator[Student]:
    """The backbone, then the arms in their order; of repeated fine-tunings the first."""
    asked = run.settings.probe
    yield backbone(run)
    seen: set[str] = set()
    for stage in asked.after:
        for arm in asked.arms if asked.arms is not None else run.settings.arms:
            own = run.of(arm)
            if not (own.reconstructs(arm) if stage == "train" else own.settings.arms[arm].finetune):
                continue  # no step of its own: what it starts from is probed
            student = arm if stage == "train" else own.student_of(arm)
            name = f"{stage}/{student}"
            if name not in seen:
                yield Student(name, own, name, own.model(student, stage))
            seen.add(name)


def backbone(run: Run) -> Student:
    """Where every student starts."""
    return Student(BACKBONE, run, "pretrain" if run.pretrains else None, run.backbone)


def backbone_answers(run: Run) -> pa.Table | None:
    """The baseline `embeddings_logistic`, if the backbone was probed with that head."""
    step = _finished(run, f"probe/{BACKBONE}")
    is_baseline = step is not None and run.settings.probe.head == "logistic"
    return best_of_states(pq.read_table(step.data)) if step is not None and is_baseline else None


def probe_backbone(run: Run) -> None:
    """The backbone alone, for that baseline."""
    _probed(backbone(run))


def found(run: Run) -> Probing | None:
    """What the finished probes say; None if the backbone was not probed."""
    if _finished(run, f"probe/{BACKBONE}") is None:
        return None
    steps = {student.name: _finished(student.run, f"probe/{student.name}") for student in students(run)}
    probed = {name: pq.read_table(step.data) for name, step in steps.items() if step is not None}
    tasks, n_bootstrap, seed = run.corpus.tasks, run.settings.evaluation.bootstrap, run.settings.seed
    scores = layer_scores(probed, tasks, n_bootstrap, seed)
    best = best_layers(probed, scores, tasks, BACKBONE, n_bootstrap, seed)
    return Probing(run.settings.probe.head, scores, best)


def report(run: Run) -> Report:
    """A page of the probes alone."""
    return Report(
        title=f"raypipe: {run.settings.name}, probing",
        subtitle=f"frozen states, {run.settings.probe.head} heads, {len(run.corpus.tasks)} tasks",
        probing=found(run),
        facts={**versions(), "seed": str(run.settings.seed)},
        config=configfile.dump(run.settings),
    )


def _probed(student: Student) -> None:
    run, step = student.run, student.run.step(f"probe/{student.name}")
    if not step.done:
        stored = _states(student)
        run.say(f"probe/{student.name}: {run.settings.probe.head} heads on every layer")
        pipeline.probe(run.settings, run.corpus, stored.data, run.cluster, step.data)
        step.finish(answers=pq.read_table(step.data, columns=[]).num_rows)


def _states(student: Student) -> Step:
    run, step = student.run, student.run.step(f"states/{student.name}")
    if not step.done:
        run.say(f"states/{student.name}: one pass over the labelled notes")
        pipeline.states(run.settings, run.corpus, student.model, run.cluster, step.data)
        size = sum(path.stat().st_size for path in step.data.glob("*.parquet"))
        step.finish(notes=pq.read_table(step.data, columns=[]).num_rows, megabytes=round(size / 1e6, 1))
    return step


def _finished(run: Run, name: str) -> Step | None:
    """The step, if it is complete; unlike `Run.step`, asking leaves no folder behind."""
    return run.finished(name, settings_of(name, run.settings, run.corpus.listing))
