"""The offline bundle: what a machine without internet needs, in one folder with checksums and an installer.

install.sh        makes an environment from the wheels, with no index, once every checksum fits
wheels/           raypipe and all it needs, in the versions of constraints.txt, for this platform and this Python
models/<name>/    model folders
SHA256SUMS        of every other file
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from raypipe.errors import InputError, Problem
from raypipe.guard.terminal import descriptor_of_errors
from raypipe.records import sha256

CONSTRAINTS, SUMS = "constraints.txt", "SHA256SUMS"
# Weights that hold code (pickles) stay behind, as do caches.
_OF_A_MODEL = (".safetensors", ".json", ".jinja", ".txt", ".model", ".md")
_LICENCES = ("LICENSE", "LICENCE", "NOTICE")
_INSTALL = """\
#!/bin/sh
# Installs raypipe into a new environment from this folder alone:  sh install.sh VENV [PYTHON]
set -eu
venv=${1:?usage: sh install.sh VENV [PYTHON]}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
cd "$(dirname "$0")"
sha256sum --check --quiet --strict SHA256SUMS
"${2:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --find-links wheels \\
    --constraint constraints.txt raypipe
"$venv/bin/raypipe" --version
"""


def _pip(arguments: Sequence[str]) -> int:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    errors = descriptor_of_errors()
    return subprocess.run(command, check=False, stderr=errors).returncode  # noqa: S603 (nothing of it is from a file)


def make(out: Path, source: Path, models: Sequence[Path], pip: Callable[[Sequence[str]], int] = _pip) -> str:
    """Make the bundle in a new folder; what to do with it. Raises `InputError`.

    source: raypipe's source folder, whose constraints.txt names the versions.
    """
    if problems := list(_problems(out, source, models)):
        raise InputError(problems)
    made = out.with_name(f"{out.name}.partial")
    shutil.rmtree(made, ignore_errors=True)  # of an attempt that was ended
    try:
        _fill(made, source, models, pip)
        made.rename(out)  # there means whole
    finally:
        shutil.rmtree(made, ignore_errors=True)
    digest = sha256(out / SUMS)
    return (
        f"{out}: for Python {sys.version_info.major}.{sys.version_info.minor} on {platform.system()} "
        f"{platform.machine()}\nSHA-256 of its {SUMS}, to be carried by another way: {digest}\n"
        f"there: sh {out.name}/install.sh VENV"
    )


def _problems(out: Path, source: Path, models: Sequence[Path]) -> Iterator[Problem]:
    if out.exists():
        yield Problem(str(out), "is there already; name a new folder")
    for name in ("pyproject.toml", CONSTRAINTS):
        if not (source / name).is_file():
            yield Problem("--source", f"{source} has no {name}: name the folder of raypipe's source")
    names = [model.resolve().name for model in models]
    for model, name in zip(models, names, strict=True):
        if not (model / "config.json").is_file() or not any(model.glob("*.safetensors")):
            yield Problem("--model", f"{model} is no folder with config.json and safetensors (see `raypipe import`)")
        if names.count(name) > 1:
            yield Problem("--model", f"{model}: two models are called {name}")


def _fill(made: Path, source: Path, models: Sequence[Path], pip: Callable[[Sequence[str]], int]) -> None:
    wheels = made / "wheels"
    wheels.mkdir(parents=True)
    shutil.copyfile(source / CONSTRAINTS, made / CONSTRAINTS)
    # `wheel` downloads like `download`, and makes a wheel of what has none: nothing is compiled on the other machine
    if pip(["wheel", "--wheel-dir", str(wheels), "--constraint", str(made / CONSTRAINTS), str(source.resolve())]):
        raise InputError("pip could not get every wheel; is an index within reach?")
    for model in models:
        target = made / "models" / model.resolve().name
        target.mkdir(parents=True)
        for file in sorted(model.iterdir()):
            if file.is_file() and (file.suffix in _OF_A_MODEL or file.name.startswith(_LICENCES)):
                shutil.copyfile(file, target / file.name)
    (made / "install.sh").write_text(_INSTALL)
    files = sorted(path for path in made.rglob("*") if path.is_file())
    (made / SUMS).write_text("".join(f"{sha256(path)}  {path.relative_to(made)}\n" for path in files))
