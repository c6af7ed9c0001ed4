"""`raypipe import`: every form a model comes in gives the same model, and what cannot be converted is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file, save_file
from tokenizers import Regex, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig
from transformers.models.gemma.tokenization_gemma import GemmaTokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from raypipe.cli import main
from raypipe.errors import InputError
from raypipe.models import bits, importing, loading
from raypipe.settings import config
from tests.pretrained import pretrained
from tests.tiny_gguf import write_gguf
from tests.tiny_models import GROUPED, TEXTS, tiny_config, tiny_model, tiny_tokenizer


def _without_window(family: str) -> Any:
    """A tiny model of a family whose GGUF files say nothing of a window."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = tiny_config(family)
        config.use_sliding_window, config.sliding_window = False, None
        config.layer_types = ["full_attention"] * config.num_hidden_layers
        return AutoModelForCausalLM.from_config(config).eval()


TEXT = "Paziente di anni 74: nega  dolore toracico?\n\tFebbre a 39,5 °C; <s> così </s> 😷"
KINDS = [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0]


def _gemma() -> Any:
    """Seven blocks: the sixth sees everything, the others eight tokens, as in every Gemma 3."""
    torch.manual_seed(0)
    settings = {**GROUPED, "num_hidden_layers": 7, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8}
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    model = AutoModelForCausalLM.from_config(Gemma3TextConfig(**settings, **special, vocab_size=len(_pieces())))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def _pieces() -> Any:
    """A tokenizer of Gemma's kind: pieces with a mark for the space, bytes for what no piece holds."""
    letters = sorted({letter for text in TEXTS for letter in text.replace(" ", "▁")})
    merges = [("▁", letter) for letter in "dnp"] + [("o", "r"), ("n", "o"), ("e", "n"), ("▁d", "i")]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    tokens += [left + right for left, right in merges]
    vocab = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return GemmaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)


def _bytes(chat: bool = False) -> Any:
    """The tiny tokenizer, with the space before a word in its token's offsets: GGUF has no place for the other way."""
    tokenizer = tiny_tokenizer(chat)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _qwen() -> Any:
    """The same tokens after Qwen's own split of a text into words."""
    tokenizer = _bytes()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return tokenizer


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "llama": lambda: (tiny_model("llama"), _bytes(chat=True)),
    "qwen2": lambda: (tiny_model("qwen2"), _qwen()),
    "qwen3": lambda: (_without_window("qwen3"), _qwen()),
    "gemma3": lambda: (_gemma(), _pieces()),
}


def _saved(folder: Path, model: Any = None, tokenizer: Any = None, **options: Any) -> Path:
    (model or tiny_model("llama")).save_pretrained(folder, **options)
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    return folder


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 40)[None]).logits


def _same(folder: Path, model: Any, tokenizer: Any) -> None:
    """The folder gives the logits, tokens, offsets and special tokens of these two."""
    loaded = loading.load(config.Model(path=str(folder), device="cpu", dtype="float32"))
    torch.testing.assert_close(_logits(loaded.model), _logits(model.float()), atol=2e-5, rtol=2e-5)
    for options in ({}, {"add_special_tokens": False}, {"split_special_tokens": True}):
        ours, theirs = (t(TEXT, return_offsets_mapping=True, **options) for t in (loaded.tokenizer, tokenizer))
        assert ours["input_ids"] == theirs["input_ids"]
        assert ours["offset_mapping"] == theirs["offset_mapping"]
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(loaded.tokenizer, name) == getattr(tokenizer, name) == getattr(loaded.model.config, name)
    assert loaded.tokenizer.chat_template == tokenizer.chat_template


