"""From a plan to the tokens that one student is trained on.

    head           note with sentinels       [question]      answer             eos
    weight 0       lambda, 0 on sentinels    0               1 (or by kind)     1

The note is cut at the bounds of its spans, and every piece is tokenised by itself and once: so the text of a piece is
exact, and k examples of a note cost one tokenisation. Text that imitates special tokens stays text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from raypipe.errors import Code, InputError, RowError
from raypipe.masking.case import phi_ranges
from raypipe.masking.formats import Pieces, cut
from raypipe.masking.strategies import STRATEGIES
from raypipe.masking.windows import Window, windows
from raypipe.models.pieces import PieceEncoder, Tokens
from raypipe.models.prompts import PromptEncoder, begun, frame
from raypipe.models.sentinels import choose_sentinels, mark_ids
from raypipe.settings.config import Masking


@dataclass(frozen=True)
class Example:
    """One row of `rows.TRAINING`, how many spans it hides (or refills), and how much of its note it does not show."""

    input_ids: list[int]
    loss_weight: list[float]
    n_spans: int
    n_cut_tokens: int

    @classmethod
    def of(cls, tokens: Tokens, n_spans: int, n_cut_tokens: int) -> Example:
        """Nothing predicts the first token of a row, so it weighs 0."""
        return cls(tokens.ids, [0.0, *tokens.weights[1:]], n_spans, n_cut_tokens)

    def row(self) -> dict[str, Any]:
        """As `rows.TRAINING`."""
        return {
            "input_ids": self.input_ids,
            "loss_weight": self.loss_weight,
            "branch": np.zeros(len(self.input_ids), np.int16),
        }


class Renderer:
    """Writes the examples of one arm for one student."""

    def __init__(
        self,
        encoder: PromptEncoder,
        masking: Masking,
        max_tokens: int,
        of_family: Sequence[str] = (),
        rows_train: bool = True,
        kind_weights: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        """`of_family`: reserved tokens of the model family (models/families.py). `rows_train`: whether training changes
        their embeddings. With `masking.sentinels` these two decide which sentinels are used (`choose_sentinels`).
        `kind_weights`: loss weights of plain, entity and base spans (`weights.weights_of_arm`).

        Raises `InputError` for a sentinel with another role, or one that the tokenizer cannot write.
        """
        self._encoder, self._masking, self._max_tokens = encoder, masking, max_tokens
        self.format = masking.format
        self._strategy = STRATEGIES[masking.strategy]
        self.refills = self._strategy.refills
        self._sentinels = choose_sentinels(encoder.tokenizer, of_family, masking.sentinels, rows_train)
        self._kind_weights = tuple(kind_weights)
        self._pieces = PieceEncoder(encoder.tokenizer)
        self.head_ids = self._head_ids()
        self._marks: dict[int, tuple[Tokens, Tokens]] = {}
        unknown = encoder.tokenizer.unk_token_id
        if unknown is not None and unknown in self._marks_of(0)[0].ids and not self.refills:
            how = "list tokens that it has reserved (masking.sentinels), or take another model"
            raise InputError(f"the tokenizer cannot write {self._sentinels[0]}: {how}")
        self._eos = [] if encoder.eos_id is None else [encoder.eos_id]
        self._after = encoder.ids(encoder.frame.after) if encoder.frame.is_chat else self._pieces.text_ids("\n")

    def examples(self, text: str, plan: Mapping[str, Any]) -> list[Example]:
        """The plan as examples: `single` one per span, `multi` one per `max_spans` spans.

        An example that would exceed `max_tokens` shows a window around its spans, the rest of the room shared
        between left and right; spans too far apart for one window get an example each. A span that alone exceeds the
        room is dropped. Raises `RowError(NO_ROOM)` if instruction and question alone fill the context.
        """
        pieces = cut(text, plan["start"], plan["end"], self._masking.format)
        tokens = self._tokens(text, pieces)
        suffix = [] if self.refills else self._suffix(plan["task_id"])
        room = self._max_tokens - len(self.head_ids) - len(suffix) - len(self._eos)
        if room < 1:
            raise RowError(Code.NO_ROOM)
        if not pieces.hidden:
            return self._whole(tokens[0], room) if self.refills else []
        if self.refills:
            return [self._refilled(tokens, window) for window in self._windows(tokens, room)]
        return [self._masked(tokens, window, suffix, plan["kind"]) for window in self._windows(tokens, room)]

    def _windows(self, tokens: Sequence[Tokens], room: int) -> list[Window]:
        is_single = self._masking.format == "single"
        per_example = 1 if is_single else self._sentinels.capacity(self._masking.max_spans)
        used = range(min(per_example, len(tokens) // 2))
        mark_tokens = (1 if is_single else 2) * max(len(self._marks_of(number)[0].ids) for number in used)
        return windows([len(piece.ids) for piece in tokens], room, per_example, mark_tokens)

    def _masked(self, tokens: Sequence[Tokens], window: Window, suffix: list[int], kinds: Sequence[int]) -> Example:
        """Head, note with sentinels, question, answer, end."""
        left, inner, right = window.parts(tokens)
        note, answer = [left], []
        for number, (hidden, kind) in enumerate(zip(inner[::2], kinds[window.first :], strict=False)):
            in_note, in_answer = self._marks_of(number)
            note += [in_note, *inner[2 * number + 1 : 2 * number + 2]]
            answer += [in_answer] if self._masking.format == "multi" else []
            answer.append(Tokens.of(hidden.ids, self._kind_weights[kind]))
        parts = [
            Tokens.of(self.head_ids, 0.0),
            *note,
            right,
            Tokens.of(suffix, 0.0),
            *answer,
            Tokens.of(self._eos, 1.0),
        ]
        whole = Tokens.joined(parts)
        if self._masking.strategy == "mslm" and self._masking.mslm.count_factor:
            whole = whole.scaled(1 + sum(len(hidden.ids) for hidden in inner[::2]))
        return Example.of(whole, window.n_spans, window.n_cut)

    def _refilled(self, tokens: Sequence[Tokens], window: Window) -> Example:
        """The same window with its masks refilled; every token of the note is a target."""
        left, inner, right = window.parts(tokens)
        return self._plain(Tokens.joined([left, *inner, right]), window.n_spans, window.n_cut)

    def _whole(self, note: Tokens, room: int) -> list[Example]:
        """A note in consecutive windows that do not overlap."""
        shown = [note[start : start + room] for start in range(0, len(note.ids), room)]
        return [self._plain(window, 0, len(note.ids) - len(window.ids)) for window in shown]

    def _plain(self, note: Tokens, n_spans: int, n_cut: int) -> Example:
        whole = Tokens.joined([Tokens.of(self.head_ids, 0.0), note, Tokens.of(self._eos, 1.0)])
        return Example.of(whole, n_spans, n_cut)

    def _tokens(self, text: str, pieces: Pieces) -> list[Tokens]:
        """Tokens of visible and hidden pieces by turns, with their weight where they stand in the note."""
        parts = [*chain.from_iterable(zip(pieces.visible, pieces.hidden, strict=False)), pieces.visible[-1]]
        weight = 1.0 if self.refills else self._masking.prompt_loss
        phi = phi_ranges(text, self._masking.phi_patterns) if weight and self._masking.phi_patterns else None
        return self._pieces.encode(parts, pieces.start, weight, phi)

    def _marks_of(self, number: int) -> tuple[Tokens, Tokens]:
        """A sentinel in the note and in the answer: one token if it is reserved, several if it is plain text."""
        if number not in self._marks:
            ids = mark_ids(self._encoder.tokenizer, self._pieces, self._sentinels[number])
            self._marks[number] = Tokens.of(ids, 0.0), Tokens.of(ids, 1.0)
        return self._marks[number]

    def _head_ids(self) -> list[int]:
        """The system turn or plain instruction: empty for `cpt`, as in the authors' code; only BOS for `cpt_packed`."""
        encoder = self._encoder
        instruction = "" if self.refills else self._masking.instruction
        before = frame(encoder.tokenizer, instruction, encoder.chat).before
        head = [] if self._strategy.once else encoder.ids(before)
        return begun(encoder.tokenizer, head, is_chat=encoder.frame.is_chat and not self._strategy.once)

    def _suffix(self, task_id: str | None) -> list[int]:
        """What stands between note and answer: with `condition: item` the question as fine-tuning asks it.

        A mark stands for hidden text of the note here, so the question has none in the place of its answer.
        """
        if self._masking.condition == "none" or task_id is None:
            return self._after
        question = list(self._encoder.questions[task_id].unmarked_ids)
        return question if self._encoder.frame.is_chat else question + self._after
