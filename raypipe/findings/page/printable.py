"""Text that HTML, SVG and UTF-8 can carry."""

from __future__ import annotations


def printable(text: str) -> str:
    """Control characters and lone surrogates become U+FFFD, one for one: character offsets stay."""
    return "".join(c if c in "\n\t" or (ord(c) >= 32 and not 0xD800 <= ord(c) <= 0xDFFF) else "\ufffd" for c in text)
