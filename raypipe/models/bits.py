"""Bits per character: how well a decoder predicts a text, in a unit that models with other vocabularies share.

A converted model loads without a word when its tensors are in the wrong order, its vocabulary is shifted or its
position encoding is lost; only its predictions show it. So `raypipe import` measures them (docs/importing.md), on two
notes written for this purpose and on a sample of the user's own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from raypipe.hashing import generator
from raypipe.models import tree
from raypipe.models.loading import Loaded

WINDOW = 512  # tokens of each text that are read
_LOGITS = 64  # positions whose logits are in memory at a time: a vocabulary may have 262,144 rows

# Invented notes: no patient, and no text of another source.
SAMPLES = {
    "English": (
        "The patient is a 74-year-old woman who came to the emergency department with shortness of breath that had "
        "been getting worse for three days. She also reported a dry cough and a low fever in the evening. She denied "
        "chest pain, palpitations and recent travel. Her medical history includes high blood pressure, type 2 diabetes "
        "treated with metformin, and a hip fracture repaired two years ago. She lives with her daughter and stopped "
        "smoking at the age of fifty. On examination she was alert and oriented, with a heart rate of 96 beats per "
        "minute, a blood pressure of 145/80 mmHg and an oxygen saturation of 91% on room air. Breath sounds were "
        "reduced at the base of the right lung. There was no swelling of the legs. The chest X-ray showed an area of "
        "consolidation in the right lower lobe, without pleural effusion. Blood tests showed an increased white cell "
        "count and normal kidney function. She was admitted with a diagnosis of pneumonia and treated with oxygen, "
        "intravenous fluids and antibiotics. After four days the fever was gone and she could walk without help. She "
        "was discharged home and advised to see her family doctor within a week."
    ),
    "Italian": (
        "La paziente, una donna di 74 anni, è giunta in pronto soccorso per difficoltà a respirare, peggiorata negli "
        "ultimi tre giorni. Riferiva anche tosse secca e febbre bassa la sera. Negava dolore al petto, palpitazioni e "
        "viaggi recenti. In anamnesi ipertensione arteriosa, diabete di tipo 2 in terapia con metformina e una "
        "frattura dell'anca operata due anni prima. Vive con la figlia e ha smesso di fumare all'età di cinquant'anni. "
        "All'esame obiettivo era vigile e orientata, con una frequenza cardiaca di 96 battiti al minuto, una pressione "
        "arteriosa di 145/80 mmHg e una saturazione di ossigeno del 91% in aria ambiente. Il murmure vescicolare era "
        "ridotto alla base del polmone destro. Non vi erano gonfiori alle gambe. La radiografia del torace mostrava un "
        "addensamento nel lobo inferiore destro, senza versamento pleurico. Gli esami del sangue mostravano un aumento "
        "dei globuli bianchi e una funzione renale normale. È stata ricoverata con diagnosi di polmonite e trattata "
        "con ossigeno, liquidi per via endovenosa e antibiotici. Dopo quattro giorni la febbre era scomparsa e la "
        "paziente camminava senza aiuto. È stata dimessa a domicilio con l'indicazione di rivolgersi al medico di "
        "famiglia entro una settimana."
    ),
}


# Bits per character of the decoders of `make models`, in float32 (docs/importing.md says how they were measured).
REFERENCES = {
    "English": {"gemma3-270m": 0.60, "smollm2-135m": 0.78},
    "Italian": {"gemma3-270m": 1.02, "smollm2-135m": 2.30},
}
# A decoder that reads predicts words in their order better than the same words in disorder. Below this share of its
# bits, order tells it nothing: far under what a right conversion of even a 0.3 M model gains (docs/importing.md).
LEAST_GAIN = 0.1


@dataclass(frozen=True)
class Line:
    """Bits per character of one text (or of the user's notes), and the two figures that they are judged by."""

    name: str
    bits: float
    in_disorder: float  # of the same words in another order
    letters: float  # what knowing the frequency of each character would give

    @property
    def reads(self) -> bool:
        """Does the model know more than letters, and does the order of words help it? False if not a number."""
        return self.bits < self.letters and self.bits < (1 - LEAST_GAIN) * self.in_disorder


@dataclass(frozen=True)
class Reading:
    """How well a model reads the two samples and the user's notes."""

    lines: tuple[Line, ...]

    @property
    def is_broken(self) -> bool:
        """A model that can read none of the texts. One language is enough: few models know all."""
        return not any(line.reads for line in self.lines)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [
            ("bits per character", "this model", "words in disorder", "letters alone", "for comparison")
        ]
        for line in self.lines:
            others = ", ".join(f"{name} {value:.2f}" for name, value in REFERENCES.get(line.name, {}).items())
            verdict = "" if line.reads else "this model does not read it" + (": " if others else "")
            figures = (f"{value:.2f}" for value in (line.bits, line.in_disorder, line.letters))
            rows.append((line.name, *figures, verdict + others))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def measure(loaded: Loaded, notes: Sequence[str] = ()) -> Reading:
    """Bits per character of the samples, and of `notes` if there are any."""
    texts = {name: [text] for name, text in SAMPLES.items()} | ({"your notes": list(notes)} if notes else {})
    return Reading(
        tuple(
            Line(
                name,
                bits_per_character(loaded, these),
                bits_per_character(loaded, [in_disorder(text) for text in these]),
                letters_alone("".join(these)),
            )
            for name, these in texts.items()
        )
    )


@torch.no_grad()
def bits_per_character(loaded: Loaded, texts: Sequence[str]) -> float:
    """The mean over all characters, each text read by itself after the begin-of-text token, up to `WINDOW` tokens.

    Without such a token the first token of a text cannot be predicted, and its characters do not count.
    """
    bits, n_characters = 0.0, 0
    window = min(WINDOW, loaded.model.config.max_position_embeddings)
    for text in texts:
        encoded = loaded.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True
        )
        begin = [] if loaded.tokenizer.bos_token_id is None else [loaded.tokenizer.bos_token_id]
        ids = torch.tensor([*begin, *encoded["input_ids"]][:window], device=loaded.device)
        ends = [end for _, end in encoded["offset_mapping"]][: len(ids) - len(begin)]
        if len(ids) < 2:
            continue
        bits += _bits(loaded, ids)
        n_characters += ends[-1] - (0 if begin else ends[0])
    return bits / n_characters if n_characters else math.nan


def _bits(loaded: Loaded, ids_T: torch.Tensor) -> float:
    """Bits of all tokens after the first."""
    hidden_TD = loaded.model.base_model(input_ids=ids_T[None], use_cache=False).last_hidden_state[0, :-1]
    nats = 0.0
    for part_ND, next_N in zip(torch.split(hidden_TD, _LOGITS), torch.split(ids_T[1:], _LOGITS), strict=True):
        nats += float(torch.nn.functional.cross_entropy(tree.logits(loaded.model, part_ND), next_N, reduction="sum"))
    return nats / math.log(2)


def letters_alone(text: str) -> float:
    """Entropy of the text's characters in bits: what knowing how often each occurs in this text would give."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())


def in_disorder(text: str) -> str:
    """The same words in another order, the same at every call."""
    words = text.split()
    return " ".join(words[i] for i in generator("in disorder", text).permutation(len(words)))
