"""The steps of `raypipe canaries`: secrets are planted in a copy of the notes, and students are asked for them.

`planted` is a step of the run. What learns from the planted notes is a run of its own, in the folder `canaries/` of the
first: an ordinary one, whose notes are those. Its steps `exposure/<model>` ask each of its models, in this process.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe import rows
from raypipe.evaluation import memorisation
from raypipe.evaluation.scoring import LabelScorer
from raypipe.masking import Renderer
from raypipe.masking.case import phi_ranges
from raypipe.masking.formats import cut
from raypipe.masking.strategies import STRATEGIES
from raypipe.models import loading
from raypipe.models.pieces import PieceEncoder
from raypipe.notes import canaries
from raypipe.notes.annotated_spans import parsed
from raypipe.notes.files import all_columns, iter_notes
from raypipe.notes.labels import for_self_supervision
from raypipe.notes.placeholders import Replacer
from raypipe.runs.probing import loaded_from, model_of
from raypipe.settings import config

if TYPE_CHECKING:
    from raypipe.models.prompts import PromptEncoder
    from raypipe.notes.corpus import Corpus
    from raypipe.runs.folder import StepFolder
    from raypipe.runs.run import Run

NOTES, CANARIES, NAME = "notes.parquet", "canaries.parquet", "canaries"
CANDIDATES = 1000  # notes that are looked at in one pass for those that get a secret
TEXT, FILL_IN = "text", "fill_in"  # ways to ask


def plant(run: Run, folder: StepFolder, _: str) -> dict[str, Any]:
    """All notes, some of them with a secret; and which those are."""
    drawn, data = canaries.drawn(run.settings.canaries), run.corpus.data
    at = canaries.placed(drawn, _learned_from(run, sum(max(1, canary.copies) for canary in drawn)))
    run.say(f"planted: {len(drawn)} canaries in {sum(canary.copies for canary in drawn)} notes")
    replacer = Replacer(data)
    columns = [*all_columns(data), *(["spans"] if data.columns.spans else [])]
    theirs = {ours: name for ours, name in data.columns.model_dump().items() if name is not None and ours in columns}
    schema, made = pa.schema([(name, pa.string()) for name in theirs.values()]), list[dict[str, Any]]()
    with pq.ParquetWriter(folder.path / NOTES, schema, **rows.WRITE) as writer:
        for table in iter_notes(data, columns):
            notes, of_table = canaries.planted(table, at)
            writer.write_table(notes.select(list(theirs)).rename_columns(list(theirs.values())))
            made += [_as_read(canary, replacer) for canary in of_table]
    rows.write(rows.table(made, rows.CANARIES), folder.path / CANARIES)
    return {"canaries": len(drawn), "notes": sum(canary.copies for canary in drawn)}


def _as_read(canary: dict[str, Any], replacer: Replacer) -> dict[str, Any]:
    """The canary as it stands in the note that students read, where a placeholder may stand for its person or for the
    secret itself."""
    text, spans, _ = replacer(canary["text"], json.dumps([("", canary["start"], canary["end"])]), None)
    ((_, start, end),) = parsed(spans, len(text))
    return canary | {"text": text, "start": start, "end": end}


def _learned_from(run: Run, n: int) -> list[str]:
    """Ids of `n` notes that students learn from, or of all: those with training labels first, then by hash."""
    corpus = run.corpus
    notes = pa.concat_tables(iter_notes(corpus.data, ["note_id", "group_id"]))
    ids = for_self_supervision(notes, corpus.all_labels, corpus.data)
    is_labelled = pc.is_in(ids, corpus.labels_of("train")["note_id"].combine_chunks())
    ids = pa.concat_arrays([ids.filter(is_labelled), ids.filter(pc.invert(is_labelled))])
    out: list[str] = []
    while len(out) < n and len(ids):
        candidates, ids = ids[: max(n, CANDIDATES)], ids[max(n, CANDIDATES) :]
        readable = set(_readable(corpus, candidates))
        out += [note_id for note_id in candidates.to_pylist() if note_id in readable]
    return out[:n]


def _readable(corpus: Corpus, ids: pa.Array) -> Iterator[str]:
    """Those of the notes that can be read and are not held out."""
    for table in iter_notes(corpus.data, rows.NOTES.names):
        for note in table.filter(pc.and_(pc.is_in(table["note_id"], ids), pc.is_null(table["error"]))).to_pylist():
            if corpus.guard is None or not corpus.guard.blocks(note["note_id"], note["group_id"], note["text"]):
                yield note["note_id"]


def of_planted(run: Run) -> Run:
    """The run that learns from the planted notes; the step `planted` must be finished.

    A backbone from scratch does not see them: it is what the students are compared with.
    """
    data = run.corpus.data
    update: dict[str, Any] = {"notes": str(run.needed("planted").output / NOTES)}
    if run.pretrains and data.pretraining is None and not data.pretraining_share:
        update["pretraining"] = data.notes
    own = {"name": NAME, "runs": str(run.folder), "data": data.model_copy(update=update)}
    return replace(run, settings=run.settings.model_copy(update=own), base=None, variants={})


def expose(run: Run, folder: StepFolder, student: str) -> dict[str, Any]:
    """What one model knows of each canary, as `rows.EXPOSURES`."""
    name = model_of(run, folder)
    arm = run.settings.arms.get(student.partition("@")[0], config.Arm())
    run.say(f"exposure/{name}: every candidate of every canary")
    model = loaded_from(run, name, student).model_copy(update={"dtype": "float32"})
    scorer = LabelScorer(loading.load(model), run.settings.evaluation.batch_tokens)
    examiner = _Examiner(scorer, run.encoder(), _renderer(run, arm.masking), run.settings.canaries.secret)
    planted = rows.read(Path(str(run.settings.data.notes)).with_name(CANARIES)).to_pylist()
    targets = _targets(run, student.partition("@")[0], arm.masking, planted) if arm.masking else {}
    # of a secret's notes, the one to ask about it in
    first = {canary["canary"]: canary for canary in reversed(planted)}
    out = [
        {**answer, "canary": name, "copies": canary["copies"], "targets": targets.get(name, 0)}
        for name, canary in sorted(first.items())
        for answer in examiner.ask(canary)
    ]
    (folder.path / "data").mkdir(exist_ok=True)
    rows.write(rows.table(out, rows.EXPOSURES), folder.path / "data" / "part-00000.parquet")
    return {"canaries": len(first), "candidates": len(examiner.candidates)}


def _renderer(run: Run, masking: config.Masking | None) -> Renderer | None:
    """Writes the examples that an arm learns from; None if it learns from labels alone."""
    if masking is None:
        return None
    settings, rows_train = run.settings, run.settings.train.lora is None
    return Renderer(run.encoder(), masking, settings.prompt.max_tokens, run.sentinels, rows_train)


class _Examiner:
    """Asks one model for secrets."""

    def __init__(self, scorer: LabelScorer, encoder: PromptEncoder, renderer: Renderer | None, form: str) -> None:
        self.scorer, self.encoder, self.renderer = scorer, encoder, renderer
        self.candidates = canaries.candidates(form)
        self._pieces = PieceEncoder(encoder.tokenizer)
        self._ids: dict[str, list[memorisation.Ids]] = {}

    def ask(self, canary: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The columns of `rows.EXPOSURES` that a model's answers decide, for each way to ask."""
        secret = self.candidates.index(canary["secret"])
        for prompt, (context, candidates) in self._prompts(canary, secret):
            rank = memorisation.rank(memorisation.log_p(self.scorer, context, candidates), secret)
            yield {
                "prompt": prompt,
                "rank": rank,
                "exposure": memorisation.exposure(rank, len(candidates)),
                "is_extracted": memorisation.is_extracted(self.scorer.scorer, context, candidates[secret]),
            }

    def _prompts(
        self, canary: Mapping[str, Any], secret: int
    ) -> Iterator[tuple[str, tuple[memorisation.Ids, list[memorisation.Ids]]]]:
        """Tokens up to the secret, and those of the candidates that may follow."""
        text, bounds = canary["text"], ([canary["start"]], [canary["end"]])
        pieces = cut(text, *bounds, "multi")
        candidates = self._candidates(pieces.hidden[0], secret)
        head = self.encoder.head_ids if self.renderer is None else self.renderer.head_ids  # what its notes began with
        room = self.encoder.prompt.max_tokens - len(head) - len(candidates[secret])
        opening = self.encoder.note_ids(pieces.visible[0])[0][-room:]
        yield TEXT, ((*head, *opening), candidates)
        if self.renderer is not None and not self.renderer.refills:
            plan = {"task_id": None, "start": bounds[0], "end": bounds[1], "kind": [0]}
            candidates = self._candidates(cut(text, *bounds, self.renderer.format).hidden[0], secret)
            end = len(candidates[secret]) + (self.encoder.eos_id is not None)
            for example in self.renderer.examples(text, plan):
                yield FILL_IN, (tuple(example.input_ids[:-end]), candidates)

    def _candidates(self, hidden: str, secret: int) -> list[memorisation.Ids]:
        """Tokens of every candidate in the place of the secret, with the blank before it if it is hidden, too."""
        blank = hidden.removesuffix(self.candidates[secret])
        if blank not in self._ids:
            self._ids[blank] = [tuple(self._pieces.text_ids(blank + each)) for each in self.candidates]
        return self._ids[blank]


