"""Label scoring: the mean log-probability per token of each verbalised option (methods 5.2).

All questions of a note are branches of one token tree (models/tree.py), so 136 tasks cost one note and 136 short
suffixes, not 136 notes. The same pass serves constrained decoding (evaluation/generation.py): every path that a
decoder bound to the options can take is the beginning of an option.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from raypipe.evaluation.generation import decode, longer
from raypipe.models import tree
from raypipe.models.loading import Loaded
from raypipe.models.prompts import EncodedNote, Question
from raypipe.words import F32

QUESTIONS_PER_ROW = 32
LOGIT_ROWS = 4096


@dataclass
class _Row:
    """One token tree, and which of its predictions are read."""

    ids: list[int]
    branch: list[int]
    reads: list[tuple[int, int, int, int]] = field(default_factory=list)  # (hidden index, token, question, option)


class LabelScorer:
    """Scores the options of every question of a note with one model."""

    def __init__(self, scorer: Loaded, batch_tokens: int) -> None:
        self.scorer = scorer
        self.batch_tokens = batch_tokens

    def score(self, notes: Sequence[EncodedNote]) -> list[list[F32]]:
        """For each note and question: mean log-probability [C] of its options, nats per token."""
        return [
            [
                np.asarray(
                    [log_p_T[: len(ids)].mean() for log_p_T, ids in zip(of_question, q.option_ids, strict=True)],
                    np.float32,
                )
                for of_question, q in zip(of_note, note.questions, strict=True)
            ]
            for of_note, note in zip(self._token_log_p(notes, None), notes, strict=True)
        ]

    def generate(self, notes: Sequence[EncodedNote], eos_id: int | None) -> list[list[tuple[int, F32]]]:
        """For each note and question: what `generation.decode` says of its options."""
        return [
            [decode(q.option_ids, log_p) for q, log_p in zip(note.questions, of_note, strict=True)]
            for note, of_note in zip(notes, self._token_log_p(notes, eos_id), strict=True)
        ]

    @torch.no_grad()
    def _token_log_p(self, notes: Sequence[EncodedNote], eos_id: int | None) -> list[list[list[F32]]]:
        """For each note, question and option: log-probability [T] of its tokens, given the prompt and those before.

        With `eos_id`, an option that begins another one has the log-probability of ending there as its last.
        """
        found: list[list[list[list[float]]]] = [[[[] for _ in q.option_ids] for q in note.questions] for note in notes]
        rows = [(n, first, row) for n, note in enumerate(notes) for first, row in _rows(note, eos_id)]
        rows.sort(key=lambda item: len(item[2].ids))
        for batch in _budget(rows, self.batch_tokens):
            for (n, first, row), log_p in zip(batch, self._read([row for _, _, row in batch]), strict=True):
                for (_, _, question, option), value in zip(row.reads, log_p, strict=True):
                    found[n][first + question][option].append(value)
        return [[[np.asarray(o, np.float32) for o in question] for question in of_note] for of_note in found]

    def _read(self, rows: Sequence[_Row]) -> list[F32]:
        """Log-probability of every read of every row."""
        model = self.scorer.model
        arrays = [(np.asarray(row.ids, np.int32), np.asarray(row.branch, np.int32)) for row in rows]
        trees = tree.collate(arrays, self.scorer.tokenizer.pad_token_id, self.scorer.device)
        hidden = tree.hidden_states(model, trees)
        where = [(r, index, token) for r, row in enumerate(rows) for index, token, _, _ in row.reads]
        row_N, index_N, token_N = torch.tensor(where, device=self.scorer.device).T
        out = []
        for part in range(0, len(where), LOGIT_ROWS):
            some = slice(part, part + LOGIT_ROWS)
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
