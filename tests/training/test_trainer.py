"""What is left when a training has ended."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

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
