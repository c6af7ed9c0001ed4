"""Label scoring: the mean log-probability per token of each verbalised option (methods 5.2).

All questions of a note are branches of one token tree (models/tree.py), so 136 tasks cost one note and 136 short
suffixes, not 136 notes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from raypipe.models import tree
from raypipe.models.loading import Loaded
from raypipe.prompts import EncodedNote, Question
from raypipe.words import Floats

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

    @torch.no_grad()
    def score(self, notes: Sequence[EncodedNote]) -> list[list[Floats]]:
        """For each note and question: mean log-probability [C] of its options, nats per token."""
        scores = [[np.zeros(len(q.option_ids), np.float32) for q in note.questions] for note in notes]
        rows = [(n, first, row) for n, note in enumerate(notes) for first, row in _rows(note)]
        rows.sort(key=lambda item: len(item[2].ids))
        for batch in _budget(rows, self.batch_tokens):
            for (n, first, row), log_p in zip(batch, self._read([row for _, _, row in batch]), strict=True):
                for (_, _, question, option), value in zip(row.reads, log_p, strict=True):
                    length = len(notes[n].questions[first + question].option_ids[option])
                    scores[n][first + question][option] += value / length
        return scores

    def _read(self, rows: Sequence[_Row]) -> list[Floats]:
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


def _rows(note: EncodedNote) -> Iterator[tuple[int, _Row]]:
    """Token trees of a note, each with the index of its first question."""
    for first in range(0, len(note.questions), QUESTIONS_PER_ROW):
        row = _Row(list(note.prefix_ids), [0] * len(note.prefix_ids))
        for index, question in enumerate(note.questions[first : first + QUESTIONS_PER_ROW]):
            _add(row, question, index)
        yield first, row


def _add(row: _Row, question: Question, index: int) -> None:
    """One branch per option; options of one token share a branch, because only the question is read."""
    shared: int | None = None
    for option, ids in enumerate(question.option_ids):
        if len(ids) > 1 or shared is None:
            branch = row.branch[-1] + 1
            inputs = [*question.suffix_ids, *ids[:-1]]
            at = len(row.ids) + len(question.suffix_ids) - 1
            row.ids += inputs
            row.branch += [branch] * len(inputs)
            shared = at
        row.reads += [(shared + i, token, index, option) for i, token in enumerate(ids)]


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
