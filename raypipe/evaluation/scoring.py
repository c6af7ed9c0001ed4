"""Label scoring: the mean log-probability per token of each verbalised option (docs/method.md, section 11.2).

All questions of a note are branches of one token tree (models/tree.py), so 136 tasks cost one note and 136 short
suffixes, not 136 notes. The same pass serves constrained decoding (evaluation/generation.py): every path that a
decoder bound to the options can take is the beginning of an option.

A model in bfloat16 answers in bfloat16; where its two best options are too close for that, the question is asked of a
float32 copy (models/precision.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from raypipe import rows
from raypipe.attribution.batches import in_batches
from raypipe.errors import Code
from raypipe.evaluation.generation import decode, longer, narrowest_margin
from raypipe.models import tree
from raypipe.models.loading import Loaded
from raypipe.models.precision import BORDERLINE, float32_twin
from raypipe.models.prompts import EncodedNote, Question, question_groups
from raypipe.models.tree import TokenTree
from raypipe.training.loss import positions_at_once
from raypipe.words import F32

Options = Sequence[tuple[int, ...]]  # tokens of each option of a question
Margin = Callable[[Options, Sequence[F32]], float]
Answers = list[tuple[int, F32]]  # of a note: for each question, the chosen option and the scores [C] of all
TokenLogP = list[list[F32]]  # of a note: for each question and option, the log-probability [T] of its tokens


@dataclass
class _Row:
    """One token tree, and which of its predictions are read."""

    note: int  # index into the batch of notes
    tree: TokenTree
    reads: list[_Read] = field(default_factory=list)


@dataclass(frozen=True)
class _Read:
    """The log-probability of `token` after the token at `index` of the row."""

    index: int
    token: int
    question: int  # of the note
    option: int


def _mean_log_p(options: Options, log_p: Sequence[F32]) -> F32:
    """Mean log-probability [C] of each option, nats per token."""
    means = [log_p_T[: len(ids)].mean() for log_p_T, ids in zip(log_p, options, strict=True)]
    return np.asarray(means, np.float32)


def _likeliest(options: Options, log_p: Sequence[F32]) -> tuple[int, F32]:
    score_C = _mean_log_p(options, log_p)
    return int(score_C.argmax()), score_C


def _mean_margin(options: Options, log_p: Sequence[F32]) -> float:
    """The lead of the best option over the next, nats per token."""
    mean_C = np.sort(_mean_log_p(options, log_p))
    return float(mean_C[-1] - mean_C[-2])


def prediction_rows(
    note: Mapping[str, Any], labels: Mapping[str, str], answers: Answers | Code, options: Mapping[str, Sequence[str]]
) -> Iterator[dict[str, Any]]:
    """Rows of rows.PREDICTIONS, one for each label of a note; `answers` in their order. `options`: of each task."""
    for index, (task_id, label) in enumerate(labels.items()):
        names = task_id, note["note_id"], note["group_id"], label
        if isinstance(answers, Code):
            yield rows.prediction(*names)
        else:
            best, scores_C = answers[index]
            yield rows.prediction(*names, options[task_id][best], scores_C)


class LabelScorer:
    """Answers every question of a note with one model."""

    def __init__(self, scorer: Loaded, batch_tokens: int) -> None:
        self.scorer = scorer
        self.batch_tokens = batch_tokens

    def score(self, notes: Sequence[EncodedNote]) -> list[Answers]:
        """By the mean log-probability of each option, nats per token."""
        return [
            [_likeliest(q.option_ids, log_p) for q, log_p in zip(note.questions, of_note, strict=True)]
            for note, of_note in zip(notes, self._settled(notes, None), strict=True)
        ]

    def generate(self, notes: Sequence[EncodedNote], eos_id: int | None) -> list[Answers]:
        """By greedy decoding, bound to the options (`generation.decode`)."""
        return [
            [decode(q.option_ids, log_p) for q, log_p in zip(note.questions, of_note, strict=True)]
            for note, of_note in zip(notes, self._settled(notes, eos_id, narrowest_margin), strict=True)
        ]

    def _settled(
        self, notes: Sequence[EncodedNote], eos_id: int | None, margin: Margin = _mean_margin
    ) -> list[TokenLogP]:
        """As `_token_log_p`; questions whose answer has too small a margin for bfloat16 again in float32.

        Under autocast (a student between two epochs of its training) the answers stand as they are.
        """
        log_p = self._token_log_p(notes, eos_id)
        if self.scorer.model.dtype == torch.float32 or torch.is_autocast_enabled(self.scorer.device.type):
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
        log_p: list[list[list[list[float]]]] = [[[[] for _ in q.option_ids] for q in note.questions] for note in notes]
        trees = [row for index, note in enumerate(notes) for row in _rows(index, note, eos_id)]
        lengths = [len(row.tree.ids) for row in trees]
        for row, values in zip(trees, in_batches(trees, lengths, self.batch_tokens, self._read), strict=True):
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
        out, size = [], positions_at_once(model)
        for part in range(0, len(where), size):
            some = slice(part, part + size)
            log_p = tree.logits(model, hidden[row_N[some], index_N[some]]).log_softmax(-1)
            out.append(log_p.gather(1, token_N[some, None])[:, 0].cpu())
        return np.split(torch.cat(out).numpy(), np.cumsum([len(row.reads) for row in rows])[:-1])


def sizes_of(note: EncodedNote) -> list[tuple[int, int]]:
    """Tokens, and predictions that are read, of each row that scoring a note's questions takes: what it costs."""
    return [(len(row.tree.ids), len({read.index for read in row.reads})) for row in _rows(0, note, None)]


def _rows(index: int, note: EncodedNote, eos_id: int | None) -> Iterator[_Row]:
    """The token trees of a note: one for each group of its questions."""
    for first, questions in question_groups(note.questions):
        row = _Row(index, TokenTree.of_trunk(note.prefix_ids))
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
