"""Likely identifiers: what is found, what is left alone, and the check character of a tax code."""

from __future__ import annotations

import pytest

from raypipe.notes.identifiers import found, has_check_character

CASES = [
    ("CF RSSMRA85T10A562S.", [("tax_code", "RSSMRA85T10A562S")]),
    ("cf rssmra85t10a562s", [("tax_code", "rssmra85t10a562s")]),
    ("CF RSSMRA85T10A562X.", []),  # another check character
    ("Scrivere a a.rossi@asl.example.it.", [("email", "a.rossi@asl.example.it")]),
    ("Visto il 12/03/2021, il 3 marzo 2020 e il 12.3.21.",
     [("date", "12/03/2021"), ("date", "3 marzo 2020"), ("date", "12.3.21")]),
    ("Nacido el 4 de mayo de 1960; seen 2 may 1999.", [("date", "4 de mayo de 1960"), ("date", "2 may 1999")]),
    ("Grade 2 may progress. 1999-04-05", [("date", "1999-04-05")]),
    ("Tel. 347 1234567 o 0461/903111, +39 333 123 4567",
     [("phone", "347 1234567"), ("phone", "0461/903111"), ("phone", "+39 333 123 4567")]),
    ("Il Sig. Rossi, la dott.ssa Bianchi, MARIO ROSSI e Maria.",
     [("name", "Sig. Rossi"), ("name", "dott.ssa Bianchi"), ("name", "MARIO ROSSI"), ("name", "Maria")]),
    ("2024-03-12T10:15:00, 12-mar-2024, 12/mar/24 e 12-marzo-24.",
     [("date", "2024-03-12"), ("date", "12-mar-2024"), ("date", "12/mar/24"), ("date", "12-marzo-24")]),
    ("Ricoverato Rossi Mario, con D'Angelo Maria e BIANCHI LUCA. Il Mario.",
     [("name", "Rossi Mario"), ("name", "D'Angelo Maria"), ("name", "BIANCHI LUCA"), ("name", "Mario")]),
    ("PA 120/80, Hb 12.3, 3200 kcal, 0.5 mg, versione 1.2.3, 99/99/2021, giorno 12/03, sinistra.", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_what_is_found(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(kind, text[start:end]) for kind, start, end in found(text)] == expected


def test_kinds_of_ones_own() -> None:
    assert list(found("Rep. 12", {"ward": r"Rep\. \d+"})) == [("ward", 0, 7)]


def test_an_expression_of_ones_own_is_looked_for_beside_ours() -> None:
    text = "Tel. 333 1234567, int. 4021"
    own = {"phone": r"int\. \d{4}"}
    assert ("phone", text.index("int."), len(text)) in list(found(text, own))
    assert set(found(text)) < set(found(text, own))
    provisional = "cf: 01234567897"
    assert ("tax_code", 0, len(provisional)) in list(found(provisional, {"tax_code": r"cf: \d{11}"}))


def test_one_wrong_character_of_a_tax_code_is_seen() -> None:
    """Every other letter in its first place: the check character is that of one alone."""
    code = "MRTMTT25D09F205Z"
    assert has_check_character(code)
    assert not any(has_check_character(chr(ord("A") + i) + code[1:]) for i in range(26) if chr(ord("A") + i) != "M")
