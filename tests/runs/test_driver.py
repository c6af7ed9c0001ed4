"""The driver reads one table: a step that is added to it is made, resumed, reported as missing and fingerprinted."""

from __future__ import annotations

import errno
import os
import platform
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from raypipe.errors import ExitCode, InputError, Problem
from raypipe.runs import driver, steps
from raypipe.runs.folder import State, StepFolder
from raypipe.runs.run import Run
from raypipe.runs.steps import Step
from tests.small_run import TRAINING, settings


def _count(run: Run, folder: StepFolder, student: str) -> dict[str, Any]:
    """The whole of an added step: how many labels the corpus has."""
    (folder.path / "count.txt").write_text(str(len(run.corpus.labels)))
    return {"labels": len(run.corpus.labels), "student": student}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose table has two more steps, one of the run and one of each student."""
    added = (
        *steps.STEPS,
        Step(name="count", make=_count, settings=("seed",), after=("corpus",)),
        Step(name="count/{student}", make=_count, settings=("probe.folds",), after=("count",), command="count"),
    )
    monkeypatch.setattr(steps, "STEPS", added)
    monkeypatch.setattr(steps, "ORDER", {step.name: place for place, step in enumerate(added)})
    monkeypatch.setattr(driver, "STEPS", added)
    return Run(settings(tmp_path, repeats=2, arms={"sft": {}})).open()


def _fragment(run: Run, folder: StepFolder, student: str) -> dict[str, Any]:
    """Fill the heap with blocks too small for pages of their own, and free all but the last."""
    blocks = [bytes(100_000) for _ in range(3_000)]
    run.kept = blocks[-1]  # type: ignore[attr-defined]
    del blocks
    return {"resident": psutil.Process().memory_info().rss}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory so")
def test_memory_that_a_step_has_freed_goes_back_to_the_system(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the driver of a search holds gigabytes that its trials need."""
    fragment = Step(name="fragment", make=_fragment, settings=("seed",))
    monkeypatch.setattr(steps, "STEPS", (*steps.STEPS, fragment))
    monkeypatch.setattr(steps, "ORDER", {step.name: place for place, step in enumerate(steps.STEPS)})
    driver.make(run, ["fragment"])
    resident = run.step("fragment").manifest["resident"]
    assert resident - psutil.Process().memory_info().rss > 200_000_000, "of 300 MB"


def test_an_added_step_is_one_entry_and_one_function(run: Run) -> None:
    assert "count" in driver.shared_steps(run)
    assert driver.steps_of(run, "sft")[-2:] == ["count/scorer", "count/sft@1"]
    assert [todo.name for todo in driver.missing(run, ["count/sft@1"])] == ["count", "count/sft@1"]

    driver.run_command(run, "count", ["sft"])
    assert run.needed("count/sft@1").manifest["student"] == "sft@1"
    written = run.folder / "count/count.txt"
    before = written.stat().st_mtime_ns
    driver.run_command(run, "count", ["sft"])
    assert written.stat().st_mtime_ns == before, "made once"
    assert not driver.missing(run, ["count/sft@1"])

    other = Run(run.settings.model_copy(update={"seed": 1})).open()
    with pytest.raises(InputError, match=r"count/scorer: made with other settings \(seed\)"):
        driver.run_command(other, "count", ["sft"])
    child = Run(run.settings.model_copy(update={"name": "child"}), base=run)
    assert child.step("count").path == run.folder / "count", "shared with the run that it repeats"