def _refused(source: Path, tmp_path: Path) -> str:
    """Why `source` is refused: one line, and nothing is left behind."""
    with pytest.raises(InputError) as refused:
        importing.import_model(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".out")]
    assert len(refused.value.problems) == 1
    return str(refused.value)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_written_as_gguf_comes_back(family: str, kind: Kind, tmp_path: Path) -> None:
    model, tokenizer = FAMILIES[family]()
    worth = write_gguf(tmp_path / "model.gguf", model, tokenizer, kind)
    model.load_state_dict({name: torch.from_numpy(values) for name, values in worth.items()}, strict=False)
    importing.convert(tmp_path / "model.gguf", tmp_path / "out", "source")
    weights = load_file(tmp_path / "out/model.safetensors")
    # norms of gemma are stored with 1 added, which float32 rounds; in half precision that may tip the last bit
    half = kind in (Kind.F16, Kind.BF16)
    exact = {"atol": 1e-6, "rtol": 1e-2 if half else 0} if family == "gemma3" else {"atol": 0, "rtol": 0}
    assert weights.keys() == worth.keys()  # tied weights are there once
    for name, values in weights.items():
        torch.testing.assert_close(values.float(), torch.from_numpy(worth[name]).to(values.dtype).float(), **exact)
    if kind in (Kind.F32, Kind.Q8_0):  # stored in half precision, norms are rounded, too
        _same(tmp_path / "out", model, tokenizer)
    assert "quantization" not in (tmp_path / "out/config.json").read_text()


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma3"])
def test_transformers_own_reader_gives_the_same_weights(family: str, tmp_path: Path) -> None:
    model, tokenizer = FAMILIES[family]()
    write_gguf(tmp_path / "model.gguf", model, tokenizer, Kind.Q8_0)
    importing.convert(tmp_path / "model.gguf", tmp_path / "out", "source")
    settings = loading.check(config.Model(path=str(tmp_path / "out")))  # it misreads some heads' sizes
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", config=settings)
    weights = load_file(tmp_path / "out/model.safetensors")
    for name, values in weights.items():
        torch.testing.assert_close(values, theirs.state_dict()[name].float(), atol=0, rtol=0)


def test_llama_3s_position_encoding_is_found_again(tmp_path: Path) -> None:
    """llama.cpp writes it as one factor per rotation, after the formula of Llama 3.1's configs."""
    rope = {"rope_type": "llama3", "factor": 32.0, "rope_theta": 500_000.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    torch.manual_seed(0)
    settings = LlamaConfig(**GROUPED, head_dim=64, vocab_size=384, rope_parameters=rope, tie_word_embeddings=True)
    settings.bos_token_id, settings.eos_token_id, settings.pad_token_id = 1, 2, 0
    model = AutoModelForCausalLM.from_config(settings).eval()
    plain = 500_000.0 ** (-torch.arange(0, 64, 2) / 64)
    factors = (plain / model.model.rotary_emb.inv_freq).numpy()
    assert factors.max() > 31
    path = tmp_path / "model.gguf"
    write_gguf(path, model, _bytes(), tensors=lambda tensors: tensors.update({"rope_freqs.weight": factors}))
    importing.convert(path, tmp_path / "out", "source")
    _same(tmp_path / "out", model, _bytes())
    factors[3] = 7.0
    write_gguf(path, model, _bytes(), tensors=lambda tensors: tensors.update({"rope_freqs.weight": factors}))
    assert "position encoding" in _refused(path, tmp_path / "out")


def test_a_stretched_position_encoding_is_kept(tmp_path: Path) -> None:
    """Gemma 3 from 4B on: the blocks without a window count positions in eighths."""
    model = _gemma()
    stretched = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0}
    settings = model.config.to_dict()
    settings["rope_parameters"]["full_attention"] = stretched
    stretched_model = AutoModelForCausalLM.from_config(Gemma3TextConfig(**settings)).eval()
    stretched_model.load_state_dict(model.state_dict())
    assert not torch.allclose(_logits(stretched_model), _logits(model), atol=1e-3)

    def scaling(writer: Any) -> None:
        writer.add_string("gemma3.rope.scaling.type", "linear")
        writer.add_float32("gemma3.rope.scaling.factor", 8.0)

    write_gguf(tmp_path / "model.gguf", stretched_model, _pieces(), change=scaling)
    importing.convert(tmp_path / "model.gguf", tmp_path / "out", "source")
    _same(tmp_path / "out", stretched_model, _pieces())


@pytest.mark.parametrize("given", ["part", "folder"])
def test_a_file_cut_into_parts(given: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "whole.gguf", tiny_model(), _bytes())
    whole = (tmp_path / "whole.gguf").read_bytes()
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in range(11):  # ten comes after nine
        size = len(whole) // 11 + 1
        (parts / f"m.gguf.part{number}").write_bytes(whole[number * size : (number + 1) * size])
    importing.convert(parts / "m.gguf.part3" if given == "part" else parts, tmp_path / "out", "source")
    _same(tmp_path / "out", tiny_model(), _bytes())
    (parts / "m.gguf.part10").unlink()
    assert "no whole GGUF" in _refused(parts, tmp_path / "x")
    (parts / "m.gguf.part4").unlink()
    assert "part 4 of m.gguf is missing" in _refused(parts, tmp_path / "x")


