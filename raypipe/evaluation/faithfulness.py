"""Does relevance point at what the scorer uses? The cheap proxy that chooses method, target and layer (methods 5.4).

With p(x) the scorer's probability of the label it prefers for note x, and e_q the q % most relevant words:

    comprehensiveness  p(x) - p(x without e_q), high is good; sufficiency  p(x) - p(e_q alone), low is good;
                       each averaged over q in SHARES: AOPC (DeYoung et al. 2020, ERASER, 1911.03429, section 4)
    soft_nc, soft_ns   the same with every embedding element kept at random by its word's relevance, normalised by a
                       note of zeros (Zhao & Aletras 2023, 2305.10496, section 3), relevance first rescaled so that
                       all methods keep the same expected share PI (2601.03089): plain scores reward large means

Words are removed by deletion, or replaced by `filler_ids` (the pretext's own sentinel) run by run. Controls: random
relevance, and every variant's ranking reversed. It is a proxy: report its rank correlation with what it predicts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raypipe import config
from raypipe.attribution import AttributionEngine, NoteAttribution
from raypipe.attribution.decoder import Decoder
from raypipe.attribution.rows import Rows
from raypipe.attribution.scores import values_of
from raypipe.attribution.targets import NoteValues
from raypipe.evaluation.resampling import group_weights
from raypipe.hashing import generator
from raypipe.models.loading import Loaded
from raypipe.prompts import EncodedNote, PromptEncoder
from raypipe.words import Floats, Ints, relevance_of_words, word_spans

SHARES = (0.01, 0.05, 0.10, 0.20, 0.50)
PI = 0.2  # expected share kept (soft_ns) or dropped (soft_nc)
SIGNS: dict[str, Callable[[Floats], Floats]] = {
    "abs": np.abs,
    "positive": lambda r: np.maximum(r, 0),
    "signed": lambda r: r,
}
MEASURES = ("comprehensiveness", "sufficiency", "soft_nc", "soft_ns")


@dataclass(frozen=True)
class Item:
    """One note with one question, and what the scorer says of it."""

    note: EncodedNote  # with this question alone
    words_W2: Ints
    word_of_token_N: Ints  # -1: in no word
    values: NoteValues

    @property
    def p(self) -> float:
        """Probability of the preferred label among the options."""
        return _probability(self.values, self.values.chosen_Q2)


def faithfulness_table(
    scorer: Loaded,
    encoder: PromptEncoder,
    notes: Sequence[tuple[str, str, Sequence[str]]],
    variants: Mapping[str, config.Attribution],
    *,
    filler_ids: Sequence[int] = (),
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row per variant and kept layer, and one for `random`; sorted by comprehensiveness, best first.

    `notes`: (note_id, text, task_ids). Columns: variant, method, target, layer, n_notes, the four MEASURES (means),
    comprehensiveness_<q>, reversed (comprehensiveness of the reversed ranking), vs_random with vs_random_low and _high
    (paired bootstrap over notes, 95 %), seconds (attribution alone). Notes that a method cannot do are left out of it
    for all: the comparison stays paired. Raises `RowError` for a note without room or tokens.
    """
    decoder = Decoder(scorer)
    encoded = [encoder.encode(note_id, text, task_ids) for note_id, text, task_ids in notes]
    texts = [text for _, text, _ in notes]
    measured: dict[tuple[str, int], list[list[Measured] | None]] = {}
    seconds: dict[str, float] = {}
    every = {"random": config.Attribution(method="random"), **variants}
    for name, settings in every.items():
        engine = AttributionEngine(scorer, settings, seed)
        items = items_of(decoder, encoded, texts, settings)
        start = time.perf_counter()
        results = engine.attribute(encoded)
        seconds[name] = time.perf_counter() - start
        for index, layer in enumerate(engine.layers):
            measured[name, layer] = [
                _note(decoder, of_note, result, index, settings, filler_ids, seed)
                if isinstance(result, NoteAttribution) and of_note
                else None
                for of_note, result in zip(items, results, strict=True)
            ]
    complete = [i for i in range(len(notes)) if all(per_note[i] is not None for per_note in measured.values())]
    means = {key: _means([m for i in complete if (m := per_note[i])]) for key, per_note in measured.items()}
    random = next(values for (name, _), values in means.items() if name == "random")
    rng = np.random.default_rng(seed)
    weights_BN = group_weights(rng, n_bootstrap, len(complete)) / max(1, len(complete))
    rows = [
        _row(name, layer, every[name], values, random, weights_BN, seconds[name])
        for (name, layer), values in means.items()
    ]
    return sorted(rows, key=lambda row: -row["comprehensiveness"])


