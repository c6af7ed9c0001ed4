"""Curves of trainings in TensorBoard and MLflow: the numbers of metrics.jsonl, and never a text."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raypipe import rows
from raypipe.notes import synthetic
from raypipe.runs import driver
from raypipe.runs.run import Run
from raypipe.settings.config import Tracking
from raypipe.training import trackers
from tests.small_run import TRAINING, settings

CANARY = "Zqxvanarkin"
SERVER = os.environ.get("RAYPIPE_MLFLOW")  # of a server on this machine: `mlflow server`, in an environment of its own


def _line(step: int, loss: float, **more: float) -> str:
    return json.dumps({"step": step, "steps": 6, "loss": loss, "seconds": 0.5 * step, **more}) + "\n"


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads in the event file of a training: step and value of each curve."""
    from tensorboardX.proto.event_pb2 import Event

    (file,) = folder.glob("events.out.tfevents.*")
    data, at = file.read_bytes(), 0
    found: dict[str, list[tuple[int, float]]] = {}
    while at < len(data):  # length, its checksum, the event, its checksum
        (size,) = struct.unpack("<Q", data[at : at + 8])
        event = Event.FromString(data[at + 12 : at + 12 + size])
        at += 16 + size
        for value in event.summary.value:
            assert value.WhichOneof("value") == "simple_value"
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


@pytest.fixture
def training(tmp_path: Path) -> Path:
    folder = tmp_path / "demo" / "finetune" / "decselfmask"
    folder.mkdir(parents=True)
    return folder


def _ended(folder: Path, dev_loss: float | None = 0.25) -> None:
    (folder / "outcome.json").write_text(json.dumps({"dev_loss": dev_loss}))


def _copied(folder: Path, said: list[str] | None = None, **changes: Any) -> Any:
    tracking = Tracking().model_copy(update=changes)
    return trackers.copied([folder], folder.parents[1], tracking, (said if said is not None else []).append)


def test_tensorboard_gets_the_curves_as_they_are_written(training: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "EVERY_S", 0.01)
    with _copied(training):
        for step in (1, 2, 3):
            with (training / "metrics.jsonl").open("a") as file:
                file.write(_line(step, 4.0 - step, dev_macro_f1=0.5))
        _ended(training)
    found = scalars(training)
    assert found["loss"] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert found["dev_macro_f1"] == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert found["dev_loss"] == [(3, 0.25)]  # the training's last word, which stands in no line
    assert found.keys() == {"loss", "dev_macro_f1", "dev_loss"}


def _follows(training: Path) -> trackers.Copy:
    return trackers.Copy(training, trackers.TensorBoard, pytest.fail)


def test_steps_that_are_made_again_stand_there_once(training: Path) -> None:
    """Also where the file is as long as before when it is looked at, and goes on in the middle of a line."""
    copy = _follows(training)
    (training / "metrics.jsonl").write_text(_line(1, 3.0) + _line(2, 2.0) + _line(3, 9.0))
    copy.update()
    (training / "metrics.jsonl").write_text(
        _line(1, 3.0) + _line(2, 2.5) + _line(3, 1.25) + _line(4, 0.5) + _line(5, 0.125)
    )
    copy.update()
    copy.finish()
    assert scalars(training)["loss"] == [(1, 3.0), (2, 2.5), (3, 1.25), (4, 0.5), (5, 0.125)]


def test_a_training_that_goes_on_has_its_whole_curve(training: Path) -> None:
    (training / "metrics.jsonl").write_text(_line(1, 3.0) + _line(2, 2.0) + _line(3, 1.5))
    with _copied(training):
        pass  # stopped
    assert len(scalars(training)["loss"]) == 3
    copy = _follows(training)
    copy.update()
    (training / "metrics.jsonl").write_text(_line(1, 3.0))  # back to the checkpoint
    copy.update()
    (training / "metrics.jsonl").write_text(_line(1, 3.0) + _line(2, 1.75) + '{"step": 3, "los')  # is being written
    copy.update()
    copy.finish()
    assert scalars(training)["loss"] == [(1, 3.0), (2, 1.75)]


