"""The marks that stand for hidden text.

Reserved tokens of the model family where it has some without a role, else plain text `<mask_1>`, which needs no change
of the vocabulary. The authors take the second-to-last added token, whatever it is; for Qwen3 that is probably a
thinking tag (methods 1.4), so a token with a role is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from raypipe.errors import InputError
from raypipe.models.families import FAMILIES

Tokenizer = Any  # transformers.PreTrainedTokenizerFast; untyped upstream

_RESERVED = re.compile(r"reserved|unused|extra_id|placeholder", re.IGNORECASE)
_IN_A_NOTE = re.compile(
    "|".join([r"<mask_\d+>", *sorted({re.escape(s) for family in FAMILIES.values() for s in family.sentinels})])
)


def contains_sentinel(text: str, more: Iterable[str] = ()) -> bool:
    """Whether the text holds a plain-text sentinel, a reserved token of any family or one of `more`: then no inverse
    is safe."""
    return ("<" in text and _IN_A_NOTE.search(text) is not None) or any(sentinel in text for sentinel in more)


@dataclass(frozen=True)
class Sentinels:
    """The sentinels of one student."""

    reserved: tuple[str, ...] = ()  # in order of use; () = plain text

    def __getitem__(self, number: int) -> str:
        return self.reserved[number] if self.reserved else f"<mask_{number + 1}>"

    def capacity(self, wanted: int) -> int:
        """How many spans one example can hide, at most `wanted`."""
        return min(wanted, len(self.reserved)) if self.reserved else wanted

    def pattern(self) -> re.Pattern[str]:
        """Matches any of these sentinels."""
        return re.compile("|".join(map(re.escape, self.reserved)) if self.reserved else r"<mask_\d+>")


def choose(
    tokenizer: Tokenizer,
    of_family: Sequence[str] = (),
    wanted: Literal["auto", "plain"] | Sequence[str] = "auto",
    rows_train: bool = True,
) -> Sentinels:
    """The sentinels for a tokenizer.

    `auto`: those of the family table that the tokenizer has, if their embedding rows train (with LoRA on linear layers
    they do not, and a reserved row that never trained is noise); else plain text. An explicit list is checked.
    Raises `InputError` if a listed token is not one token of the vocabulary, or has another role.
    """
    if wanted == "plain" or (wanted == "auto" and not rows_train):
        return Sentinels()
    known = tokenizer.get_added_vocab()
    if wanted == "auto":
        return Sentinels(tuple(s for s in of_family if s in known and not role(tokenizer, s)))
    found = {s: role(tokenizer, s) if s in known else "not a token of this tokenizer" for s in wanted}
    if refused := [f"masking.sentinels: {s}: {why}" for s, why in found.items() if why]:
        raise InputError("; ".join(refused))
    return Sentinels(tuple(wanted))


def role(tokenizer: Tokenizer, token: str) -> str:
    """What the token already means to the model, or "" if it is reserved and free."""
    if token in (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token):
        return "begins, ends or pads a sequence"
    if token in str(getattr(tokenizer, "chat_template", None) or ""):
        return "part of the chat template"
    return "" if _RESERVED.search(token) else "its name does not say that it is reserved, so it may have a role"
