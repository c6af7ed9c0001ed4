"""What a log says of attribution while it runs: tokens a second over all actors, and the share of their cards' peak."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypipe import rows
from raypipe.attribution import cost
from raypipe.models.prompts import PromptEncoder
from raypipe.notes.tasks import Task
from raypipe.runs import speed
from raypipe.runs.speed import Speed
from raypipe.settings.config import Model, Prompt
from raypipe.stream import cluster
from raypipe.stream.cluster import Cluster
from raypipe.stream.inline import Inline
from raypipe.stream.stages.attribute import Attribute
from tests.small_run import settings
from tests.tiny_models import tiny_model, tiny_tokenizer

TASKS = [Task(t, "binary", q, ("1", "0"), ("sì", "no")) for t, q in (("a", "dispnea"), ("b", "febbre e tosse"))]


def _write(folder: Path, name: str, n_tokens: list[int | None]) -> None:
    table = rows.table([{"note_id": str(i), "n_tokens": n} for i, n in enumerate(n_tokens)], rows.ATTRIBUTED)
    rows.write(table, folder / f"{name}.parquet")


def test_tokens_of_all_files_since_the_first_ones(tmp_path: Path) -> None:
    now = iter([10.0, 20.0, 25.0])
    of = Speed(clock=lambda: next(now))
    _write(tmp_path, "before", [500])
    assert of(tmp_path) == "", "another attempt may have made those"
    _write(tmp_path, "one", [200, None])
    _write(tmp_path, "two", [300])
    (tmp_path / "half.parquet").write_bytes(b"PAR1")
    assert of(tmp_path) == "50 tokens/s"
    (tmp_path / "half.parquet").unlink()
    _write(tmp_path, "half", [30_000])
    assert of(tmp_path) == "2,033 tokens/s"


@pytest.mark.parametrize("scale", [1, 6000], ids=["few", "more than 64 bits hold"])
def test_the_share_of_the_cards_peak(tmp_path: Path, scale: int) -> None:
    now = iter([0.0, 10.0])
    peak = 8 * 40e12 * scale
    of = Speed(lambda row: 1e12 * scale * row["n_tokens"], peak=lambda: peak, cards=8, clock=lambda: next(now))
    for name in "ab":
        _write(tmp_path, name, [1000])
        said = of(tmp_path)
    assert said == "100 tokens/s, 31% of the peak of 8 cards"


def test_the_arithmetic_is_that_of_the_notes_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of stored rows as of the encoded notes that they were made from."""
    tiny_model("llama").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    config = settings(tmp_path, attribution__tasks_per_note=None)
    model = Model(path=str(tmp_path))
    encoder = PromptEncoder(tiny_tokenizer(), Prompt(), TASKS)
    note = {"note_id": "n", "text": "Paziente con dispnea e febbre, nega dolore toracico.", "error": None}
    made = Attribute(model, config.attribution, Prompt(), TASKS, 0)(rows.table([note], rows.NOTES))
    run: Any = SimpleNamespace(settings=config, model=lambda _: model, encoder=lambda: encoder)
    flops_of = speed._flops_of(run)
    assert flops_of is not None
    counted: list[cost.NoteSize] = []
    monkeypatch.setattr(cost, "flops", lambda shape, attribution, layers, size: counted.append(size) or 1.0)
    flops_of(made.to_pylist()[0])
    assert counted == [cost.NoteSize.of(encoder.encode("n", note["text"], ["a", "b"]))]


def test_without_cards_no_peak_is_measured() -> None:
    assert Inline(1, has_gpu=False).peak(Model())() is None
    assert Cluster(4.0, 0.0, 1, 1.0, 0.0).peak(Model())() is None


def test_masks_from_stored_relevance_say_nothing_of_the_scorer() -> None:
    run: Any = SimpleNamespace(settings=settings(Path()), is_done=lambda _: True)
    assert speed.of_masking(run) is None


def test_nobody_waits_for_a_card_to_measure_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for Ray, as there is no card here: it is never told to wait, and what never came is given up."""
    answers: list[float] = []
    cancelled: list[str] = []

    def get(measured: str, timeout: float) -> float:
        assert (measured, timeout) == ("measured", 0)
        if not answers:
            raise ray.exceptions.GetTimeoutError
        return answers[0]

    task = SimpleNamespace(remote=lambda model: "measured")
    ray: Any = SimpleNamespace(
        get=get,
        remote=lambda **options: lambda function: task,
        cancel=lambda measured, force: cancelled.append(measured),
        exceptions=SimpleNamespace(RayError=TimeoutError, GetTimeoutError=TimeoutError),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    peak = Cluster(4.0, 8.0, 1, 1.0, 1.0).peak(Model())
    assert (peak(), cancelled) == (None, [])
    answers.append(40e12)
    assert peak() == 8 * 40e12
    answers.clear()
    monkeypatch.setattr(cluster, "PEAK_S", 0.0)
    assert (Cluster(4.0, 8.0, 1, 1.0, 1.0).peak(Model())(), cancelled) == (None, ["measured"])
