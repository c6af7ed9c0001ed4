"""What one card does: attribution, training and token trees for configs of 1B and 8B parameters, in one table.

    python benchmarks/bench_gpu.py --json FILE                     sized for ten minutes on one card
    python benchmarks/bench_gpu.py --device cpu --sizes tiny       the same script without a card, to see that it runs

Random weights (speed does not depend on them), bfloat16, random notes; neither Ray nor the network. Variants in turn:

- attribution beside captum and the recipe of the authors' code, by the cases of bench_attribution.py;
- training beside Hugging Face's Trainer, by those of bench_training.py: all parameters up to 2B, else LoRA with PEFT;
- token trees, a note with 32 questions: the dense mask beside FlexAttention's block mask, after a check that both give
  the same loss and gradients. FlexAttention has no backward pass on a CPU and is left out there.

`of_peak`: model FLOPs a second over those of one large product, measured in the same process; `gib`: the largest
memory since the section began. No figures of a GPU have been taken so far.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bench_attribution
import bench_training
import numpy as np
import torch
from bench_attribution import SIZES, model_of

from raypipe.models import tree_masks
from raypipe.settings.config import Lora, Training
from raypipe.training import examples, lora, loss, throughput

ALL_TRAINED = 2e9  # parameters up to which all are trained: 16 bytes each
QUESTIONS, QUESTION = 32, 24  # of a tree, and tokens of each

Row = dict[str, Any]
Section = Callable[[str, argparse.Namespace], list[Row]]


def attribution(size: str, options: argparse.Namespace) -> list[Row]:
    """Ratios to captum and to the authors' recipe; what one card attributes in a second."""
    scorer = bench_attribution.scorer_of(model_of(size, options.device), options.device)
    bench = bench_attribution.Bench(scorer, options.rounds, quick=True)
    bench.batched()
    bench.many_tasks()
    return bench.rows


def training(size: str, options: argparse.Namespace) -> list[Row]:
    """Our loop beside Trainer on a length mix."""
    rows = bench_training.rows_of(bench_attribution.lengths(options.rows), 1.0)
    settings = settings_of(model_of(size, "meta"))

    def trained(out: Path, rows: list[Row], with_trainer: bool) -> float:
        model = model_of(size, options.device)
        adapted = lora.prepare(model, settings, model.device)
        if with_trainer:
            return bench_training.trainers(adapted or model, rows, out, "group_by_length", batch=settings.batch_rows)
        return bench_training.ours(model, rows, out, settings)

    variants: bench_training.Variants = {
        "raypipe": lambda rows, out: trained(out, rows, with_trainer=False),
        "Trainer, grouped by length": lambda rows, out: trained(out, rows, with_trainer=True),
    }
    table = bench_training.compare(f"{size}, {'LoRA' if settings.lora else 'full'}", rows, variants, options.rounds)
    table[0]["of_peak"] = of_peak(size, options.device, settings, rows, table[0]["tokens_per_s"])
    return table


