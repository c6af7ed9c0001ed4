"""Trainings in TensorBoard and MLflow: a copy of the numbers in metrics.jsonl, and nothing else of a run.

The file is followed while a training writes it, whichever process does, so the loop knows of no tracker, and a tracker
that fails stops no training. A training that goes on from a checkpoint repeats steps: its copy is then made anew.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import math
import os
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from raypipe.errors import Problem
from raypipe.guard import looking
from raypipe.settings.config import Tracking

EVERY_S = 5.0
ANSWER_S = 5.0  # for a server to say that it is there
SENT_AT_ONCE = 1000  # numbers: what MLflow takes in one request
NO_CURVES = {"step", "steps", "seconds"}
# Otherwise a server that is gone would hold a training up for minutes, and the client would print lines of its own
_CLIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

Point = tuple[int, float, dict[str, float]]  # optimiser step, when (seconds since 1970), numbers by name


class Tracker(Protocol):
    """Where the numbers of one training go."""

    def log(self, points: Sequence[Point]) -> None:
        """Add steps."""

    def close(self, is_done: bool) -> None:
        """No more follow."""


class TensorBoard:
    """An event file in the training's folder. TensorBoard names a curve by the folders that lead there."""

    FILES = "events.out.tfevents."

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        for earlier in folder.glob(f"{self.FILES}*"):
            earlier.unlink()
        self.writer = SummaryWriter(str(folder))

    def log(self, points: Sequence[Point]) -> None:
        """As scalars."""
        for step, when, numbers in points:
            for name, value in numbers.items():
                self.writer.add_scalar(name, value, step, when)

    def close(self, is_done: bool) -> None:
        """Writes what is still in memory."""
        self.writer.close()


class MLflow:
    """A run of an MLflow server for each attempt at a training, in an experiment for each run of ours.

    The client is asked for runs and numbers only: what MLflow's other functions add by themselves (user, host, command
    line, commit) stays here.
    """

    def __init__(self, uri: str, experiment: str, name: str) -> None:
        for key, value in _CLIENT.items():
            os.environ.setdefault(key, value)
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=uri)
        self.id = self.client.create_run(self._experiment(experiment), run_name=name).info.run_id

    def _experiment(self, name: str) -> str:
        """Its id. Two processes may ask for a new one at once."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.create_experiment(name))
        except MlflowException:
            if (there := self.client.get_experiment_by_name(name)) is None:
                raise
            return str(there.experiment_id)

    def log(self, points: Sequence[Point]) -> None:
        """As metrics; what is no finite number, a server does not take."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, round(1000 * when), step)
            for step, when, numbers in points
            for name, value in numbers.items()
            if math.isfinite(value)
        ]
        for start in range(0, len(metrics), SENT_AT_ONCE):
            self.client.log_batch(self.id, metrics=metrics[start : start + SENT_AT_ONCE])

    def close(self, is_done: bool) -> None:
        """Says how the attempt ended."""
        self.client.set_terminated(self.id, "FINISHED" if is_done else "KILLED")


def problems(tracking: Tracking) -> Iterator[Problem]:
    """Why MLflow cannot be used: it is not installed, or nobody answers."""
    if tracking.mlflow is None:
        return
    if importlib.util.find_spec("mlflow") is None:
        yield Problem("tracking.mlflow", "needs the package mlflow: pip install mlflow-skinny, or remove the key")
        return
    try:
        with urllib.request.urlopen(f"{tracking.mlflow.rstrip('/')}/health", timeout=ANSWER_S):  # noqa: S310 (http)
            pass
    except (OSError, http.client.HTTPException) as error:  # also what a server says against it, or another kind does
        yield Problem("tracking.mlflow", f"no MLflow server answers there ({type(error).__name__}); start it")


@contextmanager
def copied(folders: Sequence[Path], root: Path, tracking: Tracking, say: Callable[[str], None]) -> Iterator[None]:
    """Copy what the trainings in `folders` write while the block runs. `root`: the folder of the whole run."""
    makers: list[Callable[[Path], Tracker]] = [TensorBoard] if tracking.tensorboard else []
    if (uri := tracking.mlflow) is not None:
        makers.append(lambda folder: MLflow(uri, root.name, str(folder.relative_to(root))))
    copies = [Copy(folder, make, say) for folder in folders if not _is_done(folder) for make in makers]

    def update() -> None:
        for copy in copies:
            copy.update()

    try:
        with looking.every(EVERY_S, update):
            yield
    finally:
        for copy in copies:
            copy.finish()


def _is_done(folder: Path) -> bool:
    return (folder / "outcome.json").exists()


class Copy:
    """One training in one tracker, which is opened when there is a number."""

    def __init__(self, folder: Path, make: Callable[[Path], Tracker], say: Callable[[str], None]) -> None:
        self.folder, self.make, self.say = folder, make, say
        self.tracker: Tracker | None = None
        self.read_bytes, self.step, self.began = 0, 0, 0.0
        self.has_failed = False

    def update(self) -> None:
        """Copy the lines that were added. A tracker that fails is told of once and left alone."""
        self._trying(self._update)

    def finish(self) -> None:
        """Copy the rest, and the loss on dev at the end, which has no line."""
        self._trying(self._update)
        self._trying(self._close)

    def _trying(self, work: Callable[[], None]) -> None:
        if self.has_failed:
            return
        try:
            work()
        except Exception as error:  # whatever a server or its client chose to raise; its message may quote anything
            self.has_failed = True
            what = f"tracking failed ({type(error).__name__}); its numbers are in metrics.jsonl"
            self.say(f"warning: {'/'.join(self.folder.parts[-2:])}: {what}")

    def _update(self) -> None:
        lines = self._new_lines()
        if lines and lines[0]["step"] != self.step + 1:  # steps are made again
            self._begin_anew()
            lines = self._new_lines()
        if not lines:
            return
        if self.tracker is None:
            self.tracker = self.make(self.folder)
            self.began = time.time() - lines[-1]["seconds"]
        self.tracker.log([(line["step"], self.began + line["seconds"], _numbers(line)) for line in lines])
        self.step = lines[-1]["step"]

    def _begin_anew(self) -> None:
        if self.tracker is not None:
            self.tracker.close(is_done=False)
        self.tracker, self.read_bytes, self.step = None, 0, 0

    def _new_lines(self) -> list[dict[str, Any]]:
        """Whole lines that were not read before; all lines if the file was cut meanwhile."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return []
        if path.stat().st_size < self.read_bytes:
            self._begin_anew()
        with path.open("rb") as file:
            file.seek(self.read_bytes)
            whole = file.read().rpartition(b"\n")[0]
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
        except ValueError:  # cut and grown again: this is the middle of a line
            self._begin_anew()
            return []
        self.read_bytes += len(whole) + 1 if whole else 0
        return lines

    def _close(self) -> None:
        if self.tracker is None:
            return
        if is_done := _is_done(self.folder):
            dev_loss = json.loads((self.folder / "outcome.json").read_text())["dev_loss"]
            if dev_loss is not None:
                self.tracker.log([(self.step, time.time(), {"dev_loss": dev_loss})])
        self.tracker.close(is_done)


def _numbers(line: dict[str, Any]) -> dict[str, float]:
    """The curves in a line of metrics: numbers, never text."""
    return {name: value for name, value in line.items() if name not in NO_CURVES and isinstance(value, int | float)}