def items_of(
    decoder: Decoder, notes: Sequence[EncodedNote], texts: Sequence[str], settings: config.Attribution
) -> list[list[Item]]:
    """Per note, one item per question."""
    values = values_of(decoder, notes, settings.target, settings.batch_tokens)
    items = []
    for note, text, value in zip(notes, texts, values, strict=True):
        words_W2 = word_spans(text)
        first = np.searchsorted(words_W2[:, 1], note.offsets_N2[:, 0], side="right")
        is_in_word = first < np.searchsorted(words_W2[:, 0], note.offsets_N2[:, 1], side="left")
        word_N = np.where(is_in_word, first, -1).astype(np.int32)
        seen_W2 = words_W2[: word_N.max(initial=-1) + 1]
        per_question = [
            Item(
                replace(note, questions=(question,)),
                seen_W2,
                word_N,
                NoteValues(*(part[[q]] for part in (value.z_Q, value.chosen_Q2, value.margin_Q, value.score_QC))),
            )
            for q, question in enumerate(note.questions)
        ]
        items.append(per_question if len(seen_W2) else [])
    return items


@dataclass(frozen=True)
class Measured:
    """The numbers of one item."""

    comprehensiveness_S: Floats  # per share
    sufficiency_S: Floats
    reversed_S: Floats  # comprehensiveness of the reversed ranking
    soft_nc: float
    soft_ns: float


def _note(
    decoder: Decoder,
    items: Sequence[Item],
    result: NoteAttribution,
    layer: int,
    settings: config.Attribution,
    filler_ids: Sequence[int],
    seed: int,
) -> list[Measured]:
    return [
        measure(
            decoder,
            item,
            relevance_of_words(
                SIGNS[settings.sign](result.relevance_QKN[q, layer]),
                item.note.offsets_N2,
                item.words_W2,
                settings.word_reduction,
            ),
            settings,
            filler_ids,
            seed,
        )
        for q, item in enumerate(items)
    ]


def measure(
    decoder: Decoder,
    item: Item,
    relevance_W: Floats,
    settings: config.Attribution,
    filler_ids: Sequence[int] = (),
    seed: int = 0,
) -> Measured:
    """All measures of one note and question for relevance of its words."""
    order_W = np.argsort(-relevance_W, kind="stable")  # ties by position
    counts = [max(1, round(share * len(order_W))) for share in SHARES]
    tops = [order_W[:k] for k in counts]
    without = [_without(item, np.isin(item.word_of_token_N, top), filler_ids) for top in tops]
    alone = [_without(item, ~np.isin(item.word_of_token_N, top), filler_ids) for top in tops]
    backwards = [_without(item, np.isin(item.word_of_token_N, order_W[::-1][:k]), filler_ids) for k in counts]
    notes = [*without, *alone, *backwards]
    chosen = [item.values.chosen_Q2] * len(notes)
    found = values_of(decoder, notes, settings.target, settings.batch_tokens, chosen)
    drop = np.asarray([item.p - _probability(value, item.values.chosen_Q2) for value in found], np.float32)
    n = len(SHARES)
    soft_nc, soft_ns = _soft(decoder, item, relevance_W, settings.target, seed)
    return Measured(drop[:n], drop[n : 2 * n], drop[2 * n :], soft_nc, soft_ns)


def keep_probabilities(relevance_W: Floats, mean: float = PI) -> Floats:
    """Relevance scaled and cut to [0, 1] so that its mean is `mean`: larger stays larger, zero gets what is left."""
    relevance = np.maximum(relevance_W, 0).astype(np.float64)
    low, high = 0.0, 1.0 / max(relevance[relevance > 0].min(initial=np.inf), 1e-30)
    for _ in range(60):  # bisection: the mean grows with the factor
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(relevance * middle, 1).mean() < mean else (low, middle)
    kept = np.minimum(relevance * high, 1)
    missing = mean - kept.mean()
    if missing > 1e-6:  # too few words have any relevance: the others share the rest
        kept[relevance == 0] += missing * len(kept) / max(1, int((relevance == 0).sum()))
    return np.minimum(kept, 1).astype(np.float32)


