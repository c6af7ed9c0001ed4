"""What is left when a training has ended."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from raypipe.settings.config import Model, Training
from raypipe.training import trainer


def test_a_checkpoint_that_cannot_go_is_told_and_goes_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = dict.fromkeys(trainer.Outcome.__dataclass_fields__, 0)
    (tmp_path / "outcome.json").write_text(json.dumps(outcome))
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "rows.arrow").write_bytes(b"tokens of notes")
    spec = SimpleNamespace(folder=str(tmp_path))

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "failed")

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", fails)
        with pytest.raises(OSError, match="failed"):
            trainer._ended(spec)
    assert trainer._ended(spec) == trainer.Outcome(**outcome)
    assert not (tmp_path / "checkpoint").exists()


def test_random_weights_are_drawn_also_where_the_model_that_they_replace_was_just_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, start = Training(), Model(path=str(tmp_path / "first/model"))
    specs = [
        trainer.TrainingSpec(str(tmp_path / "first"), "rows", "text", training, Model(path="other"), start),
        trainer.TrainingSpec(str(tmp_path / "next"), "rows", "a", training, start, start),
        trainer.TrainingSpec(str(tmp_path / "first/again"), "rows", "a", training, start, start, random_weights=True),
    ]
    started: list[str] = []
    monkeypatch.setattr(trainer, "_start", lambda spec: started.append(spec.folder))
    monkeypatch.setattr(trainer, "_train", lambda *_: None)
    trainer._train_all(specs[:2], None)
    trainer._train_all([specs[0], specs[2]], None)
    assert started == [specs[0].folder, specs[0].folder, specs[2].folder]
