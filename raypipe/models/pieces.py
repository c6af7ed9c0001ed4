"""Pieces of a note as tokens, with the loss weight of each token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from raypipe.words import I32

Tokenizer = Any  # transformers.PreTrainedTokenizerFast; untyped upstream
Encoding = Any  # tokenizers.Encoding


@dataclass(slots=True)  # a note has hundreds, and frozen ones take twice as long to make
class Tokens:
    """Token ids and the weight of predicting each."""

    ids: list[int]
    weights: list[float]

    def __getitem__(self, part: slice) -> Tokens:
        return Tokens(self.ids[part], self.weights[part])

    @classmethod
    def of(cls, ids: list[int], weight: float) -> Tokens:
        """Tokens that all weigh the same."""
        return cls(ids, [weight] * len(ids))

    @classmethod
    def joined(cls, parts: Iterable[Tokens]) -> Tokens:
        """One after the other."""
        ids: list[int] = []
        weights: list[float] = []
        for part in parts:
            ids += part.ids
            weights += part.weights
        return cls(ids, weights)

    def scaled(self, factor: float) -> Tokens:
        """The same tokens, all weights times `factor`."""
        return Tokens(self.ids, [weight * factor for weight in self.weights])


class PieceEncoder:
    """Tokenises pieces of a running text.

    SentencePiece tokenizers of the Llama 2 and Phi-3 kind put a blank before whatever they are given. A piece from the
    middle of a text must not get one, so it is tokenised behind a line break, which is then taken off.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._backend = tokenizer.backend_tokenizer
        anchor, behind, alone = (piece.ids for piece in self._encoded(["\n", "\na", "a"]))
        self._anchor = "" if behind[len(anchor) :] == alone else "\n"
        self._n_anchor = len(anchor) if self._anchor else 0

    def text_ids(self, text: str) -> list[int]:
        """Tokens of `text` as it would stand in the middle of a note."""
        ids: list[int] = self._encoded([self._anchor + text])[0].ids
        return ids[self._n_anchor :]

    def encode(self, parts: Sequence[str], start: Sequence[int], weight: float, phi_P2: I32 | None) -> list[Tokens]:
        """Tokens of each part with weight `weight`; tokens that touch a protected range get 0.

        `start` are the parts' character offsets in the note. The first part opens the note.
        """
        texts = [parts[0], *(self._anchor + part for part in parts[1:])]
        out = []
        for number, encoded in enumerate(self._encoded(texts, offsets=phi_P2 is not None)):
            skip, shift = (self._n_anchor, len(self._anchor)) if number else (0, 0)
            tokens = Tokens.of(encoded.ids, weight)
            if phi_P2 is not None:
                for token, (a, b) in enumerate(encoded.offsets):
                    if _touches(a + start[number] - shift, b + start[number] - shift, phi_P2):
                        tokens.weights[token] = 0.0
            out.append(tokens[skip:] if skip else tokens)
        return out

    def _encoded(self, texts: list[str], offsets: bool = False) -> list[Encoding]:
        """Of each text, with special tokens as plain text. transformers spends a fifth more on lists of its own."""
        self._backend.encode_special_tokens = True  # every call of transformers sets it, and the next two, anew
        self._backend.no_truncation()
        self._backend.no_padding()
        encode = self._backend.encode_batch if offsets else self._backend.encode_batch_fast
        encoded: list[Encoding] = encode(texts, add_special_tokens=False)
        return encoded


def _touches(start: int, end: int, ranges_P2: I32) -> bool:
    return any(start < b and end > a for a, b in ranges_P2.tolist())
