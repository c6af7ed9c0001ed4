"""How much faster than captum, and how equal: the table of docs/attribution.md.

    python benchmarks/bench_attribution.py --json bench.json            about 10 minutes on one core
    python benchmarks/bench_attribution.py --json bench.json --quick    the same cases, one round, fewer notes
    python benchmarks/bench_attribution.py --json bench.json --only one_task integrated
    python benchmarks/bench_attribution.py --device cuda --size 1b --json bench.json
    python benchmarks/bench_attribution.py --model pretrained/smollm2-135m --threads 2 --only one_task many_tasks
    python benchmarks/bench_attribution.py --note 512 --question 12 --only many_tasks
    python benchmarks/bench_attribution.py --arithmetic --note 512 --question 12 --depth 0.5     measures nothing

Random weights (speed does not depend on them) or those of a model folder, random notes. Baselines are what a user would
write: captum per note with the forward pass that finds the label, as it comes and told to compute the last logits only,
the same in padded arrival batches with a correct mask, captum with a list of layers, and the recipe of the authors'
code. All variants of a case run in turn, round by round, so that noise hits
them alike; a ratio is baseline time / variant time, the median over rounds. `error` and `overlap` compare relevance
with captum's on tokens of the note (largest difference relative to the note's largest value; top 20 % in common). What
the arithmetic of the linear layers allows is `flop_model` in the JSON; `--arithmetic` prints it, and what is left of it
with the attention to the note, which questions do not share. No figures of a GPU have been taken so far.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from raypipe.attribution import AttributionEngine
from raypipe.attribution.batches import token_batches
from raypipe.models import loading
from raypipe.models.families import FAMILIES
from raypipe.models.loading import Loaded
from raypipe.models.prompts import EncodedNote, Question
from raypipe.settings import config
from raypipe.training.throughput import matrix_peak

# tiny: to see that a script runs. small: a body of 23.6M and a tied head of 0.27 of that, as in Llama-3.2-1B. 1b and
# 8b: Llama's own.
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
             "intermediate_size": 96, "vocab_size": 12288},
    "small": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4,
              "intermediate_size": 1408, "vocab_size": 12288},
    "1b": {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
           "intermediate_size": 8192, "vocab_size": 128256, "head_dim": 64},
    "8b": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
           "intermediate_size": 14336, "vocab_size": 128256, "head_dim": 128},
}  # fmt: skip
CASES = ("one_task", "all_layers", "batched", "many_tasks", "integrated", "bfloat16", "buckets")

Relevance = list[np.ndarray]  # per note and question: [N]


@dataclass
class Timed:
    """Seconds of each round, and what came out of the last one."""

    seconds: list[float] = field(default_factory=list)
    relevance: Relevance = field(default_factory=list)


def lengths(n: int, seed: int = 0) -> list[int]:
    """Log-normal note lengths: median 150, 95th percentile 700, at most 2048 as the notes of the paper may be."""
    generator = np.random.default_rng(seed)
    return np.clip(generator.lognormal(np.log(150), np.log(700 / 150) / 1.645, n), 8, 2048).astype(int).tolist()


def model_of(size: str, device: str, attention: str = "sdpa") -> Any:
    """A Llama with random weights: bfloat16 on a GPU."""
    torch.manual_seed(0)
    shape = LlamaConfig(**SIZES[size], max_position_embeddings=4096, tie_word_embeddings=True)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device(device):
        return AutoModelForCausalLM.from_config(shape, attn_implementation=attention, dtype=dtype)


def scorer_of(model: Any, device: str) -> Loaded:
    """The model as the engine takes it."""
    return Loaded(model.eval(), None, FAMILIES["llama"], torch.device(device))


def note_of(n_tokens: int, n_questions: int, seed: int, question: int = 24) -> EncodedNote:
    """A random note with random questions of so many tokens and two one-token labels."""
    draw = np.random.default_rng(seed)
    ids = tuple(draw.integers(10, 12000, n_tokens).tolist())  # before the questions: the same note for any number
    questions = tuple(
        Question(f"t{q}", tuple(draw.integers(10, 12000, question).tolist()), ((q + 10,), (q + 500,)))
        for q in range(n_questions)
    )
    offsets = np.stack([np.arange(n_tokens), np.arange(1, n_tokens + 1)], axis=1).astype(np.int32)
    return EncodedNote(f"n{seed}", ids, 0, offsets, 0, questions)


class Baselines:
    """What there is without raypipe."""

    def __init__(self, scorer: Loaded, layer: int) -> None:
        self.model, self.device, self.layer = scorer.model, scorer.device, layer

    def _padded(self, notes: Sequence[EncodedNote]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [[*note.prefix_ids, *note.questions[0].suffix_ids] for note in notes]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=self.device)
        keep = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self.device)
        return ids, keep

    def _margins(self, notes: Sequence[EncodedNote], keep_last: bool) -> tuple[Any, torch.Tensor]:
        """(margin of the preferred label as a function, ids); finding the label is a forward pass of its own."""
        ids, keep = self._padded(notes)
        inputs: dict[str, Any] = {"logits_to_keep": 1} if keep_last else {}
        if len(notes) > 1:
            inputs |= {"attention_mask": keep, "position_ids": (keep.cumsum(1) - 1).clamp(min=0)}
        labels = torch.tensor([[o[0] for o in n.questions[0].option_ids] for n in notes], device=self.device)
        with torch.no_grad():
            logits = self.model(ids, use_cache=False, **inputs).logits[:, -1]
            order = logits.gather(1, labels).argsort(dim=1, descending=True)
        best, second = labels.gather(1, order).unbind(1)

        def margin(ids_BT: torch.Tensor) -> torch.Tensor:
            last = self.model(ids_BT, use_cache=False, **inputs).logits[:, -1]
            rows = torch.arange(len(last), device=last.device)
            return last[rows, best] - last[rows, second]

        return margin, ids

    def captum(self, notes: Sequence[EncodedNote], layers: Sequence[int], keep_last: bool = False) -> Relevance:
        """LayerGradientXActivation on one batch; several layers in one call. Layer 0 is the embeddings."""
        margin, ids = self._margins(notes, keep_last)
        blocks = [self.model.model.layers[k - 1] if k else self.model.get_input_embeddings() for k in layers]
        explainer = captum.attr.LayerGradientXActivation(margin, blocks if len(blocks) > 1 else blocks[0])
        found = explainer.attribute(ids)
        return self._cut(found if len(blocks) > 1 else [found], notes)

    def captum_ig(self, notes: Sequence[EncodedNote], steps: int) -> Relevance:
        """LayerIntegratedGradients from zero embeddings of the note, one note at a time."""
        result: Relevance = []
        for note in notes:
            _, ids = self._margins([note], False)
            labels = [o[0] for o in note.questions[0].option_ids]
            with torch.no_grad():
                logits = self.model(ids, use_cache=False).logits[0, -1]
            best, second = sorted(labels, key=lambda t: -logits[t].item())
            embedded = self.model.get_input_embeddings()(ids).detach()
            baseline = embedded.clone()
            baseline[:, : len(note.prefix_ids)] = 0

            def margin(e: torch.Tensor, best: int = best, second: int = second) -> torch.Tensor:
                logits = self.model(inputs_embeds=e, use_cache=False).logits[:, -1]
                return logits[:, best] - logits[:, second]

            explainer = captum.attr.LayerIntegratedGradients(margin, self.model.model.layers[self.layer - 1])
            result += self._cut([explainer.attribute(embedded, baseline, n_steps=steps)], [note])
        return result

    def authors(self, notes: Sequence[EncodedNote]) -> Relevance:
        """The recipe of the authors' code (docs/method.md, section 5.2).

        Input embeddings, eager attention, gradient checkpointing, full-vocabulary logits, padded batches of 4, targets
        summed over rows.
        """
        self.model.config._attn_implementation = "eager"
        self.model.activation_checkpointing_enable()
        self.model.train()  # checkpointing is off in eval mode; this model has no dropout
        try:
            for start in range(0, len(notes), 4):
                ids, keep = self._padded(notes[start : start + 4])
                embedded = self.model.get_input_embeddings()(ids).detach().requires_grad_()
                logits = self.model(inputs_embeds=embedded, attention_mask=keep, use_cache=False).logits
                logits[:, -1].amax(-1).sum().backward()
                (embedded.detach() * embedded.grad).float().sum(-1).cpu()
        finally:
            self.model.config._attn_implementation = "sdpa"
            self.model.activation_checkpointing_disable()
            self.model.eval()
        return []

    def _cut(self, found: Sequence[Any], notes: Sequence[EncodedNote]) -> Relevance:
        result: Relevance = []
        for layer in found:
            values = (layer[0] if isinstance(layer, tuple) else layer).detach().float().sum(-1).cpu().numpy()
            for row, note in zip(values, notes, strict=True):
                start = len(row) - len(note.questions[0].suffix_ids) - len(note.prefix_ids)
                result.append(row[start : start + len(note.prefix_ids)])
        return result


class Bench:
    """Runs cases and collects the rows of the table."""

    def __init__(
        self,
        scorer: Loaded,
        rounds: int,
        quick: bool,
        *,
        depth: float = 3 / 8,
        note: int = 200,
        question: int = 24,
        tasks: Sequence[int] = (8, 32, 136),
    ) -> None:
        self.scorer, self.rounds, self.quick = scorer, rounds, quick
        self.note, self.question, self.tasks = note, question, tasks
        self.depth = scorer.model.config.num_hidden_layers
        self.layer = int(self.depth * depth)
        self.base = Baselines(scorer, self.layer)
        c = scorer.model.config
        head_width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        self.width = c.num_attention_heads * head_width
        self.key_value = 2 * c.hidden_size * c.num_key_value_heads * head_width  # parameters
        self.block = 2 * c.hidden_size * self.width + self.key_value + 3 * c.hidden_size * c.intermediate_size
        self.rows: list[dict[str, Any]] = []
        # one thread: its own CPU time, which neighbours on the machine disturb less than the wall clock
        is_alone = scorer.device.type == "cpu" and torch.get_num_threads() == 1
        self.clock = time.process_time if is_alone else time.perf_counter

    def engine(self, **settings: Any) -> AttributionEngine:
        return AttributionEngine(
            self.scorer, config.Attribution(**{"layer": self.layer, "reduction": "sum", **settings})
        )

    def time(self, rounds: int, variants: dict[str, Callable[[], Relevance]]) -> dict[str, Timed]:
        """Every variant in turn, `rounds` times; on a GPU once more before, which picks its kernels."""
        timed = {name: Timed() for name in variants}
        warm_up = int(self.scorer.device.type == "cuda")
        for number in range(warm_up + rounds):
            for name, run in variants.items():
                start = self.clock()
                timed[name].relevance = run()
                if self.scorer.device.type == "cuda":
                    torch.cuda.synchronize()
                if number >= warm_up:
                    timed[name].seconds.append(self.clock() - start)
        return timed

    def row(
        self, case: str, variant: str, timed: Timed, against: str, baseline: Timed, scale: float = 1, **more: Any
    ) -> None:
        """One line: `scale` = how many times the baseline has to run for the same work."""
        pairs = zip(baseline.seconds, timed.seconds, strict=True)
        ratios = [scale * slow / fast for slow, fast in pairs]
        same = baseline.relevance[: len(timed.relevance)]
        is_equal = bool(same) and not more.pop("differs", False)
        error, overlap = agreement(timed.relevance[: len(same)], same) if is_equal else (None, None)
        self.rows.append(
            {"case": case, "variant": variant, "baseline": against, "ratio": round(float(np.median(ratios)), 2),
             "ratio_min": round(min(ratios), 2), "error": error, "overlap": overlap,
             "best": round(min(timed.seconds), 3), **more}
        )  # fmt: skip
        print(f"  {case:15s} {variant:28s} {self.rows[-1]['ratio']:7.2f}x  vs {against}", file=sys.stderr, flush=True)

    def one_task(self) -> None:
        notes = self.notes()
        engine = self.engine()
        timed = self.time(
            self.rounds,
            {
                "captum": lambda: [self.base.captum([x], [self.layer])[0] for x in notes],
                "captum last": lambda: [self.base.captum([x], [self.layer], keep_last=True)[0] for x in notes],
                "engine": lambda: relevance_of(engine, notes),
            },
        )
        self.row("one_task", "engine", timed["engine"], "captum per note + prediction", timed["captum"])
        self.row("one_task", "engine", timed["engine"], "the same, last logits only", timed["captum last"])

    def all_layers(self) -> None:
        notes, everywhere = self.notes(), self.engine(layer="all")
        above = [layer for layer in everywhere.layers if layer]  # captum's blocks start at layer 1

        def separately() -> Relevance:
            per_layer = [[self.base.captum([x], [k])[0] for x in notes] for k in above]
            return [relevance for of_layer in per_layer for relevance in of_layer]

        def listed() -> Relevance:
            per_note = [self.base.captum([x], above) for x in notes]
            return [per_note[i][k] for k in range(len(above)) for i in range(len(notes))]

        def all_layers() -> Relevance:
            results = everywhere.attribute(notes)
            return [r.relevance_QKN[0, everywhere.layers.index(k)] for k in above for r in results]

        timed = self.time(self.rounds, {"list": listed, "engine all": all_layers})
        single = self.time(max(1, self.rounds // 2), {"separately": separately, "engine all": all_layers})
        each = f"captum, {len(above)} runs"
        self.row("all_layers", "engine, all layers", single["engine all"], each, single["separately"])
        self.row("all_layers", "engine, all layers", timed["engine all"], "captum, list of layers", timed["list"])

    def notes(self) -> list[EncodedNote]:
        """Notes of many lengths with a question each."""
        return [note_of(length, 1, i) for i, length in enumerate(lengths(4 if self.quick else 8))]

    def batched(self) -> None:
        """Against padded batches, in the order in which notes arrive. Padding makes these 16 notes 3.2 times as long in
        one batch of 16 and 1.7 times in batches of 4; the long-run means are 3.7 and 2.1."""
        n = 8 if self.quick else 16
        notes = [note_of(length, 1, i) for i, length in enumerate(lengths(n))]
        engine = self.engine()
        timed = self.time(
            self.rounds // 2 + 1,
            {
                "arrival": lambda: self.base.captum(notes, [self.layer]),
                "authors": lambda: self.base.authors(notes),
                "engine": lambda: relevance_of(engine, notes),
            },
        )
        self.row("naive_batches", "engine", timed["engine"], f"captum, arrival batch {n}", timed["arrival"])
        self.row("authors_recipe", "engine", timed["engine"], "authors' recipe, batch 4", timed["authors"])

    def many_tasks(self) -> None:
        """captum's time is proportional to notes and tasks: it runs `sample` tasks of one note and counts accordingly.
        The engine gets one note on a CPU, and enough of them to fill a batch on a GPU."""
        counts, sample = self.tasks, min(8 if self.quick else 16, *self.tasks)
        n_notes = 32 if self.scorer.device.type == "cuda" else 1
        notes = {t: [note_of(self.note, t, seed, self.question) for seed in range(n_notes)] for t in (1, *counts)}
        engine, direct = self.engine(), self.engine(method="kv_direct", layer="all")
        separate = [replace_questions(notes[max(counts)][0], q) for q in range(sample)]
        variants: dict[str, Callable[[], Relevance]] = {
            "captum": lambda: [self.base.captum([x], [self.layer])[0] for x in separate],
            "captum last": lambda: [self.base.captum([x], [self.layer], keep_last=True)[0] for x in separate],
            **{f"engine {t}": lambda t=t: relevance_of(engine, notes[t]) for t in (1, *counts)},
            **{f"kv {t}": lambda t=t: relevance_of(direct, notes[t]) for t in counts},
        }
        timed = self.time(self.rounds, variants)
        peak = matrix_peak(self.scorer.device, self.scorer.model.dtype, self.clock)
        against = {
            "captum": f"captum per task + prediction ({sample} run)",
            "captum last": "the same, last logits only",
        }
        for baseline, name in against.items():
            for t in (1, *counts):
                slow, fast = self.work(t, all_logits=baseline == "captum")
                flops = 2 * self.block * fast * n_notes / min(timed[f"engine {t}"].seconds)
                self.row(
                    f"tasks_{t}",
                    "engine, note shared",
                    timed[f"engine {t}"],
                    name,
                    timed[baseline],
                    t * n_notes / sample,
                    flop_model=round(slow / fast, 2),
                    of_peak=round(flops / peak, 2),
                    note_tasks_per_s=round(t * n_notes / min(timed[f"engine {t}"].seconds), 1),
                )
            for t in counts:
                slow, _ = self.work(t, all_logits=baseline == "captum")
                fast = (self.note + 2 * t * self.question) * self.depth  # all layers, as kv_direct gives them
                row = (timed[f"kv {t}"], name, timed[baseline], t * n_notes / sample)
                model = round(slow / fast, 2)
                self.row(f"kv_direct_{t}", "kv_direct, all layers", *row, differs=True, flop_model=model)

    def work(self, t: int, all_logits: bool, with_attention: bool = False) -> tuple[float, float]:
        """(captum, engine): work for t tasks on one note, in units of the linear layers of one block on one token.
        Their quotient is the ratio that arithmetic allows. `with_attention`: that of every token to all of its prompt,
        twice as much in a backward pass."""
        c, note, question = self.scorer.model.config, self.note, self.question
        head, above, prompt = c.vocab_size * c.hidden_size / self.block, self.depth - self.layer, note + question
        logits = head if all_logits else 0  # of one position: nothing
        look = 2 * self.width / self.block if with_attention else 0  # at one token
        both_ways = self.depth + above + look * prompt * (self.depth + 2 * above)  # one token of a prompt
        slow = t * prompt * ((1 + look * prompt) * self.depth + 2 * logits + both_ways + logits)
        if t == 1:  # one row, twice above the layer
            return slow, prompt * both_ways
        # the last block of the note is entered by its keys and values alone
        pulled_back = (above - 1) * (1 + 2 * look * note) + self.key_value / self.block
        once = note * (1 + look * note) * self.depth
        return slow, once + t * question * both_ways + t * note * pulled_back

    def arithmetic(self) -> None:
        """Print what it allows; nothing is run."""
        print(f"layer {self.layer} of {self.depth}, note {self.note}, question {self.question}")
        print("| tasks | captum per task + prediction | with attention | captum, last logits only | with attention |")
        print("|---|---|---|---|---|")
        for name, t in {**{str(t): t for t in (1, 8, 32, 136)}, "no end": 10**6}.items():
            work = [self.work(t, all_logits, attention) for all_logits in (True, False) for attention in (False, True)]
            print(f"| {name} | {' | '.join(f'{slow / fast:.2f}' for slow, fast in work)} |")

    def integrated(self) -> None:
        notes = [note_of(length, 1, i) for i, length in enumerate([150, 235][: 1 if self.quick else 2])]
        engine = self.engine(method="integrated_gradients", steps=20)
        timed = self.time(
            max(1, self.rounds // 2),
            {"captum": lambda: self.base.captum_ig(notes, 20), "engine": lambda: relevance_of(engine, notes)},
        )
        self.row("ig_20", "engine", timed["engine"], "captum LayerIntegratedGradients", timed["captum"])

    def bfloat16(self) -> None:
        """What half precision costs: labels that flip, and agreement of the maps, before and after re-scoring."""
        if self.scorer.device.type == "cuda":
            full = replace(self.scorer, model=copy.deepcopy(self.scorer.model).float())
            low = self.scorer
        else:
            full, low = self.scorer, replace(self.scorer, model=copy.deepcopy(self.scorer.model).bfloat16())
        notes = [note_of(length, 4, i) for i, length in enumerate(lengths(4 if self.quick else 16, seed=1))]
        settings = config.Attribution(layer=self.layer, reduction="sum")
        precise, engine = AttributionEngine(full, settings), AttributionEngine(low, settings)
        timed = self.time(
            1,
            {
                "float32": lambda: labelled(precise.attribute(notes)),
                "raw": lambda: labelled([engine.method.attribute(engine.request, [note])[0] for note in notes]),
                "settled": lambda: labelled(engine.attribute(notes)),
            },
        )
        for variant, name in (("raw", "bfloat16"), ("settled", "bfloat16, re-scored")):
            pairs = list(zip(timed[variant].relevance, timed["float32"].relevance, strict=True))
            same = [(a, b) for a, b in pairs if a[0] == b[0]]
            error, overlap = agreement([a[1:] for a, _ in same], [b[1:] for _, b in same])
            flips = {"label_flips": f"{len(pairs) - len(same)} of {len(pairs)}"}
            self.row("bf16", name, timed[variant], "engine, float32", timed["float32"], differs=True, **flips)
            self.rows[-1] |= {"error": error, "overlap": overlap}

    def buckets(self) -> None:
        """Useful share of tokens in windows of 2048 notes, as a stream would come; baseline: arrival batches of 16."""
        every = lengths(20_480)
        windows = [every[i : i + 2048] for i in range(0, len(every), 2048)]
        arrival = [sum(w) / sum(16 * max(w[i : i + 16]) for i in range(0, 2048, 16)) for w in windows]
        for budget in (4096, 8192, 16384):
            computed = [sum(len(b) * max(w[i] for i in b) for b in token_batches(w, budget)) for w in windows]
            shares = [sum(w) / n for w, n in zip(windows, computed, strict=True)]
            ratios = [a / b for a, b in zip(shares, arrival, strict=True)]
            self.rows.append(
                {"case": "buckets", "variant": f"budget {budget}", "baseline": "arrival batches of 16",
                 "ratio": round(float(np.median(ratios)), 2), "ratio_min": round(min(ratios), 2), "error": None,
                 "overlap": None, "best": round(float(np.mean(shares)), 3)}
            )  # fmt: skip


def labelled(results: Sequence[Any]) -> Relevance:
    """Per note and question, the preferred label followed by the relevance of the note's tokens."""
    return [np.append(r.predicted_Q[q], r.relevance_QKN[q, 0]) for r in results for q in range(len(r.predicted_Q))]


