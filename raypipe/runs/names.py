"""Names that every run uses for students, training rows, lines of the table, and what lies beside it."""

from __future__ import annotations

SCORER = "scorer"  # its relevance guides the masks; by default the student that labels alone make of the backbone
BACKBONE = "backbone"  # the model that every student starts from
TFIDF, EMBEDDINGS = "tfidf_logistic", "embeddings_logistic"  # baselines: lines of the table that are no arms
LABELS, TEXT = "labels", "text"  # in training rows, the "arm" of fine-tuning and of pretraining: all arms share them
SHARED_COUNTS = ".cache/statistics"  # beside runs: counts of their corpora, which they share
CHOOSE_LABELS = {"max_labelled", "label_seed"}  # keys of `data`: what is made of notes alone is the same for others
RESERVED = {SCORER, TFIDF, EMBEDDINGS, "rows"}  # of no arm; "rows" is a folder beside the students'
