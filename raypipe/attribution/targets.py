"""What is explained: a scalar per question, read from the log-probabilities of its options.

Options are scored as in evaluation (docs/method.md, sections 1.2 and 11.2): l(y) = mean over the label's tokens of
log p(y_t | x, y_<t), each label forced token by token after the question. Targets (section 4.2):

    label_margin   l(best) - l(runner-up); a plain logit difference where all labels are single tokens, because the
                   normaliser cancels, so only the label columns of the head are computed (Yin & Neubig 2022: a
                   contrast leaves out what both labels share)
    label_logprob  l(best)
    item_mid_max   the largest logit of the vocabulary at the middle token of the task's own question, as the prompt
                   quotes it (DecSelfMask's code: the middle of the item's name)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raypipe.attribution.decoder import Decoder
from raypipe.models.prompts import EncodedNote, Question
from raypipe.words import F32


@dataclass(frozen=True)
class Branch:
    """One sequence that follows a note: the question, and the label tokens that are forced before the last one."""

    note: int  # index into the batch
    question: int  # index into the questions of the batch
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Values:
    """The targets of a batch of questions."""

    z_Q: Tensor  # what is explained, float32, differentiable
    chosen_Q2: Tensor  # the best option and the runner-up
    margin_Q: Tensor  # nats
    score_QC: Tensor  # of every option, up to a constant per question; -inf fills questions with fewer options


@dataclass(frozen=True)
class NoteValues:
    """What the scorer says about one note."""

    z_Q: F32  # the target
    chosen_Q2: np.ndarray  # best option and runner-up, int64
    margin_Q: F32  # nats
    score_QC: F32  # of every option, up to a constant per question: softmax gives probabilities; -inf = no option


def branches_of(question: Question) -> list[tuple[int, ...]]:
    """The fewest token sequences from which all options of a question can be read: one if all are single tokens."""
    stems = {option[:-1] for option in question.option_ids}
    leaves = [s for s in stems if not any(t != s and t[: len(s)] == s for t in stems)]
    return [question.suffix_ids + stem for stem in sorted(leaves)]


class Readout:
    """Where the options of all questions of a batch are read, and how their scores and targets are computed.

    `rows_P`, `columns_P`: the positions to read, as branch and index into the branch.
    Raises `ValueError` for a question with fewer than two options, an empty option or an empty suffix.
    """

    def __init__(self, notes: Sequence[EncodedNote], target: str) -> None:
        self.target = target
        self.branches: list[Branch] = []
        self.first_rows: list[int] = []  # the first branch of every question
        self.note_of_question = [n for n, note in enumerate(notes) for _ in note.questions]
        self._points: dict[tuple[int, int], int] = {}
        self._reads: list[tuple[int, int, int, int, float]] = []  # point, token, question, option, weight
        self._middle: list[int] = []
        questions = [question for note in notes for question in note.questions]
        for index, question in enumerate(questions):
            self._add(index, question)
        self.n_questions = len(questions)
        self.n_options = max((len(q.option_ids) for q in questions), default=2)
        self._multi = any(len(option) > 1 for q in questions for option in q.option_ids)
        self.rows_P = [row for row, _ in self._points]
        self.columns_P = [column for _, column in self._points]

    def _add(self, index: int, question: Question) -> None:
        if len(question.option_ids) < 2 or not question.suffix_ids or not all(question.option_ids):
            raise ValueError(f"task {question.task_id}: two options with tokens and a question with tokens are needed")
        first = len(self.branches)
        leaves = branches_of(question)
        self.first_rows.append(first)
        self.branches += [Branch(self.note_of_question[index], index, ids) for ids in leaves]
        start = len(question.suffix_ids)
        for option, ids in enumerate(question.option_ids):
            stem = question.suffix_ids + ids[:-1]
            row = first + next(i for i, leaf in enumerate(leaves) if leaf[: len(stem)] == stem)
            for step, token in enumerate(ids):
                self._reads.append((self._point(row, start - 1 + step), token, index, option, 1 / len(ids)))
        if self.target == "item_mid_max":
            begin, end = question.item or (0, start)
            self._middle.append(self._point(first, (begin + end - 1) // 2))

    def _point(self, row: int, column: int) -> int:
        return self._points.setdefault((row, column), len(self._points))

    def values(self, decoder: Decoder, states_PD: Tensor, chosen_Q2: Tensor | None = None) -> Values:
        """Targets from the final hidden states at (rows_P, columns_P). `chosen_Q2` fixes which labels are compared,
        for methods that change the input but must explain the same labels."""
        device = states_PD.device
        point, token, question, option, weight = (
            torch.tensor(c, device=device) for c in zip(*self._reads, strict=True)
        )
        if self._multi or self.target == "label_logprob":
            read_R = torch.log_softmax(decoder.logits(states_PD), dim=-1)[point, token]
        else:
            tokens_U, column = torch.unique(token, return_inverse=True)
            read_R = decoder.logits(states_PD, tokens_U)[point, column]
        entry = question * self.n_options + option
        size = self.n_questions * self.n_options
        zeros = torch.zeros(size, device=device, dtype=read_R.dtype)
        score_QC = zeros.index_add(0, entry, read_R * weight.to(read_R.dtype)).view(self.n_questions, self.n_options)
        absent = torch.ones(size, dtype=torch.bool, device=device).index_fill(0, entry, False)
        score_QC = score_QC.masked_fill(absent.view_as(score_QC), -torch.inf)
        chosen = score_QC.detach().topk(2).indices if chosen_Q2 is None else chosen_Q2
        best, second = score_QC.gather(1, chosen).unbind(1)
        z_Q = best - second if self.target == "label_margin" else best
        if self.target == "item_mid_max":
            z_Q = decoder.logits(states_PD[torch.tensor(self._middle, device=device)]).amax(-1)
        return Values(z_Q, chosen, (best - second).detach(), score_QC.detach())

    @property
    def is_one_to_one(self) -> bool:
        """Whether every question has one branch."""
        return len(self.branches) == self.n_questions

    def sum_of_questions(self, rows_RX: Tensor) -> Tensor:
        """[R, ...] -> [Q, ...]: the branches of a question added up."""
        if self.is_one_to_one:
            return rows_RX
        index_R = torch.tensor([branch.question for branch in self.branches], device=rows_RX.device)
        return rows_RX.new_zeros(self.n_questions, *rows_RX.shape[1:]).index_add(0, index_R, rows_RX)

    def by_note(self, n_notes: int, *arrays_Q: F32) -> list[tuple[F32, ...]]:
        """Arrays over all questions, split into one tuple per note."""
        edges = np.searchsorted(np.asarray(self.note_of_question), np.arange(1, n_notes))
        return list(zip(*(np.split(array, edges) for array in arrays_Q), strict=True))
