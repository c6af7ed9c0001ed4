"""Our training loop beside Hugging Face's Trainer: real tokens per second of the same rows, in one run.

    python benchmarks/bench_training.py [--json FILE]                                under 5 minutes on one core
    python benchmarks/bench_training.py --device cuda --size 1b --rows 1024 --json FILE

Random weights, random tokens; both train all parameters with fused AdamW, 16 rows a step (bfloat16 autocast on a GPU).
Trainer pads a batch to its longest row, in random order or, as its second baseline, grouped by length. Cases: rows of
one length; a length mix (log-normal, median 150, 95th percentile 700, times --scale); the same mix with the loss on
the last fifth of each row, as in reconstruction. Variants run in turn, round by round, after a step to warm up; a ratio
is our speed over Trainer's in the same round: median, smallest and largest. Trainer's start-up is not counted, ours is
(on a GPU with the measurement of the card's matrix peak). On one CPU thread, seconds are CPU seconds of this process:
other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_attribution import lengths, machine
from transformers import AutoModelForCausalLM, LlamaConfig, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from raypipe.settings.config import Training
from raypipe.training import examples, loop

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


def ours(model: Any, rows: list[dict[str, Any]], folder: Path) -> float:
    """Seconds of one epoch in raypipe's loop."""
    training = Training(batch_rows=BATCH, checkpoint_every=None)
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


def trainers(model: Any, rows: list[dict[str, Any]], folder: Path, order: str) -> float:
    """Seconds of one epoch in Hugging Face's Trainer."""
    on_gpu = model.device.type == "cuda"
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=3e-4,
        optim="adamw_torch_fused",
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        bf16=on_gpu,
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


def compare(name: str, rows: list[dict[str, Any]], options: argparse.Namespace, orders: list[str]) -> list[dict]:
    """Lines of the table of one case."""
    variants: dict[str, Callable[..., float]] = {"raypipe": ours}
    variants |= {f"Trainer, {order}": partial(trainers, order=order) for order in orders}
    tokens = sum(len(row["input_ids"]) for row in rows)
    speeds: dict[str, list[float]] = {variant: [] for variant in variants}
    for number in range(options.rounds + 1):
        for variant, run in variants.items():
            with tempfile.TemporaryDirectory() as folder:
                some = rows if number else rows[:BATCH]
                seconds = run(model_of(options.size, options.device), some, Path(folder))
            if number:
                speeds[variant].append(tokens / seconds)
    table = []
    for variant, speed in speeds.items():
        ratio = np.array(speeds["raypipe"]) / np.array(speed)
        line = {"case": name, "variant": variant, "rows": len(rows), "tokens": tokens}
        line |= {"tokens_per_s": round(float(np.median(speed)))}
        line |= {"ratio": round(float(np.median(ratio)), 2), "ratio_min": round(float(ratio.min()), 2)}
        table.append({**line, "ratio_max": round(float(ratio.max()), 2)})
        interval = f"[{table[-1]['ratio_min']:.2f}, {table[-1]['ratio_max']:.2f}]"
        print(f"{name:22}{variant:26}{line['tokens_per_s']:>10,}{line['ratio']:>8.2f}  {interval}", flush=True)
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
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scale = options.scale or (0.5 if options.device == "cpu" else 1.0)
    mixed = [max(8, round(n * scale)) for n in lengths(options.rows)]
    fixed = [round(256 * scale)] * options.rows
    print(f"{'case':22}{'variant':26}{'tokens/s':>10}{'ratio':>8}  [min, max] of {options.rounds} rounds")
    both = ["random", "group_by_length"]
    table = compare("one length", rows_of(fixed, 1.0), options, ["random"])
    table += compare("length mix", rows_of(mixed, 1.0), options, both)
    table += compare("length mix, loss on 1/5", rows_of(mixed, 0.2), options, both)
    where = machine(options.device, options.threads)
    print(where)
    if options.json is not None:
        report = {"machine": where, "size": options.size, "rounds": options.rounds, "scale": scale, "rows": table}
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
