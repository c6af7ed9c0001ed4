"""Masked examples of all arms as tokens of one student (training/examples.py `STORED`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from raypipe import config, rows
from raypipe.masking.rendering import Renderer
from raypipe.models import loading
from raypipe.prompts import PromptEncoder
from raypipe.tasks import Task
from raypipe.training.examples import STORED


class Render:
    """Notes with plans in, training rows out: one or several for each plan."""

    def __init__(
        self, model: config.Model, prompt: config.Prompt, arms: Mapping[str, config.Masking], tasks: Sequence[Task]
    ) -> None:
        encoder = PromptEncoder(loading.load_tokenizer(model), prompt, tasks, use_chat=model.chat == "auto")
        self.renderers = {arm: Renderer(encoder, masking, prompt.max_tokens) for arm, masking in arms.items()}

    def __call__(self, table: pa.Table) -> pa.Table:
        out: list[dict[str, Any]] = []
        for note in table.to_pylist():
            for plan in note["plans"] or []:
                examples = self.renderers[plan["arm"]].examples(note["text"], plan)
                key = f"{note['note_id']}\t{plan['task_id']}\t{plan['draw']}"
                out += [
                    {"arm": plan["arm"], "key": f"{key}\t{i}", "draw": plan["draw"], **example}
                    for i, example in enumerate(examples)
                ]
        return rows.table(out, STORED)
