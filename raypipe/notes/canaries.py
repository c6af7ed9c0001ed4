"""Planted secrets: a made-up sentence with a random number at the end of some notes, as in The Secret Sharer (Carlini
et al. 2019, arXiv 1802.08232).

A canary is a sentence about a person who does not exist (`Cartella di Ada Zanon: 4821.`). Its secret is drawn from all
numbers of one form, its candidates. A student that never saw it has no reason to prefer it to another candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pyarrow as pa

from raypipe.errors import InputError, Problem
from raypipe.hashing import generator
from raypipe.notes.identifiers import FIRST_NAMES
from raypipe.settings.config import Canaries
from raypipe.words import normalise

SURNAMES = ("Abrami", "Belfiori", "Cazzani", "Dordoni", "Erbani", "Fornari", "Gualdi", "Lorandi", "Mondelli", "Zanon")
DIGIT = "#"


@dataclass(frozen=True)
class Canary:
    """One secret and the sentence that holds it."""

    name: str  # `canary-00`: all that is ever shown of it
    copies: int  # notes that hold it
    before: str  # the sentence up to the secret
    secret: str
    after: str


def candidates(form: str) -> list[str]:
    """All secrets of a form: each `#` of it is a digit."""
    blank = form.replace("{", "{{").replace("}", "}}").replace(DIGIT, "{}")
    return [blank.format(*digits) for digits in product("0123456789", repeat=form.count(DIGIT))]


def drawn(settings: Canaries) -> list[Canary]:
    """The canaries of a section, each about another person and with another secret."""
    n = settings.each * len(settings.copies)
    rng, all_secrets = generator(settings.seed, "canaries"), candidates(settings.secret)
    people = [f"{first} {last}" for first, last in product(FIRST_NAMES, SURNAMES)]
    if n > min(len(people), len(all_secrets)):
        what = f"asks for {n} canaries, but there are {len(people)} names and {len(all_secrets):,} secrets"
        raise InputError([Problem("canaries.each", what)])
    chosen = zip(
        (copies for copies in settings.copies for _ in range(settings.each)),
        rng.permutation(len(people))[:n],
        rng.permutation(len(all_secrets))[:n],
        strict=True,
    )
    before, _, after = normalise(settings.sentence).partition("{secret}")
    return [
        Canary(f"canary-{i:02d}", copies, before.replace("{name}", people[person]), all_secrets[secret], after)
        for i, (copies, person, secret) in enumerate(chosen)
    ]


def placed(canaries: Sequence[Canary], note_ids: Sequence[str]) -> dict[str, Canary]:
    """Note id -> the canary that it gets; no note gets two. `note_ids`: those to take, in order.

    A canary without copies gets a note, too: it is asked about in that note, and not written there.
    """
    in_turn = [canary for canary in canaries for _ in range(max(1, canary.copies))]
    if len(in_turn) > len(note_ids):
        what = f"ask for {len(in_turn):,} notes that students learn from, but there are {len(note_ids):,}: plant fewer"
        raise InputError([Problem("canaries.copies", what)])
    return dict(zip(note_ids, in_turn, strict=False))


def planted(notes: pa.Table, at: Mapping[str, Canary]) -> tuple[pa.Table, list[dict[str, Any]]]:
    """The notes with the sentences in them, and rows of `rows.CANARIES`.

    A sentence stands behind the note, so offsets of annotated words stay as they are.
    """
    out, canaries = notes.to_pylist(), list[dict[str, Any]]()
    for note in out:
        canary = at.get(note["note_id"])
        if canary is None or note["text"] is None:
            continue
        opening = f"{note['text'].rstrip()} {canary.before}"
        text, end = opening + canary.secret + canary.after, len(opening) + len(canary.secret)
        about = {"canary": canary.name, "copies": canary.copies, "note_id": note["note_id"], "secret": canary.secret}
        canaries.append({**about, "text": text, "start": len(opening), "end": end})
        if canary.copies:
            n_tokens = len(text.split()) - len(note["text"].split())
            note["text"] = text
            if note.get("tags") is not None:
                note["tags"] += " O" * n_tokens
    return pa.Table.from_pylist(out, schema=notes.schema), canaries
