"""Dev scores of a student while it is fine-tuned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raypipe.models import loading
from raypipe.runs import driver
from raypipe.runs.dev_score import DevScore
from raypipe.runs.run import Run
from raypipe.settings.config import Model
from raypipe.training import loss
from tests.small_run import TRAINING, settings

ADAPTERS = TRAINING | {"max_steps": None, "epochs": 2, "precision": "bfloat16", "lora": {"rank": 2, "alpha": 4}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_are_scored_between_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """Also over frozen weights in bfloat16, where the adapters and norms of the same model are float32."""
    monkeypatch.setattr(loss, "multiplies_bfloat16", lambda device: True)
    backbone = Run(settings(tmp_path), say=lambda line: None).open()
    driver.make(backbone, ["pretrain"])
    loaded = loading.load(Model(path=str(backbone.folder / "pretrain/model")), dtype=dtype)
    for saved in (loaded.model, loaded.tokenizer):
        saved.save_pretrained(tmp_path / "stored")
    changes = {"name": "adapters", "model__path": str(tmp_path / "stored"), "finetune": ADAPTERS}
    run = Run(settings(tmp_path, **changes), say=lambda line: None).open()
    curve: list[tuple[float, float]] = []
    run.watch = DevScore(
        run, "decselfmask", lambda epoch, scores: curve.append((epoch, scores.macro_f1)), with_last=False
    )
    driver.prepare(run)
    driver.learn(run, "decselfmask")
    assert [epoch for epoch, _ in curve] == [1.0]
    assert 0 <= curve[0][1] <= 1