def test_what_is_no_number_is_not_copied(training: Path) -> None:
    (training / "metrics.jsonl").write_text(json.dumps({"step": 1, "seconds": 1.0, "loss": 2.0, "note": CANARY}) + "\n")
    with _copied(training):
        pass
    assert scalars(training).keys() == {"loss"}


def test_a_finished_training_is_left_alone(training: Path) -> None:
    (training / "metrics.jsonl").write_text(_line(1, 3.0))
    _ended(training)
    with _copied(training):
        pass
    assert not list(training.glob("events*"))


def test_a_tracker_that_fails_is_told_of_once(training: Path) -> None:
    class Gone(trackers.TensorBoard):
        def log(self, points: Any) -> None:
            raise ConnectionError(CANARY)

    said: list[str] = []
    copy = trackers.Copy(training, Gone, said.append)
    for step in (1, 2):
        with (training / "metrics.jsonl").open("a") as file:
            file.write(_line(step, 1.0))
        copy.update()
    copy.finish()
    what = "tracking failed (ConnectionError); its numbers are in metrics.jsonl"
    assert said == [f"warning: finetune/decselfmask: {what}"]


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("http://tracker.example:5000", "tracker.example is another machine"),
        ("http://127.0.0.1.example:5000", "is another machine"),
        ("databricks", "must be the address of an MLflow server"),
        ("http://user:secret@localhost:5000", "holds a credential"),
    ],
)
def test_numbers_stay_on_this_machine_unless_they_may_leave(uri: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Tracking(mlflow=uri)


def test_another_machine_must_be_allowed() -> None:
    assert Tracking(mlflow="http://tracker.example:5000", allow_remote=True).mlflow
    assert Tracking(mlflow="http://localhost:5000").mlflow
    assert Tracking().mlflow is None


def test_a_server_that_does_not_answer_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Tracking(mlflow="http://127.0.0.1:9")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install mlflow-skinny" in str(next(trackers.problems(silent)))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    (problem,) = trackers.problems(silent)
    assert str(problem) == "tracking.mlflow: no MLflow server answers there (URLError); start it"
    assert not list(trackers.problems(Tracking()))


def test_what_answers_and_is_no_web_server_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        (problem,) = trackers.problems(Tracking(mlflow=f"http://127.0.0.1:{server.getsockname()[1]}"))
        thread.join()
    assert str(problem) == "tracking.mlflow: no MLflow server answers there (BadStatusLine); start it"


# MLflow itself


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """MLflow's own store in files, which can be searched for text."""
    pytest.importorskip("mlflow", reason="needs the extra raypipe[mlflow]")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return (tmp_path / "mlflow").as_uri()


def curves_of(uri: str, experiment: str) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """By name of the run and of the curve: step and value."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    there = client.get_experiment_by_name(experiment)
    assert there is not None
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for run in client.search_runs([there.experiment_id]):
        assert run.info.status == "FINISHED"
        assert run.data.tags.keys() <= {"mlflow.runName"}, "nothing of user, host and command line"
        assert not run.data.params
        history = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
        found[run.info.run_name] = {key: [(m.step, m.value) for m in of_key] for key, of_key in history.items()}
    return found


def _write_a_training(training: Path, uri: str, experiment: str) -> None:
    training = training.parents[2] / experiment / "finetune" / "decselfmask"
    training.mkdir(parents=True, exist_ok=True)
    with _copied(training, tensorboard=False, mlflow=uri):
        lines = [*(_line(i, 2.0**-i) for i in range(1, 4)), _line(4, float("nan"))]
        (training / "metrics.jsonl").write_text("".join(lines))
        _ended(training)
    expected = {"loss": [(1, 0.5), (2, 0.25), (3, 0.125)], "dev_loss": [(4, 0.25)]}
    assert curves_of(uri, experiment) == {"finetune/decselfmask": expected}


def test_mlflow_gets_the_curves(training: Path, store: str) -> None:
    _write_a_training(training, store, "demo")


@pytest.mark.skipif(not SERVER, reason="RAYPIPE_MLFLOW names no MLflow server on this machine")
def test_an_mlflow_server_gets_the_curves(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    pytest.importorskip("mlflow", reason="needs the extra raypipe[mlflow]")
    assert not list(trackers.problems(Tracking(mlflow=SERVER)))
    _write_a_training(training, str(SERVER), tmp_path.parent.name + tmp_path.name)
    assert capsys.readouterr().out == "", "MLflow's client prints addresses"


# A whole run


def _with_canaries(folder: Path) -> dict[str, Any]:
    """The small run on files, with a word in every note, option and question that must not get out."""
    made = synthetic.generate(n_labelled=24, n_unlabelled=12, n_dev=8, n_test=12, n_pretraining=0)
    notes = made.notes.to_pylist()
    for note in notes:
        note["text"] = f"{CANARY} {note['text']} {CANARY}"
    rows.write(rows.table(notes, made.notes.schema), folder / "notes.parquet")
    rows.write(made.labels, folder / "labels.parquet")
    tasks = [{**task, "question": f"{CANARY} {task['question']}"} for task in made.tasks[:2]]
    (folder / "tasks.yaml").write_text(yaml.safe_dump({"tasks": tasks}))
    data = {name: str(folder / f"{name}.{kind}") for name, kind in
            (("notes", "parquet"), ("labels", "parquet"), ("tasks", "yaml"))}  # fmt: skip
    return {f"data__{name}": path for name, path in data.items()} | {
        "data__source": "files",
        "data__task_ids": [task["id"] for task in tasks],
        "prompt__max_tokens": 256,
        "finetune": TRAINING | {"max_steps": None, "epochs": 2},
    }


def _files(folder: Path, pattern: str = "*") -> Iterator[Path]:
    return (path for path in folder.rglob(pattern) if path.is_file())


def test_every_training_of_a_run_is_tracked_in_numbers(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = _with_canaries(tmp_path)
    watched = settings(tmp_path / "runs", **changes, tracking__dev_scores=True)
    watched = watched.model_copy(update={"tracking": watched.tracking.model_copy(update={"mlflow": _store(request)})})
    run = Run(watched, say=lambda line: None).open()
    driver.prepare(run)
    driver.learn(run, "decselfmask")
    names = ["finetune/decselfmask", "finetune/scorer", "pretrain", "train/decselfmask"]
    for name in names:
        folder = run.folder / name
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found = scalars(folder)
        assert [step for step, _ in found["loss"]] == [line["step"] for line in lines]
        assert [value for _, value in found["loss"]] == pytest.approx([line["loss"] for line in lines])
        in_epochs = {line["step"] for line in lines if "dev_macro_f1" in line}
        assert in_epochs == ({lines[-1]["steps"] // 2, lines[-1]["steps"]} if "finetune" in name else set())
        assert {step for step, _ in found.get("dev_macro_f1", [])} == in_epochs
        listed = json.loads((folder / "manifest.json").read_text())["files"]
        assert {file.name for file in folder.glob("events*")} <= listed.keys()
    events = list(_files(run.folder, "events.out.tfevents.*"))
    assert len(events) == len(names)
    secret = CANARY.encode()
    written = [*events, *_files(tmp_path / "mlflow")]
    assert not [path for path in written if secret in path.read_bytes()]
    assert any(secret in path.read_bytes() for path in _files(run.folder / "corpus")), "the word is in the run"
    if watched.tracking.mlflow:
        assert sorted(curves_of(watched.tracking.mlflow, run.settings.name)) == names

    again = Run(settings(tmp_path / "again", **changes, tracking__tensorboard=False), say=lambda line: None).open()
    driver.prepare(again)
    driver.learn(again, "decselfmask")
    assert not list(_files(again.folder, "events*"))
    of_both = [of.folder / "finetune/decselfmask/model/model.safetensors" for of in (run, again)]
    assert of_both[0].read_bytes() == of_both[1].read_bytes(), "to be watched changes nothing"


def _store(request: pytest.FixtureRequest) -> str | None:
    """MLflow's store if MLflow is installed; the other half of the test runs without it."""
    try:
        return str(request.getfixturevalue("store"))
    except pytest.skip.Exception:
        return None