def _without(item: Item, is_removed_N: npt.NDArray[np.bool_], filler_ids: Sequence[int]) -> EncodedNote:
    """The note without these tokens; each run of them becomes the filler."""
    start = item.note.note_start
    ids = list(item.note.prefix_ids[:start])
    for index, (token, gone) in enumerate(zip(item.note.prefix_ids[start:], is_removed_N, strict=True)):
        if not gone:
            ids.append(token)
        elif index == 0 or not is_removed_N[index - 1]:
            ids.extend(filler_ids)
    return replace(item.note, prefix_ids=tuple(ids))


def _soft(decoder: Decoder, item: Item, relevance_W: Floats, target: str, seed: int) -> tuple[float, float]:
    """(soft_nc, soft_ns); nan if the note without content is as sure of the label as the note."""
    rows = Rows(decoder, [item.note], target)
    embedded_RTD = decoder.embed(rows.ids_RT)
    kept_W = np.append(keep_probabilities(relevance_W), 0)  # tokens outside words are dropped by both
    keep_N = kept_W[item.word_of_token_N]
    drop_N = np.where(item.word_of_token_N < 0, 0, 1 - keep_N)
    draw_ND = generator(seed, item.note.note_id, item.note.questions[0].task_id).random(
        (len(keep_N), embedded_RTD.shape[-1]), dtype=np.float32
    )
    start, stop = item.note.note_start, len(item.note.prefix_ids)
    p = []
    for share_N in (drop_N, keep_N, np.zeros_like(keep_N)):
        is_kept_ND = torch.tensor(draw_ND < share_N[:, None], device=decoder.device)
        changed_RTD = embedded_RTD.clone()
        changed_RTD[:, start:stop] *= is_kept_ND
        with torch.no_grad():
            values = rows.values(changed_RTD, torch.tensor(item.values.chosen_Q2, device=decoder.device))
        score_QC = values.score_QC.cpu().numpy()
        p.append(float(_softmax(score_QC)[0, item.values.chosen_Q2[0, 0]]))
    room = max(0.0, item.p - p[2])  # 1 - S(x, 0)
    if room < 1e-3:
        return float("nan"), float("nan")
    soft_nc = max(0.0, item.p - p[0]) / room
    soft_ns = 1 - max(0.0, item.p - p[1]) / room  # (S(x, kept) - S(x, 0)) / (1 - S(x, 0))
    return soft_nc, soft_ns


def _softmax(score_QC: Floats) -> Floats:
    shifted = np.exp(score_QC - score_QC.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _probability(values: NoteValues, chosen_Q2: npt.NDArray[np.int64]) -> float:
    return float(_softmax(values.score_QC)[0, chosen_Q2[0, 0]])


def _means(per_note: Sequence[Sequence[Measured]]) -> dict[str, Floats]:
    """Per note, the mean over its questions: what the bootstrap draws."""
    of_note: dict[str, list[Floats]] = {}
    for measured in per_note:
        soft = np.asarray([(m.soft_nc, m.soft_ns) for m in measured])
        is_defined = np.isfinite(soft[:, 0])
        soft_mean = soft[is_defined].mean(axis=0) if is_defined.any() else np.full(2, np.nan)
        values = {
            "shares": np.mean([m.comprehensiveness_S for m in measured], axis=0),
            "comprehensiveness": np.mean([m.comprehensiveness_S for m in measured]),
            "sufficiency": np.mean([m.sufficiency_S for m in measured]),
            "reversed": np.mean([m.reversed_S for m in measured]),
            "soft_nc": soft_mean[0],
            "soft_ns": soft_mean[1],
        }
        for name, value in values.items():
            of_note.setdefault(name, []).append(np.asarray(value, np.float32))
    return {name: np.stack(values) for name, values in of_note.items()}


def _row(
    name: str,
    layer: int,
    settings: config.Attribution,
    values: Mapping[str, Floats],
    random: Mapping[str, Floats],
    weights_BN: npt.NDArray[Any],
    seconds: float,
) -> dict[str, Any]:
    difference_N = values["comprehensiveness"] - random["comprehensiveness"]
    low, high = np.quantile(weights_BN @ difference_N, [0.025, 0.975])
    return {
        "variant": name,
        "method": settings.method,
        "target": settings.target,
        "layer": layer,
        "n_notes": len(difference_N),
        **{measure: float(np.nanmean(values[measure])) for measure in MEASURES},
        **{f"comprehensiveness_{100 * s:.0f}": float(values["shares"][:, i].mean()) for i, s in enumerate(SHARES)},
        "reversed": float(values["reversed"].mean()),
        "vs_random": float(difference_N.mean()),
        "vs_random_low": float(low),
        "vs_random_high": float(high),
        "seconds": seconds,
    }
