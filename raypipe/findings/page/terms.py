"""What the words of a page mean: said in each section for the words that stand in it."""

from __future__ import annotations

TERMS = {
    "arm": "One way of learning from notes without labels; one line of the table. All arms see the same labels.",
    "scorer": "The model whose relevance decides which words are hidden: fine-tuned on labels alone, or not at all.",
    "macro F1": "F1 balances how many of the notes with a label are found and how many that were given it have it. "
    "Macro: the plain mean over labels, so a rare label counts as much as a common one. 100 is perfect; calling every "
    "note negative reaches about 47 where positives are rare.",
    "points": "Hundredths: macro F1 of 0.668 is 66.8 points.",
    "95 % interval": "[from, to]: had other patients, tasks or training runs been drawn, the value would mostly lie in "
    "here. A difference whose interval holds 0 may be none.",
    "tasks won / tied / lost": "On how many tasks the arm is above, level with, and below the reference (W/T/L).",
    "p (Holm)": "How often chance alone would give as large a difference over the tasks, corrected for all comparisons "
    "of this table (Holm). Below 0.05 it counts as clear. It does not see the chance in training.",
    "AUC": "Chance that a note with the label scores above one without it; 50 is guessing. No threshold plays a part.",
    "matched positive rate": "Macro F1 if exactly as many notes are called positive as are positive: what is left of a "
    "difference once both call equally many.",
    "cross-validated threshold": "Macro F1 at the threshold that was best on other patients' notes.",
    "pooled F1": "All tasks' answers in one pot: common labels count more.",
    "gate": "A condition without which no arm may be called better. A model that has not learned to read the notes "
    "tells nothing about how to teach it.",
    "needed": "Must be measured and passed. A gate that is not needed may go unmeasured, but forbids a ranking if it "
    "fails.",
    "TF-IDF": "Counts of words, each weighted by its rarity: what a model without any reading achieves.",
    "operating point": "The answer that the model gives. No threshold was tuned.",
    "prevalence": "Share of the notes that have the label.",
    "sensitivity": "Of the notes with the label, the share that was given it.",
    "specificity": "Of the notes without the label, the share that was not given it.",
    "PPV": "Positive predictive value: of the notes that were given the label, the share that has it. Falls with the "
    "prevalence.",
    "NPV": "Negative predictive value: of the notes that were not given the label, the share that does not have it.",
    "confidence": "Probability of the answer among the options. Of answers given with 80 %, a calibrated model has "
    "80 % right; below the dotted line it is too sure of itself.",
    "loss": "How badly the model predicts the right words or answers, in nats; lower is better.",
    "nats": "Unit of log-probability: 0.7 nats more means twice as likely.",
    "dev loss": "The same on labelled dev notes that are not learned from. If it rises while the loss falls, the model "
    "learns by heart.",
    "learning rate": "How far one step moves the weights.",
    "optimiser step": "One correction of the weights, after one batch of notes.",
    "pretraining": "Making the backbone, the model that every arm starts from.",
    "reconstruction": "The student fills in hidden words of notes without labels.",
    "fine-tuning": "Learning the labels.",
    "relevance": "A number per word: how much the scorer's answer hangs on it. Where words have two colours, it also "
    "says whether a word speaks for the answer or against it.",
    "layer": "Where in the model relevance or a state is read: 0 is the words themselves, k the output of block k.",
    "average precision": "Do the words that decide stand high in the ranking by relevance? 100: all of them on top.",
    "random": "Relevance drawn by chance. A method that is not above it says nothing.",
    "coverage": "Share of the notes whose true label is in the set.",
    "probe": "A small classifier on frozen states: what can be read off them without training the model.",
    "pooling": "Which state stands for the note: the last token's, or the mean.",
    "student": "A model trained for an arm.",
    "eligible word": "A word that may be hidden: no stop-word, not protected, read by the model.",
    "masking ratio": "Hidden eligible words / eligible words.",
    "tokens with a loss": "Pieces of words that the student had to predict.",
    "dev notes": "Labelled notes for choosing settings; test notes are not touched.",
    "trial": "One setting, trained and measured once.",
    "setting": "Values of all parameters that were searched; trials that differ in their seed alone share it.",
}
SECTIONS = {
    "result": (
        "arm", "scorer", "macro F1", "points", "95 % interval", "tasks won / tied / lost", "p (Holm)", "AUC",
        "matched positive rate", "cross-validated threshold", "pooled F1",
    ),
    "gains": ("fine-tuning", "optimiser step", "macro F1", "AUC", "95 % interval"),
    "budgets": ("macro F1", "95 % interval", "optimiser step"),
    "gates": ("gate", "needed", "AUC", "TF-IDF"),
    "tasks": ("macro F1", "95 % interval"),
    "answers": ("operating point", "prevalence", "sensitivity", "specificity", "PPV", "NPV", "95 % interval"),
    "calibration": ("confidence",),
    "agreement": ("relevance", "layer", "95 % interval", "average precision"),
    "faithfulness": ("scorer", "relevance", "layer", "random", "95 % interval"),
    "conformal": ("coverage",),
    "probing": ("probe", "layer", "pooling", "student", "macro F1", "95 % interval"),
    "heat-maps": ("relevance", "scorer", "nats", "eligible word"),
    "training": ("loss", "nats", "dev loss", "dev notes", "macro F1", "learning rate", "optimiser step", "pretraining",
                 "reconstruction", "fine-tuning", "scorer"),
    "material": ("masking ratio", "tokens with a loss", "optimiser step"),
    "search": ("trial", "setting", "dev notes", "points", "95 % interval", "tasks won / tied / lost",
               "p (Holm)"),
}  # fmt: skip


def terms_of(section: str) -> dict[str, str]:
    """The terms of a section, in the order in which a reader meets them."""
    return {name: TERMS[name] for name in SECTIONS[section]}