def trees(size: str, options: argparse.Namespace) -> list[Row]:
    """Training on notes with many questions, by either mask."""
    attentions = {"dense mask": "sdpa"}
    if options.device == "cuda":
        check_equal(options.device)
        attentions = {"FlexAttention": tree_masks.FLEX, **attentions}
    settings = settings_of(model_of(size, "meta")).model_copy(update={"batch_rows": 4})
    rows = trees_of(max(4, options.rows // 8), options.trunk)

    def trained(rows: list[Row], out: Path, attention: str) -> float:
        forget_peak(options.device)
        model = model_of(size, options.device, attention)
        lora.prepare(model, settings, model.device)
        seconds = bench_training.ours(model, rows, out, settings)
        memory[attention] = peak_memory(options.device)
        return seconds

    memory: dict[str, Row] = {}
    variants = {name: partial(trained, attention=attention) for name, attention in attentions.items()}
    table = bench_training.compare(f"{size}, {QUESTIONS} questions", rows, variants, options.rounds)
    if options.device == "cpu":
        print("FlexAttention has no backward pass on a CPU: left out", flush=True)
    return [line | memory[attentions[line["variant"]]] for line in table]


def settings_of(model: Any) -> Training:
    """All parameters are trained where they fit with their moments, else adapters."""
    is_small = sum(p.numel() for p in model.parameters()) <= ALL_TRAINED
    adapters = None if is_small else Lora(rank=16, alpha=32, dropout=0.0)
    return Training(batch_rows=16, checkpoint_every=None, precision="bfloat16", lora=adapters)


def trees_of(n: int, trunk: int) -> list[Row]:
    """Training rows of a note with questions, each with a loss on its last token."""
    draw = np.random.default_rng(0)
    branch = [0] * trunk + [q for q in range(1, QUESTIONS + 1) for _ in range(QUESTION)]
    weight = [0.0] * trunk + ([0.0] * (QUESTION - 1) + [1.0]) * QUESTIONS
    of_every = {"loss_weight": weight, "branch": branch}
    return [{"input_ids": draw.integers(10, 4000, len(branch)).tolist(), **of_every} for _ in range(n)]


def check_equal(device: str) -> None:
    """Both masks give the same loss and gradients on this device, in float32 products: a small model, two trees."""
    data = examples.from_rows(trees_of(2, 300))
    batch = loss.batch_of(data, np.arange(2), 0, torch.device(device))
    outcomes = []
    for attention in ("sdpa", tree_masks.FLEX):
        model = model_of("tiny", device, attention).float()
        value = loss.WeightedLoss(model)(*batch)
        value.backward()
        outcomes.append([value.detach(), *(p.grad for p in model.parameters())])
    for dense, flex in zip(*outcomes, strict=True):
        torch.testing.assert_close(flex, dense, atol=1e-3 * float(dense.abs().max()), rtol=1e-2)


def of_peak(size: str, device: str, settings: Training, rows: list[Row], tokens_per_s: float) -> float:
    """Share of the device's measured product speed that a training reaches."""
    model, data = model_of(size, "meta"), examples.from_rows(rows)
    if settings.lora is not None:
        lora.add(model, settings.lora)
    work = throughput.work_of(data, np.arange(len(data)))
    where = torch.device(device)
    dtype = torch.bfloat16 if loss.in_bfloat16(settings, where) else torch.float32
    flops = throughput.training_flops(model, work) * tokens_per_s / work.tokens
    return round(flops / throughput.matrix_peak(where, dtype), 3)


def measured(section: Section, size: str, options: argparse.Namespace) -> list[Row]:
    """A section's lines with the largest memory of the section, where they have none of their own. One
    that does not fit says so; the others go on."""
    forget_peak(options.device)
    try:
        lines = section(size, options)
    except torch.OutOfMemoryError:
        return [{"section": section.__name__, "size": size, "failed": "out of memory"}]
    memory = peak_memory(options.device)
    return [{"section": section.__name__, "size": size, **memory, **line} for line in lines]


def forget_peak(device: str) -> None:
    """Begin to watch memory anew."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: str) -> Row:
    """The largest memory since then, if it is a card's."""
    return {"gib": round(torch.cuda.max_memory_allocated() / 2**30, 1)} if device == "cuda" else {}


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints one table, writes JSON after every section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["1b", "8b"])
    parser.add_argument("--rows", type=int, default=128, help="of a training")
    parser.add_argument("--trunk", type=int, default=1500, help="tokens of a tree's note")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: no GPU here: take --device cpu --sizes tiny")
    start, where = time.perf_counter(), bench_attribution.machine(options.device, torch.get_num_threads())
    table: list[Row] = []
    for size in options.sizes:
        for section in (attribution, training, trees):
            table += measured(section, size, options)
            if options.json is not None:
                options.json.write_text(json.dumps({"machine": where, "rows": table}, indent=1))
    for line in table:
        print(" | ".join(f"{key}: {value}" for key, value in line.items()))
    print(f"{where}; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
