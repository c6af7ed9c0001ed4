"""`python -m tests.chaos`: draws faults, strikes jobs with them, lets the same command go on, and compares with twins.

Prints a line per fault and the sums; the exit code is 1 if a row, step or file was lost, doubled or differs, or if a
struck command ended with another code, or more words, than is documented.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path

from raypipe import cli
from raypipe.runs import integrity
from tests.chaos import attempts, faults, jobs, twins
from tests.chaos.attempts import Attempt, Moment
from tests.chaos.faults import AFTER, CPU, FAULTS, STAGE, START, Fault
from tests.chaos.jobs import JOBS, Job
from tests.chaos.twins import Verdict

MOST_ATTEMPTS = 3  # of the same command after a fault
REFUSED = 2  # the exit code of a second job


@dataclass
class Stage:
    """Where the jobs are made: their config, and beside it the folder of runs, in which all of them are at home."""

    folder: Path
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # events of each job's twin

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def twin(self, job: Job) -> Path:
        """What the job leaves if nothing disturbs it; made once."""
        twin, whole = self.folder / f"twin {job.name}", JOBS[WHOLE]
        if not twin.exists():
            job.begin(self.runs if job is whole else self.twin(whole), self.runs)
            attempt = attempts.start(job, self.config, self.runs)
            if (code := attempt.ended()) != 0:
                sys.exit(f"{job.name} fails undisturbed, exit code {code}:\n{attempt.log.read_text()}")
            self.counts[job.name] = attempt.counts
            self.runs.rename(twin)
        return twin


WHOLE = next(number for number, job in enumerate(JOBS) if "." in job.missing)


@dataclass(frozen=True)
class Drawn:
    """One fault, at one job, in one kind of place."""

    job: Job
    fault: Fault
    kind: str


def draw(n: int, seed: int, names: Sequence[str]) -> list[Drawn]:
    """Every fault at every job in a random order, and from the beginning again until there are `n`."""
    chosen = [job for job in JOBS if job.name in names]
    every = [Drawn(job, fault, kind) for job in chosen for fault in FAULTS for kind in fault.where]
    random.Random(seed).shuffle(every)
    return list(islice(cycle(every), n))


def disturb(stage: Stage, drawn: Drawn, dice: random.Random) -> tuple[str, list[str], Verdict]:
    """Strike, go on, compare. Returns where it struck, what went wrong on the way, and the comparison."""
    job, fault, twin = drawn.job, drawn.fault, stage.twin(drawn.job)
    if drawn.kind == AFTER:
        where, wrong = _damaged(stage, drawn, twin, dice)
    else:
        job.begin(stage.twin(JOBS[WHOLE]), stage.runs)
        where, wrong = (_two_at_once if drawn.kind == START else _struck)(stage, drawn, dice)
    for _ in range(MOST_ATTEMPTS):
        again = attempts.start(job, stage.config, stage.runs)
        if (code := again.ended()) == 0:
            break
        wrong.append(f"{fault.name}: the same command ends with {code}: {_last_line(again)}")
    return where, wrong, twins.compare(twin, stage.runs)


def _struck(stage: Stage, drawn: Drawn, dice: random.Random) -> tuple[str, list[str]]:
    """An attempt that meets the fault."""
    highest = stage.counts[drawn.job.name][drawn.kind]
    while True:
        moment = Moment(drawn.kind, dice.randint(1, highest))
        attempt = attempts.start(drawn.job, stage.config, stage.runs, drawn.fault, moment)
        code = attempt.ended()
        if (where := attempt.struck) is not None:
            return f"{moment.kind}, {moment.at} of {highest} ({where})", list(_ill_ended(attempt, code, drawn.fault))
        highest = max(1, highest * 3 // 4)  # this attempt took less than the twin, and is done
        drawn.job.begin(stage.twin(JOBS[WHOLE]), stage.runs)


def _ill_ended(attempt: Attempt, code: int, fault: Fault) -> Iterator[str]:
    said = attempt.log.read_text(errors="replace")
    if code not in fault.ends:
        yield f"{fault.name}: exit code {code}: {_last_line(attempt)}"
    if "Traceback" in said:
        yield f"{fault.name}: a traceback"


def _two_at_once(stage: Stage, drawn: Drawn, dice: random.Random) -> tuple[str, list[str]]:
    both = [attempts.start(drawn.job, stage.config, stage.runs) for _ in range(2)]
    codes = sorted(attempt.ended() for attempt in both)
    wrong = [] if codes in ([0, REFUSED], [0, 0]) else [f"two jobs at once end with {codes}"]  # 0, 0: not at once
    return f"exit codes {codes}", wrong


def _damaged(stage: Stage, drawn: Drawn, twin: Path, dice: random.Random) -> tuple[str, list[str]]:
    """A finished job, of whose output a file is damaged: that must be found, and repaired by its command."""
    shutil.rmtree(stage.runs, ignore_errors=True)
    shutil.copytree(twin, stage.runs)
    path = dice.choice(drawn.job.outputs(stage.runs))
    drawn.fault.strike(path)
    step = next(parent for parent in path.parents if (parent / integrity.MANIFEST).exists())
    repair = replace(drawn.job, work=lambda config: cli.app(["repair", str(step)], standalone_mode=False))
    repaired = attempts.start(repair, stage.config, stage.runs)
    code = repaired.ended()
    found = "deleted" in repaired.log.read_text()
    return str(path.relative_to(stage.runs)), [] if code == 0 and found else [f"{drawn.fault.name}: is not found"]


def _last_line(attempt: Attempt) -> str:
    return (attempt.log.read_text(errors="replace").strip().splitlines() or ["nothing said"])[-1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=100, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--jobs", nargs="+", default=[job.name for job in JOBS], help="which jobs; default: all")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # threads of a library would be lost in the forks
    for module, _ in faults.STAGES.values():  # imported once, not by each attempt
        __import__(module)
    import transformers  # noqa: F401

    began, total, wrong = time.perf_counter(), Verdict(), []
    with tempfile.TemporaryDirectory(prefix="chaos") as folder:
        stage = Stage(Path(folder).resolve())
        jobs.write_config(stage.config, stage.runs)
        for number, drawn in enumerate(draw(options.faults, options.seed, options.jobs)):
            dice = random.Random(f"{options.seed} {number}")
            where, ill, verdict = disturb(stage, drawn, dice)
            said = f"{number + 1:3} {drawn.job.name}: {drawn.fault.name}: {where}"
            print(f"{said}: {'as the twin' if verdict.is_equal and not ill else 'NOT AS THE TWIN'}", flush=True)
            for line in (*ill, *verdict.names[:5]):
                print(f"      {line}", flush=True)
            wrong += ill
            total.lost += verdict.lost
            total.duplicated += verdict.duplicated
            total.differing += verdict.differing
    print(
        f"faults {options.faults}, lost {total.lost}, duplicated {total.duplicated}, differing {total.differing}, "
        f"ill-ended {len(wrong)}; seed {options.seed}, {(time.perf_counter() - began) / 60:.1f} minutes"
    )
    return 0 if total.is_equal and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
