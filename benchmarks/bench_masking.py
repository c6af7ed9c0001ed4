"""Notes per second and core of every masking strategy, from (text, word offsets, stored relevance) to plans.

    python benchmarks/bench_masking.py [--json FILE] [--notes 1500]

Notes are generated: 235 words, a Zipf vocabulary, a third of them function words. Times are CPU seconds of this one
process, so other work on the machine does not count. Ratio strategies on stored relevance must reach 5,000; what does
not is profiled.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import time
from pathlib import Path

import numpy as np

from raypipe.masking import Masker, Statistics
from raypipe.masking.counting import count_block
from raypipe.masking.stopwords import STOP_WORDS
from raypipe.settings.config import Masking
from raypipe.words import word_spans

N_WORDS, WANTED = 235, 5000
RATIO = {  # strategies that take a share of the words by stored relevance or by chance
    "relevance (topk)": {},
    "relevance (sample)": {"selection": "sample"},
    "relevance (paper)": {"profile": "paper"},
    "least_relevant": {"strategy": "least_relevant"},
    "shuffled_relevance": {"strategy": "shuffled_relevance"},
    "random_word": {"strategy": "random_word"},
    "random_token": {"strategy": "random_token"},
    "span": {"strategy": "span"},
    "selective": {"strategy": "selective", "selective": {"source": "relevance", "delta": 0.85}},
    "cpt_packed": {"strategy": "cpt_packed"},
}
OF_CORPUS = {  # strategies that look every word up in corpus statistics
    "mslm (lexicon)": {"strategy": "mslm", "mslm": {"lexicon": "terms"}},
    "mslm (tficf)": {"strategy": "mslm", "mslm": {"terms": "tficf"}},
    "difference_masking": {"strategy": "difference_masking"},
    "pmi": {"strategy": "pmi"},
    "keyword": {"strategy": "keyword"},
}


def corpus(n: int) -> list[str]:
    """Notes of N_WORDS words; adjacent words recur, so that there are collocations."""
    rng = np.random.default_rng(0)
    words = np.array([*sorted(STOP_WORDS)[:80], *(f"termine{i}" for i in range(5000))])
    chance = np.concatenate((np.full(80, 0.35 / 80), 0.65 / (np.arange(5000) + 10)))
    rows = rng.choice(len(words), size=(n, N_WORDS), p=chance / chance.sum())
    rows[:, 1::6] = np.where(rows[:, :-1:6] > 80, (rows[:, :-1:6] + 1) % len(words), rows[:, 1::6])
    ends = np.array([" ", ", ", ". ", "\n"])[rng.choice(4, size=(n, N_WORDS), p=[0.85, 0.08, 0.05, 0.02])]
    return [
        "".join(word + end for word, end in zip(words[row], end, strict=True))
        for row, end in zip(rows, ends, strict=True)
    ]


def statistics(texts: list[str]) -> Statistics:
    """Counts of these notes, made-up general counts and vectors."""
    found = Statistics.of_counts(count_block(texts, longest=4))
    vectors = np.random.default_rng(1).normal(size=(len(found.words), 64)).astype(np.float32)
    general = {word: number for number, word in enumerate(found.words)}
    return found.with_general(general).with_vectors(vectors).with_lexicon("terms", tuple(found.words[::20]))


def main() -> None:
    """Measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--notes", type=int, default=1500)
    options = parser.parse_args()
    texts = corpus(options.notes)
    rng = np.random.default_rng(2)
    notes = [(str(i), text, word_spans(text)) for i, text in enumerate(texts)]
    stored = [rng.random((1, len(words))).astype(np.float16) for _, _, words in notes]
    known, rows = statistics(texts[:600]), []
    print(f"{options.notes} notes of {N_WORDS} words, one arm, one task\n{'strategy':22}{'notes/s':>10}")
    for name, keys in {**RATIO, **OF_CORPUS}.items():
        masker = Masker({"arm": Masking(**keys)}, 0, known)

        def work(masker: Masker = masker) -> None:
            for (note_id, text, words_W2), relevance in zip(notes, stored, strict=True):
                masker.plans(note_id, text, words_W2, ["task"], relevance.astype(np.float32))

        work()  # once to warm up
        began = time.process_time()
        work()
        speed = options.notes / (time.process_time() - began)
        rows.append({"strategy": name, "notes_per_s": round(speed)})
        print(f"{name:22}{speed:>10,.0f}", flush=True)
        if speed < WANTED:
            profile = cProfile.Profile()
            profile.runcall(work)
            pstats.Stats(profile).sort_stats("tottime").print_stats(12)
    if options.json is not None:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
