"""Does relevance point at what the scorer uses? A cheap proxy for choosing method, target and layer.

With p(x) the scorer's probability of the label it prefers for note x, and e_q the q % most relevant words:

    comprehensiveness  p(x) - p(x without e_q), high is good; sufficiency  p(x) - p(e_q alone), low is good;
                       each averaged over q in SHARES: AOPC (DeYoung et al. 2020, ERASER, 1911.03429, section 4)
    soft_nc, soft_ns   the same with every embedding element set to 0 at random unless its word is relevant, normalised
                       by a note of zeros (Zhao & Aletras 2023, 2305.10496, section 3). Relevance is first rescaled so
                       that all methods keep the same expected share PI (2601.03089): plain scores reward large means

Words are deleted. Controls: random relevance, and every ranking reversed. It is a proxy: report its rank correlation
with what it predicts. docs/method.md, section 11.6.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from raypipe.attribution import AttributionEngine, NoteAttribution
from raypipe.attribution.batches import in_batches
from raypipe.attribution.decoder import Decoder
from raypipe.attribution.occlusion import without
from raypipe.attribution.padded import Rows
from raypipe.attribution.registry import method_of
from raypipe.attribution.scores import values_of
from raypipe.attribution.targets import NoteValues
from raypipe.errors import Code, InputError, Problem
from raypipe.evaluation.agreement import Agreement, AnnotatedRelevance, agreement, deciding_words
from raypipe.evaluation.resampling import group_weights
from raypipe.hashing import generator
from raypipe.models.loading import Loaded
from raypipe.models.prompts import EncodedNote, PromptEncoder
from raypipe.settings import config
from raypipe.words import F32, I32, I64, SIGNS, Index, relevance_of_words, word_spans

SHARES = (0.01, 0.05, 0.10, 0.20, 0.50)
LEAST_ROOM = 0.05  # a note without content must lower p by this, or soft scores divide by almost 0
PI = 0.2  # expected share of elements that stay (soft_ns) or go (soft_nc)
# (note_id, task_id) -> characters of the words that decide
Deciding = Mapping[tuple[str, str], Sequence[tuple[int, int]]]
MEASURES = ("comprehensiveness", "sufficiency", "soft_nc", "soft_ns")


@dataclass(frozen=True)
class Item:
    """One note with one question, and the scorer's answer to it."""

    note: EncodedNote  # with this question alone
    words_W2: I32
    word_of_token_N: I32  # -1: in no word
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
    deciding: Deciding | None = None,
    top_share: float = 0.15,
    n_bootstrap: int = 2000,
    seed: int = 0,
    idf_V: F32 | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """One row per variant and layer, and one for `random`; sorted by comprehensiveness, best first.

    `notes`: (note_id, text, task_ids). Columns: variant, method, target, layer, n_notes, the four MEASURES (means),
    comprehensiveness_<q>, reversed (comprehensiveness of the reversed ranking), vs_random and vs_best (less that of
    random relevance, and of the best variant) with _low and _high (paired bootstrap over notes, 95 %), seconds
    (attribution alone), agreement (an `Agreement` with `deciding` words, None where there are none). Notes on which a
    method fails are left out for all methods: the comparison stays paired. `idf_V` is for the method `tfidf`; `say` is
    called with a line for each finished variant, and for one that failed on every note and is left out. Raises
    `RowError` for a note without room or tokens, `InputError` if no note is left on which all variants worked.
    """
    decoder = Decoder(scorer)
    encoded = [encoder.encode(note_id, text, task_ids) for note_id, text, task_ids in notes]
    texts = [text for _, text, _ in notes]
    measured: dict[tuple[str, int], list[list[Scored] | None]] = {}
    seconds: dict[str, float] = {}
    items_for: dict[str, list[list[Item]]] = {}
    every = {"random": config.Attribution(method="random"), **variants}
    for name, settings in every.items():
        engine = AttributionEngine(scorer, settings, seed, idf_V)
        if settings.target not in items_for:
            items_for[settings.target] = items_of(decoder, encoded, texts, settings)
        items = items_for[settings.target]
        start = time.perf_counter()
        results = engine.attribute(encoded)
        seconds[name] = time.perf_counter() - start
        for index, layer in enumerate(engine.layers):
            measured[name, layer] = _scored(decoder, items, results, index, settings, seed)
        say(f"{len(seconds)} of {len(every)}: {name}, {seconds[name]:.1f} s")
    for name, layer in [key for key, per_note in measured.items() if name != "random" and not any(per_note)]:
        say(f"{name} at layer {layer} failed on every note, and is left out")
        del measured[name, layer]
    complete = [i for i in range(len(notes)) if all(per_note[i] is not None for per_note in measured.values())]
    if not complete or {name for name, _ in measured} == {"random"}:
        what = "on every note one of them fails, or no note has words: name fewer, or look at the notes"
        raise InputError([Problem("faithfulness.methods", what)])
    means = {
        key: _means([[s.measured for s in per_note[i] or ()] for i in complete]) for key, per_note in measured.items()
    }
    agreements = {
        key: agreement(list(_annotated(per_note, complete, deciding)), top_share, n_bootstrap, seed)
        if deciding
        else None
        for key, per_note in measured.items()
    }
    random = next(values for (name, _), values in means.items() if name == "random")
    best = max(means.values(), key=lambda values: float(values["comprehensiveness"].mean()))
    against = {"vs_random": random["comprehensiveness"], "vs_best": best["comprehensiveness"]}
    rng = np.random.default_rng(seed)
    weights_BN = group_weights(rng, n_bootstrap, len(complete)) / np.float32(len(complete))
    rows = [
        _row(name, layer, every[name], values, against, weights_BN, seconds[name], agreements[name, layer])
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
        seen_W = np.unique(first[is_in_word])  # a long note's other words were cut off, at its end or at its beginning
        seen_W2, word_N = words_W2[seen_W], np.where(is_in_word, np.searchsorted(seen_W, first), -1).astype(np.int32)
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

    comprehensiveness_S: F32  # per share
    sufficiency_S: F32
    reversed_S: F32  # comprehensiveness of the reversed ranking
    soft_nc: float
    soft_ns: float


@dataclass(frozen=True)
class Scored:
    """An item, the relevance of its words, and the measures of that relevance."""

    item: Item
    relevance_W: F32
    measured: Measured


def _scored(
    decoder: Decoder,
    items: Sequence[Sequence[Item]],
    results: Sequence[NoteAttribution | Code],
    layer: int,
    settings: config.Attribution,
    seed: int,
) -> list[list[Scored] | None]:
    """Per note, its items; None for a note on which the method fails."""
    done = {
        i: [(item, _of_words(result.relevance_QKN[q, layer], item, settings)) for q, item in enumerate(of_note)]
        for i, (of_note, result) in enumerate(zip(items, results, strict=True))
        if isinstance(result, NoteAttribution) and of_note
    }
    flat = [pair for pairs in done.values() for pair in pairs]
    measures = iter(measure(decoder, [i for i, _ in flat], [r for _, r in flat], settings, seed))
    scored = {i: [Scored(*pair, next(measures)) for pair in pairs] for i, pairs in done.items()}
    return [scored.get(i) for i in range(len(items))]


def _of_words(relevance_N: F32, item: Item, settings: config.Attribution) -> F32:
    signed_N = SIGNS[settings.sign](relevance_N)
    return relevance_of_words(signed_N, item.note.offsets_N2, item.words_W2, settings.word_reduction)


def measure(
    decoder: Decoder,
    items: Sequence[Item],
    relevance: Sequence[F32],
    settings: config.Attribution,
    seed: int = 0,
) -> list[Measured]:
    """All measures of each item, from the relevance of its words. Short notes share batches."""
    orders = [np.argsort(-relevance_W, kind="stable") for relevance_W in relevance]  # ties by position
    changed = [_changed(item, order_W) for item, order_W in zip(items, orders, strict=True)]
    notes = [note for of_item in changed for note in of_item]
    chosen = [item.values.chosen_Q2 for item in items for _ in range(3 * len(SHARES))]
    values = values_of(decoder, notes, settings.target, settings.batch_tokens, chosen)
    p_IS = np.asarray([_probability(value, c) for value, c in zip(values, chosen, strict=True)], np.float32)
    drop_I3S = np.asarray([item.p for item in items])[:, None, None] - p_IS.reshape(len(items), 3, len(SHARES))
    soft = _soft(decoder, items, relevance, settings, seed)
    return [
        Measured(without_S, alone_S, backwards_S, soft_nc, soft_ns)
        for (without_S, alone_S, backwards_S), (soft_nc, soft_ns) in zip(drop_I3S.astype(np.float32), soft, strict=True)
    ]


def _changed(item: Item, order_W: Index) -> list[EncodedNote]:
    """Without the top words, with them alone, without the bottom words: each at every share."""
    counts = [max(1, round(share * len(order_W))) for share in SHARES]
    tops = [np.isin(item.word_of_token_N, order_W[:k]) for k in counts]
    bottoms = [np.isin(item.word_of_token_N, order_W[::-1][:k]) for k in counts]
    removed = [np.flatnonzero(is_removed_N) for is_removed_N in (*tops, *(~top for top in tops), *bottoms)]
    return [without(item.note, tokens.tolist()) for tokens in removed]


def keep_probabilities(relevance_W: F32) -> F32:
    """Relevance scaled and cut to [0, 1] so that its mean is PI. Words without relevance share what is missing."""
    relevance = np.maximum(relevance_W, 0).astype(np.float64)
    low, high = 0.0, 1.0 / max(relevance[relevance > 0].min(initial=np.inf), 1e-30)
    for _ in range(60):  # bisection: the mean grows with the factor
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(relevance * middle, 1).mean() < PI else (low, middle)
    probability = np.minimum(relevance * high, 1)
    missing = PI - probability.mean()
    if missing > 1e-6:  # too few words have any relevance to reach the mean
        probability[relevance == 0] += missing * len(probability) / max(1, int((relevance == 0).sum()))
    return np.minimum(probability, 1).astype(np.float32)


def _soft(
    decoder: Decoder,
    items: Sequence[Item],
    relevance: Sequence[F32],
    settings: config.Attribution,
    seed: int,
) -> list[tuple[float, float]]:
    """(soft_nc, soft_ns) of each item; nan if a note without content leaves p almost as it is."""

    def of_batch(members: list[int]) -> list[F32]:
        keep = [_keep(items[i], relevance[i]) for i in members]
        return list(_p_of_random_parts(decoder, [items[i] for i in members], keep, settings.target, seed))

    lengths = [3 * len(item.note.prefix_ids) for item in items]
    pairs = []
    for item, p in zip(items, in_batches(range(len(items)), lengths, settings.batch_tokens, of_batch), strict=True):
        room = max(0.0, item.p - p[2])  # 1 - S(x, 0)
        if room >= LEAST_ROOM:  # soft_ns: (S(x, part) - S(x, 0)) / (1 - S(x, 0))
            pairs.append((max(0.0, item.p - p[0]) / room, max(0.0, 1 - max(0.0, item.p - p[1]) / room)))
        else:
            pairs.append((math.nan, math.nan))
    return pairs


def _keep(item: Item, relevance_W: F32) -> list[F32]:
    """Probability to keep each token: for soft_nc, for soft_ns, for a note of zeros."""
    keep_W = np.append(keep_probabilities(relevance_W), 0)  # tokens outside words are dropped by both
    keep_N = keep_W[item.word_of_token_N]
    return [np.where(item.word_of_token_N < 0, 0, 1 - keep_N), keep_N, np.zeros_like(keep_N)]


def _p_of_random_parts(
    decoder: Decoder, items: Sequence[Item], keep: Sequence[Sequence[F32]], target: str, seed: int
) -> F32:
    """Probability [items, 3] of the preferred label when embedding elements are set to 0 at random."""
    rows = Rows(decoder, [item.note for item in items for _ in range(3)], target)
    embedded_RTD = decoder.embed(rows.ids_RT).clone()
    width = embedded_RTD.shape[-1]
    drawn = [
        generator(seed, item.note.note_id, item.note.questions[0].task_id).random(
            (len(item.word_of_token_N), width), dtype=np.float32
        )
        for item in items
    ]
    for row, branch in enumerate(rows.readout.branches):
        i, which = divmod(branch.note, 3)
        note = items[i].note
        is_kept_ND = torch.tensor(drawn[i] < keep[i][which][:, None], device=decoder.device)
        embedded_RTD[row, note.note_start : len(note.prefix_ids)] *= is_kept_ND
    chosen_Q2 = np.concatenate([item.values.chosen_Q2 for item in items for _ in range(3)])
    with torch.no_grad():
        score_QC = rows.values(embedded_RTD, torch.tensor(chosen_Q2, device=decoder.device)).score_QC.cpu().numpy()
    return softmax(score_QC, axis=1)[np.arange(len(chosen_Q2)), chosen_Q2[:, 0]].reshape(len(items), 3)


def _probability(values: NoteValues, chosen_Q2: I64) -> float:
    return float(softmax(values.score_QC, axis=1)[0, chosen_Q2[0, 0]])


def _annotated(
    per_note: Sequence[Sequence[Scored] | None], complete: Sequence[int], deciding: Deciding
) -> Iterator[AnnotatedRelevance]:
    """The relevance of each complete note, beside the words that decide."""
    for scored in (one for i in complete for one in per_note[i] or ()):
        note = scored.item.note
        gold = deciding.get((note.note_id, note.questions[0].task_id), ())
        yield AnnotatedRelevance(note.note_id, scored.relevance_W, deciding_words(scored.item.words_W2, gold))


def _means(per_note: Sequence[Sequence[Measured]]) -> dict[str, F32]:
    """Per note, the mean over its questions: what the bootstrap draws."""
    of_note: dict[str, list[F32]] = {}
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
    values: Mapping[str, F32],
    against: Mapping[str, F32],
    weights_BN: F32,
    seconds: float,
    agreement_of_variant: Agreement | None,
) -> dict[str, Any]:
    own_N = values["comprehensiveness"]
    differences: dict[str, float] = {}
    for column, other_N in against.items():
        low, high = np.quantile(weights_BN @ (own_N - other_N), [0.025, 0.975])
        mean = float((own_N - other_N).mean())
        differences |= {column: mean, f"{column}_low": float(low), f"{column}_high": float(high)}
    return {
        "variant": name,
        "method": settings.method,
        "reduction": settings.norm if "reduction" in method_of(settings).settings else "sum",
        "target": settings.target,
        "layer": layer,
        "n_notes": len(own_N),
        **{measure: _defined_mean(values[measure]) for measure in MEASURES},
        **{f"comprehensiveness_{100 * s:.0f}": float(values["shares"][:, i].mean()) for i, s in enumerate(SHARES)},
        "reversed": float(values["reversed"].mean()),
        **differences,
        "seconds": seconds,
        "agreement": agreement_of_variant,
    }


def _defined_mean(values_N: F32) -> float:
    """Of the notes where a measure is defined; nan, silently, where it is on none."""
    defined = values_N[np.isfinite(values_N)]
    return float(defined.mean()) if len(defined) else float("nan")
