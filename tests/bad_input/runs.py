"""Folders of runs: damaged and foreign files, records that are none, steps of earlier versions, exports."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

from raypipe.errors import ExitCode
from raypipe.runs.integrity import FILES, MANIFEST, SETTINGS
from tests.bad_input.case import CANARY, Accepted, Case, Handled, Refused
from tests.bad_input.ground import NOTES, Ground, write_config

RUN, NOTE = "runs/bad", NOTES[0]["note_id"]
CONFIG = ("--config", "c.yaml")


def _readers(ground: Ground) -> dict[str, tuple[str, ...]]:
    """Commands that read a run, by name. `show` wants a note that is masked: not a copy of one that is held out."""
    notes = pq.read_table(ground.run / RUN / "mask/data", columns=["note_id", "error"])
    masked = notes.filter(notes["error"].is_null())["note_id"][0].as_py()
    return {
        "report": ("report", *CONFIG),
        "status": ("status", *CONFIG),
        "show": ("show", "--config", RUN, "--note", masked),
        "export": ("export", "--config", RUN, "--what", "attributions", "--out", "out.parquet"),
        "clean": ("clean", "--config", RUN),
        "run": ("run", *CONFIG),
    }


def _flip(path: Path) -> None:
    """One bit of the file; its size and time stay."""
    times, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "garbage": lambda path: path.write_bytes(CANARY.encode() * 100),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "empty": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
    "flipped": _flip,
    "a folder": _in_its_place,
}


def _files(ground: Ground) -> list[str]:
    """The output of all steps, relative to the project."""
    paths = [path.relative_to(ground.run) for path in sorted((ground.run / RUN).rglob("*")) if path.is_file()]
    no_output = (MANIFEST, SETTINGS, "config.yaml")
    return [str(path) for path in paths if path.name not in no_output and path.parts[2] != "report"]


def _damaged(file: str, damage: Callable[[Path], object], is_old: bool = False) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        damage(folder / file)
        for manifest in folder.rglob(MANIFEST) if is_old else ():
            facts = json.loads(manifest.read_text())
            facts.pop(FILES)
            manifest.write_text(json.dumps(facts))

    return change


def damaged(ground: Ground) -> Iterator[Case]:
    """Every file of every step, damaged in every way: named where all are verified, else never a defect."""
    readers = _readers(ground)
    for n, file in enumerate(_files(ground)):
        # a name within the step is enough: the message has the whole path
        for m, (what, damage) in enumerate(DAMAGE.items()):
            name, change = f"{file} {what}", _damaged(file, damage)
            command = ("report", "run", "compare")[(n + m) % 3]
            yield Case(
                f"{command} --verify {name}",
                (command, *CONFIG, "--verify"),
                Refused(Path(file).name),
                change,
                ground.run,
            )
            reader, arguments = list(readers.items())[(n + m) % len(readers)]
            yield Case(f"{reader} {name}", arguments, Handled("repair"), change, ground.run, reader == "show")
            if what == "cut":
                (step,) = [p for p in Path(file).parents if (ground.run / p / MANIFEST).exists()][:1]
                yield Case(f"repair {name}", ("repair", str(step)), Accepted("deleted"), change, ground.run)


def of_earlier_versions(ground: Ground) -> Iterator[Case]:
    """The same under manifests that list no files: what cannot be read is named, with what to do."""
    readers = _readers(ground)
    for file in _files(ground):
        if file.endswith(".parquet"):
            change = _damaged(file, DAMAGE["garbage"], is_old=True)
            yield Case(
                f"verify {file}",
                ("report", *CONFIG, "--verify"),
                Refused("cannot be read; `raypipe repair"),
                change,
                ground.run,
            )
            for reader, arguments in readers.items():
                outcome = Handled("cannot be read; `raypipe repair")
                yield Case(f"{reader} {file}", arguments, outcome, change, ground.run, reader == "show")
        elif file.endswith((".safetensors", ".json")):
            change = _damaged(file, DAMAGE["garbage"], is_old=True)
            for reader in ("report", "run"):
                yield Case(f"{reader} {file}", readers[reader], Handled(), change, ground.run)


RECORDS = {
    "empty": b"",
    "cut": b'{"a": ',
    "a list": b"[]",
    "a number": b"7",
    "binary": b"\xff\x00",
    "deep": b"[" * 100_000,
    "files": b'{"files": []}',
    "entries": b'{"files": {"data": 7}}',
    "an entry": b'{"files": {"data/x": {}}}',
    "sizes": b'{"files": {"settings.json": {"size": "a", "modified": [], "sha256": 1}}}',
}


def records(ground: Ground) -> Iterator[Case]:
    """settings.json, manifest.json, config.yaml, lock.json, study.json: what a command may find there."""
    readers = _readers(ground)
    for step in ("mask", "corpus", "evaluate/scorer", "finetune/scorer"):
        for name in (SETTINGS, MANIFEST):
            for what, content in RECORDS.items():

                def change(folder: Path, path: str = f"{RUN}/{step}/{name}", content: bytes = content) -> None:
                    (folder / path).write_bytes(content)

                for reader in ("report", "status"):
                    yield Case(f"{reader} {step}/{name} {what}", readers[reader], Handled(step), change, ground.run)
    for name in ("config.yaml", "lock.json", "tune/study.json", "report/metrics.json"):
        for what, content in RECORDS.items():

            def write(folder: Path, path: str = f"{RUN}/{name}", content: bytes = content) -> None:
                (folder / path).parent.mkdir(exist_ok=True)
                (folder / path).write_bytes(content)

            reader = {"config.yaml": "status", "lock.json": "report", "tune/study.json": "tune-report"}.get(
                name, "status"
            )
            arguments = (reader, "--config", RUN)
            yield Case(f"{reader} {name} {what}", arguments, Handled(), write, ground.run)


def strange(ground: Ground) -> Iterator[Case]:
    """Links, other settings, missing rights of a step, folders that are none of a run."""

    def link(folder: Path) -> None:
        shutil.move(folder / RUN / "mask", folder / "elsewhere")
        (folder / RUN / "mask").symlink_to(folder / "elsewhere")

    yield Case("a link", ("run", *CONFIG), Refused("is a symbolic link"), link, ground.run)
    yield Case(
        "a broken link",
        ("run", *CONFIG),
        Refused("is a symbolic link"),
        lambda f: (f / RUN / "x").symlink_to("nowhere"),
        ground.run,
    )
    changes = {
        "seed": 5,
        "attribution__layer": 2,
        "finetune__learning_rate": 0.5,
        "prompt__question": "\n{question}!",
        "data__max_labelled": 4,
        "arms": {"sft": {}, "decselfmask": {"masking": {"ratio": 0.4}}},
    }
    for key, value in changes.items():
        yield Case(
            f"other {key}",
            ("run", *CONFIG),
            Refused("made with other settings"),
            lambda f, c={key: value}: write_config(f, **c),
            ground.run,
        )
    for command in ("mask", "train", "evaluate", "report", "probe", "show", "clean", "tune-report", "status"):
        more = ("--note", CANARY) if command == "show" else ()
        yield Case(f"{command} of a folder", (command, "--config", ".", *more), Refused("mask" if more else "."))
    for command in ("mask", "train", "evaluate", "report"):
        yield Case(f"{command} before its time", (command, *CONFIG), Refused("run `raypipe"), of=ground.project)
    for step in (".", "nowhere", "runs", RUN, "runs/bad/mask/data", "c.yaml"):
        yield Case(f"repair {step}", ("repair", step), Refused("is no step's folder"), of=ground.run)
    yield Case(
        "a file in the place of runs",
        ("run", *CONFIG),
        Refused("{}/runs", ExitCode.STORAGE),
        lambda f: (f / "runs").write_text(""),
        ground.project,
    )
    yield Case(
        "a file in the place of a step",
        ("mask", *CONFIG),
        Handled("", (2, 7)),
        lambda f: _write(f / RUN / "finetune"),
        ground.project,
    )


def _write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


def exports(ground: Ground) -> Iterator[Case]:
    """Options of export, and places that cannot be written."""
    start = ("export", "--config", RUN)
    spans = (*start, "--what", "spans")
    wrong: list[tuple[tuple[str, ...], str]] = [
        ((*start, "--out", "x.parquet"), "Missing option '--what'"),
        ((*start, "--what", "notes", "--out", "x"), "--what"),
        ((*start, "--what", "spans", "--out", "x.json"), "--what spans needs --to"),
        ((*spans, "--to", "label-studio", "--out", "x.json"), "either --arm or --top"),
        (
            (*spans, "--to", "label-studio", "--arm", "decselfmask", "--top", "5", "--out", "x.json"),
            "either --arm or --top",
        ),
        ((*spans, "--to", "prodigy", "--arm", "decselfmask", "--out", "x.json"), "--to"),
        ((*spans, "--to", "doccano", "--arm", "nosuch", "--out", "x.json"), "no note has words hidden by nosuch"),
        ((*spans, "--to", "doccano", "--arm", "sft", "--out", "x.json"), "no note has words hidden by sft"),
        ((*spans, "--to", "doccano", "--top", "101", "--out", "x.json"), "--top"),
        ((*spans, "--to", "doccano", "--top", "-1", "--out", "x.json"), "--top"),
        ((*spans, "--to", "doccano", "--top", "nan", "--out", "x.json"), "--top"),
        ((*spans, "--to", "doccano", "--top", "5", "--task", "nosuch", "--out", "x.json"), "no note has words"),
        ((*spans, "--text", "--to", "doccano", "--top", "5", "--out", "x.json"), "--text belongs to"),
        ((*start, "--what", "attributions", "--arm", "decselfmask", "--out", "x.parquet"), "belong to --what spans"),
        ((*start, "--what", "attributions", "--out", "c.yaml"), "c.yaml"),
        (("export", "--config", "runs", "--what", "attributions", "--out", "x.parquet"), "runs"),
        (("show", "--config", RUN, "--note", "nosuch"), "no note nosuch"),
        (("show", "--config", RUN, "--note", "\x1b[2J"), "no note"),
        (("import-spans", "nowhere.json", "--out", "x.parquet"), "nowhere.json"),
        (("import-spans", "c.yaml", "--out", "x.parquet"), "c.yaml"),
    ]
    for arguments, place in wrong:
        yield Case(" ".join(arguments), arguments, Refused(place), of=ground.run)
    for out in ("nowhere/x.parquet", "model", "c.yaml/x.parquet", "a" * 300, "", "."):
        arguments = (*start, "--what", "attributions", "--out", out)
        yield Case(
            f"export to {out:.20}",
            arguments,
            Handled("", (ExitCode.OK, ExitCode.CONFIG, ExitCode.STORAGE)),
            of=ground.run,
        )
