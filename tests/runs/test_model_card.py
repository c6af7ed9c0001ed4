"""Every written model has a card, which holds counts and settings and belongs to the step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from raypipe import rows
from raypipe.findings import results
from raypipe.runs import driver, integrity
from raypipe.runs.run import Run
from tests.small_run import settings

LORA = {"rank": 2, "alpha": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = Run(settings(tmp_path_factory.mktemp("runs"), train__lora=LORA)).open()
    driver.run_all(made)
    return made


def test_every_model_and_adapter_has_one_that_its_manifest_lists(run: Run) -> None:
    models = [*run.folder.rglob("model/config.json"), *run.folder.rglob("adapter/adapter_config.json")]
    assert len(models) == 5, "pretrain, the scorer, the student's reconstruction with its adapter, its fine-tuning"
    for model in models:
        card = ModelCard.load(model.parent / "README.md")
        library = {"model": "transformers", "adapter": "peft"}[model.parent.name]
        assert (card.data.library_name, card.data.pipeline_tag) == (library, "text-generation")
        assert "More Information Needed" not in card.text, "PEFT's blank template"
        assert "Treat these weights as protected data: they hold words of your notes." in card.text
        manifest = json.loads((model.parents[1] / "manifest.json").read_text())
        assert f"{model.parent.name}/README.md" in manifest["files"]
    integrity.demand_whole(integrity.finished(run.folder), by_digest=True)


def test_it_says_tasks_data_start_and_settings(run: Run) -> None:
    text = ModelCard.load(run.folder / "finetune/decselfmask/model/README.md").text
    assert all(f"- `{task.id}`" in text for task in run.corpus.tasks)
    labels = run.corpus.labels.to_pylist()
    learned = [row["note_id"] for row in labels if row["split"] == "train"]
    assert f"{len(learned)} labels of {len(set(learned))} training notes" in text
    assert "The model of `small/train/decselfmask`" in text
    assert "max_steps: 2" in text
    adapter = ModelCard.load(run.folder / "train/decselfmask/adapter/README.md")
    assert "rank: 2" in adapter.text
    assert "lora" in adapter.data.tags


def test_a_local_backbone_is_named_without_the_path_to_it(run: Run, tmp_path: Path) -> None:
    backbone = tmp_path / "somebody" / "tiny-decoder"
    shutil.copytree(run.folder / "pretrain/model", backbone)
    own = Run(settings(tmp_path / "runs", model={**run.settings.model.model_dump(), "path": str(backbone)})).open()
    driver.make(own, ["finetune/scorer"])
    card = ModelCard.load(own.folder / "finetune/scorer/model/README.md")
    assert card.data.base_model == "tiny-decoder"
    assert "somebody" not in card.content


def test_no_text_and_no_path_is_in_a_card(run: Run) -> None:
    cards = [path.read_text() for path in run.folder.rglob("README.md")]
    texts = rows.read(run.step("mask").data, ["text"])["text"].drop_null().to_pylist()
    assert not [1 for card in cards for text in texts if text in card]
    assert not [1 for card in cards if str(run.folder.parent) in card]


def test_the_report_adds_figures_with_intervals(run: Run) -> None:
    before = {path: path.read_bytes() for path in run.folder.rglob("README.md")}
    results.write(run)
    card = ModelCard.load(run.folder / "report/model-cards/decselfmask.md")
    metrics = json.loads((run.folder / "report/metrics.json").read_text())
    (arm,) = [arm for arm in metrics["arms"] if arm["name"] == "decselfmask"]
    f1 = arm["macro_f1"]
    assert f"| macro F1 | {f1['value']:.3f} | {f1['low']:.3f} to {f1['high']:.3f} |" in card.text
    assert "## Training" in card.text
    assert {path: path.read_bytes() for path in run.folder.rglob("README.md")} == before
