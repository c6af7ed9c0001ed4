"""`raypipe import`: a model as it comes (GGUF, shards, a hub snapshot) as one folder that every step takes.

    OUT/  config.json  generation_config.json  model.safetensors (or shards)  tokenizer.json  tokenizer_config.json
          chat_template.jinja (if it has one)

The folder is made beside OUT and moved there when it is whole, loads, and predicts text (bits.py). Weights are read
from safetensors and GGUF alone, and no code that comes with a model is run.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from raypipe.errors import InputError, Problem
from raypipe.models import bits, loading
from raypipe.models.families import FAMILIES
from raypipe.models.gguf_file import GGUF
from raypipe.models.weights import some_of
from raypipe.notes import reading
from raypipe.records import json_of
from raypipe.settings import config

Dtype = Literal["bfloat16", "source"]

SAMPLE = 8_000  # characters of the user's notes
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_PART = re.compile(r"(.*\.gguf)\.part-?(\d+)(?:of\d+)?", re.IGNORECASE)  # cut as bytes: x.gguf.part00, x.gguf.part01
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)  # cut by gguf-split, each a GGUF file
_PLAIN = {"F64", "F32", "F16", "BF16"}  # safetensors' names of what is a number by itself


def import_model(source: Path, out: Path, dtype: Dtype = "bfloat16", notes: Sequence[str] = ()) -> str:
    """Convert `source` to the folder `out`; returns the table of bits per character, with that of `notes`.

    Raises `InputError` with the fix, and leaves `out` as it was, if the model is refused or does not read.
    """
    out = out.absolute()
    _refuse_out(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
            made = Path(scratch) / "model"
            convert(source, made, dtype)
            figures = bits.measure(loading.load(config.Model(path=str(made))), notes)
            if figures.is_broken:
                what = "cannot read once it is converted, so nothing was written; is it whole, and was it ever trained?"
                raise InputError([Problem(str(source), f"{what}\n{figures}")])
            made.rename(out)
    except OSError as error:
        raise InputError(
            [Problem(str(out), f"cannot be made ({error.strerror}); is there room, and the right?")]
        ) from None
    return str(figures)


def sample(data: config.Data) -> list[str]:
    """The first notes of `data`, about `SAMPLE` characters. Raises `InputError` if there are none to read."""
    texts: list[str] = []
    for table in reading.tables(data, ["note_id", "text", "error"]):
        texts += [text for text in table["text"].to_pylist() if text]
        if sum(map(len, texts)) >= SAMPLE:
            break
    if not texts:
        raise InputError([Problem("data.notes", "holds no note that can be read")])
    lengths = accumulate(map(len, texts))
    return [text for text, length in zip(texts, lengths, strict=True) if length - len(text) < SAMPLE]


def convert(source: Path, folder: Path, dtype: Dtype = "bfloat16") -> None:
    """Write the model of `source` to the new folder `folder`. Raises `InputError`; the folder is then half made."""
    stored = None if dtype == "source" else torch.bfloat16
    folder.mkdir()
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        model, tokenizer = (_from_gguf if _is_gguf(source) else _from_folder)(source, stored, Path(scratch))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod((folder / "config.json").stat().st_mode)  # safetensors files are private to their maker
    _check_tokenizer(folder, model.config.vocab_size)


def _refuse_out(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError([Problem(str(out), "exists and is not empty; name a new folder")])


def _is_gguf(source: Path) -> bool:
    """A file is; a folder is if it holds GGUF files and no safetensors. Refuses what is neither."""
    if source.is_dir():
        names = [file.name.lower() for file in source.iterdir()]
        return any(".gguf" in name for name in names) and not any(name.endswith(".safetensors") for name in names)
    if not source.exists():
        raise InputError(
            [Problem(str(source), "no such file or folder; models are imported from disk, not from a hub")]
        )
    if source.suffix.lower() in _PICKLED:
        raise InputError([Problem(str(source), _PICKLES_REFUSED)])
    if ".gguf" not in source.name.lower():
        raise InputError([Problem(str(source), "neither a GGUF file nor a folder; give the folder with config.json")])
    return True


_PICKLES_REFUSED = "pickled weights can run code when they are read and are refused; get the model as safetensors"


def _from_gguf(source: Path, dtype: torch.dtype | None, scratch: Path) -> tuple[Any, Any]:
    files = _gguf_files(source)
    if _PART.fullmatch(files[0].name):
        files = [_joined(files, scratch / "joined.gguf")]
    gguf = GGUF.open(files)
    tokens = scratch / "tokenizer"
    tokens.mkdir()
    settings = gguf.config()
    return gguf.model(settings, dtype), gguf.tokenizer(tokens)


def _gguf_files(source: Path) -> list[Path]:
    """All files of the model that `source` (a file of it, or a folder that holds it alone) belongs to, in order."""
    names = [file for file in source.iterdir() if ".gguf" in file.name.lower()] if source.is_dir() else [source]
    models = {_model_of(file) for file in names}
    if len(models) > 1:
        several = ", ".join(sorted(models))
        raise InputError([Problem(str(source), f"holds several GGUF models ({several}); give the file of one")])
    model = models.pop()
    siblings = [file for file in names[0].parent.iterdir() if _model_of(file) == model]
    numbered = {int(match[2]): file for file in siblings if (match := _cut(file))}
    if not numbered:
        return [names[0]]
    split = _SPLIT.fullmatch(names[0].name)
    first = 0 if 0 in numbered and not split else 1
    last = int(split[3]) if split else max(numbered)  # that the last part is there shows when the file is read
    if missing := [number for number in range(first, last + 1) if number not in numbered]:
        what = f"part {missing[0]} of {model} is missing; put all parts into one folder"
        raise InputError([Problem(str(source), what)])
    return [numbered[number] for number in range(first, last + 1)]


def _cut(file: Path) -> re.Match[str] | None:
    """The model's name and the part's number, if the file is a part of one."""
    return _PART.fullmatch(file.name) or _SPLIT.fullmatch(file.name)


def _model_of(file: Path) -> str:
    match = _cut(file)
    return match[1] if match else file.name


def _joined(parts: Sequence[Path], out: Path) -> Path:
    with out.open("wb") as whole:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole, 1 << 24)
    return out


def _from_folder(source: Path, dtype: torch.dtype | None, scratch: Path) -> tuple[Any, Any]:
    _refuse_folder(source)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            source,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype or "auto",
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        what = f"its weights cannot be read ({type(error).__name__}); copy the folder again"
        raise InputError([Problem(str(source), what)]) from None
    if extra := sorted(info["unexpected_keys"]):  # `loading.check` has refused what lacks tensors
        what = f"{len(extra)} tensors have no place in the model ({some_of(extra)})"
        raise InputError([Problem(str(source), f"{what}; is it another kind of model than its config says?")])
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        what = f"no tokenizer that can be read ({type(error).__name__}); tokenizer.json must lie beside the weights"
        raise InputError([Problem(str(source), what)]) from None
    return model, tokenizer


def _refuse_folder(folder: Path) -> None:
    """Raises `InputError` for what must not or cannot be loaded, before anything is."""
    if broken := sorted(file.name for file in folder.iterdir() if file.is_symlink() and not file.exists()):
        what = f"{broken[0]} is a link to nothing; copy a hub snapshot with its files: cp -rL"
        raise InputError([Problem(str(folder), what)])
    settings = _json(folder / "config.json")
    problems = []
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).exists() and "auto_map" in _json(folder / name):
            what = "asks for code of its own (auto_map), which is never run"
            problems.append(Problem(str(folder / name), f"{what}; if transformers knows the family, delete that key"))
    family = str(settings.get("model_type"))
    if family not in FAMILIES and (settings.get("is_encoder_decoder") or family in MODEL_FOR_MASKED_LM_MAPPING_NAMES):
        problems.append(Problem(str(folder), f"{family!r} is an encoder; raypipe needs a decoder"))
    if "quantization_config" in settings or "compression_config" in settings:
        what = "is quantised in a form that cannot be converted; import the checkpoint it was made from, or its GGUF"
        problems.append(Problem(str(folder / "config.json"), what))
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and any(file.suffix in _PICKLED for file in folder.iterdir()):
        problems.append(Problem(str(folder), _PICKLES_REFUSED))
    if problems:
        raise InputError(problems)
    loading.check(config.Model(path=str(folder)))
    for file in weights:
        with safe_open(file, framework="pt") as tensors:
            kinds = {tensors.get_slice(key).get_dtype() for key in tensors.keys() if key.endswith("weight")}  # noqa: SIM118
        if packed := sorted(kinds - _PLAIN):
            what = f"weights are {', '.join(packed)}, which is a quantisation; import the checkpoint it was made from"
            raise InputError([Problem(str(file), what)])


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json_of(file)
    except FileNotFoundError:
        what = f"no {file.name} here; give the folder that holds it (of a hub's cache, snapshots/<commit>)"
        raise InputError([Problem(str(file.parent), what)]) from None
    except (OSError, ValueError):
        raise InputError([Problem(str(file), "cannot be read as JSON; copy it again")]) from None
    return value if isinstance(value, dict) else {}


def _check_tokenizer(folder: Path, vocab_size: int) -> None:
    """Offsets cover a text, its tokens give it back, and the model has a row for each of them."""
    tokenizer = loading.load_tokenizer(config.Model(path=str(folder)))
    if problems := loading.beyond(tokenizer, vocab_size):
        raise InputError([Problem("tokenizer", problem.what) for problem in problems])
    for text in bits.SAMPLES.values():
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        covered = {place for start, end in encoded["offset_mapping"] for place in range(start, end)}
        if any(not text[place].isspace() and place not in covered for place in range(len(text))):
            raise InputError([Problem("tokenizer", "its tokens do not say which characters they stand for")])
        if max(encoded["input_ids"]) >= vocab_size:
            raise InputError([Problem("tokenizer", f"has tokens beyond the model's {vocab_size:,}; another model's?")])
