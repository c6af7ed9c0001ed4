"""Against a real S3 server on loopback (moto's): inputs are read, steps are copied whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from raypipe import cli
from raypipe.errors import ExitCode, InputError
from raypipe.notes import storage
from raypipe.notes.files import iter_notes
from raypipe.runs import integrity, store
from raypipe.runs.folder import StepFolder
from raypipe.settings.config import Columns, Data

pytest.importorskip("moto", reason="moto's S3 server is not installed (the extra `dev`)")
SECRET = "SEKRET-of-the-environment"
_SERVE = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"
# Copies a run, and is killed before the n-th write into the store or onto the disk
_KILLED = """
import os, signal, sys
from pathlib import Path
from raypipe.runs import store
direction, folder, uri, n = sys.argv[1:]
write, left = store.Place.write, [int(n)]
def killed(place, key, chunks):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(place, key, chunks)
store.Place.write, store.AT_ONCE = killed, 1
here, there = store.on_disk(Path(folder)), store.in_store(uri, "run")
store.copy(*((here, there) if direction == "up" else (there, here)), print)
"""


@pytest.fixture(scope="module")
def s3() -> Iterator[fs.FileSystem]:
    """The server's file system; its address and credentials are in the environment, and nowhere else."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", _SERVE, str(port)], stderr=subprocess.DEVNULL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "user")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        _until_it_answers(f"http://127.0.0.1:{port}/moto-api/")
        yield fs.FileSystem.from_uri("s3://any?allow_bucket_creation=true")[0]
    server.kill()
    server.wait()


def _until_it_answers(url: str) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("moto's server did not start")


