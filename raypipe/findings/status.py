"""Where a run stands: its steps and arms, what is missing, and the command that goes on. Looks only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from raypipe.errors import InputError
from raypipe.runs import compare, driver
from raypipe.runs.folder import State
from raypipe.runs.run import Run
from raypipe.runs.steps import named
from raypipe.settings import configfile
from raypipe.settings.config import Arm

SAYS = {
    State.ABSENT: "-",
    State.UNFINISHED: "unfinished: the same command goes on",
    State.FINISHED: "finished",
    State.OUTGROWN: "finished, before arms were added",
    State.OTHER: "made with other settings",
}


def status(run: Run, config: Path) -> str:
    """The page of a run, or of a comparison with a line per cell. `config`: what named it, for the next command.

    Raises `InputError` if input files are not there.
    """
    if (run.folder / "cells").exists():
        lines, n_missing, command = _of_comparison(run)
    else:
        lines, n_missing, command = _of_run(run)
    page = run.folder / "report" / "report.html"
    following = f"next: raypipe {command} --config {config}" if n_missing else "nothing is missing"
    report = [f"report: {page if page.exists() else '-'}", following]
    return "\n".join([f"{run.settings.name}: {run.folder}", "", *lines, "", *report])


def _of_run(run: Run) -> tuple[list[str], int, str]:
    """A line per step that all arms share, and per arm; how many steps are missing, and the command that makes them."""
    shared = _used(run, driver.shared_steps(run))
    width = max(map(len, [*shared, *run.settings.arms]))
    lines = [f"{name:{width}}  {_state(run, name)}" for name in shared]
    lines += ["", *(f"{arm:{width}}  {_of_arm(run, arm, shared)}" for arm in run.settings.arms)]
    missing = driver.missing_in_job(run)
    lines += ["", f"{len(missing)} steps are missing, {missing[0].name} first"] if missing else []
    return lines, len(missing), "run"


def _of_comparison(run: Run) -> tuple[list[str], int, str]:
    """A line per cell that was begun; how many cells are not finished."""
    begun = compare.opened(run)
    lines = [f"cells/{cell.name}: {_share(of_cell)}" for cell, of_cell in begun.items()]
    n_cells = len(compare.cells(run))
    finished = sum(not driver.missing_in_job(of_cell) for of_cell in begun.values())
    return [*lines, "", f"{finished} of {n_cells} cells finished"], n_cells - finished, "compare"


def overview(runs: Path) -> str:
    """A line per run in a folder. A run whose config or input cannot be read says so."""
    folders = sorted(path.parent for path in runs.glob("*/config.yaml"))
    if not folders:
        raise InputError(f"no run in {runs}: name a config or the folder of a run with --config")
    width = max(len(folder.name) for folder in folders)
    return "\n".join(f"{folder.name:{width}}  {_line(folder)}" for folder in folders)


def _line(folder: Path) -> str:
    try:
        run = Run(configfile.load(folder))
        report = "report" if (folder / "report" / "report.html").exists() else "no report"
        n_cells = len(list((folder / "cells").glob("*/config.yaml")))
        return f"{_share(run)}, {report}" + (f", {n_cells} cells" if n_cells else "")
    except InputError as error:
        return f"cannot be read: {error.problems[0]}"


def _used(run: Run, names: Iterable[str]) -> list[str]:
    """Those that this config has a use for, each once."""
    return [
        name
        for name in dict.fromkeys(names)
        if named(name).kind.is_used(run.settings, run.settings.arms.get(named(name).arm, Arm()))
    ]


def _state(run: Run, name: str) -> str:
    step = run.of(named(name).arm).step(name)
    seconds = step.manifest.get("seconds") if step.is_readable else None
    time = f", {seconds:,.1f} s" if isinstance(seconds, int | float) else ""
    return SAYS[step.state] + time


def _of_arm(run: Run, arm: str, shared: Sequence[str]) -> str:
    """How many of the arm's own steps are finished, and the others by name. The scorer's training is shared."""
    own = run.of(arm)
    names = [name for name in _used(run, driver.steps_of(own, arm)) if name not in shared]
    others = [name for name in names if not own.is_done(name)]
    return f"{len(names) - len(others)} of {len(names)} steps" + (f"; missing: {', '.join(others)}" if others else "")


def _share(run: Run) -> str:
    names = _used(run, driver.all_steps(run))
    done = sum(run.of(named(name).arm).is_done(name) for name in names)
    return f"{done} of {len(names)} steps finished"
