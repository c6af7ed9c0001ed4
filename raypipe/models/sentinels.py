"""The marks that stand for hidden text, in masked notes and in the question (`{mask}`, in the place of the answer).

They are reserved tokens of the model family if it has some without a role, or else plain text such as `<mask_1>`, which
needs no change of the vocabulary. DecSelfMask's code takes the second-to-last added token, whatever its role; here a
token with a role is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from raypipe.errors import InputError
from raypipe.models.families import FAMILIES
from raypipe.models.pieces import PieceEncoder, Tokenizer

_RESERVED = re.compile(r"reserved|unused|extra_id|placeholder", re.IGNORECASE)
# A mark of any family, as it stands in a text
MARK = re.compile(
    "|".join([r"<mask_\d+>", *sorted({re.escape(s) for family in FAMILIES.values() for s in family.sentinels})])
)


def contains_sentinel(text: str, more: Iterable[str] = ()) -> bool:
    """Whether the text holds a plain-text sentinel, a reserved token of any family, or one of `more`.

    Such a note cannot be masked: its own text could not be told from a sentinel.
    """
    return ("<" in text and MARK.search(text) is not None) or any(sentinel in text for sentinel in more)


@dataclass(frozen=True)
class Sentinels:
    """The sentinels of one student."""

    reserved: tuple[str, ...] = ()  # in order of use; () = plain text

    def __getitem__(self, number: int) -> str:
        return self.reserved[number] if self.reserved else f"<mask_{number + 1}>"

    def capacity(self, n_spans: int) -> int:
        """How many spans one example can hide, at most `n_spans`."""
        return min(n_spans, len(self.reserved)) if self.reserved else n_spans


def choose_sentinels(
    tokenizer: Tokenizer,
    of_family: Sequence[str] = (),
    setting: Literal["auto", "plain"] | Sequence[str] = "auto",
    rows_train: bool = True,
) -> Sentinels:
    """The sentinels for a tokenizer.

    `setting`: `auto` takes those of the model family that the tokenizer has, if their embedding rows are trained, and
    else plain text (LoRA on linear layers trains no embeddings, and those of reserved tokens are noise). A list is
    checked.
    Raises `InputError` if a listed token is not one token of the vocabulary, or has another role.
    """
    if setting == "plain" or (setting == "auto" and not rows_train):
        return Sentinels()
    vocabulary = tokenizer.get_added_vocab()
    if setting == "auto":
        return Sentinels(tuple(s for s in of_family if s in vocabulary and not role(tokenizer, s)))
    faults = {s: role(tokenizer, s) if s in vocabulary else "not a token of this tokenizer" for s in setting}
    if refused := [f"masking.sentinels: {s}: {why}" for s, why in faults.items() if why]:
        raise InputError("; ".join(refused))
    return Sentinels(tuple(setting))


def mark_ids(tokenizer: Tokenizer, pieces: PieceEncoder, mark: str) -> list[int]:
    """Tokens of a mark, wherever it stands: one if it is a token of the vocabulary, several if it is plain text."""
    reserved = mark in tokenizer.get_added_vocab()
    return [tokenizer.convert_tokens_to_ids(mark)] if reserved else pieces.text_ids(mark)


def role(tokenizer: Tokenizer, token: str) -> str:
    """What the token already means to the model, or "" if it is reserved and free."""
    if token in (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token):
        return "begins, ends or pads a sequence"
    if token in str(getattr(tokenizer, "chat_template", None) or ""):
        return "part of the chat template"
    return "" if _RESERVED.search(token) else "its name does not say that it is reserved, so it may have a role"
