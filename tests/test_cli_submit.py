"""`raypipe submit` as a user types it: what it would submit, and which command lines it refuses."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from raypipe import cli
from raypipe.errors import ExitCode
from raypipe.stream import submission

SUBMIT = ["submit", "--address", "http://head:8265"]


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("raypipe.guard.command.protect", lambda: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text("name: mine\nruns: /shared/runs\ndata: {source: synthetic}\n")
    (tmp_path / "space.py").write_text("PARAM_SPACE = {}")
    return tmp_path / "my.yaml"


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], set[str], int]]:
    """Command line, files of the working directory, and retries of each job that was submitted."""
    submitted = []

    def run(order: submission.Order, retries: int) -> int:
        files = {str(path.relative_to(order.working_dir)) for path in Path(order.working_dir).rglob("*")}
        submitted.append((shlex.split(order.entrypoint), files, retries))
        return ExitCode.PARTIAL

    monkeypatch.setattr(submission, "run", run)
    return submitted


def _exit(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


def test_the_command_runs_on_the_cluster_and_its_exit_code_is_ours(
    config: Path, orders: list[tuple[list[str], set[str], int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit(*SUBMIT, "--config", config, "--set", "name=o'ther", "--retry", 3) == ExitCode.CONFIG  # no such name
    assert _exit(*SUBMIT, "--config", config, "--set", "name=other", "--retry", 3) == ExitCode.PARTIAL
    python = ["python", "-m", "raypipe.cli"]
    assert orders == [([*python, "run", "--config", "my.yaml", "--set", "name=other"], {"my.yaml"}, 3)]
    assert "exit code 4; on the cluster: /shared/runs/other" in capsys.readouterr().out


def test_options_of_the_command_and_its_space_go_along(
    config: Path, orders: list[tuple[list[str], set[str], int]]
) -> None:
    _exit(*SUBMIT, "--config", "my.yaml", "--command", "tune", "--", "--space", "space.py")
    assert orders[0][0][3:] == ["tune", "--config", "my.yaml", "--space", "space.py"]
    assert orders[0][1] == {"my.yaml", "space.py"}


def test_a_job_that_will_not_use_the_cluster_says_so(
    config: Path, orders: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    for ray, is_told in (("true", False), ("false", True)):
        _exit(*SUBMIT, "--config", config, "--set", f"resources.ray={ray}")
        assert ("--set resources.ray=true uses the cluster" in capsys.readouterr().out) is is_told
    assert len(orders) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--command", "show"], "Invalid value for '--command'"),  # it prints a note
        (["--command", "tune"], "Missing option '--space'."),
        (["--", "--nope"], "No such option: --nope"),
        (["--set", "runs=runs"], "runs: runs does not travel"),
        (["--set", "nope=1"], "--set: nope"),
    ],
)
def test_what_would_fail_there_is_refused_here(
    arguments: list[str], message: str, orders: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit(*SUBMIT, "--config", "my.yaml", *arguments) == ExitCode.CONFIG
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not orders
