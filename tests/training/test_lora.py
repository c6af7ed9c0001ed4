"""LoRA: which blocks it trains, frozen weights in bfloat16, and that every artefact reloads as what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from safetensors.torch import load_file

from raypipe.errors import InputError
from raypipe.models import loading
from raypipe.settings import config
from raypipe.settings.config import Lora
from raypipe.training import examples, loop, lora, trainer
from raypipe.training.loss import WeightedLoss, autocast, batch_of
from tests.tiny_models import CONFIGS, tiny_model, tiny_tokenizer
from tests.training.cases import PAD, distance, fitted, metrics_of, rows_of_many_lengths, settings

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
ADAPTERS = Lora(rank=4, alpha=8, dropout=0.0)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits.float()


def in_stored_bfloat16(family: str) -> Any:
    """A tiny model whose weights are bfloat16 numbers, in bfloat16."""
    model = tiny_model(family)
    loading.cast_parameters(model, torch.bfloat16)
    return model


def gradients(model: Any, training: config.Training) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss of a batch of trees, and the gradients of all that is trained."""
    data = rows_of_many_lengths(8)
    with autocast(training, CPU):
        loss = WeightedLoss(model)(*batch_of(data, np.arange(8), PAD, CPU))
    loss.backward()
    return float(loss), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("family", sorted(CONFIGS))
@pytest.mark.parametrize(("first_block", "blocks"), [(0, {0, 1, 2, 3}), (2, {2, 3}), (0.75, {3})])
def test_upper_blocks_alone_equal_layers_to_transform(family: str, first_block: float, blocks: set[int]) -> None:
    """Against PEFT's own selection among all linear layers; below, nothing waits for a backward pass."""
    adapters = ADAPTERS.model_copy(update={"first_block": first_block})
    torch.manual_seed(0)
    ours = lora.add(tiny_model(family), adapters)
    linear = {name.split(".", 3)[3] for name in ours.targeted_module_names}
    theirs_config = LoraConfig(
        r=4, lora_alpha=8, target_modules=sorted(linear), layers_to_transform=sorted(blocks), task_type="CAUSAL_LM"
    )
    torch.manual_seed(0)
    theirs = get_peft_model(tiny_model(family), theirs_config)
    trained = {name: p for name, p in ours.named_parameters() if p.requires_grad}
    assert trained.keys() == {name for name, p in theirs.named_parameters() if p.requires_grad}
    assert {int(part) for name in trained for part in name.split(".") if part.isdigit()} == blocks
    assert all(torch.equal(p, theirs.get_parameter(name)) for name, p in trained.items())
    mine, reference = (gradients(m.get_base_model(), settings()) for m in (ours, theirs))
    assert mine[0] == reference[0]
    assert mine[1].keys() == reference[1].keys()
    assert all(torch.equal(mine[1][name], reference[1][name]) for name in mine[1])


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_all_blocks_are_what_peft_calls_all_linear(family: str) -> None:
    theirs = get_peft_model(tiny_model(family), LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    assert set(lora.add(tiny_model(family), ADAPTERS).targeted_module_names) == set(theirs.targeted_module_names)


def test_no_graph_below_the_first_block() -> None:
    model = lora.add(tiny_model("llama"), ADAPTERS.model_copy(update={"first_block": 2})).get_base_model()
    has_graph: list[bool] = []
    for block in model.model.layers:
        block.register_forward_hook(lambda module, inputs, output: has_graph.append(output.requires_grad))
    gradients(model, settings())
    assert has_graph == [False, False, True, True]


def test_a_first_block_beyond_the_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"lora\.first_block: is 4, which leaves no block to train"):
        lora.add(tiny_model("llama"), ADAPTERS.model_copy(update={"first_block": 4}))


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_frozen_bfloat16_equals_autocast_over_float32(family: str, bfloat16_products: None) -> None:
    """Weights that are bfloat16 numbers: kept as such, or in float32 and cast in every pass, is the same to the bit.

    Some round on the way to the dtype of their weights: Gemma the factor of its embeddings, GPT-J its rotation, a
    mixture the shares of its experts, GPT-2 what its softmax reads.
    """
    training = settings(precision="bfloat16", lora=ADAPTERS)
    results = []
    for keeps in (True, False):
        model = in_stored_bfloat16(family)
        if not keeps:
            loading.cast_parameters(model, torch.float32)
        torch.manual_seed(0)
        adapted = lora.prepare(model, training, CPU)
        for name, p in adapted.named_parameters():
            assert p.dtype == (torch.bfloat16 if keeps and p.ndim > 1 and not p.requires_grad else torch.float32), name
        results.append(gradients(adapted.get_base_model(), training))
    (loss, stored), (expected_loss, cast) = results
    if family in ("gemma2", "gemma3_text", "gpt2", "gptj", "mixtral", "qwen2_moe"):
        assert loss == pytest.approx(expected_loss, rel=1e-2)
        return
    assert loss == expected_loss
    assert all(torch.equal(stored[name], cast[name]) for name in cast)


def test_frozen_weights_have_no_gradient_and_no_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.optim.Optimizer] = []
    optimizer = loop._optimizer
    monkeypatch.setattr(loop, "_optimizer", lambda *given: made.append(optimizer(*given)) or made[-1])
    model = lora.add(tiny_model("llama"), ADAPTERS).get_base_model()
    loop.fit(model, PAD, rows_of_many_lengths(), settings(), tmp_path)
    adapters = {id(p) for name, p in model.named_parameters() if "lora_" in name}
    assert {id(p) for p in made[0].state} == adapters
    assert all(p.grad is None for name, p in model.named_parameters() if "lora_" not in name)


