"""Models: what is accepted, what is refused before anything is loaded, and what `pretrain` makes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import get_args

import pytest
import torch

from raypipe.errors import InputError
from raypipe.models import loading
from raypipe.models.families import FAMILIES
from raypipe.settings import config
from raypipe.settings.sections.training import ScratchFamily
from raypipe.training import lora
from tests.tiny_models import CONFIGS, TEXTS, tiny_model, tiny_tokenizer

TRAINED = os.environ.get("RAYPIPE_MODELS", "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def _problem(**section: object) -> str:
    with pytest.raises(InputError) as refused:
        loading.check(config.Model(**section))
    return str(refused.value)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_family_loads_from_a_folder(family: str, tmp_path: Path) -> None:
    tiny_model(family).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    loaded = loading.load(config.Model(path=str(tmp_path), device="cpu"))
    assert not loaded.model.training
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(input_ids=ids).logits, tiny_model(family)(input_ids=ids).logits)


def test_a_special_token_without_a_row_is_refused(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"token \d+ \(\[PAD\]\) of the tokenizer has no place among the model's"):
        loading.load(config.Model(path=str(tmp_path), device="cpu"))


@pytest.mark.skipif(not TRAINED, reason="RAYPIPE_MODELS is not set: no trained models here")
@pytest.mark.parametrize("name", ["stories260k", "babyllama-char-0.9m"])
def test_trained_models_load_and_know_their_stories(name: str) -> None:
    loaded = loading.load(config.Model(path=f"{TRAINED}/{name}", device="cpu"))
    assert loaded.tokenizer.pad_token_id is not None
    losses = []
    for text in (
        "Once upon a time, there was a little girl named Lily.",
        "girl a named upon Lily time Once little was.",
    ):
        ids = torch.tensor(
            [[loaded.tokenizer.bos_token_id, *loaded.tokenizer(text, add_special_tokens=False)["input_ids"]]]
        )
        with torch.no_grad():
            losses.append(float(loaded.model(input_ids=ids, labels=ids).loss))
    assert losses[0] < losses[1] - 0.5


def test_a_hub_id_needs_a_pinned_revision() -> None:
    assert "revision" in _problem(path="someone/some-model")


def test_other_weight_formats_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "safetensors" in _problem(path=str(folder))


def test_an_unknown_family_is_refused(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": "bert", "architectures": ["BertModel"]}))
    assert "bert" in _problem(path=str(folder))


def test_remote_code_is_never_run(folder: Path, tmp_path: Path) -> None:
    """A config that asks for its own code is read as what its family is, and the code stays where it is."""
    canary = tmp_path / "canary"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Evil: pass\n")
    settings = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps(settings | {"auto_map": auto}))
    loading.load(config.Model(path=str(folder), device="cpu"))
    assert not canary.exists()


def test_a_lora_adapter_is_merged(folder: Path, tmp_path: Path) -> None:
    adapted = lora.add(tiny_model("llama"), config.Lora(rank=2, alpha=4))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = loading.load(config.Model(path=str(folder), adapter=str(tmp_path / "adapter"), device="cpu"))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = adapted.eval()(input_ids=ids).logits
        torch.testing.assert_close(loaded.model(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
        assert (expected - tiny_model("llama")(input_ids=ids).logits).abs().max() > 1e-2


@pytest.mark.parametrize(("change", "says"), [({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING"), (None, "safetensors")])
def test_other_adapters_are_refused(change: dict[str, str] | None, says: str, folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    lora.add(tiny_model("llama"), config.Lora(rank=2)).save_pretrained(adapter)
    if change is None:
        (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    else:
        settings = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps(settings | change))
    assert says in _problem(path=str(folder), adapter=str(adapter))


def test_a_tokenizer_without_pad_token_pads_with_its_end(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert loading.load_tokenizer(config.Model(path=str(folder))).pad_token == "</s>"


def test_a_tokenizer_with_neither_is_refused(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match="neither"):
        loading.load_tokenizer(config.Model(path=str(folder)))


def test_a_new_tokenizer_round_trips_any_text(tmp_path: Path) -> None:
    loading.train_tokenizer(TEXTS, config.Pretrain(vocab_size=400), tmp_path)
    tokenizer = loading.load_tokenizer(config.Model(path=str(tmp_path)))
    text = "Febbre a 39,5 °C; tosse 咳嗽 😷 così"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    digits = tokenizer.tokenize("1234")
    assert len(digits) == 4


def test_from_scratch_depends_on_the_seed_alone(tmp_path: Path) -> None:
    pretrain = config.Pretrain(vocab_size=400, hidden_size=32, intermediate_size=64, layers=2, heads=2)
    loading.train_tokenizer(TEXTS, pretrain, tmp_path)
    tokenizer = loading.load_tokenizer(config.Model(path=str(tmp_path)))

    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return loading.from_scratch(pretrain, tokenizer).get_input_embeddings().weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("family", get_args(ScratchFamily))
def test_from_scratch_builds_every_family_it_names(family: ScratchFamily, tmp_path: Path) -> None:
    """With the asked number of blocks, tied embeddings, and the family's sentinels; it loads as what it says."""
    pretrain = config.Pretrain(family=family, vocab_size=400, hidden_size=32, intermediate_size=64, layers=3, heads=2)
    loading.train_tokenizer(TEXTS, pretrain, tmp_path)
    section = config.Model(path=str(tmp_path))
    tokenizer = loading.load_tokenizer(section)
    assert set(FAMILIES[family].sentinels) <= set(tokenizer.get_vocab())
    loading.from_scratch(pretrain, tokenizer).save_pretrained(tmp_path, safe_serialization=True)
    assert loading.check(section).model_type == family
    loaded = loading.load(section)
    assert len(loaded.model.get_submodule(loaded.family.blocks)) == 3
    assert loaded.model.get_output_embeddings().weight is loaded.model.get_input_embeddings().weight
