"""Label scoring: the mean log-probability per token of each verbalised option.

All questions of a note are branches of one token tree (models/tree.py), so 136 tasks cost one note and 136 short
suffixes, not 136 notes. The same pass serves constrained decoding (evaluation/generation.py): every path that a
decoder bound to the options can take is the beginning of an option.

A model in bfloat16 answers in bfloat16; where its two best options are too close for that, the question is asked of a
float32 copy (models/precision.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from raypipe.evaluation.generation import decode, longer, narrowest_margin
from raypipe.models import tree
from raypipe.models.loading import Loaded
from raypipe.models.precision import BORDERLINE, float32_twin
from raypipe.models.prompts import EncodedNote, Question
from raypipe.training.loss import positions_at_once
from raypipe.words import Floats

QUESTIONS_PER_ROW = 32

Options = Sequence[tuple[int, ...]]  # tokens of each option of a question
Margin = Callable[[Options, Sequence[Floats]], float]
TokenLogP = list[list[Floats]]  # of a note: for each question and option, the log-probability [T] of its tokens


@dataclass
class _Row:
    """One token tree, and which of its predictions are read."""

    ids: list[int]
    branch: list[int]
    reads: list[tuple[int, int, int, int]] = field(default_factory=list)  # (hidden index, token, question, option)


def _mean_log_p(options: Options, log_p: Sequence[Floats]) -> Floats:
    """Mean log-probability [C] of each option, nats per token."""
    means = [log_p_T[: len(ids)].mean() for log_p_T, ids in zip(log_p, options, strict=True)]
    return np.asarray(means, np.float32)


def _mean_margin(options: Options, log_p: Sequence[Floats]) -> float:
    """The lead of the best option over the next, nats per token."""
    mean_C = np.sort(_mean_log_p(options, log_p))
    return float(mean_C[-1] - mean_C[-2])


class LabelScorer:
    """Scores the options of every question of a note with one model."""

    def __init__(self, scorer: Loaded, batch_tokens: int) -> None:
        self.scorer = scorer
        self.batch_tokens = batch_tokens

    def score(self, notes: Sequence[EncodedNote]) -> list[list[Floats]]:
        """For each note and question: mean log-probability [C] of its options, nats per token."""
        return [
            [_mean_log_p(q.option_ids, log_p) for q, log_p in zip(note.questions, of_note, strict=True)]
            for note, of_note in zip(notes, self._settled(notes, None), strict=True)
        ]

    def generate(self, notes: Sequence[EncodedNote], eos_id: int | None) -> list[list[tuple[int, Floats]]]:
        """For each note and question: what `generation.decode` says of its options."""
        return [
            [decode(q.option_ids, log_p) for q, log_p in zip(note.questions, of_note, strict=True)]
            for note, of_note in zip(notes, self._settled(notes, eos_id, narrowest_margin), strict=True)
        ]

    def _settled(
        self, notes: Sequence[EncodedNote], eos_id: int | None, margin: Margin = _mean_margin
    ) -> list[TokenLogP]:
        """As `_token_log_p`; questions whose answer has too small a margin for bfloat16 again in float32."""
        log_p = self._token_log_p(notes, eos_id)
        if self.scorer.model.dtype == torch.float32:
            return log_p
        for n, (note, of_note) in enumerate(zip(notes, log_p, strict=True)):
            margins = [margin(q.option_ids, of_q) for q, of_q in zip(note.questions, of_note, strict=True)]
            borderline = [index for index, value in enumerate(margins) if not value >= BORDERLINE]  # NaN is, too
            if borderline and self._float32 is not None:
                part = replace(note, questions=tuple(note.questions[index] for index in borderline))
                (again,) = self._float32._token_log_p([part], eos_id)
                for index, of_q in zip(borderline, again, strict=True):
                    log_p[n][index] = of_q
        return log_p

    @cached_property
    def _float32(self) -> LabelScorer | None:
        """The same on a float32 copy of the model, made when first needed; None if the memory is too small."""
        twin = float32_twin(self.scorer)
        return None if twin is None else LabelScorer(twin, self.batch_tokens)

    @torch.no_grad()
    def _token_log_p(self, notes: Sequence[EncodedNote], eos_id: int | None) -> list[TokenLogP]:
        """For each note, question and option: log-probability [T] of its tokens, given the prompt and those before.

        With `eos_id`, an option that begins another one has the log-probability of ending there as its last.
        """
        values: list[list[list[list[float]]]] = [[[[] for _ in q.option_ids] for q in note.questions] for note in notes]
        rows = [(n, first, row) for n, note in enumerate(notes) for first, row in _rows(note, eos_id)]
        rows.sort(key=lambda item: len(item[2].ids))
        for batch in _budget(rows, self.batch_tokens):
            for (n, first, row), log_p in zip(batch, self._read([row for _, _, row in batch]), strict=True):
                for (_, _, question, option), value in zip(row.reads, log_p, strict=True):
                    values[n][first + question][option].append(value)
        return [[[np.asarray(o, np.float32) for o in question] for question in of_note] for of_note in values]

    def _read(self, rows: Sequence[_Row]) -> list[Floats]:
        """Log-probability of every read of every row."""
        model = self.scorer.model
        arrays = [(np.asarray(row.ids, np.int32), np.asarray(row.branch, np.int32)) for row in rows]
        trees = tree.collate(arrays, self.scorer.tokenizer.pad_token_id, self.scorer.device)
        hidden = tree.hidden_states(model, trees)
        where = [(r, index, token) for r, row in enumerate(rows) for index, token, _, _ in row.reads]
        row_N, index_N, token_N = torch.tensor(where, device=self.scorer.device).T
        out, size = [], positions_at_once(model)
        for part in range(0, len(where), size):
            some = slice(part, part + size)
            log_p = tree.logits(model, hidden[row_N[some], index_N[some]]).log_softmax(-1)
            out.append(log_p.gather(1, token_N[some, None])[:, 0].cpu())
        return np.split(torch.cat(out).numpy(), np.cumsum([len(row.reads) for row in rows])[:-1])


def _rows(note: EncodedNote, eos_id: int | None) -> Iterator[tuple[int, _Row]]:
    """Token trees of a note, each with the index of its first question."""
    for first in range(0, len(note.questions), QUESTIONS_PER_ROW):
        row = _Row(list(note.prefix_ids), [0] * len(note.prefix_ids))
        for index, question in enumerate(note.questions[first : first + QUESTIONS_PER_ROW]):
            _add(row, question, index, eos_id)
        yield first, row


def _add(row: _Row, question: Question, index: int, eos_id: int | None) -> None:
    """One branch per option; options of one token share a branch, because only the question is read."""
    shared: int | None = None
    begins: dict[int, int] = {}  # option -> where the last token of its question stands
    for option, ids in enumerate(question.option_ids):
        if len(ids) > 1 or shared is None:
            branch = row.branch[-1] + 1
            inputs = [*question.suffix_ids, *ids[:-1]]
            at = len(row.ids) + len(question.suffix_ids) - 1
            row.ids += inputs
            row.branch += [branch] * len(inputs)
            shared = at
        begins[option] = shared
        row.reads += [(shared + i, token, index, option) for i, token in enumerate(ids)]
    if eos_id is not None:
        for option, other in longer(question.option_ids).items():  # the longer one's branch holds the shorter one's end
            row.reads.append((begins[other] + len(question.option_ids[option]), eos_id, index, option))


def _budget(rows: list[tuple[int, int, _Row]], max_tokens: int) -> Iterator[list[tuple[int, int, _Row]]]:
    """Consecutive rows (sorted by length) in padded batches of at most `max_tokens`, or one row."""
    batch: list[tuple[int, int, _Row]] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(row[2].ids) > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
