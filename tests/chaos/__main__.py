"""`python -m tests.chaos`: draws faults, strikes jobs with them, lets the same command go on, and compares with twins.

Prints a line per fault and the sums; the exit code is 1 if a row, step or file was lost, doubled or differs, or if a
struck command ended with another code, or more words, than is documented.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, cycle, islice
from pathlib import Path

from raypipe import cli
from raypipe.errors import ExitCode
from raypipe.runs import integrity, lock
from raypipe.training.trackers import TensorBoard
from tests.chaos import attempts, faults, jobs, on_ray, twins
from tests.chaos.attempts import Attempt, Moment
from tests.chaos.faults import AFTER, FAULTS, READ, START, Fault
from tests.chaos.jobs import JOBS, Job
from tests.chaos.twins import Verdict

MOST_ATTEMPTS = 3  # of the same command after a fault
REFUSED = ExitCode.CONFIG  # of a second job


@dataclass
class Stage:
    """Where the jobs are made: their config, and beside it the folder of runs, in which all of them are at home."""

    folder: Path
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # events of each job's twin

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def ray_config(self) -> Path:
        return self.folder / "ray.yaml"

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

    def __str__(self) -> str:
        return f"{self.job.name}: {self.fault.name}"


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
            return f"{moment.kind}, {moment.at} of {highest} ({where})", list(_ill_ended(attempt, code, drawn, where))
        highest = max(1, highest * 3 // 4)  # this attempt took less than the twin, and is done
        drawn.job.begin(stage.twin(JOBS[WHOLE]), stage.runs)


def _ill_ended(attempt: Attempt, code: int, drawn: Drawn, where: str) -> Iterator[str]:
    said = attempt.log.read_text(errors="replace")
    partial = {ExitCode.PARTIAL} if drawn.job.is_partial else set()
    if drawn.kind == READ:  # libraries do without some files; the comparison tells
        partial |= {ExitCode.OK}
    if TensorBoard.FILES in where:  # a copy of the numbers: its failure is told, and stops no training
        partial = {ExitCode.OK} if "tracking failed" in said else set()
    if code not in drawn.fault.ends | partial:
        yield f"{drawn.fault.name}: exit code {code}: {_last_line(attempt)}"
    if "Traceback" in said:
        yield f"{drawn.fault.name}: a traceback"


def _two_at_once(stage: Stage, drawn: Drawn, dice: random.Random) -> tuple[str, list[str]]:
    """The second one begins and ends while the first, which stands still meanwhile, has the lock."""
    first = attempts.start(drawn.job, stage.config, stage.runs)
    while first.is_alive and not any(path.stat().st_size for path in stage.runs.glob(f"*/{lock.NAME}")):
        time.sleep(0.001)
    if not first.is_alive:
        return "no lock", [f"a job that nobody disturbs ends without a lock: {_last_line(first)}"]
    os.kill(first.pid, signal.SIGSTOP)
    try:
        refused = attempts.start(drawn.job, stage.config, stage.runs).ended()
    finally:
        os.kill(first.pid, signal.SIGCONT)
    codes = [first.ended(), refused]
    return f"exit codes {codes}", [] if codes == [0, REFUSED] else [f"two jobs at once end with {codes}"]


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


def disturb_ray(stage: Stage, fault: on_ray.RayFault, dice: random.Random) -> tuple[str, list[str], Verdict]:
    """`disturb`, with Ray."""
    twin, wrong, logs = stage.twin(fault.of), [], (stage.folder / f"ray{n}.log" for n in count())
    fault.of.begin(stage.twin(JOBS[WHOLE]), stage.runs)
    process = on_ray.start(fault, stage.ray_config, log := next(logs))
    if fault.process:
        if not on_ray.strike(fault, process, dice):
            wrong.append(f"{fault.name}: there was no such process")
        code = on_ray.ended(process)
        if code not in on_ray.ENDS or "Traceback" in log.read_text(errors="replace"):
            wrong.append(f"{fault.name}: exit code {code}: {_last(log)}")
    else:
        second = on_ray.start(fault, stage.ray_config, next(logs))
        codes = {on_ray.ended(process), on_ray.ended(second)}
        if codes != {0, REFUSED}:
            wrong.append(f"two jobs at once end with {codes}")
    if fault.process and code != 0:
        again = on_ray.ended(on_ray.start(fault, stage.ray_config, log := next(logs)))
        if again != 0:
            wrong.append(f"{fault.name}: the same command ends with {again}: {_last(log)}")
    return f"exit code {code}" if fault.process else f"exit codes {codes}", wrong, twins.compare(twin, stage.runs)


def _last_line(attempt: Attempt) -> str:
    return _last(attempt.log)


def _last(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or ["nothing said"])[-1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=100, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--jobs", nargs="+", default=[job.name for job in JOBS], help="which jobs; default: all")
    parser.add_argument("--ray", nargs="*", type=int, help="also faults with Ray: their numbers; none named: all")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # threads of a library would be lost in the forks
    for module, _ in faults.STAGES.values():  # imported once, not by each attempt
        __import__(module)
    import transformers  # noqa: F401

    began, total, wrong, n_faults = time.perf_counter(), Verdict(), [], 0
    drawn = draw(options.faults, options.seed, options.jobs)
    on_its_ray = on_ray.FAULTS if options.ray == [] else [on_ray.FAULTS[number] for number in options.ray or ()]
    with tempfile.TemporaryDirectory(prefix="chaos") as folder:
        stage = Stage(Path(folder).resolve())
        jobs.write_config(stage.config, stage.runs)
        jobs.write_config(stage.ray_config, stage.runs, ray=True)
        for one in (*drawn, *on_its_ray):
            n_faults += 1
            dice = random.Random(f"{options.seed} {n_faults}")
            where, ill, verdict = disturb(stage, one, dice) if isinstance(one, Drawn) else disturb_ray(stage, one, dice)
            is_well = verdict.is_equal and not ill
            print(f"{n_faults:3} {one}: {where}: {'as the twin' if is_well else 'NOT AS THE TWIN'}", flush=True)
            for line in (*ill, *verdict.names[:5]):
                print(f"      {line}", flush=True)
            wrong += ill
            total.add(verdict)
    print(
        f"faults {n_faults}, lost {total.lost}, duplicated {total.duplicated}, differing {total.differing}, "
        f"ill-ended {len(wrong)}; seed {options.seed}, {(time.perf_counter() - began) / 60:.1f} minutes"
    )
    return 0 if total.is_equal and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
