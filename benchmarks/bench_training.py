"""Our training loop beside Hugging Face's Trainer: real tokens per second of the same rows, in one run.

    python benchmarks/bench_training.py [--json FILE]                                under 5 minutes on one core
    python benchmarks/bench_training.py --device cuda --size 1b --rows 1024 --json FILE

    python benchmarks/bench_training.py --pretrained [--json FILE]                   about 20 minutes on two cores

Random weights, random tokens; both train all parameters with fused AdamW, 16 rows a step (bfloat16 autocast on a GPU).
Trainer pads a batch to its longest row, in random order or, as its second baseline, grouped by length. Cases: rows of
one length; a length mix (log-normal, median 150, 95th percentile 700, times --scale); the same mix with the loss on
the last fifth of each row, as in reconstruction. Variants run in turn, round by round, after a step to warm up; a ratio
is our speed over Trainer's in the same round: median, smallest and largest. Trainer's start-up is not counted, ours is
(on a GPU with the measurement of the card's matrix peak). On one CPU thread, seconds are CPU seconds of this process:
other work on the machine does not count.

`--pretrained`: the decoders of `make models` with LoRA on sentences of NUBes and on leaflets, beside Trainer with PEFT,
8 rows a step; products in bfloat16 in both, or in float32 on a CPU that has no others. Trainer's weights are as a user
may load them: float32 or, with such products, bfloat16. `peak`: model FLOPs a second of our loop over those of one
large product in the same dtype on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from bench_attribution import lengths, machine
from transformers import AutoModelForCausalLM, LlamaConfig, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from raypipe.models import loading
from raypipe.settings.config import Lora, Model, Training
from raypipe.training import examples, loop, lora, throughput

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
             "intermediate_size": 704, "vocab_size": 4096},
    "25m": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4,
            "intermediate_size": 1408, "vocab_size": 12288},
    "1b": {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
           "intermediate_size": 8192, "vocab_size": 128256, "head_dim": 64},
}  # fmt: skip
BATCH, IGNORED = 16, -100


def model_of(size: str, device: str) -> Any:
    """A Llama with random float32 weights."""
    torch.manual_seed(0)
    shape = LlamaConfig(**SIZES[size], max_position_embeddings=4096, tie_word_embeddings=True)
    return AutoModelForCausalLM.from_config(shape, attn_implementation="sdpa").to(device)


def rows_of(row_lengths: list[int], share: float) -> list[dict[str, Any]]:
    """Random training rows with a loss on the last `share` of their tokens, but never on the first."""
    rng = np.random.default_rng(1)
    rows = []
    for n in row_lengths:
        first = max(1, round(n * (1 - share)))
        weight = [0.0] * first + [1.0] * (n - first)
        rows.append({"input_ids": rng.integers(10, 4000, n).tolist(), "loss_weight": weight, "branch": [0] * n})
    return rows


def now(device: str) -> float:
    """Seconds; after all that a GPU was asked to do."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def ours(model: Any, rows: list[dict[str, Any]], folder: Path, training: Training) -> float:
    """Seconds of one epoch in raypipe's loop."""
    start = now(model.device.type)
    loop.fit(model, 0, examples.from_rows(rows), training, folder)
    return now(model.device.type) - start


class Stopwatch(TrainerCallback):
    """Seconds between the begin and the end of a Trainer's loop."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.start = now(args.device.type)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.seconds = now(args.device.type) - self.start


def padded(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Right-padded to the longest row of the batch."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    labels, keep = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    for i, row in enumerate(rows):
        n, tokens = len(row["input_ids"]), torch.tensor(row["input_ids"])
        ids[i, :n], keep[i, :n] = tokens, 1
        labels[i, :n] = torch.where(torch.tensor(row["loss_weight"]) > 0, tokens, IGNORED)
    return {"input_ids": ids, "labels": labels, "attention_mask": keep}


def trainers(
    model: Any, rows: list[dict[str, Any]], folder: Path, order: str, batch: int = BATCH, bf16: bool | None = None
) -> float:
    """Seconds of one epoch in Hugging Face's Trainer. `bf16`: autocast; None: on a GPU."""
    on_gpu = model.device.type == "cuda"
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch,
        num_train_epochs=1,
        learning_rate=3e-4,
        optim="adamw_torch_fused",
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        bf16=on_gpu if bf16 is None else bf16,
        use_cpu=not on_gpu,
        train_sampling_strategy=order,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    watch = Stopwatch()
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=padded, callbacks=[watch])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return watch.seconds


Variants = dict[str, Callable[[list[dict[str, Any]], Path], float]]


def random_variants(options: argparse.Namespace, orders: list[str]) -> Variants:
    """All parameters of a model with random weights."""
    training = Training(batch_rows=BATCH, checkpoint_every=None)
    variants: Variants = {
        "raypipe": lambda rows, out: ours(model_of(options.size, options.device), rows, out, training)
    }
    for order in orders:
        variants[f"Trainer, {order}"] = lambda rows, out, order=order: trainers(
            model_of(options.size, options.device), rows, out, order
        )
    return variants


LORA = Lora(rank=16, alpha=32, dropout=0.0)
WITH_ADAPTERS = Training(batch_rows=8, checkpoint_every=None, precision="bfloat16", learning_rate=3e-4, lora=LORA)
DTYPE = torch.bfloat16 if loading.multiplies_bfloat16(torch.device("cpu")) else torch.float32  # of --pretrained


def pretrained(path: Path, dtype: torch.dtype) -> Any:
    """A stored decoder as its weights are kept while adapters are trained."""
    return loading.load(Model(path=str(path), device="cpu"), dtype=dtype).model


