"""Label scoring: the mean log-probability per token of each verbalised option (docs/method.md, section 11.2).

All questions of a note are branches of one token tree (models/tree.py), so 136 tasks cost one note and 136 short
suffixes, not 136 notes. The same pass serves constrained decoding (evaluation/generation.py): every path that a
decoder bound to the options can take is the beginning of an option.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from raypipe.attribution.batches import token_batches
from raypipe.evaluation.generation import decode, longer
from raypipe.models import tree
from raypipe.models.loading import Loaded
from raypipe.models.prompts import EncodedNote, Question, question_groups
from raypipe.models.tree import TokenTree
from raypipe.words import F32


@dataclass
class _Row:
    """One token tree, and which of its predictions are read."""

    note: int  # index into the batch of notes
    first: int  # index of its first question in the note
    tree: TokenTree
    reads: list[_Read] = field(default_factory=list)


@dataclass(frozen=True)
class _Read:
    """The log-probability of `token` after the token at `index` of the row."""

    index: int
    token: int
    question: int  # of the note
    option: int


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
        """For each note and question: the result of `generation.decode` on its options."""
        return [
            [decode(q.option_ids, log_p) for q, log_p in zip(note.questions, of_note, strict=True)]
            for note, of_note in zip(notes, self._token_log_p(notes, eos_id), strict=True)
        ]

    @torch.no_grad()
    def _token_log_p(self, notes: Sequence[EncodedNote], eos_id: int | None) -> list[list[list[F32]]]:
        """For each note, question and option: log-probability [T] of its tokens, given the prompt and those before.

        With `eos_id`, an option that begins another one has the log-probability of ending there as its last.
        """
        log_p: list[list[list[list[float]]]] = [[[[] for _ in q.option_ids] for q in note.questions] for note in notes]
        rows = [row for index, note in enumerate(notes) for row in _rows(index, note, eos_id)]
        for batch in token_batches([len(row.tree.ids) for row in rows], self.batch_tokens):
            members = [rows[i] for i in batch]
            for row, values in zip(members, self._read(members), strict=True):
                for read, value in zip(row.reads, values, strict=True):
                    log_p[row.note][read.question][read.option].append(value)
        return [[[np.asarray(o, np.float32) for o in question] for question in of_note] for of_note in log_p]

    def _read(self, rows: Sequence[_Row]) -> list[F32]:
        """Log-probability of every read of every row."""
        model = self.scorer.model
        arrays = [row.tree.arrays() for row in rows]
        trees = tree.collate(arrays, self.scorer.tokenizer.pad_token_id, self.scorer.device)
        hidden = tree.hidden_states(model, trees)
        where = [(r, read.index, read.token) for r, row in enumerate(rows) for read in row.reads]
        row_N, index_N, token_N = torch.tensor(where, device=self.scorer.device).T
        out = []
        for part in range(0, len(where), tree.LOGIT_ROWS):
            some = slice(part, part + tree.LOGIT_ROWS)
            log_p = tree.logits(model, hidden[row_N[some], index_N[some]]).log_softmax(-1)
            out.append(log_p.gather(1, token_N[some, None])[:, 0].cpu())
        return np.split(torch.cat(out).numpy(), np.cumsum([len(row.reads) for row in rows])[:-1])


def _rows(index: int, note: EncodedNote, eos_id: int | None) -> Iterator[_Row]:
    """The token trees of a note: one for each group of its questions."""
    for first, questions in question_groups(note.questions):
        row = _Row(index, first, TokenTree.of_trunk(note.prefix_ids))
        for number, question in enumerate(questions, start=first):
            _add(row, question, number, eos_id)
        yield row


def _add(row: _Row, question: Question, number: int, eos_id: int | None) -> None:
    """One branch per option. Options of one token share a branch, because only its question is read."""
    shared: int | None = None  # where the last token of the question stands in the latest branch
    begins: dict[int, int] = {}  # the same by option
    for option, ids in enumerate(question.option_ids):
        if len(ids) > 1 or shared is None:
            shared = row.tree.add_branch([*question.suffix_ids, *ids[:-1]]) + len(question.suffix_ids) - 1
        begins[option] = shared
        row.reads += [_Read(shared + i, token, number, option) for i, token in enumerate(ids)]
    if eos_id is not None:
        for option, other in longer(question.option_ids).items():  # the longer option's branch holds the shorter's end
            end = begins[other] + len(question.option_ids[option])
            row.reads.append(_Read(end, eos_id, number, option))