@pytest.fixture
def bucket(s3: fs.FileSystem, tmp_path: Path) -> str:
    name = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]
    s3.create_dir(name)
    return name


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three finished steps, one inside another and one with output beside it; one unfinished."""
    folder = tmp_path / "runs/run"
    for name in ("pretrain/rows", "pretrain", "mask"):
        step = StepFolder(folder / name, {"step": name}).open()
        (step.path / "data").mkdir()
        (folder / "pretrain/tokenizer").mkdir(exist_ok=True, parents=True)
        (folder / "pretrain/tokenizer/vocabulary.csv.gz").write_bytes(b"not compressed")
        for n in range(3):
            (step.path / f"data/{n}.bin").write_bytes(f"{name} {n} ".encode() * 50)
        step.finish(beside=["../tokenizer"] if name == "pretrain/rows" else ())
    begun = StepFolder(folder / "train/arm", {"step": "train"}).open()
    (begun.path / "half").write_text("of it")
    return folder


def _contents(place: store.Place) -> dict[str, str]:
    fresh = store.Place(place.filesystem, place.root)
    return {key: fresh.sha256(key) for key in fresh.sizes if key != "lock.json"}


def _copy(direction: str, folder: Path, uri: str) -> int:
    here, there = store.on_disk(folder), store.in_store(uri, "run")
    return store.copy(*((here, there) if direction == "up" else (there, here)), print)


def _exit(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raypipe.guard.command.protect", lambda: None)
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert SECRET not in out + err
    return int(end.value.code or 0), out + err


def test_a_run_goes_up_and_comes_back_whole(bucket: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").write_text("{}")
    uri = f"s3://{bucket}/runs"
    assert _exit("upload", uri, "--config", run, capsys=capsys)[0] == ExitCode.OK
    elsewhere = run.parent.parent / "other/run"
    (elsewhere.parent.parent / "c.yaml").write_text(f"{{name: run, runs: {elsewhere.parent}}}")
    code, said = _exit("download", uri, "--config", elsewhere.parent.parent / "c.yaml", capsys=capsys)
    assert (code, said.count("MB")) == (ExitCode.OK, 3)
    back, original = (_contents(store.on_disk(folder)) for folder in (elsewhere, run))
    assert back == {k: v for k, v in original.items() if not k.startswith(("train/", "config.yaml"))}
    integrity.demand_whole(integrity.finished(elsewhere), by_digest=True)
    assert (elsewhere / "mask/data/0.bin").stat().st_mtime_ns == (run / "mask/data/0.bin").stat().st_mtime_ns
    assert _exit("upload", uri, "--config", run, capsys=capsys)[1].count("is there") == 3


@pytest.mark.parametrize(
    ("direction", "n"),
    [("up", 4), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("up", 3), ("down", 4)))],
)
def test_killed_between_the_commits_a_step_is_none_and_the_same_command_completes_it(
    direction: str, n: int, bucket: str, run: Path
) -> None:
    """`mask` is the first step: its settings, three files, its manifest. Killed in its files, and before the last."""
    uri, twin = f"s3://{bucket}/runs", f"s3://{bucket}/twin"
    _copy("up", run, twin)
    folder, uri = (run, uri) if direction == "up" else (run.parent.parent / "back", twin)
    command = [sys.executable, "-c", _KILLED, direction, str(folder), uri, str(n)]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
    target = store.in_store(uri, "run") if direction == "up" else store.on_disk(folder)
    assert len(_contents(target)) == n
    assert "mask/manifest.json" not in _contents(target)
    assert _copy(direction, folder, uri) == 3
    assert _contents(target) == _contents(store.in_store(twin, "run"))


def test_half_a_file_is_completed_and_another_is_refused(bucket: str, run: Path, s3: fs.FileSystem) -> None:
    uri = f"s3://{bucket}/runs"
    there = store.in_store(uri, "run")
    there.write("mask/settings.json", iter([(run / "mask/settings.json").read_bytes()]))
    there.write("mask/data/0.bin", iter([(run / "mask/data/0.bin").read_bytes()[:100]]))
    other = there.write("mask/data/1.bin", iter([b"another's"]))
    with pytest.raises(InputError, match=r"run/mask/data/1.bin: another output lies there"):
        _copy("up", run, uri)
    assert there.sha256("mask/data/1.bin") == other, "it is as it was"
    assert "mask/manifest.json" not in _contents(there)
    s3.delete_file(there.at("mask/data/1.bin"))
    assert _copy("up", run, uri) == 3
    assert _contents(there)["mask/data/0.bin"] == store.on_disk(run).sha256("mask/data/0.bin")


def test_a_step_that_was_made_again_does_not_replace_the_stored_one(bucket: str, run: Path) -> None:
    uri = f"s3://{bucket}/runs"
    _copy("up", run, uri)
    before = _contents(store.in_store(uri, "run"))
    for name in ("mask", "pretrain/rows"):
        StepFolder(run / name, {"step": name}).finish(other=True)
    with pytest.raises(InputError) as error:
        _copy("up", run, uri)
    assert [problem.where.split("/run/")[1] for problem in error.value.problems] == [
        "mask/manifest.json",
        "pretrain/rows/manifest.json",
    ], "all at once"
    assert _contents(store.in_store(uri, "run")) == before


@pytest.mark.parametrize("direction", ["up", "down"])
def test_what_is_damaged_is_not_copied(direction: str, bucket: str, run: Path) -> None:
    uri, back = f"s3://{bucket}/runs", run.parent.parent / "back"
    place, target = store.on_disk(run), store.in_store(uri, "run")
    if direction == "down":
        _copy("up", run, uri)
        place, target = target, store.on_disk(back)
    place.write("mask/data/2.bin", iter([b"x" * place.sizes["mask/data/2.bin"]]))
    with pytest.raises(InputError, match=r"mask/data/2.bin: is damaged, or changed on the way"):
        _copy(direction, run if direction == "up" else back, uri)
    assert not {"mask/data/2.bin", "mask/manifest.json"} & set(_contents(target))


@pytest.mark.parametrize("name", ["../../../evil", "/evil", "../config.yaml", "../mask/manifest.json", "a\n", ".."])
def test_no_manifest_of_a_store_leads_out_of_the_run(name: str, bucket: str, run: Path, tmp_path: Path) -> None:
    there = store.in_store(f"s3://{bucket}/runs", "run")
    manifest = json.loads((run / "mask/manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["data/0.bin"]
    there.write("mask/manifest.json", iter([json.dumps(manifest).encode()]))
    there.write("mask/settings.json", iter([b"{}"]))
    with pytest.raises(InputError, match=r"mask/manifest.json: is broken"):
        _copy("down", tmp_path / "back", f"s3://{bucket}/runs")
    assert not (tmp_path / "back").exists()


def test_links_and_steps_that_were_begun_there_are_refused(bucket: str, run: Path, tmp_path: Path) -> None:
    uri, back = f"s3://{bucket}/runs", tmp_path / "back"
    _copy("up", run, uri)
    begun = StepFolder(back / "mask", {"step": "mask"}).open()
    (begun.path / "data").mkdir()
    (begun.path / "data/own.bin").write_text("")
    with pytest.raises(InputError, match=r"mask/data/own.bin: is no file of the step that comes"):
        _copy("down", back, uri)
    shutil.rmtree(back)
    (back / "mask").mkdir(parents=True)
    (back / "mask/data").symlink_to(tmp_path)
    with pytest.raises(InputError, match="is a symbolic link"):
        _copy("down", back, uri)
    (run / "mask/data/0.bin").unlink()
    (run / "mask/data/0.bin").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="is a symbolic link"):
        _copy("up", run, f"s3://{bucket}/elsewhere")


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("s3://no-such-bucket/runs", "the store failed"),
        ("s3://user:SEKRET@bucket/runs", "holds a credential"),
        ("s3://bucket/runs?secret_key=SEKRET", "holds a credential"),
        ("/mnt/runs", "is a folder, and no object store"),
        ("file:///mnt/runs", "is a folder, and no object store"),
        ("https://host/runs", "https:// is not allowed"),
    ],
)
def test_a_wrong_store_is_one_line(
    uri: str, what: str, run: Path, s3: fs.FileSystem, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = _exit("upload", uri, "--config", run, capsys=capsys)
    assert code in (ExitCode.CONFIG, ExitCode.PARTIAL)
    assert what in said
    assert said.count("\n") == 1
    assert "SEKRET" not in said


def test_inputs_are_read_from_a_store(bucket: str, s3: fs.FileSystem) -> None:
    notes = {
        "note_id": ["1", "2"],
        "text": ["Febbre da ieri.", "Nega dolore."],
        "marks": ['[{"start": 0, "end": 6, "label": "x"}]', "[]"],
    }
    pq.write_table(pa.table(notes), f"{bucket}/notes/a.parquet", filesystem=s3)
    with s3.open_output_stream(f"{bucket}/labels.csv") as file:
        file.write(b"task_id,note_id,label\nfebbre,1,yes\n")
    columns = Columns(spans="marks")
    for uri in (f"s3://{bucket}/notes", f"s3://{bucket}/notes/*.parquet"):
        read = pa.concat_tables(iter_notes(Data(notes=uri, columns=columns), ["note_id", "text", "spans"])).to_pylist()
        assert [row["text"] for row in read] == notes["text"]
        assert [row["spans"] for row in read] == notes["marks"]
    labels = storage.read_strings(f"s3://{bucket}/labels.csv", ["note_id", "label"], "data.labels")
    assert labels.to_pylist() == [{"note_id": "1", "label": "yes"}]
    with pytest.raises(InputError, match=r"data.labels: s3://.*no such file or folder") as error:
        storage.find(f"s3://{bucket}/nothing", "data.labels")
    assert SECRET not in str(error.value)
    assert os.environ["AWS_ENDPOINT_URL"] not in str(error.value)


@pytest.mark.ray
@pytest.mark.slow
def test_workers_read_notes_from_a_store(bucket: str, s3: fs.FileSystem) -> None:
    from raypipe.settings.config import Resources
    from raypipe.stream.cluster import join
    from raypipe.stream.source import read_notes

    ids = [f"{n:03}" for n in range(100)]
    table = pa.table({"note_id": ids, "text": [f"Nota {n}." for n in ids]})
    pq.write_table(table, f"{bucket}/notes.parquet", filesystem=s3)
    join(Resources())
    read = read_notes(Data(notes=f"s3://{bucket}/notes.parquet"), rows_per_block=20)
    assert sorted(row["note_id"] for row in read.iter_rows()) == ids
