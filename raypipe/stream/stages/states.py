"""Hidden states of one model for labelled notes and the questions that they have labels for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.guard.quiet import quiet
from raypipe.models.prompts import EncodedNote, PromptEncoder
from raypipe.notes.tasks import Task
from raypipe.settings import config


@quiet
class States:
    """Notes in, one row of rows.states out for each note with a label in `splits`; of no task if it does not fit.

    For a fine-tuned student these are the states from which it answers.
    """

    def __init__(
        self,
        model: config.Model,
        prompt: config.Prompt,
        tasks: Sequence[Task],
        labels: str,
        splits: Sequence[str],
        probe: config.Probe,
    ) -> None:
        from raypipe.evaluation.hidden_states import layers_at
        from raypipe.models import loading

        self.loaded = loading.load(model)
        self.encoder = PromptEncoder(self.loaded.tokenizer, prompt, tasks, model.chat)
        self.layers = layers_at(probe.layers, self.loaded.model.config.num_hidden_layers)
        self.batch_tokens = probe.batch_tokens
        self.tasks_of: dict[str, list[str]] = defaultdict(list)
        for label in rows.read(labels, filters=pc.field("split").isin(list(splits))).to_pylist():
            self.tasks_of[label["note_id"]].append(label["task_id"])

    def __call__(self, table: pa.Table) -> pa.Table:
        from raypipe.evaluation.hidden_states import note_states

        notes = [note for note in table.to_pylist() if note["note_id"] in self.tasks_of]
        tried = [self.encoder.encode_row(note, sorted(self.tasks_of[note["note_id"]])) for note in notes]
        encoded = [note for note in tried if isinstance(note, EncodedNote)]
        of_notes = iter(note_states(self.loaded, encoded, self.layers, self.batch_tokens))
        out = []
        for note, result in zip(notes, tried, strict=True):
            row: dict[str, Any] = {"note_id": note["note_id"], "task_id": []}
            if isinstance(result, EncodedNote):
                states, row["task_id"] = next(of_notes), [q.task_id for q in result.questions]
                for k, layer in enumerate(self.layers):
                    row |= {f"mean_{layer}": states.mean_KD[k], f"last_{layer}": states.last_QKD[:, k].ravel()}
            out.append(row)
        return rows.table(out, rows.states(self.layers))
