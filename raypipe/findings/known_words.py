"""How well relevance agrees with annotated deciding words, among the words that masking may hide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from raypipe import rows
from raypipe.attribution.registry import method_of
from raypipe.evaluation.agreement import Agreement, AnnotatedRelevance, agreement, deciding_words
from raypipe.masking.case import Note
from raypipe.runs.names import SCORER
from raypipe.runs.run import Run
from raypipe.settings import config
from raypipe.settings.arms import masking_of
from raypipe.stream import pipeline

Deciding = Mapping[tuple[str, str], Sequence[tuple[int, int]]]  # (note id, task id) -> spans of characters
COLUMNS = ["note_id", "text", "task_id", "word_start", "word_end", "layers", "relevance", "n_cut_tokens", "error"]


@dataclass(frozen=True)
class AgreementRow:
    """One scorer, method or layer whose relevance was compared with known deciding words."""

    name: str
    agreement: Agreement
    arm: str | None = None  # whose own relevance it is; None: the run's
    method: str = ""


def agreement_of(cells: Sequence[Run]) -> Agreement | None:
    """Over the notes of all cells; None where no deciding words are known, or no relevance was computed."""
    masking = next((m for m in masking_of(cells[0].settings).values() if m.match_ratio_to is None), None)
    if masking is None or not cells[0].corpus.deciding_path.exists():
        return None
    steps = [(cell, cell.step("mask")) for cell in cells]
    masked = [(cell.corpus.deciding_words(), step.data, layer_of(cell)) for cell, step in steps if step.is_readable]
    return agreement([case for of_cell in masked for case in cases(*of_cell, masking)], masking.ratio)


def agreements(cells: Sequence[Run]) -> Iterator[AgreementRow]:
    """The run's relevance, and that of the arms that have their own."""
    if (of_run := agreement_of(cells)) is not None:
        yield AgreementRow(_name(cells[0]), of_run, method=cells[0].settings.attribution.method)
    for arm in cells[0].settings.arms:
        own = [cell.of(arm) for cell in cells]
        if own[0] is not cells[0] and (of_arm := agreement_of(own)) is not None:
            yield AgreementRow(f"{_name(own[0])} ({arm})", of_arm, arm, own[0].settings.attribution.method)


def layer_of(run: Run) -> int | None:
    """The layer that masking read; None where only one is kept."""
    attribution = run.settings.attribution
    return pipeline.layer_of(attribution, run.model(SCORER)) if attribution.keep == "all" else None


def cases(deciding: Deciding, masked: Path, layer: int | None, masking: config.Masking) -> Iterator[AnnotatedRelevance]:
    """A case for every task asked of a note of `rows.MASKED`, from spans (note_id, task_id, start, end).

    Only words that `masking` may hide count, as for its masks: relevance that is 0 on all stop-words would otherwise
    beat chance without knowing anything.
    """
    for note in rows.read(masked, columns=COLUMNS).to_pylist():
        if note["error"] is not None or note["relevance"] is None:
            continue
        words_W2, relevance_QW = rows.words_and_relevance(note, layer)
        assert relevance_QW is not None  # noqa: S101 (stored above)
        eligible_W = (
            Note(note["text"], words_W2, relevance_QW, is_cut=bool(note["n_cut_tokens"])).pool(masking).eligible_W
        )
        for task_id, relevance_W in zip(note["task_id"], relevance_QW, strict=True):
            is_deciding_W = deciding_words(words_W2, deciding.get((note["note_id"], task_id), []))
            yield AnnotatedRelevance(note["note_id"], relevance_W[eligible_W], is_deciding_W[eligible_W])


def _name(run: Run) -> str:
    a = run.settings.attribution
    layer = "" if method_of(a).reads(a) == "none" else f", layer {a.layer}"
    return f"{a.method}, {a.target}{layer}"
