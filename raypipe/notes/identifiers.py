"""Likely identifiers of patients in free text, by kind: tax codes, telephone numbers, e-mail addresses, dates, names.

Expressions and a short list of names: they find much of what is there, and never prove that there is nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from raypipe.guard import limits
from raypipe.notes.annotated_spans import Span

FIRST_NAMES = (
    "Ada", "Adriana", "Alberto", "Alessandra", "Alessandro", "Alessio", "Andrea", "Angela", "Anna", "Antonella",
    "Antonio", "Caterina", "Claudio", "Cristina", "Daniela", "Davide", "Elena", "Emanuele", "Enrico", "Fabio",
    "Federica", "Filippo", "Francesca", "Francesco", "Gabriele", "Giacomo", "Giorgio", "Giovanna", "Giovanni",
    "Giulia", "Giuseppe", "Giuseppina", "Ilaria", "Laura", "Lorenzo", "Luca", "Lucia", "Luigi", "Marco", "Maria",
    "Mario", "Martina", "Matteo", "Maurizio", "Michele", "Nicola", "Paola", "Paolo", "Pietro", "Roberta", "Roberto",
    "Sara", "Silvia", "Simone", "Stefania", "Stefano", "Teresa", "Valentina", "Vincenzo",
)  # fmt: skip

_DAY, _MONTH, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d{2}"
_MONTHS = (
    "gennaio|febbraio|marzo|aprile|maggio|giugno|luglio|agosto|settembre|ottobre|novembre|dicembre|"
    "january|february|march|april|june|july|august|september|october|november|december|"
    "enero|febrero|abril|mayo|junio|julio|septiembre|octubre|noviembre|diciembre"
)
_SHORT = "gen|feb|mar|apr|mag|giu|lug|ago|set|sett|ott|nov|dic|jan|may|jun|jul|aug|sep|sept|oct|dec|ene|abr"
_DIGIT, _LETTER = "[0-9LMNPQRSTUV]", "[A-Z]"  # of two people with the same tax code, one gets letters for digits
_SURNAME = r"\p{Lu}['\u2019]?\p{L}+"
_BEFORE = r"\p{Lu}['\u2019]?\p{L}{2,}"  # longer than an article
_TITLES = r"sig|sig\.?ra|sig\.?na|signor|signora|dott|dott\.?ssa|dr|prof|prof\.?ssa"
_FIRST = "|".join((*FIRST_NAMES, *map(str.upper, FIRST_NAMES)))

# Kind -> what marks it. Of two that overlap, the one that begins first has it, then the longer. A name takes the
# capitalised words beside a first name with it, on either side: "Rossi Mario" is as usual as "Mario Rossi".
PATTERNS = {
    "tax_code": rf"(?i)\b{_LETTER}{{6}}{_DIGIT}{{2}}[A-EHLMPRST]{_DIGIT}{{2}}{_LETTER}{_DIGIT}{{3}}{_LETTER}\b",
    "email": r"(?i)\b[a-z0-9._%+-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}\b",
    "date": (
        rf"(?i)(?<![\w./-])(?:{_DAY}([./-]){_MONTH}\1(?:{_YEAR}|\d{{2}})|{_YEAR}-{_MONTH}-{_DAY}"
        rf"|{_DAY}\s+(?:de\s+)?(?:(?:{_MONTHS})(?:,?\s+(?:del?\s+)?{_YEAR})?|(?:{_SHORT})\.?\s+{_YEAR})"
        rf"|{_DAY}([./-])(?:{_MONTHS}|{_SHORT})\2(?:{_YEAR}|\d{{2}}))"
        r"(?!(?!T\d)[\w/-]|[.]\d)"
    ),
    "phone": (
        r"(?<![\w+./,-])(?:(?:\+|00)\d{1,3}[ ./-]?)?"
        r"(?:3\d{2}[ ./-]?\d{3}[ ./-]?\d{3,4}|0\d{1,3}[ ./-]?\d{5,8}|0\d{1,3}[ ./-]\d{3,4}[ ./-]\d{3,4})"
        r"(?![\w/-]|[.,]\d)"
    ),
    "name": (
        rf"(?<!\w)(?:(?i:{_TITLES})\.?\s+{_SURNAME}(?:\s+{_SURNAME})?"
        rf"|(?:{_BEFORE} )?(?:{_FIRST})(?:\s+{_SURNAME})?)(?!\w)"
    ),
}

_OURS = [(kind, pattern, kind == "tax_code") for kind, pattern in PATTERNS.items()]

# Value of a character at an odd place of a tax code (decree of 23 December 1976); a digit counts as a letter: 0 as A.
_ODD = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", (
    1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23
), strict=True))  # fmt: skip


def has_check_character(code: str) -> bool:
    """Does the last of the 16 characters of an Italian tax code (codice fiscale) follow from the others?"""
    *places, check = (chr(ord("A") + int(c)) if c.isdigit() else c for c in code.upper())
    total = sum(_ODD[c] if place % 2 == 0 else ord(c) - ord("A") for place, c in enumerate(places))
    return chr(ord("A") + total % 26) == check


def found(text: str, own: Mapping[str, str] | None = None) -> Iterator[Span]:
    """Likely identifiers, (kind, start, end) in characters. They may overlap.

    `own`: expressions for further kinds; one for a kind of ours is looked for beside ours.

    Raises TimeoutError if an expression takes too long on this text.
    """
    for kind, pattern, is_checked in chain(_OURS, ((kind, pattern, False) for kind, pattern in (own or {}).items())):
        for start, end in limits.spans(pattern, text):
            if end > start and (not is_checked or has_check_character(text[start:end])):
                yield kind, start, end
