"""How far a step has come: rates and times from enough of it, bars on a terminal, few lines in a log."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.runs import progress
from raypipe.runs.progress import Line, Pace, Printer, said, tick
from raypipe.stream.cluster import Cluster
from raypipe.stream.inline import Inline
from raypipe.training import examples
from raypipe.training.trainer import Metrics


def seen(*points: tuple[float, int]) -> Pace:
    pace = Pace()
    for now, done in points:
        pace.see(now, done)
    return pace


def test_one_step_says_nothing_of_the_time_left() -> None:
    assert said((1, 130, "loss 3.000"), "steps", seen((152.7, 1))) == "1/130 steps, loss 3.000"
    assert "left" not in said((2, 130, ""), "steps", seen((152.7, 1), (153.1, 2)))


def test_the_rate_leaves_out_the_first_step_and_what_was_done_before() -> None:
    pace = seen((100.0, 501), (101.0, 503), (102.0, 505))
    assert pace.rate == 2.0
    assert said((505, 605, ""), "steps", pace) == "505/605 steps, 50 s left, 2 steps/s"
    assert "1 h 02 min left" in said((505, 505 + 2 * 3725, ""), "steps", pace)


def test_waiting_does_not_lower_a_rate() -> None:
    pace = seen((0.0, 64), (2.0, 128), (9.0, 128))
    assert pace.rate == 32.0


def test_more_than_was_expected_has_no_end() -> None:
    assert said((120, 100, ""), "masked examples", Pace()) == "120 masked examples"
    assert said((120, None, ""), "notes", Pace()) == "120 notes"


def test_a_log_gets_a_line_where_something_changed() -> None:
    lines: list[str] = []
    line, pace = Line("mask", lines.append), Pace()
    for now, at in enumerate([None, (0, 10, ""), (4, 10, ""), (4, 10, ""), (8, 10, "")]):
        tick(line, "notes", lambda at=at: at, pace, float(now))  # type: ignore[misc]
    assert [text.partition(",")[0] for text in lines] == ["mask: 4/10 notes", "mask: 8/10 notes"]
    assert "left" in lines[1]
    assert line.every_s == 30


def test_a_terminal_gets_a_bar_that_goes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    bars = progress.Bar("mask"), progress.Bar("train/a")
    for bar in bars:
        bar((5, 10, ""), "5/10 notes")
    assert progress._bars.display is not None
    for bar in bars:
        bar.close()
    assert progress._bars.display is None
    assert "5/10 notes" in capsys.readouterr().out


def test_a_printer_can_be_sent_to_a_worker_and_follows_a_block(capsys: pytest.CaptureFixture[str]) -> None:
    printer = pickle.loads(pickle.dumps(Printer()))  # as Ray does
    with printer.follow("mask", "notes", lambda: (1, 2, "")):
        printer("working")
    assert "working" in capsys.readouterr().out


def test_training_is_read_from_its_last_whole_line(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    line = {"step": 7, "steps": 9, "loss": 2.5, "tokens": 700, "seconds": 2.0}
    metrics.write_text(json.dumps(line) + "\n")
    assert Metrics(str(tmp_path))() is None, "an earlier attempt's"
    read = Metrics(str(tmp_path))
    metrics.write_text(json.dumps(line) + "\n" + json.dumps(line | {"step": 8}) + '\n{"step": 9')
    assert read() == (8, 9, "loss 2.500, 350 tokens/s")
    (tmp_path / "outcome.json").write_text("{}")
    assert read() is None


def test_rows_that_were_written_are_counted_with_ray_and_without(tmp_path: Path) -> None:
    table = pa.table({"n": list(range(5))})
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 half a file")
    assert Cluster(1, 0, 1, 1, 0).rows_written(tmp_path) == 5
    inline = Inline(1, False)
    counts = []
    stream = inline.parquet(str(tmp_path / "a.parquet")).repartition(target_num_rows_per_block=2)
    stream.map_batches(lambda block: counts.append(inline.rows_written(tmp_path)) or block).write_parquet(
        str(tmp_path / "out")
    )
    assert [*counts, inline.rows_written(tmp_path)] == [0, 2, 4, 5]


def test_of_training_rows_the_notes_are_counted(tmp_path: Path) -> None:
    """A note may become several rows, or none; of each there is one receipt."""
    row = {"arm": "cpt", "draw": 0, "input_ids": [1], "loss_weight": [1.0], "branch": [0]}
    training_rows = [row | {"key": f"a\t{part}"} for part in range(3)] + [examples.receipt(note) for note in "ab"]
    examples.write(training_rows, tmp_path / "rows/a.parquet")
    assert Cluster(1, 0, 1, 1, 0).rows_written(tmp_path / "rows") == 2
    inline = Inline(1, False)
    inline.parquet(str(tmp_path / "rows")).write_parquet(str(tmp_path / "out"))
    assert inline.rows_written(tmp_path) == 2


def test_of_a_trial_only_warnings_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    progress.only_warnings("train: 12/130 steps")
    progress.only_warnings("warning: train/sft: tracking failed (OSError); its numbers are in metrics.jsonl")
    assert capsys.readouterr().out.splitlines() == [
        "warning: train/sft: tracking failed (OSError); its numbers are in metrics.jsonl"
    ]