def _targets(run: Run, arm: str, masking: config.Masking, planted: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How often each secret is to be predicted in one pass over the arm's examples; by name of the canary."""
    out: dict[str, int] = Counter()
    canary_of = {canary["note_id"]: canary for canary in planted if canary["copies"]}
    ids = pa.array(list(canary_of), pa.string())
    masked = rows.read(run.needed("mask").data, ["note_id", "text", "plans"], pc.is_in(pc.field("note_id"), ids))
    for note in masked.to_pylist():
        canary, text = canary_of[note["note_id"]], note["text"] or ""
        start = text.rfind(secret := canary["secret"])  # `data.placeholders` may have taken it away, or moved it
        plans = [plan for plan in note["plans"] or [] if plan["arm"] == arm]
        if start >= 0:
            out[canary["canary"]] += sum(_is_target(masking, text, start, start + len(secret), plan) for plan in plans)
    return out


def _is_target(masking: config.Masking, text: str, start: int, end: int, plan: Mapping[str, Any]) -> bool:
    """Does learning from this plan predict the characters start..end?"""
    if any(a < end and b > start for a, b in phi_ranges(text, masking.phi_patterns).tolist()):
        return False
    is_hidden = any(a <= start and b >= end for a, b in zip(plan["start"], plan["end"], strict=True))
    return is_hidden or STRATEGIES[masking.strategy].refills or masking.prompt_loss > 0