def pretrained_variants(path: Path) -> Variants:
    """LoRA on all linear layers."""

    def with_raypipe(rows: list[dict[str, Any]], out: Path) -> float:
        model = pretrained(path, DTYPE)
        lora.prepare(model, WITH_ADAPTERS, model.device)
        return ours(model, rows, out, WITH_ADAPTERS)

    def with_trainer(rows: list[dict[str, Any]], out: Path, dtype: torch.dtype) -> float:
        adapted = lora.add(pretrained(path, dtype), LORA)
        return trainers(adapted, rows, out, "group_by_length", batch=8, bf16=torch.bfloat16 == DTYPE)

    weights = {torch.float32: "float32", DTYPE: str(DTYPE).removeprefix("torch.")}
    beside = {
        f"Trainer with PEFT, {name} weights": partial(with_trainer, dtype=dtype) for dtype, name in weights.items()
    }
    return {"raypipe": with_raypipe, **beside}


def real_rows(corpus: str, n: int, path: Path, most: int) -> list[dict[str, Any]]:
    """Notes of a corpus in the model's tokens, at most `most` each, with a loss on their last fifth."""
    tokenizer = loading.load_tokenizer(Model(path=str(path)))
    texts = pq.read_table(Path(os.environ["RAYPIPE_DATA"]) / corpus / "notes.parquet", columns=["text"])["text"]
    picked = np.random.default_rng(0).choice(len(texts), n, replace=False)
    ids = [tokenizer(texts[int(i)].as_py(), add_special_tokens=False)["input_ids"][:most] for i in picked]
    rows = rows_of([len(note) for note in ids], 0.2)
    return [{**row, "input_ids": note} for row, note in zip(rows, ids, strict=True)]


def compare(name: str, rows: list[dict[str, Any]], variants: Variants, rounds: int) -> list[dict[str, Any]]:
    """Lines of the table of one case: speeds, and the ratio of the first variant's to each."""
    tokens = sum(len(row["input_ids"]) for row in rows)
    speeds: dict[str, list[float]] = {variant: [] for variant in variants}
    for number in range(rounds + 1):
        for variant, run in variants.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds = run(rows if number else rows[:BATCH], Path(folder))
            if number:
                speeds[variant].append(tokens / seconds)
    table = []
    for variant, speed in speeds.items():
        ratio = np.array(next(iter(speeds.values()))) / np.array(speed)
        line = {"case": name, "variant": variant, "rows": len(rows), "tokens": tokens}
        line |= {"tokens_per_s": round(float(np.median(speed)))}
        line |= {"ratio": round(float(np.median(ratio)), 2), "ratio_min": round(float(ratio.min()), 2)}
        table.append({**line, "ratio_max": round(float(ratio.max()), 2)})
        interval = f"[{table[-1]['ratio_min']:.2f}, {table[-1]['ratio_max']:.2f}]"
        print(f"{name:28}{variant:38}{line['tokens_per_s']:>10,}{line['ratio']:>8.2f}  {interval}", flush=True)
    return table


def share_of_peak(path: Path, rows: list[dict[str, Any]], speed: float) -> float:
    """Model FLOPs a second at `speed` tokens a second, over those of one large product."""
    model = pretrained(path, DTYPE)
    lora.prepare(model, WITH_ADAPTERS, model.device)
    data = examples.from_rows(rows)
    work = throughput.work_of(data, np.arange(len(data)))
    return throughput.training_flops(model, work) * speed / work.tokens / throughput.matrix_peak(model.device, DTYPE)


def measure_pretrained(rounds: int, only: str) -> list[dict[str, Any]]:
    """Both decoders on both length mixes; of these cases, those whose name holds `only`."""
    table: list[dict[str, Any]] = []
    for name in ("gemma3-270m", "smollm2-135m"):
        path = Path(os.environ["RAYPIPE_PRETRAINED"]) / name
        for corpus, n, most in (("nubes_es", 128, 256), ("e3c_it_leaflets", 32, 256)):
            if only not in f"{name}, {corpus}":
                continue
            rows = real_rows(corpus, n, path, most)
            case = compare(f"{name}, {corpus}", rows, pretrained_variants(path), rounds)
            case[0]["peak"] = round(share_of_peak(path, rows, case[0]["tokens_per_s"]), 3)
            print(f"{'':28}share of the matrix peak: {100 * case[0]['peak']:.0f} %", flush=True)
            table += case
    return table


def main() -> None:
    """Measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", choices=list(SIZES), default="tiny")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--scale", type=float, default=None, help="of row lengths; default: 1, on a CPU 1/2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pretrained", action="store_true")
    parser.add_argument("--only", default="", help="of --pretrained: cases whose name holds this, such as e3c")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scale = options.scale or (0.5 if options.device == "cpu" else 1.0)
    print(f"{'case':28}{'variant':38}{'tokens/s':>10}{'ratio':>8}  [min, max] of {options.rounds} rounds")
    if options.pretrained:
        table = measure_pretrained(options.rounds, options.only)
    else:
        mixed = [max(8, round(n * scale)) for n in lengths(options.rows)]
        fixed = [round(256 * scale)] * options.rows
        both = random_variants(options, ["random", "group_by_length"])
        table = compare("one length", rows_of(fixed, 1.0), random_variants(options, ["random"]), options.rounds)
        table += compare("length mix", rows_of(mixed, 1.0), both, options.rounds)
        table += compare("length mix, loss on 1/5", rows_of(mixed, 0.2), both, options.rounds)
    where = machine(options.device, options.threads)
    print(where)
    if options.json is not None:
        report = {"machine": where, "size": options.size, "rounds": options.rounds, "scale": scale, "rows": table}
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