def replace_questions(note: EncodedNote, question: int) -> EncodedNote:
    """The note with one of its questions."""
    return replace(note, questions=note.questions[question : question + 1])


def relevance_of(engine: AttributionEngine, notes: Sequence[EncodedNote]) -> Relevance:
    """Relevance at the first kept layer, per note and question."""
    return [row for result in engine.attribute(notes) for row in result.relevance_QKN[:, 0]]


def agreement(found: Relevance, expected: Relevance) -> tuple[float, float]:
    """(largest relative error, mean overlap of the top 20 %) on note tokens."""
    errors, overlaps = [], []
    for a, b in zip(found, expected, strict=True):
        errors.append(float(np.abs(a - b).max() / np.abs(b).max()))
        k = max(1, round(0.2 * len(a)))
        overlaps.append(len(set(np.argsort(-abs(a))[:k]) & set(np.argsort(-abs(b))[:k])) / k)
    return float(f"{max(errors):.1e}"), round(float(np.mean(overlaps)), 4)


def machine(device: str, threads: int) -> str:
    """What the numbers were measured on."""
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bfloat16"
    model = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{model[0] if model else platform.processor()}, {threads} thread(s), torch {torch.__version__}, float32"


def main() -> None:
    """Run all cases, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--model", type=Path, help="a model folder instead of random weights")
    parser.add_argument(
        "--depth", type=float, default=3 / 8, help="layer that is attributed, of all; 0: the embeddings"
    )
    parser.add_argument("--note", type=int, default=200, help="tokens of the note with many tasks")
    parser.add_argument("--question", type=int, default=24, help="tokens of each of its questions")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CASES)
    parser.add_argument("--tasks", type=int, nargs="+", default=[8, 32, 136], help="of the note with many tasks")
    parser.add_argument("--arithmetic", action="store_true", help="what it allows, without a measurement")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    start = time.perf_counter()
    if arguments.model is None:
        scorer = scorer_of(model_of(arguments.size, arguments.device), arguments.device)
    else:
        scorer = loading.load(config.Model(path=str(arguments.model), device=arguments.device))
    rounds, sizes = 1 if arguments.quick else arguments.rounds, ("depth", "note", "question", "tasks")
    bench = Bench(scorer, rounds, arguments.quick, **{name: getattr(arguments, name) for name in sizes})
    if arguments.arithmetic:
        bench.arithmetic()
        return
    report: dict[str, Any] = {
        "machine": machine(arguments.device, arguments.threads),
        "size": str(arguments.model or arguments.size),
    }
    for name in arguments.only or CASES:
        getattr(bench, name)()
        report["rows"] = bench.rows
        if arguments.device == "cuda":
            report["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if arguments.json:  # after every case: what is done is not lost
            arguments.json.write_text(json.dumps(report, indent=1))
    columns = ("case", "variant", "baseline", "ratio", "ratio_min", "error", "overlap", "best")
    print(" | ".join(columns))
    for row in bench.rows:
        notes = "; ".join(f"{key}: {row[key]}" for key in row if key not in columns)
        print(" | ".join([*(str(row[column]) for column in columns), notes]))
    print(f"{report['machine']}; {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