def test_without_bfloat16_products_a_cpu_computes_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raypipe.training.loss.multiplies_bfloat16", lambda device: False)
    exact, fallen = (fitted(tmp_path / p, settings(precision=p, lora=ADAPTERS)) for p in ("float32", "bfloat16"))
    assert distance(exact, fallen) == 0.0


# --- every artefact ---------------------------------------------------------------------------------------------------


def backbone(folder: Path, dtype: torch.dtype) -> config.Model:
    model = tiny_model("llama")
    loading.cast_parameters(model, dtype)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return config.Model(path=str(folder), device="cpu")


def chain(folder: Path, start: config.Model, adapters: Lora | None, **changes: Any) -> list[trainer.TrainingSpec]:
    """Reconstruction, then fine-tuning of what it leaves."""
    rng = np.random.default_rng(0)
    rows = []
    for key in range(16):
        ids = rng.integers(3, 300, 12).tolist()
        row = {"input_ids": ids, "loss_weight": [0.0] + [1.0] * 11, "branch": [0] * 12}
        rows.append({"arm": "a", "key": f"{key:02d}", "draw": 0, **row})
    examples.write(rows, folder / "rows/rows.parquet")
    training = settings(lora=adapters, learning_rate=1e-2, checkpoint_every=2, **changes)
    first = trainer.TrainingSpec(str(folder / "train/a"), str(folder / "rows"), "a", training, start, start)
    after = start.model_copy(update={"path": str(folder / "train/a/model"), "adapter": None})
    second = trainer.TrainingSpec(str(folder / "finetune/a"), str(folder / "rows"), "a", training, after, start)
    return [first, second]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adapters", [None, ADAPTERS, ADAPTERS.model_copy(update={"first_block": 2})])
def test_every_artefact_reloads_to_what_is_evaluated(dtype: torch.dtype, adapters: Lora | None, tmp_path: Path) -> None:
    """Reconstruction and fine-tuning in one go. What is evaluated is `loading.load` of model/."""
    start = backbone(tmp_path / "backbone", dtype)
    specs = chain(tmp_path, start, adapters)
    trainer.run(specs, CPU)
    untrained = logits(loading.load(start).model)
    for spec in specs:
        evaluated = logits(loading.load(start.model_copy(update={"path": f"{spec.folder}/model"})).model)
        assert {t.dtype for t in load_file(f"{spec.folder}/model/model.safetensors").values()} == {dtype}
        assert (evaluated - untrained).abs().max() > 0.2, "it did learn"
        assert not Path(spec.folder, "checkpoint").exists(), "nor the rows that it mapped"
        assert Path(spec.folder, "adapter").exists() == (adapters is not None)
        if adapters is not None:
            labelled = AutoPeftModelForCausalLM.from_pretrained(f"{spec.folder}/adapter", dtype=torch.float32)
            # written in bfloat16, a merged weight is rounded once
            tolerance = 1e-4 if dtype == torch.float32 else 0.02 * float(evaluated.abs().max())
            torch.testing.assert_close(logits(labelled), evaluated, atol=tolerance, rtol=0)


def test_pretraining_reloads_to_what_is_evaluated(tmp_path: Path) -> None:
    """From an architecture: written in float32, and the next training goes on from it."""
    (_, spec) = chain(tmp_path, backbone(tmp_path / "b", torch.float32), None)
    architecture = config.Pretrain(vocab_size=400, hidden_size=16, intermediate_size=32, layers=2, heads=2)
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    tokenizer = config.Model(path=str(tmp_path / "tokenizer"), device="cpu")
    pretrained = trainer.TrainingSpec(
        str(tmp_path / "pretrain"), spec.rows, "a", spec.training, architecture, tokenizer, random_weights=True
    )
    seen: list[torch.Tensor] = []
    trainer.run([pretrained], CPU, watch=lambda s, model, t, step: seen.append(logits(model)) or {})
    stored = loading.load(config.Model(path=str(tmp_path / "pretrain/model"), device="cpu")).model
    torch.testing.assert_close(logits(stored), seen[-1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adapters", [None, ADAPTERS])
def test_in_memory_and_from_disk_go_on_from_the_same_weights(
    dtype: torch.dtype, adapters: Lora | None, tmp_path: Path, bfloat16_products: None
) -> None:
    """One process for both trainings, or one for each: the same students, to the bit."""
    start = backbone(tmp_path / "backbone", dtype)
    together, apart = (chain(tmp_path / name, start, adapters, precision="bfloat16") for name in ("one", "two"))
    trainer.run(together, CPU)
    for spec in apart:
        trainer.run([spec], CPU)
    for a, b in zip(together, apart, strict=True):
        assert metrics_of(Path(a.folder)) == metrics_of(Path(b.folder))
        assert distance(*(load_file(f"{s.folder}/model/model.safetensors") for s in (a, b))) == 0.0


def test_an_adapter_without_a_base_on_disk_is_not_written(tmp_path: Path) -> None:
    """Random weights, or a backbone with an older adapter merged: the model alone is written, whole."""
    start = backbone(tmp_path / "backbone", torch.float32)
    torch.manual_seed(1)
    older = lora.add(tiny_model("llama"), ADAPTERS)
    for name, p in older.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p)
    older.save_pretrained(tmp_path / "older")
    adapted = start.model_copy(update={"adapter": str(tmp_path / "older")})
    for name, adapters in (("lora", ADAPTERS), ("full", None)):
        (spec, _) = chain(tmp_path / name, adapted, adapters, max_steps=1)
        trainer.run([spec], CPU)
        assert not Path(spec.folder, "adapter").exists()
        after = logits(loading.load(start.model_copy(update={"path": f"{spec.folder}/model"})).model)
        assert (after - logits(older)).abs().max() < (after - logits(tiny_model("llama"))).abs().max()
