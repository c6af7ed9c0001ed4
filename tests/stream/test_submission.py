"""A job is followed until its end, whatever happens to the connection. No cluster: a client that plays one."""

from __future__ import annotations

import http.server
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from raypipe.errors import ExitCode, InputError
from raypipe.stream import submission
from raypipe.stream.submission import Order

ORDER = Order("python -m raypipe.cli run --config my.yaml", "/folder", "http://head:8265")


@dataclass
class Cluster:
    """Plays one act after the other: chunks of the log, then how the job stands, or an error."""

    acts: list[tuple[list[str], Any]]
    jobs: dict[str, Any] = field(default_factory=dict)
    submissions: list[dict[str, Any]] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def connect(self, address: str) -> Cluster:
        assert address == ORDER.address
        if not self.acts[0][0] and isinstance(self.acts[0][1], ConnectionError):
            raise self.acts.pop(0)[1]
        return self

    def submit_job(self, *, entrypoint: str, submission_id: str, runtime_env: dict[str, Any]) -> str:
        self.submissions.append({"entrypoint": entrypoint, "id": submission_id, **runtime_env})
        self.jobs[submission_id] = SimpleNamespace(status="RUNNING", driver_exit_code=None, message="")
        return submission_id

    def get_job_info(self, job_id: str) -> Any:
        if job_id not in self.jobs:
            raise RuntimeError("Request failed with status code 404: no such job.")
        return self.jobs[job_id]

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        chunks, end = self.acts.pop(0)
        for chunk in chunks:
            yield chunk
        if isinstance(end, BaseException):
            raise end
        if end == "forgotten":
            self.jobs.clear()
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
        self.jobs[job_id] = SimpleNamespace(**end)

    def run(self, retries: int = 0) -> int:
        return submission.run(ORDER, retries, self.connect, self.pauses.append)


def _ended(status: str, code: int | None = None, message: str = "") -> dict[str, Any]:
    return {"status": status, "driver_exit_code": code, "message": message}


DONE = _ended("SUCCEEDED", 0)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (DONE, 0),
        (_ended("FAILED", 2), 2),
        (_ended("FAILED", 4), 4),
        (_ended("STOPPED"), 143),
        (_ended("FAILED", -9), 137),
    ],
)
def test_the_exit_code_is_the_jobs(end: dict[str, Any], code: int) -> None:
    assert Cluster([(["one line\n"], end)]).run() == code


def test_what_is_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPIPE_DATA", "/shared/data")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "SEKRET")
    monkeypatch.delenv("RAYPIPE_MODELS", raising=False)
    monkeypatch.delenv("RAYPIPE_PRETRAINED", raising=False)
    cluster = Cluster([([], DONE)])
    cluster.run()
    (one,) = cluster.submissions
    assert (one["entrypoint"], one["working_dir"]) == (ORDER.entrypoint, "/folder")
    assert one["env_vars"] == {"RAYPIPE_DATA": "/shared/data"}


def test_lines_are_whole_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    Cluster([(["fir", "st\nsec", "ond \x1b[2J\nlast"], DONE)]).run()
    assert capsys.readouterr().out.splitlines()[1:] == ["first", "second \ufffd[2J", "last"]


def test_a_lost_connection_goes_on_with_the_same_job(capsys: pytest.CaptureFixture[str]) -> None:
    cut = (["first\nsec"], ConnectionError("reset"))
    cluster = Cluster([cut, ([], ConnectionError("still away")), (["first\nsecond\nthird\n"], DONE)])
    assert cluster.run(retries=2) == 0
    assert len(cluster.submissions) == 1
    assert cluster.pauses == [submission.RECONNECT_S] * 2
    assert capsys.readouterr().out.splitlines()[1:] == ["first", "second", "third"]


def test_a_job_that_went_with_its_head_is_submitted_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = Cluster([(["first\n"], "forgotten"), (["first\n"], DONE)])
    assert cluster.run(retries=1) == 0
    assert len(cluster.submissions) == 2
    assert cluster.pauses == [submission.RECONNECT_S]
    assert capsys.readouterr().out.count("first\n") == 2  # another job's log


def test_a_job_that_went_with_its_node_is_submitted_again_under_another_id() -> None:
    cluster = Cluster([([], _ended("FAILED", None, "The actor died")), ([], DONE)])
    assert cluster.run(retries=1) == 0
    assert len({one["id"] for one in cluster.submissions}) == 2


def test_without_retries_a_loss_is_a_line_with_the_way_on() -> None:
    with pytest.raises(InputError, match=r"lost the job .*\(ConnectionError: reset\).*--retry N") as lost:
        Cluster([(["first\n"], ConnectionError("reset\nmore"))]).run()
    assert lost.value.exit_code is ExitCode.CLUSTER
    with pytest.raises(InputError, match="is the cluster up"):
        Cluster([([], ConnectionError("refused"))]).run()


def test_a_log_that_ends_early_is_read_on() -> None:
    cluster = Cluster([(["first\n"], _ended("RUNNING")), (["first\n"], DONE)])
    assert cluster.run() == 0
    assert cluster.pauses == [submission.POLL_S]


def test_a_signal_says_that_the_job_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    class Signal(BaseException):
        pass

    with pytest.raises(Signal):
        Cluster([([], Signal())]).run()
    assert "goes on: `ray job stop --address http://head:8265 raypipe-" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["head:8265", "os://head", "ray://head:10001"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="--address"):
        submission.connected(address)


@pytest.fixture
def closed_head() -> Iterator[str]:
    """The address of a head that takes nobody's token."""

    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Refusal)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_refused_token_is_a_line_at_once(closed_head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own client, against the named address whatever the environment says; no retry helps."""
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    order = Order(ORDER.entrypoint, ORDER.working_dir, closed_head)
    with pytest.raises(InputError, match="refuses this client: set RAY_AUTH_MODE=token") as refused:
        submission.run(order, 3, pause=pytest.fail)
    assert refused.value.exit_code is ExitCode.CLUSTER
