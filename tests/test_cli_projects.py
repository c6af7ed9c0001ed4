"""Commands around a project, as a user sees them: what they print, and that everything is told at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import raypipe
from raypipe import cli
from raypipe.errors import ExitCode
from tests.exports import wide_export


def _said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main([str(one) for one in arguments])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


@pytest.fixture
def project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    cli.init(tmp_path / "p", str(wide_export(tmp_path / "export.csv")))
    capsys.readouterr()
    return tmp_path / "p" / "raypipe.yaml"


def test_check_ends_with_a_verdict_and_the_next_command(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _said(capsys, "check", "--config", project)
    assert code == ExitCode.OK
    assert out.splitlines()[-1] == f"ok, 0 warnings; next: raypipe run --config {project}"
    assert "2 tasks, 120 labels, 84 notes" in out
    _, out, _ = _said(capsys, "check", "--config", project, "--set", "name=other")
    assert out.strip().endswith(f"next: raypipe run --config {project} --set name=other")


def test_check_tells_schema_strategy_method_data_and_model_at_once_with_lines(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        project.read_text().replace("strategy: relevance,", "strategy: relevence,").replace("name: first", "name: a/b")
    )
    text = text.replace("method: grad_x_activation", "method: magic").replace('"Referto PS"', '"Referto"')
    text = text.replace("context: 512", "context: 256")
    project.write_text(text + "seeed: 1\n")
    code, out, err = _said(capsys, "check", "--config", project)
    assert code == ExitCode.CONFIG
    assert out.splitlines()[-1].startswith("not ok: 6 problems, ")
    lines = err.splitlines()
    for what in (
        "name: ", "seeed: unknown key. Did you mean 'seed'?", "arms.decselfmask.masking.strategy: unknown strategy",
        "attribution.method: 'magic' is not a method", "data.columns.text: ",
        "prompt.max_tokens: is 512, but the model's context is 256",
    ):  # fmt: skip
        (line,) = [line for line in lines if f": {what}" in line]
        number = int(line.removeprefix(f"error: {project}:").partition(":")[0])
        key = what.partition(":")[0].rpartition(".")[2]
        assert key in project.read_text().splitlines()[number - 1]
    assert len(lines) == 6


def test_a_problem_of_many_tasks_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        f"n{i},Una nota di qualche parola {i},p{i % 3}," + ",".join("01"[(i + k) % 2] for k in range(9))
        for i in range(30)
    ]
    header = "note_id,text,who," + ",".join(f"t{k}" for k in range(9)) + ",split"
    lines = [f"{row},{('train', 'test')[i // 15]}" for i, row in enumerate(rows)]
    (tmp_path / "n.csv").write_text("\n".join([header, *lines]))
    cli.init(tmp_path / "p", str(tmp_path / "n.csv"), group="note_id", label=[f"t{k}" for k in range(9)])
    capsys.readouterr()
    config = tmp_path / "p" / "raypipe.yaml"
    config.write_text(config.read_text().replace('group_id: "note_id"', 'group_id: "who"'))
    _, _, err = _said(capsys, "check", "--config", config)
    (line,) = err.splitlines()
    assert "task 't0' and 8 other tasks: 3 groups (data.columns.group_id) have notes in two splits" in line


def test_version_schema_and_completion(capsys: pytest.CaptureFixture[str]) -> None:
    assert _said(capsys, "--version") == (0, f"raypipe {raypipe.__version__}\n", "")
    code, out, _ = _said(capsys, "schema")
    assert code == 0
    assert "label_columns" in json.loads(out)["$defs"]["Data"]["properties"]
    assert "--install-completion" in _said(capsys, "--help")[1]


def test_every_command_names_a_run_in_the_same_way() -> None:
    """`--config`: a file or a folder. Those without a run are bundle, init, import-spans, list, repair and schema."""
    import typer.main

    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    without = {"bundle", "init", "import-spans", "list", "repair", "schema"}  # `repair` takes the folder of a step
    named = {name for name, command in commands.items() if any("--config" in p.opts for p in command.params)}
    assert set(commands) - named == without
    assert not [name for name, command in commands.items() if any("--run" in p.opts for p in command.params)]


def test_clean_lists_first_and_deletes_on_request(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "p" / "runs" / "first"
    old = run / "mask~" / "settings.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    (run / "config.yaml").write_text("{}")
    _, out, _ = _said(capsys, "clean", "--config", project)
    assert "mask~" in out
    assert "--yes deletes it" in out
    assert old.exists()
    _said(capsys, "clean", "--config", run, "--yes")
    assert not old.exists()
    assert (run / "config.yaml").exists()
