"""Likely identifiers of patients in free text, by kind: tax codes, telephone numbers, e-mail addresses, dates, names.

Expressions and a short list of names: they find much of what is there, and never prove that there is nothing.
"""

from __future__ import annotations

FIRST_NAMES = (
    "Ada", "Adriana", "Alberto", "Alessandra", "Alessandro", "Alessio", "Andrea", "Angela", "Anna", "Antonella",
    "Antonio", "Caterina", "Claudio", "Cristina", "Daniela", "Davide", "Elena", "Emanuele", "Enrico", "Fabio",
    "Federica", "Filippo", "Francesca", "Francesco", "Gabriele", "Giacomo", "Giorgio", "Giovanna", "Giovanni",
    "Giulia", "Giuseppe", "Giuseppina", "Ilaria", "Laura", "Lorenzo", "Luca", "Lucia", "Luigi", "Marco", "Maria",
    "Mario", "Martina", "Matteo", "Maurizio", "Michele", "Nicola", "Paola", "Paolo", "Pietro", "Roberta", "Roberto",
    "Sara", "Silvia", "Simone", "Stefania", "Stefano", "Teresa", "Valentina", "Vincenzo",
)  # fmt: skip
