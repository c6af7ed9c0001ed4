"""What the run's own stages make of the sample: masked notes and training rows, as they would be stored.

Masks are made of random relevance, and an arm whose strategy needs counts of the corpus hides random words instead:
which words are hidden is another matter, how many rows and tokens come of it is not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.attribution.layers import stored_layers
from raypipe.errors import Code, RowError
from raypipe.hashing import generator
from raypipe.masking import Renderer
from raypipe.masking.requirements import needs
from raypipe.masking.strategies import STRATEGIES
from raypipe.masking.strategy import RELEVANCE
from raypipe.models.families import FAMILIES
from raypipe.models.prompts import EncodedNote, PromptEncoder
from raypipe.models.shape import Shape
from raypipe.notes.reading import TEXT_ROWS
from raypipe.runs.names import LABELS
from raypipe.runs.planning.sample import Drawn, Sample
from raypipe.runs.planning.tokens import Model
from raypipe.runs.run import Run
from raypipe.settings import config
from raypipe.settings.arms import masking_of
from raypipe.stream.stages.attribute import WITH_TEXT, tasks_of
from raypipe.stream.stages.cut import Cut
from raypipe.stream.stages.mask import Mask
from raypipe.stream.stages.render import RENDERED, rows_of
from raypipe.training import supervised
from raypipe.training.examples import STORED
from raypipe.words import word_spans

PLANS, FEWEST_MASKED = 4096, 64  # masking plans that are made for each arm, and of how many notes at least
MOST_LEFT_OUT = 20_000  # rows without text that are written to see what they take


@dataclass(frozen=True)
class Made:
    """What a step makes of a sample."""

    table: pa.Table
    scale: float  # rows in all for each of the table's
    seconds: float  # of one core, for the sample

    @property
    def n_rows(self) -> int:
        """Rows in all."""
        return round(len(self.table) * self.scale)

    def bytes(self) -> float:
        """On disk, in all."""
        return stored_bytes(self.table) * self.scale

    def of(self, arm: str) -> Made:
        """The training rows of one arm."""
        return Made(self.table.filter(pc.equal(self.table["arm"], arm)), self.scale, self.seconds)


def stored_bytes(table: pa.Table, **written: Any) -> int:
    """Bytes of a table as Parquet."""
    sink = pa.BufferOutputStream()
    rows.write(table, sink, **written)
    return sink.getvalue().size


def stream_bytes(table: pa.Table, resources: config.Resources, n_left_out: int, **written: Any) -> int:
    """The same of what a stream of notes writes: a file for each block, or without Ray a group for each table read.

    `n_left_out`: notes that are held out or not sampled; of them, the id is stored and why.
    """
    left_out = [{"note_id": f"left-out-{n}", "error": Code.NOT_SAMPLED.value} for n in range(n_left_out)]
    table = pa.concat_tables([table, rows.table(left_out, table.schema)]).combine_chunks()
    if not resources.ray:
        return stored_bytes(table, row_group_size=min(TEXT_ROWS, resources.rows_per_block), **written)
    blocks = range(0, len(table), resources.rows_per_block)
    return sum(stored_bytes(table.slice(first, resources.rows_per_block), **written) for first in blocks)


class Material:
    """The sample as the stages of a run make it. Each is made once."""

    def __init__(self, run: Run, sample: Sample, model: Model) -> None:
        self.run, self.sample, self.model = run, sample, model
        self.tasks = sample.corpus.tasks
        self.encoder: PromptEncoder = model.encoder(run.settings, self.tasks)
        per_note = run.settings.attribution.tasks_per_note or len(self.tasks)
        self.to_mask: Drawn = sample.to_learn_from.first(max(FEWEST_MASKED, PLANS // per_note))
        self._made: dict[Any, Any] = {}

    @cached_property
    def shape(self) -> Shape:
        """Sizes of the model."""
        return Shape.of(self.model.on_meta())

    @property
    def depth(self) -> int:
        """Decoder blocks."""
        return int(self.model.architecture.num_hidden_layers)

    def layers(self, attribution: config.Attribution) -> tuple[int, ...]:
        """Layers whose relevance is stored."""
        return stored_layers(attribution, self.depth)

    def to_attribute(self, settings: config.Config) -> list[EncodedNote]:
        """The sample's notes to learn from, with the tasks that each is attributed for."""
        key = "encoded", settings.attribution.tasks_per_note, settings.seed
        if key not in self._made:
            self._made[key] = self._with_tasks(settings)
        encoded: list[EncodedNote] = self._made[key]
        return encoded

    def _with_tasks(self, settings: config.Config) -> list[EncodedNote]:
        n, seed = settings.attribution.tasks_per_note, settings.seed
        ids = [task.id for task in self.tasks]
        return [
            encoded
            for note in self.sample.to_learn_from.notes
            if (encoded := self.encoded(note, tasks_of(note["note_id"], ids, n, seed))) is not None
        ]

    def with_all_tasks(self) -> list[EncodedNote]:
        """Those of them that are masked, with every task."""
        ids = [task.id for task in self.tasks]
        notes = self.to_mask.notes
        return [encoded for note in notes if (encoded := self.encoded(note, ids)) is not None]

    def labelled(self, split: str) -> Iterator[tuple[EncodedNote, dict[str, str]]]:
        """Labelled notes of a split, and their labels by task."""
        for note in self.sample.labelled[split].notes:
            labels = self.sample.labels[split, note["note_id"]]
            if (encoded := self.encoded(note, sorted(labels))) is not None:
                yield encoded, labels

    def encoded(self, note: dict[str, Any], tasks: Sequence[str]) -> EncodedNote | None:
        """A note with its questions; None if it becomes a dead letter."""
        try:
            return self.encoder.encode(note["note_id"], note["text"], tasks)
        except RowError:
            return None

    def masked(self, run: Run) -> Made:
        """Notes with plans, as rows.MASKED."""
        return self._once(("masked", run.folder), lambda: self._masked(run.settings))

    def masked_rows(self, run: Run) -> Made:
        """Training rows of all masked arms, as RENDERED."""
        return self._once(("rows", run.folder), lambda: self._rendered(run))

    def labelled_rows(self, split: str = "train") -> Made:
        """Fine-tuning rows of a split, as STORED."""
        return self._once(("labelled", split), lambda: self._labelled(split))

    def pretraining_rows(self, pretrain: config.Pretrain) -> Made:
        """Rows of plain text, as STORED."""
        return self._once("pretraining", lambda: self._cut(pretrain))

    def pseudo_rows(self, arm: str) -> Made:
        """Rows of an arm that learns the scorer's answers, were it sure of them all."""
        return self._once(("pseudo", arm), lambda: self._taught(arm))

    def streamed_bytes(self, table: pa.Table, **written: Any) -> float:
        """On disk, in all, of a stream whose sample is `table`."""
        learn = self.to_mask
        n_left_out = round((self.sample.n_notes - learn.n_all) / max(1.0, learn.scale))
        return stream_bytes(table, self.run.settings.resources, min(n_left_out, MOST_LEFT_OUT), **written) * learn.scale

    def _once(self, key: Any, make: Any) -> Made:
        if key not in self._made:
            began = time.perf_counter()
            table, drawn = make()
            self._made[key] = Made(table, drawn.scale, time.perf_counter() - began)
        made: Made = self._made[key]
        return made

    def _masked(self, settings: config.Config) -> tuple[pa.Table, Drawn]:
        arms, is_ranked = masking_of(settings), RELEVANCE in needs(masking_of(settings))
        layers = self.layers(settings.attribution)
        out = []
        for note in self.to_mask.notes:
            row = {key: note.get(key) for key in ("note_id", "text", "tags")}
            out.append(row | (self._relevance(note, settings, layers) if is_ranked else {}))
        mask = Mask({arm: _without_counts(masking) for arm, masking in arms.items()}, settings.seed, None, layers[0])
        return mask(rows.table(out, WITH_TEXT)), self.to_mask

    def _relevance(self, note: dict[str, Any], settings: config.Config, layers: tuple[int, ...]) -> dict[str, Any]:
        """Columns of rows.ATTRIBUTED with random relevance: a few words and their neighbours stand out."""
        ids = tasks_of(
            note["note_id"], [task.id for task in self.tasks], settings.attribution.tasks_per_note, settings.seed
        )
        encoded = self.encoded(note, ids)
        if encoded is None:
            return {"error": Code.NO_ROOM.value}
        words = word_spans(note["text"])
        rng = generator("plan", note["note_id"])
        draws = rng.lognormal(size=(len(ids), len(layers), len(words) + 1)).astype(np.float32)
        relevance = draws[..., 1:] + draws[..., :-1] / 2
        first, last = encoded.offsets_N2[0, 0], encoded.offsets_N2[-1, 1]
        relevance *= (words[:, 1] > first) & (words[:, 0] < last)
        relevance /= relevance.max(axis=-1, keepdims=True, initial=1e-9)
        options = {task.id: task.options for task in self.tasks}
        return {
            "task_id": ids,
            "predicted": [options[task_id][0] for task_id in ids],
            "margin": rng.random(len(ids)),
            "word_start": words[:, 0],
            "word_end": words[:, 1],
            "layers": list(layers),
            "relevance": relevance.astype(np.float16).ravel(),
            "n_tokens": len(encoded.offsets_N2),
            "n_cut_tokens": encoded.n_cut_tokens,
        }

    def _rendered(self, run: Run) -> tuple[pa.Table, Drawn]:
        settings, sentinels = run.settings, FAMILIES[self.model.family].sentinels
        renderers = {
            arm: Renderer(self.encoder, masking, settings.prompt.max_tokens, sentinels, settings.train.lora is None)
            for arm, masking in masking_of(settings).items()
        }
        notes = self.masked(run).table.select(["note_id", "text", "plans"]).to_pylist()
        out = [row for n in notes for p in n["plans"] or [] for row in rows_of(renderers[p["arm"]], n, p)]
        return rows.table(out, RENDERED), self.to_mask

    def _labelled(self, split: str) -> tuple[pa.Table, Drawn]:
        options = {task.id: task.options for task in self.tasks}
        out = []
        for note, labels in self.labelled(split):
            answers = {task_id: options[task_id].index(label) for task_id, label in labels.items()}
            out += self._supervised(LABELS, note, answers)
        return rows.table(out, STORED), self.sample.labelled[split]

    def _taught(self, arm: str) -> tuple[pa.Table, Drawn]:
        answers = {task.id: 0 for task in self.tasks}
        out = [row for note in self.with_all_tasks() for row in self._supervised(arm, note, answers)]
        return rows.table(out, STORED), self.to_mask

    def _supervised(self, arm: str, note: EncodedNote, answers: dict[str, int]) -> list[dict[str, Any]]:
        learned = supervised.training_rows(note, answers, self.encoder.eos_id)
        return [{"arm": arm, "key": f"{note.note_id}\t{part}", "draw": 0, **row} for part, row in enumerate(learned)]

    def _cut(self, pretrain: config.Pretrain) -> tuple[pa.Table, Drawn]:
        assert self.model.tokenizer_section is not None  # noqa: S101 (a model from scratch has its tokenizer)
        drawn = self.sample.pretraining
        made = Cut(self.model.tokenizer_section, pretrain)(rows.table(drawn.notes, rows.NOTES))
        return made.filter(made["arm"].is_valid()), drawn  # less the receipts: a few bytes a note


def _without_counts(masking: config.Masking) -> config.Masking:
    """The same masking, or random words in its place if the strategy needs counts of the corpus."""
    if STRATEGIES[masking.strategy].needs(masking) <= {RELEVANCE} and STRATEGIES[masking.strategy].prepare is None:
        return masking
    ratio = masking.mslm.p_base if masking.strategy == "mslm" else masking.ratio
    read = {"match_ratio_to", "draws", "seed", "max_span_words", "max_spans", "format", "condition", "instruction"}
    same = {key: getattr(masking, key) for key in {*read, "sentinels", "prompt_loss"}}
    return config.Masking(strategy="random_word", **same, **({} if masking.match_ratio_to else {"ratio": ratio}))