def test_an_added_step_depends_on_the_arms_of_the_step_that_it_is_made_from(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = (*steps.STEPS, Step(name="after_masks", make=_count, after=("mask",)))
    monkeypatch.setattr(steps, "STEPS", added)
    monkeypatch.setattr(steps, "ORDER", {step.name: place for place, step in enumerate(added)})

    def at(ratio: float) -> StepFolder:
        arms = {"sft": {}, "decselfmask": {"masking": {"ratio": ratio}}}
        return Run(settings(Path(run.settings.runs), arms=arms)).step("after_masks")

    folder = at(0.2).open()
    (folder.path / "count.txt").write_text("1")
    folder.finish()
    assert at(0.2).state is State.FINISHED
    assert at(0.4).state is State.OTHER


def test_a_command_names_the_command_that_is_missing(run: Run) -> None:
    with pytest.raises(InputError, match=r"pretrain: is not finished; run `raypipe pretrain` first"):
        driver.run_command(run, "evaluate", ["sft"])
    assert not (run.folder / "pretrain").exists()


def _with_students_to_learn(run: Run, monkeypatch: pytest.MonkeyPatch, learn: Callable[..., None]) -> None:
    """Nothing but the arms' trainings is to be done."""
    for name, result in (("make", None), ("evaluate", None), ("is_measured", False)):
        monkeypatch.setattr(driver, name, lambda *_, result=result: result)
    monkeypatch.setattr(driver, "learn", learn)


def test_without_ray_the_thread_that_ctrl_c_reaches_does_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, threads = Run(settings(tmp_path)), []
    _with_students_to_learn(run, monkeypatch, lambda *_: threads.append(threading.current_thread()))
    driver.run_all(run)
    assert threads == [threading.current_thread()] * len(run.settings.arms)


def _failing(error: Exception) -> Callable[..., None]:
    """Arm `b` fails, whatever is done for it."""

    def work(run: Run, arm: str, *_: int) -> None:
        if arm == "b":
            raise error

    return work


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("fails", ["learn", "evaluate"])
def test_an_arm_that_fails_does_not_stop_the_others(
    at_once: int, fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {name: {} for name in ("a", "b", "c")}
    lines: list[str] = []
    run = Run(settings(tmp_path, resources__ray=True, resources__concurrent_arms=at_once, arms=arms), say=lines.append)
    run.cluster = Workers()  # type: ignore[assignment]
    _with_students_to_learn(run, monkeypatch, lambda *_: None)
    evaluated: list[str] = []
    monkeypatch.setattr(driver, "evaluate", lambda _, arm: evaluated.append(arm))
    monkeypatch.setattr(driver, fails, _failing(ValueError("the patient said so")))
    with pytest.raises(InputError) as failure:
        driver.run_all(run)
    assert failure.value.exit_code == ExitCode.PARTIAL
    of_b, hint = failure.value.problems
    assert str(of_b).startswith("b: ValueError at ")
    assert "patient" not in str(failure.value)
    assert hint.what.startswith("1 of 3 arms failed; the same command tries")
    assert f"`raypipe report --config {run.folder}`" in hint.what
    assert lines[-1] == "b failed; the others go on"
    if fails == "learn":
        assert evaluated == ["a", "c"]


def test_what_several_arms_fail_of_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(settings(tmp_path, arms={name: {} for name in ("a", "b")}))
    shared = InputError([Problem("train/rows", "cannot be read")])
    _with_students_to_learn(run, monkeypatch, lambda run, arm: _failing(shared)(run, "b"))
    with pytest.raises(InputError) as failure:
        driver.run_all(run)
    assert [str(problem) for problem in failure.value.problems][:-1] == ["a, b: train/rows: cannot be read"]


def test_trouble_of_all_arms_ends_the_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = {name: {} for name in ("a", "b", "c")}
    run = Run(settings(tmp_path, arms=arms))
    begun: list[str] = []

    def learn(run: Run, arm: str) -> None:
        begun.append(arm)
        _failing(OSError(errno.ENOSPC, "full"))(run, arm)

    _with_students_to_learn(run, monkeypatch, learn)
    with pytest.raises(InputError, match="the disk is full") as failure:
        driver.run_all(run)
    assert failure.value.exit_code == ExitCode.STORAGE
    assert begun == ["a", "b"]


def test_an_arm_whose_own_attribution_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {"a": {}, "b": {"masking": {}, "attribution": {"method": "occlusion"}}, "c": {}}
    run, learned = Run(settings(tmp_path, arms=arms)), []
    _with_students_to_learn(run, monkeypatch, lambda _, arm: learned.append(arm))

    def make(run: Run, *_: Any) -> None:
        _failing(MemoryError())(run, run.settings.name)

    monkeypatch.setattr(driver, "make", make)
    with pytest.raises(InputError, match="b: out of memory"):
        driver.run_all(run)
    assert learned == ["a", "c"]


class Workers:
    """A cluster, as far as it can be left."""

    def __init__(self) -> None:
        self.left = threading.Event()

    def leave(self) -> None:
        """What waits for workers ends."""
        self.left.set()


def test_ctrl_c_leaves_the_cluster_where_arms_are_learned_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {name: {} for name in ("a", "b", "c")}
    run = Run(settings(tmp_path, resources__ray=True, resources__concurrent_arms=2, arms=arms))
    run.cluster = workers = Workers()  # type: ignore[assignment]
    begun: list[str] = []

    def learn(run: Run, arm: str, at_once: int) -> None:
        begun.append(arm)
        if len(begun) == at_once:
            os.kill(os.getpid(), signal.SIGINT)
        assert workers.left.wait(30)

    _with_students_to_learn(run, monkeypatch, learn)
    with pytest.raises(KeyboardInterrupt):
        driver.run_all(run)
    assert workers.left.is_set()
    assert sorted(begun) == ["a", "b"], "the third has not begun"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ctrl_c_ends_a_training_on_ray(tmp_path: Path) -> None:
    """In this process, as in a notebook, which lives on."""
    import ray

    long = {**TRAINING, "max_steps": 100_000, "epochs": 1000}
    run = Run(settings(tmp_path, resources__ray=True, pretrain__training=long)).open()
    metrics = run.folder / "pretrain/metrics.jsonl"
    pids: list[int] = []

    def interrupt() -> None:
        while not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.05)
        children = psutil.Process().children(recursive=True)
        pids.extend(child.pid for child in children if "TrainWorker" in " ".join(child.cmdline()))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        driver.run_command(run, "pretrain")
    assert not ray.is_initialized()
    assert pids
    while any(map(psutil.pid_exists, pids)):
        time.sleep(0.05)
