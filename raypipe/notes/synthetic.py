"""Generates Italian emergency notes and records their deciding words: the corpus of `make demo`.

Nothing here is, or is derived from, a real record: every sentence is put together by this file from its own word lists.

What is planted, and how
* A note is an opening, a few short sentences and boilerplate. The sentences mention some of 16 findings, each at most
  once, with one status: present ("Presenta dispnea da sforzo."), negated ("Nega febbre e tosse."), or history ("In
  passato cefalea."; a parent's too). A sentence holds one status only, so what decides is the finding under its
  sentence's cue.
* 12 findings are tasks: "is it positively present in this patient now?" Negated, historical and unmentioned are all
  "no".
* A finding has two common forms ("dispnea", "difficoltà respiratoria") and, if it is a task, two local forms
  ("affanno", "fame d'aria"), and modifiers that go with every form and status ("da sforzo"): a modifier says which
  finding is meant and never whether it is present, so text without labels can teach that "affanno" stands where
  "dispnea" stands.
* Two hospitals, from separate random streams. The pretraining notes are the other one's. Most end in a check-list of
  all 16 findings in random order ("Sintesi: DISPNEA sì, FEBBRE no"), over notes in common forms only; the rest have
  no check-list and use every form, so that local forms are words that the backbone has met without their meaning. Note
  well: the check-lists ask about the tasks' own findings, so the backbone has had supervision for their common forms. A
  backbone that small cannot learn within a demo's minutes to look up findings that no check-list names. The check-lists
  are the stand-in for an instruct model that can already look something up. What the labels have to teach is what the
  other hospital does not show: the local forms. The names are in capitals, so that the token that asks is not the token
  to look for (it would attend to itself).
* The target hospital's notes have no check-list, and use a local form in `local_share` of the mentions of a task's
  finding. One local form of a quarter of the tasks (of all, at `difficulty` 1; of another share, with `unseen`) stands
  in no labelled train or dev note: only the unlabelled and the test notes have it.
* `difficulty` also adds negated and historical mentions, boilerplate, and longer lists under one cue.

Deciding words (`Corpus.deciding`, character offsets): present: the words of the finding. Negated or history: the
words of the finding and, as a row of its own, the cue of its sentence. Modifiers never; an unmentioned finding has no
rows.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

YES, NO = "sì", "no"
SUMMARY_SHARE = 0.85  # of the pretraining notes


@dataclass(frozen=True)
class Finding:
    task_id: str
    common: tuple[str, ...]  # common[0] is its name in questions and summaries
    local: tuple[str, ...]
    modifiers: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    notes: pa.Table  # note_id, text, group_id (a fictional patient), split: train | dev | test | unlabelled
    labels: pa.Table  # task_id, note_id, label, split
    tasks: list[dict[str, Any]]
    deciding: pa.Table  # note_id, task_id, start, end
    pretraining: pa.Table  # note_id, text


# fmt: off
TASK_FINDINGS = (
    Finding("dispnea", ("dispnea", "difficoltà respiratoria"), ("affanno", "fame d'aria"), ("da sforzo", "a riposo")),
    Finding("febbre", ("febbre", "rialzo termico"), ("piressia", "ipertermia"), ("fino a 39", "con brividi")),
    Finding("cefalea", ("cefalea", "mal di testa"), ("emicrania", "cefalgia"), ("in sede frontale", "con fotofobia")),
    Finding("dolore_toracico", ("dolore toracico", "toracalgia"), ("precordialgia", "oppressione al petto"),
            ("in sede retrosternale", "con irradiazione al braccio")),
    Finding("vomito", ("vomito", "emesi"), ("conati", "rigetto"), ("dopo i pasti", "con tracce biliari")),
    Finding("dolore_addominale", ("dolore addominale", "addominalgia"), ("coliche", "mal di pancia"),
            ("in fossa iliaca", "ai quadranti inferiori")),
    Finding("sincope", ("sincope", "perdita di coscienza"), ("svenimento", "lipotimia"),
            ("con prodromi", "in ortostatismo")),
    Finding("diarrea", ("diarrea", "scariche liquide"), ("enterite", "alvo mobile"), ("con muco", "in più episodi")),
    Finding("vertigini", ("vertigini", "capogiri"), ("sbandamento", "instabilità"),
            ("ai cambi di posizione", "con nistagmo")),
    Finding("palpitazioni", ("palpitazioni", "cardiopalmo"), ("batticuore", "aritmia"),
            ("a insorgenza improvvisa", "di pochi minuti")),
    Finding("edemi", ("edemi", "gonfiore alle gambe"), ("succulenza", "imbibizione"),
            ("fino al ginocchio", "alle caviglie")),
    Finding("trauma_cranico", ("trauma cranico", "colpo alla testa"), ("botta al capo", "urto cranico"),
            ("dopo caduta", "con ferita")),
)
OTHER_FINDINGS = (
    Finding("", ("tosse", "accessi di tosse"), (), ("con escreato", "nelle ore notturne")),
    Finding("", ("disuria", "bruciore minzionale"), (), ("con pollachiuria",)),
    Finding("", ("astenia", "stanchezza"), (), ("con inappetenza",)),
    Finding("", ("lombalgia", "mal di schiena"), (), ("dopo sollevamento",)),
)
FINDINGS = TASK_FINDINGS + OTHER_FINDINGS
CUES = {  # what a sentence begins with, by the status of its findings
    "present": ("Riferisce", "Lamenta", "Presenta", "Comparsa di", "Accusa"),
    "negated": ("Nega", "Non", "Assenza di", "Non riferisce"),
    "history": ("In passato", "Pregresso episodio di", "In anamnesi", "Padre con", "Madre con"),
}
OPENINGS = ("Uomo di {} anni.", "Donna di {} anni.", "Paziente di {} anni.", "Accede in PS a {} anni.",
            "Arriva con 118, {} anni.")
BOILERPLATE = (
    "Vigile e collaborante.", "Parametri nella norma.", "Allergie non note.", "Segue terapia domiciliare.",
    "Vive con la famiglia.", "Si esegue prelievo.", "ECG da refertare.", "In attesa di visita.", "Iperteso in terapia.",
    "Diabete in compenso.", "Fumatore.", "Accompagnato dal figlio.", "Codice verde.", "Codice azzurro.",
)
# fmt: on


@dataclass(frozen=True)
class Mention:
    finding: int  # index in FINDINGS
    status: str
    start: int
    end: int
    cue: tuple[int, int]


@dataclass(frozen=True)
class Style:
    """How a hospital writes."""

    local_share: float
    distractors: float  # 0: fewer absent mentions than present; 1: more, and much boilerplate
    modifiers: float  # share of the mentions that have one
    forbidden: frozenset[str] = frozenset()


def generate(
    seed: int = 0,
    n_labelled: int = 200,
    n_unlabelled: int = 1500,
    n_dev: int = 100,
    n_test: int = 400,
    n_pretraining: int = 9600,
    difficulty: float = 0.0,
    modifiers: float = 0.3,
    local_share: float = 0.3,
    unseen: float | None = None,
) -> Corpus:
    """The whole corpus; same arguments, same bytes. `difficulty` in [0, 1] adds distractors and unseen forms.

    `modifiers`: share of the mentions with a modifier, which is all that ties the forms of a finding to each other.
    `local_share`: share of the target hospital's mentions of a task's finding in a local form. `unseen`: share of the
    tasks with a local form that no label shows; None: `difficulty` decides.
    """
    if not 0 <= difficulty <= 1:
        raise ValueError(f"difficulty is {difficulty}, but must lie in [0, 1]")
    any_form = Style(local_share, difficulty, modifiers)
    seen: set[str] = set()
    other_hospital = np.random.default_rng([seed, 0])
    pretraining = [_pretraining_text(other_hospital, any_form, seen) for _ in range(n_pretraining)]

    held_out_rng = np.random.default_rng([seed, 1])
    n_held_out = round((0.25 + 0.75 * difficulty if unseen is None else unseen) * len(TASK_FINDINGS))
    held_out = held_out_rng.permutation(len(TASK_FINDINGS))[:n_held_out]
    labelled = replace(any_form, forbidden=frozenset(TASK_FINDINGS[i].local[-1] for i in held_out))
    note_rows: list[dict[str, str]] = []
    label_rows: list[dict[str, str]] = []
    deciding_rows: list[dict[str, str | int]] = []
    splits = (("train", n_labelled, labelled), ("dev", n_dev, labelled), ("test", n_test, any_form))
    for stream, (split, n, style) in enumerate((*splits, ("unlabelled", n_unlabelled, any_form)), start=2):
        rng = np.random.default_rng([seed, stream])
        patient = 0
        for i in range(n):
            text, mentions = _new_note(rng, style, seen)
            patient += int(i == 0 or rng.random() < 0.8)  # a fifth of the notes are a further visit of the same patient
            note_id = f"{split}-{i:05d}"
            note_rows.append({"note_id": note_id, "text": text, "group_id": f"{split}-p{patient:05d}", "split": split})
            for m in mentions:
                if m.finding < len(TASK_FINDINGS):
                    spans = [(m.start, m.end)] if m.status == "present" else [m.cue, (m.start, m.end)]
                    task_id = TASK_FINDINGS[m.finding].task_id
                    deciding_rows += [{"note_id": note_id, "task_id": task_id, "start": a, "end": b} for a, b in spans]
            if split != "unlabelled":
                present = {m.finding for m in mentions if m.status == "present"}
                for k, finding in enumerate(TASK_FINDINGS):
                    label = YES if k in present else NO
                    label_rows.append({"task_id": finding.task_id, "note_id": note_id, "label": label, "split": split})
    string, offset = pa.string(), pa.int64()
    return Corpus(
        notes=_table(note_rows, note_id=string, text=string, group_id=string, split=string),
        labels=_table(label_rows, task_id=string, note_id=string, label=string, split=string),
        tasks=[_task(finding) for finding in TASK_FINDINGS],
        deciding=_table(deciding_rows, note_id=string, task_id=string, start=offset, end=offset),
        pretraining=_table(
            [{"note_id": f"pretraining-{i:05d}", "text": text} for i, text in enumerate(pretraining)],
            note_id=string,
            text=string,
        ),
    )


def _question(finding: Finding) -> str:
    return finding.common[0].upper()


def _task(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.task_id,
        "kind": "binary",
        "question": _question(finding),
        "options": [YES, NO],
        "verbalizers": {YES: YES, NO: NO},
    }


def _table(rows: list[Any], **columns: pa.DataType) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema(list(columns.items())))


def _pretraining_text(rng: np.random.Generator, any_form: Style, seen: set[str]) -> str:
    if rng.random() >= SUMMARY_SHARE:
        return _new_note(rng, any_form, seen)[0]
    text, mentions = _new_note(rng, replace(any_form, local_share=0.0), seen)
    present = {m.finding for m in mentions if m.status == "present"}
    items = rng.permutation(len(FINDINGS))
    answers = ", ".join(f"{_question(FINDINGS[i])} {YES if i in present else NO}" for i in items)
    return f"{text}\nSintesi: {answers}"


def _new_note(rng: np.random.Generator, style: Style, seen: set[str]) -> tuple[str, list[Mention]]:
    """A note that no split has yet."""
    while True:
        text, mentions = _note(rng, style)
        if text not in seen:
            seen.add(text)
            return text, mentions


def _note(rng: np.random.Generator, style: Style) -> tuple[str, list[Mention]]:
    weights = np.array([2.0] * len(TASK_FINDINGS) + [1.0] * len(OTHER_FINDINGS))
    n_absent = (
        2 + int(rng.random() < 0.5) + int(rng.random() < style.distractors) + int(rng.random() < style.distractors)
    )
    n_present = 2 + int(rng.random() < 0.5)
    findings = rng.choice(len(FINDINGS), size=n_present + n_absent, replace=False, p=weights / weights.sum())
    n_history = int(rng.binomial(n_absent, 0.33))
    groups = {
        "present": findings[:n_present],
        "history": findings[n_present : n_present + n_history],
        "negated": findings[n_present + n_history :],
    }
    sentences = [(status, part) for status, group in groups.items() for part in _split(rng, group, style)]
    n_boilerplate = int(rng.binomial(3, 0.3 + 0.5 * style.distractors))
    fillers = [str(s) for s in rng.choice(BOILERPLATE, size=n_boilerplate, replace=False)]
    order = rng.permutation(len(sentences) + len(fillers))
    text = str(rng.choice(OPENINGS)).format(rng.integers(18, 96))
    mentions: list[Mention] = []
    for position in order:
        text += " "
        if position >= len(sentences):
            text += fillers[position - len(sentences)]
            continue
        status, part = sentences[position]
        cue_start = len(text)
        text += str(rng.choice(CUES[status]))
        cue = (cue_start, len(text))
        for i, finding in enumerate(part):
            text += " " if i == 0 else " e " if i == len(part) - 1 else ", "
            form = _form(rng, FINDINGS[finding], style)
            mentions.append(Mention(int(finding), status, len(text), len(text) + len(form), cue))
            text += form
            if rng.random() < style.modifiers:
                text += " " + str(rng.choice(FINDINGS[finding].modifiers))
        text += "."
    return text, mentions


def _split(rng: np.random.Generator, group: Any, style: Style) -> list[Any]:
    """The findings of one status, cut into sentences of one or two (three or four when hard)."""
    parts = []
    while len(group):
        n = int(rng.integers(1, 3 + round(2 * style.distractors)))
        parts.append(group[:n])
        group = group[n:]
    return parts


def _form(rng: np.random.Generator, finding: Finding, style: Style) -> str:
    use_local = bool(finding.local) and rng.random() < style.local_share
    forms = [f for f in (finding.local if use_local else finding.common) if f not in style.forbidden]
    return str(rng.choice(forms))