def test_a_file_cut_by_gguf_split(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", tiny_model(), _bytes(), split_tensors=15)
    files = sorted(tmp_path.glob("m-0000*.gguf"))
    assert len(files) > 2
    importing.convert(files[1], tmp_path / "out", "source")
    _same(tmp_path / "out", tiny_model(), _bytes())
    shutil.rmtree(tmp_path / "out")
    files[-1].unlink()
    assert f"part {len(files)} of m is missing" in _refused(files[0], tmp_path)


def test_a_begin_token_that_training_never_saw_is_dropped(tmp_path: Path) -> None:
    """Qwen's files name one that neither its tokenizer nor its template writes; a template that writes it keeps it."""
    for chat, begin in ((False, None), (True, "<s>")):
        tokenizer = _bytes(chat)
        if chat:
            tokenizer.chat_template = "<s>" + tokenizer.chat_template
        path = tmp_path / f"{chat}.gguf"
        write_gguf(path, tiny_model(), tokenizer, change=lambda writer: writer.add_add_bos_token(False))
        importing.convert(path, tmp_path / str(chat))
        assert loading.load_tokenizer(config.Model(path=str(tmp_path / str(chat)))).bos_token == begin


@pytest.mark.parametrize(("pre", "tokens"), [("smollm", ["ĊĊ", "1", "2"]), ("gpt-2", ["Ċ", "Ċ", "12"])])
def test_text_is_cut_as_the_merges_were_learned(pre: str, tokens: list[str], tmp_path: Path) -> None:
    """GPT-2 leaves the last of several spaces to the word that follows, and digits together."""
    write_gguf(tmp_path / "model.gguf", tiny_model(), _bytes(False), pre=pre)
    importing.convert(tmp_path / "model.gguf", tmp_path / "out")
    backend = loading.load_tokenizer(config.Model(path=str(tmp_path / "out"))).backend_tokenizer
    assert [word for word, _ in backend.pre_tokenizer.pre_tokenize_str("\n\n12")] == tokens


def test_shards_become_one_folder(tmp_path: Path) -> None:
    source = _saved(tmp_path / "in", max_shard_size="40KB")
    assert len(list(source.glob("*.safetensors"))) > 2
    importing.convert(source, tmp_path / "out", "source")
    _same(tmp_path / "out", tiny_model(), tiny_tokenizer())


def test_a_hub_snapshot_of_links(tmp_path: Path) -> None:
    source = _saved(tmp_path / "in", tokenizer=tiny_tokenizer(chat=True))
    cache = tmp_path / "models--org--name"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(source.iterdir())):
        file.rename(cache / "blobs" / f"{number:x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:x}")
    (snapshot / "pytorch_model.bin").write_bytes(b"never opened")
    importing.convert(snapshot, tmp_path / "out", "source")
    _same(tmp_path / "out", tiny_model(), tiny_tokenizer(chat=True))
    assert not [file for file in (tmp_path / "out").iterdir() if file.is_symlink() or file.suffix == ".bin"]
    assert "snapshots/<commit>" in _refused(cache, tmp_path / "x")
    (cache / "blobs/0").unlink()
    assert "cp -rL" in _refused(snapshot, tmp_path / "x")


@pytest.mark.parametrize(("dtype", "stored"), [("bfloat16", torch.bfloat16), ("source", torch.float16)])
def test_weights_are_stored_in_the_chosen_dtype(dtype: importing.Dtype, stored: torch.dtype, tmp_path: Path) -> None:
    source = _saved(tmp_path / "in", tiny_model().half())
    importing.convert(source, tmp_path / "out", dtype)
    weights = load_file(tmp_path / "out/model.safetensors")
    assert {values.dtype for values in weights.values()} == {stored}
    assert "lm_head.weight" not in weights
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == str(stored).removeprefix("torch.")


def test_files_get_the_rights_that_the_umask_gives(tmp_path: Path) -> None:
    source = _saved(tmp_path / "in")
    before = os.umask(0o027)
    try:
        importing.convert(source, tmp_path / "out")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o750
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "out").iterdir()} == {0o640}


def _edit(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _without_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _with_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors") | {"score.weight": torch.zeros(2, 32)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _packed(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.mlp.up_proj.weight"] = weights["model.layers.2.mlp.up_proj.weight"].to(torch.int8)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _small_vocabulary(folder: Path) -> None:
    model = tiny_model()
    model.resize_token_embeddings(200)
    model.save_pretrained(folder)


FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pickled": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "get the model as safetensors"),
    "remote code": (lambda f: _edit(f, auto_map={"AutoModelForCausalLM": "evil.Evil"}), "delete that key"),
    "encoder": (lambda f: _edit(f, model_type="bert"), "'bert' is an encoder"),
    "encoder-decoder": (lambda f: _edit(f, model_type="t5", is_encoder_decoder=True), "'t5' is an encoder"),
    "unknown family": (lambda f: _edit(f, model_type="mamba"), "family 'mamba' is not known"),
    "quantised": (lambda f: _edit(f, quantization_config={"quant_method": "gptq"}), "checkpoint it was made from"),
    "packed": (_packed, "I8, which is a quantisation"),
    "missing tensor": (_without_tensor, "lacks 1 of the model's tensors (model.layers.2.mlp.up_proj.weight)"),
    "tensor of another model": (_with_tensor, "have no place in the model (score.weight)"),
    "other shapes": (lambda f: _edit(f, intermediate_size=64), "another shape"),
    "truncated": (_truncated, "not a whole safetensors file"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json must lie beside"),
    "other tokenizer": (_small_vocabulary, "tokens beyond the model's 200"),
    "no config": (lambda f: (f / "config.json").unlink(), "snapshots/<commit>"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders_that_are_refused(case: str, tmp_path: Path) -> None:
    change, says = FOLDERS[case]
    change(_saved(tmp_path / "in"))
    assert says in _refused(tmp_path / "in", tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    source = _saved(tmp_path / "in", max_shard_size="40KB")
    shards = sorted(source.glob("*.safetensors"))
    shards[1].unlink()
    assert f"{shards[1].name} is missing; copy all the shards" in _refused(source, tmp_path)


FILES: dict[str, tuple[dict[str, Any], str]] = {
    "lost setting": ({"change": lambda w: w.add_uint32("llama.expert_count", 8)}, "would be lost: expert_count"),
    "other scaling": ({"change": lambda w: w.add_string("llama.rope.scaling.type", "yarn")}, "rope.scaling.type=yarn"),
    "other words": ({"pre": "unheard-of"}, "way to cut text into words ('unheard-of') is not known"),
    "encoder": ({"change": lambda w: w.add_bool("llama.attention.causal", False)}, "is an encoder"),
    "missing tensor": ({"tensors": lambda t: t.pop("blk.1.ffn_up.weight")}, "lacks 1 tensors (blk.1.ffn_up.weight)"),
    "extra tensor": (
        {"tensors": lambda t: t.update({"blk.1.attn_q.bias": t["output_norm.weight"]})},
        "1 tensors have no place in a llama model (blk.1.attn_q.bias)",
    ),
    "other shape": (
        {"tensors": lambda t: t.update({"blk.1.ffn_up.weight": t["blk.1.ffn_up.weight"][:40]})},
        "tensor blk.1.ffn_up.weight is [40, 32], expected [48, 32]",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_gguf_files_that_are_refused(case: str, tmp_path: Path) -> None:
    options, says = FILES[case]
    write_gguf(tmp_path / "model.gguf", tiny_model(), tiny_tokenizer(), **options)
    assert says in _refused(tmp_path / "model.gguf", tmp_path)


def test_an_architecture_that_is_not_known_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", tiny_model(), tiny_tokenizer())
    content = (tmp_path / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(content.replace(b"llama", b"mamba", 1))
    assert "architecture 'mamba'" in _refused(tmp_path / "model.gguf", tmp_path)


def test_a_quantisation_that_is_not_known_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "model.gguf", tiny_model(), tiny_tokenizer(), Kind.Q8_0)

    def unknown(data: Any, kind: Kind) -> Any:
        raise NotImplementedError

    monkeypatch.setattr("gguf.dequantize", unknown)
    assert re.search("quantisation (F32|Q8_0) cannot be converted", _refused(tmp_path / "model.gguf", tmp_path))


def test_a_truncated_gguf_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", tiny_model(), tiny_tokenizer())
    content = (tmp_path / "model.gguf").read_bytes()
    for size in (10, 1000, len(content) - 100):
        (tmp_path / "model.gguf").write_bytes(content[:size])
        assert "no whole GGUF file" in _refused(tmp_path / "model.gguf", tmp_path)


def test_gguf_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "model.gguf", tiny_model(), tiny_tokenizer())
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    assert "pip install gguf" in _refused(tmp_path / "model.gguf", tmp_path)


def test_sources_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"never opened")
    (tmp_path / "notes.txt").write_text("")
    assert "no such file" in _refused(tmp_path / "nothing", tmp_path)
    assert "get the model as safetensors" in _refused(tmp_path / "weights.bin", tmp_path)
    assert "neither a GGUF file nor a folder" in _refused(tmp_path / "notes.txt", tmp_path)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"")
    assert "several GGUF models (a.gguf, b.gguf)" in _refused(tmp_path, tmp_path / "x")


def test_out_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("")
    with pytest.raises(InputError, match="not empty"):
        importing.import_model(_saved(tmp_path / "in"), tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        importing.import_model(_saved(tmp_path / "in"), tmp_path / "file" / "out")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that knows the English sample by heart."""
    model, tokenizer = tiny_model("llama").train(), tiny_tokenizer()
    text = [1, *tokenizer(bits.SAMPLES["English"], add_special_tokens=False)["input_ids"]]
    ids = torch.tensor([text[:256]])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return _saved(tmp_path_factory.mktemp("reader") / "in", model, tokenizer)


def test_the_command_imports_a_model_that_reads(
    reader: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "notes.jsonl"
    notes.write_text("".join(json.dumps({"note_id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS)))
    (tmp_path / "out").mkdir()  # empty: as good as none
    with pytest.raises(SystemExit) as ended:
        main(["import", str(reader), str(tmp_path / "out"), "--notes", str(notes)])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for line in ("English", "Italian", "your notes"):
        assert re.search(rf"^{line} +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d", printed, re.MULTILINE)
    assert "gemma3-270m" in printed
    loading.load(config.Model(path=str(tmp_path / "out"), device="cpu"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["notes.jsonl", "out"]


def test_a_model_that_does_not_read_is_not_written(
    reader: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same model with its token embeddings one row off, as a wrong vocabulary leaves it."""
    shutil.copytree(reader, tmp_path / "in")
    weights = load_file(tmp_path / "in/model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"].roll(1, 0)
    save_file(weights, tmp_path / "in/model.safetensors", {"format": "pt"})
    with pytest.raises(SystemExit) as ended:
        main(["import", str(tmp_path / "in"), str(tmp_path / "out")])
    assert ended.value.code == 2
    assert not (tmp_path / "out").exists()
    error = capsys.readouterr().err
    assert "does not read" in error
    assert "letters alone" in error


def test_bits_are_those_of_the_loss() -> None:
    """By hand: the mean loss times the tokens, over the characters; without a begin token the first is left out."""
    from tests.tiny_models import tiny_loaded

    loaded, text = tiny_loaded("llama"), TEXTS[0]
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    for begin in ([1], []):
        if not begin:
            loaded.tokenizer.bos_token = None
        row = torch.tensor([[*begin, *ids]])
        with torch.no_grad():
            nats = float(loaded.model(input_ids=row, labels=row).loss) * (row.shape[1] - 1)
        first = loaded.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"][0][1]
        n_characters = len(text) - (0 if begin else first)
        expected = nats / 0.6931471805599453 / n_characters
        assert bits.bits_per_character(loaded, [text]) == pytest.approx(expected, rel=1e-4)


def test_letters_alone() -> None:
    assert bits.letters_alone("abab") == pytest.approx(1.0)
    assert bits.letters_alone("aaaa") == 0.0


def test_a_sample_of_notes_ends_early(tmp_path: Path) -> None:
    notes = tmp_path / "notes.jsonl"
    notes.write_text("".join(json.dumps({"note_id": i, "text": f"{i} " + "parola " * 100}) + "\n" for i in range(200)))
    texts = importing.sample(config.Data(notes=str(notes)))
    assert len("".join(texts[:-1])) < importing.SAMPLE <= len("".join(texts))
    assert [text.split()[0] for text in texts] == [str(i) for i in range(len(texts))]


@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
def test_pretrained_models_read_as_stated(name: str) -> None:
    """The figures that `import` prints for comparison."""
    loaded = loading.load(config.Model(path=str(pretrained(name)), device="cpu", dtype="float32"))
    for language, text in bits.SAMPLES.items():
        measured = bits.bits_per_character(loaded, [text])
        assert measured == pytest.approx(bits.REFERENCES[language][name], abs=0.01)
