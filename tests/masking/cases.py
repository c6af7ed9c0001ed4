"""Arms of every strategy, corpus statistics that they can use, and notes in many scripts."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import numpy as np
from hypothesis import strategies as st

from raypipe.masking.case import Note
from raypipe.masking.counting import count_block, merge, relevance_block
from raypipe.masking.statistics import Statistics
from raypipe.models.sentinels import Sentinels
from raypipe.settings.config import Masking
from raypipe.words import word_spans

LEXICON = ("dolore toracico", "febbre", "scompenso cardiaco", "diabete", "日本")
SENTENCES = (
    "Paziente con dolore toracico e febbre da due giorni, in terapia con furosemide.",
    "Nega febbre. Scompenso cardiaco in diabete mellito tipo 2, dispnea da sforzo.",
    "Dolore toracico assente, non dispnea; edemi declivi. Terapia con ramipril 5 mg.",
)
WORDS = sorted({word.lower() for text in SENTENCES for word in text.replace(",", " ").replace(".", " ").split()})
FRAGMENTS = [
    *WORDS,
    *("non", "senza", "della", "il", "e", "the", "sin", "x_y"),
    *(
        "perch\u00e9",
        "q\u0301ue\u0323\u0301",
        "日本語テスト",
        "שָׁלוֹם",
        "مرحبا بك",
        "हिन्दी",
        "👩\u200d⚕️",
        "🫀",
        "İstanbul",
        "ǅ",
    ),
    *("\u200b", "\r\n", "\t", "\n\n", "  ", "...", "<s>", "</s>", "<pad>", "<mask", "_1>", "120/80", "—", "\u202e"),
    "supercalifragilistiche" * 12,
]


def statistics() -> Statistics:
    """Statistics of a corpus in which every word of SENTENCES is frequent."""
    counts = merge([count_block([text] * 6, longest=4) for text in SENTENCES])
    words = [(text, word_spans(text)) for text in SENTENCES]
    types = relevance_block(
        Note(text, w, np.linspace(0.0, 1.0, len(w), dtype=np.float32)[None], is_cut=False) for text, w in words
    )
    whole = Statistics.of_counts(counts).with_relevance(types).with_importance(types)
    vectors_VD = np.random.default_rng(3).normal(size=(len(whole.words), 8)).astype(np.float32)
    general = {"paziente": 5, "con": 900, "due": 300, "giorni": 100, "terapia": 20}
    return whole.with_general(general).with_vectors(vectors_VD).with_lexicon("terms.txt", LEXICON)


def fill(masked: str, target: str, sentinels: Sentinels) -> str:
    """The note again: fill(masked note, target) == note for every example of every format."""
    pattern = re.compile("|".join(map(re.escape, sentinels.reserved)) or r"<mask_\d+>")
    marks = pattern.findall(target)
    if not marks:
        return pattern.sub(lambda _: target, masked)
    answers = dict(zip(marks, pattern.split(target)[1:], strict=True))
    return pattern.sub(lambda mark: answers[mark.group()], masked)


STATISTICS = statistics()
LOOSE: dict[str, Any] = {"pmi": {"min_count": 5}}
# Every strategy with everything it can be told to do; `ratio_of_relevance` is what the others match.
CHOICES: dict[str, dict[str, Any]] = {
    "relevance": {},
    "relevance_sample": {"strategy": "relevance", "selection": "sample"},
    "least_relevant": {},
    "shuffled_relevance": {},
    "random_word": {},
    "random_token": {},
    "span": {},
    "mslm": {"mslm": {"lexicon": "terms.txt"}},
    "mslm_tficf": {"strategy": "mslm", "mslm": {"terms": "tficf"}, **LOOSE},
    "mslm_attribution": {"strategy": "mslm", "mslm": {"terms": "attribution", "top_share": 0.2}},
    "difference_masking": {"difference": {"anchors": 3, "alpha": 0.7}},
    "difference_similarity": {"strategy": "difference_masking", "difference": {"weight": "similarity"}},
    "difference_global": {"strategy": "difference_masking", "difference": {"weight": "rank_global"}},
    "pmi": LOOSE,
    "keyword": {},
    "selective": {"selective": {"source": "relevance"}},
    "selective_tagger": {"strategy": "selective"},
}


def masking(name: str, **more: Any) -> Masking:
    """The settings of one entry of CHOICES."""
    return Masking(**{"strategy": name, **CHOICES[name], **more})


def arms(**more: Any) -> dict[str, Masking]:
    """All of CHOICES by name."""
    return {name: masking(name, **more) for name in CHOICES}


def _note(fragments: list[str], gaps: list[str]) -> str:
    text = "".join(fragment + gaps[i % len(gaps)] for i, fragment in enumerate(fragments))
    return unicodedata.normalize("NFC", text)


# Fragments with separators of all kinds, and now and then any Unicode at all.
ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
NOTES = st.builds(
    _note,
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), ANY_TEXT), min_size=1, max_size=40),
    st.lists(st.sampled_from([" ", " ", " ", "", ", ", "\n", "\r\n", "\t", ". "]), min_size=1, max_size=5),
)


def relevance(text: str, seed: int, n_tasks: int = 1) -> Any:
    """Random relevance of the words, some of it 0, as `attribute` would store it."""
    rng = np.random.default_rng(seed)
    values = rng.random((n_tasks, len(word_spans(text)))).astype(np.float16).astype(np.float32)
    return values * (values > 0.3)
