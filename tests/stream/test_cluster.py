"""Joining a cluster: it must refuse strangers; and what Ray keeps of a cluster started here is private."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest
import ray
import ray.data

from raypipe.errors import ExitCode, InputError
from raypipe.settings.config import Resources
from raypipe.stream import cluster


class Server(grpc.GenericRpcHandler):
    """Answers every request, or refuses it with a status."""

    def __init__(self, status: grpc.StatusCode | None) -> None:
        self.status = status

    def service(self, details: Any) -> Any:
        def answer(request: bytes, context: Any) -> bytes:
            assert not [key for key, _ in details.invocation_metadata if key == "authorization"], "no token is sent"
            if self.status is not None:
                context.abort(self.status, "")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Server(request.param)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize("address", [None], indirect=True)
def test_a_server_that_answers_a_stranger_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "invented")
    assert cluster.doubt_about_token(address) == "the cluster runs without token authentication"


@pytest.mark.parametrize("address", [grpc.StatusCode.UNAUTHENTICATED], indirect=True)
def test_a_server_that_refuses_a_stranger_is_taken(address: str) -> None:
    assert cluster.doubt_about_token(address) is None


@pytest.mark.parametrize("address", [grpc.StatusCode.UNIMPLEMENTED], indirect=True)
def test_a_server_that_says_neither_is_refused(address: str) -> None:
    assert cluster.doubt_about_token(address) == "the cluster did not say whether it asks for a token (UNIMPLEMENTED)"


def test_nobody_there_is_refused() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "UNAVAILABLE" in str(cluster.doubt_about_token(f"127.0.0.1:{port}"))


def test_ray_keeps_its_files_in_a_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(cluster, "MAX_FOLDER", 4096)  # this folder's name is a long one
    folder = Path(cluster._own_cluster()["_temp_dir"])
    assert folder.parent == tmp_path / f"raypipe-{os.getuid()}"
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700, "Ray opens its own folder to everyone"


def test_a_folder_whose_name_is_too_long_for_sockets_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "long" / ("x" * 50)))
    with pytest.raises(InputError, match="set RAY_TMPDIR to a shorter one") as refused:
        cluster._own_cluster()
    assert refused.value.exit_code == ExitCode.CLUSTER


@pytest.mark.ray
def test_workers_are_private_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a real cluster, which proves its token, whatever the umask in which it was started."""
    import ray

    umask = os.umask(0o022)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as the command has set it
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    cluster.join(Resources())
    os.umask(umask)

    def write(folder: str) -> str | None:
        (Path(folder) / "note").write_text("")
        return os.environ.get("TRANSFORMERS_OFFLINE")

    assert ray.get(ray.remote(num_cpus=0)(write).remote(str(tmp_path))) == "1", "this is the hook's"
    assert stat.S_IMODE((tmp_path / "note").stat().st_mode) == 0o600
    assert ray.data.DataContext.get_current().max_consecutive_actor_init_deaths > 0, "else one bad start ends a job"
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    assert stat.S_IMODE(session.parents[1].stat().st_mode) == 0o700

    def of_the_dead(pid: int, signal: int) -> None:
        raise ProcessLookupError

    assert session not in cluster.ended_sessions(), "of a process that lives"
    monkeypatch.setattr(cluster.os, "kill", of_the_dead)
    assert session not in cluster.ended_sessions(), "Ray answers"
    monkeypatch.undo()
    ray.shutdown()
    monkeypatch.setattr(cluster.os, "kill", of_the_dead)
    assert session in cluster.ended_sessions()


@pytest.mark.ray
@pytest.mark.slow
def test_an_actor_that_cannot_load_its_model_is_replaced(tmp_path: Path) -> None:
    """Ray tries four times in the same process; where the disk fails for longer, another actor must try."""
    workers = cluster.join(Resources())
    tries = tmp_path / "tries"
    tries.mkdir()

    class Stage:
        """Defined here, so that workers need not import this file."""

        def __init__(self) -> None:
            n = len(list(tries.iterdir()))
            (tries / str(n)).touch()
            if n < 5:
                raise OSError

        def __call__(self, table: pa.Table) -> pa.Table:
            return table

    notes = ray.data.from_arrow(pa.table({"note_id": ["a"]}))
    assert notes.map_batches(Stage, batch_format="pyarrow", **workers.spread()).take_all() == [{"note_id": "a"}]
    assert len(list(tries.iterdir())) > 5


@pytest.mark.parametrize("variable", ["HOME", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_that_others_may_read_is_warned_of(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "_connect", lambda address: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0})
    monkeypatch.setattr(ray, "nodes", list)
    token = tmp_path / ".ray/auth_token"
    monkeypatch.setenv(variable, str(tmp_path if variable == "HOME" else token))

    def warning() -> str:
        cluster.join(Resources(allow_unauthenticated_cluster=True))
        return capsys.readouterr().out

    assert warning() == ""
    token.parent.mkdir()
    token.touch(0o600)
    assert warning() == ""
    token.chmod(0o640)
    assert warning() == (
        f"warning: {token}: others may read Ray's token, and run code in your name with it: chmod 600 {token}\n"
    )


@pytest.mark.parametrize("error", [Exception("The current node timed out during startup."), RuntimeError("GCS ended")])
def test_a_ray_that_does_not_start_is_no_defect(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise error

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(InputError, match="did not start on this machine, or not in time") as failure:
        cluster.join(Resources())
    assert failure.value.exit_code is ExitCode.CLUSTER
