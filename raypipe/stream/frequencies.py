"""In how many notes of the corpus each token stands: what the control `tfidf` knows (attribution/tfidf.py)."""

from __future__ import annotations

from itertools import islice
from typing import Any

from raypipe.attribution.tfidf import idf_of_notes
from raypipe.notes.corpus import Corpus
from raypipe.words import F32

NOTES = 5000  # the first of the corpus; the frequency of a word that matters settles long before


def token_idf(corpus: Corpus, tokenizer: Any) -> F32:
    """Inverse document frequency [V] over notes outside validation and test, counted in this process."""
    texts = islice(corpus.texts(pretrains=False), NOTES)
    encoded = (tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in texts)
    return idf_of_notes(encoded, len(tokenizer))
