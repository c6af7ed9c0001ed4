"""The offline bundle installs without an index, and not at all if a byte of it has changed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from raypipe.errors import InputError
from raypipe.models import bundle
from raypipe.records import sha256

METADATA = "Metadata-Version: 2.1\nName: raypipe\nVersion: 0.1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


class Pip:
    """Plays `pip wheel`: one wheel, of a package called raypipe whose command prints a line."""

    def __init__(self, code: int = 0) -> None:
        self.code, self.arguments = code, list[str]()

    def __call__(self, arguments: Sequence[str]) -> int:
        self.arguments = list(arguments)
        folder = Path(arguments[arguments.index("--wheel-dir") + 1])
        info = "raypipe-0.1.0.dist-info"
        files = {
            "raypipe_stand_in.py": "def main():\n    print('installed')\n",
            f"{info}/METADATA": METADATA,
            f"{info}/WHEEL": WHEEL,
            f"{info}/entry_points.txt": "[console_scripts]\nraypipe = raypipe_stand_in:main\n",
        }
        with zipfile.ZipFile(folder / "raypipe-0.1.0-py3-none-any.whl", "w") as wheel:
            for name, text in files.items():
                wheel.writestr(name, text)
            wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]))
        return self.code


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    (folder / "constraints.txt").write_text("raypipe==0.1.0\n")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "LICENSE", "pytorch_model.bin", "a.pkl"):
        (folder / name).write_text(name)
    return folder


def _install(out: Path, venv: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}  # out of reach
    command = ["sh", str(out / "install.sh"), str(venv), sys.executable]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_it_installs_without_an_index(tmp_path: Path, source: Path, model: Path) -> None:
    out, pip = tmp_path / "out", Pip()
    said = bundle.make(out, source, [model], pip)
    assert pip.arguments[0] == "wheel"
    assert pip.arguments[-1] == str(source)
    assert sha256(out / "SHA256SUMS") in said
    done = _install(out, tmp_path / "venv")
    assert (done.returncode, done.stdout) == (0, "installed\n"), done.stderr


def test_models_come_without_pickles(tmp_path: Path, source: Path, model: Path) -> None:
    bundle.make(tmp_path / "out", source, [model], Pip())
    files = {path.name for path in (tmp_path / "out/models/tiny").iterdir()}
    assert files == {"config.json", "model.safetensors", "tokenizer.json", "LICENSE"}


@pytest.mark.parametrize(
    "file", ["wheels/raypipe-0.1.0-py3-none-any.whl", "models/tiny/model.safetensors", "install.sh"]
)
def test_a_changed_byte_stops_it(file: str, tmp_path: Path, source: Path, model: Path) -> None:
    out = tmp_path / "out"
    bundle.make(out, source, [model], Pip())
    with (out / file).open("ab") as damaged:
        damaged.write(b"\n")
    done = _install(out, tmp_path / "venv")
    assert done.returncode != 0
    assert file in done.stdout + done.stderr
    assert not (tmp_path / "venv").exists()


def test_all_that_is_wrong_is_listed_and_nothing_is_made(tmp_path: Path, source: Path, model: Path) -> None:
    (model / "model.safetensors").unlink()
    (source / "constraints.txt").unlink()
    with pytest.raises(InputError) as refused:
        bundle.make(tmp_path, source, [model], pytest.fail)
    assert [problem.where for problem in refused.value.problems] == [str(tmp_path), "--source", "--model"]


def test_a_failed_download_leaves_nothing(tmp_path: Path, source: Path) -> None:
    with pytest.raises(InputError, match="is an index within reach"):
        bundle.make(tmp_path / "out", source, [], Pip(code=1))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
