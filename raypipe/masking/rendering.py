"""From a plan to the tokens that one student eats.

    head           note with sentinels       [question]      answer             eos
    weight 0       lambda, 0 on sentinels    0               1 (or by kind)     1

The note is cut at the bounds of its spans and every piece is tokenised once, apart from the others: what a piece says
is exact by construction, and k examples of a note cost one tokenisation. Text that imitates special tokens stays text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from raypipe.config import Masking
from raypipe.masking import STRATEGIES
from raypipe.masking.case import phi_ranges
from raypipe.masking.formats import Pieces, cut
from raypipe.masking.pieces import PieceEncoder, Tokens
from raypipe.masking.sentinels import Sentinels
from raypipe.masking.windows import Window, windows
from raypipe.prompts import PromptEncoder, frame


@dataclass(frozen=True)
class Example:
    """One row of `rows.TRAINING`, and how much of its note it does not show."""

    input_ids: list[int]
    loss_weight: list[float]
    n_cut_tokens: int

    def row(self) -> dict[str, Any]:
        """As `rows.TRAINING`."""
        return {"input_ids": self.input_ids, "loss_weight": self.loss_weight, "branch": [0] * len(self.input_ids)}


class Renderer:
    """Writes the examples of one arm for one student."""

    def __init__(
        self,
        encoder: PromptEncoder,
        masking: Masking,
        max_tokens: int,
        sentinels: Sentinels | None = None,
        kind_weights: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        """`sentinels`: see `sentinels.choose`; None is plain text. `kind_weights`: loss weight of plain, entity and
        base spans (`weights.kind_weights`)."""
        self._encoder, self._masking, self._max_tokens = encoder, masking, max_tokens
        self._strategy = STRATEGIES[masking.strategy]
        self._sentinels = sentinels if sentinels is not None else Sentinels()
        self._kind_weights = tuple(kind_weights)
        self._pieces = PieceEncoder(encoder.tokenizer)
        self._head = self._head_ids()
        self._marks: dict[int, list[int]] = {}
        self._eos = [] if encoder.eos_id is None else [encoder.eos_id]
        self._after = encoder.ids(encoder.frame.after if encoder.frame.is_chat else "\n")

    def examples(self, text: str, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The plan as rows of `rows.TRAINING`: `single` one per span, `multi` one per `max_spans` spans.

        An example that would exceed `max_tokens` shows a window around its spans, the rest of the room shared
        between left and right; spans too far apart for one window get an example each. A span that alone exceeds the
        room is dropped.
        """
        return [example.row() for example in self.render(text, plan)]

    def render(self, text: str, plan: Mapping[str, Any]) -> list[Example]:
        """The same with counts of what was cut."""
        masking = self._masking
        pieces = cut(text, plan["start"], plan["end"], masking.format)
        tokens = self._tokens(text, pieces)
        suffix = [] if self._strategy.refills else self._suffix(plan["task_id"])
        room = self._max_tokens - len(self._head) - len(suffix) - len(self._eos)
        if not pieces.hidden:
            return self._whole(tokens[0], room) if self._strategy.refills else []
        per_example = 1 if masking.format == "single" else self._sentinels.capacity(masking.max_spans)
        n_marks = 1 if masking.format == "single" else 2
        mark_tokens = n_marks * max(len(self._mark(number)) for number in range(min(per_example, len(pieces.hidden))))
        shown = windows([len(t.ids) for t in tokens], room, per_example, mark_tokens)
        if self._strategy.refills:
            return [self._refilled(tokens, window) for window in shown]
        return [self._masked(tokens, window, suffix, plan["kind"]) for window in shown]

    def _masked(self, tokens: Sequence[Tokens], window: Window, suffix: list[int], kinds: Sequence[int]) -> Example:
        """Head, note with sentinels, question, answer, end."""
        left, inner, right = window.parts(tokens)
        note, answer = left, Tokens([], [])
        for number, piece in enumerate(inner):
            if number % 2:  # visible text between two spans
                note = note + piece
                continue
            mark, weight = self._mark(number // 2), self._kind_weights[kinds[window.first + number // 2]]
            note = note + Tokens(mark, [0.0] * len(mark))
            if self._masking.format == "multi":
                answer = answer + Tokens(mark, [1.0] * len(mark))
            answer = answer + Tokens(piece.ids, [weight] * len(piece.ids))
        note = note + right
        end = Tokens(self._eos, [1.0] * len(self._eos))
        whole = self._framed(note + Tokens(suffix, [0.0] * len(suffix)) + answer + end)
        if self._masking.strategy == "mslm" and self._masking.mslm.count_factor:
            whole = whole.scaled(1 + sum(len(piece.ids) for piece in inner[::2]))
        return Example(whole.ids, whole.weights, window.n_cut)

    def _refilled(self, tokens: Sequence[Tokens], window: Window) -> Example:
        """The same window with its masks refilled; every token of the note is a target."""
        left, inner, right = window.parts(tokens)
        return self._plain(sum(inner, left) + right, window.n_cut)

    def _whole(self, note: Tokens, room: int) -> list[Example]:
        """A note in consecutive windows that do not overlap."""
        starts = range(0, len(note.ids), room)
        return [self._plain(note[start : start + room], len(note.ids) - min(room, len(note.ids))) for start in starts]

    def _plain(self, note: Tokens, n_cut: int) -> Example:
        whole = self._framed(note + Tokens(self._eos, [1.0] * len(self._eos)))
        return Example(whole.ids, whole.weights, n_cut)

    def _framed(self, rest: Tokens) -> Tokens:
        return Tokens(self._head, [0.0] * len(self._head)) + rest

    def _tokens(self, text: str, pieces: Pieces) -> list[Tokens]:
        """Tokens of visible and hidden pieces by turns, with their weight where they stand in the note."""
        parts = [*chain.from_iterable(zip(pieces.visible, pieces.hidden, strict=False)), pieces.visible[-1]]
        weight = 1.0 if self._strategy.refills else self._masking.prompt_loss
        phi = phi_ranges(text, self._masking.phi_patterns) if weight and self._masking.phi_patterns else None
        return self._pieces.encode(parts, pieces.start, weight, phi)

    def _mark(self, number: int) -> list[int]:
        """Tokens of a sentinel: one if it is reserved, several if it is plain text."""
        if number not in self._marks:
            text = self._sentinels[number]
            reserved = bool(self._sentinels.reserved)
            ids = [self._encoder.tokenizer.convert_tokens_to_ids(text)] if reserved else self._pieces.text_ids(text)
            self._marks[number] = ids
        return self._marks[number]

    def _head_ids(self) -> list[int]:
        """The system turn or plain instruction; an empty one for `cpt` [code]; nothing but BOS for `cpt_packed`."""
        encoder = self._encoder
        instruction = "" if self._strategy.refills else self._masking.instruction
        before = frame(encoder.tokenizer, instruction, encoder.frame.is_chat).before
        head = [] if self._strategy.once else encoder.ids(before)
        bos = [] if encoder.tokenizer.bos_token_id is None else [encoder.tokenizer.bos_token_id]
        return head if head[:1] == bos else bos + head

    def _suffix(self, task_id: str | None) -> list[int]:
        """What stands between note and answer: with `condition: item` the question, in fine-tuning's own words."""
        if self._masking.condition == "none" or task_id is None:
            return self._after
        question = list(self._encoder.questions[task_id].suffix_ids)
        return question if self._encoder.frame.is_chat else question + self._after
