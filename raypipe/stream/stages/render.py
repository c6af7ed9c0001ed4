"""Masked examples of all arms as tokens of one student (training/examples.py `STORED`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds

from raypipe import rows
from raypipe.errors import RowError
from raypipe.guard.quiet import quiet
from raypipe.masking import Renderer
from raypipe.masking.tally import Tally
from raypipe.models import loading
from raypipe.models.prompts import PromptEncoder
from raypipe.notes.tasks import Task
from raypipe.settings import config
from raypipe.training.examples import STORED, receipt

_SUMS = [("plans", "count"), *((name, "sum") for name in ("plans", "n_spans", "n_cut_tokens", "tokens"))]
# What training reads, and how much of the note an example hides or does not show
RENDERED = pa.schema([*STORED, ("n_spans", pa.int16()), ("n_cut_tokens", pa.int32())])


@quiet
class Render:
    """Notes with plans in; out one training row or several for each plan, and a receipt for each note."""

    def __init__(
        self,
        model: config.Model,
        prompt: config.Prompt,
        arms: Mapping[str, config.Masking],
        tasks: Sequence[Task],
        of_family: Sequence[str],
        rows_train: bool,
        kind_weights: Mapping[str, Sequence[float]],
    ) -> None:
        encoder = PromptEncoder(loading.load_tokenizer(model), prompt, tasks, model.chat)
        self.renderers = {
            arm: Renderer(encoder, masking, prompt.max_tokens, of_family, rows_train, kind_weights[arm])
            for arm, masking in arms.items()
        }

    def __call__(self, table: pa.Table) -> pa.Table:
        notes = table.to_pylist()
        made = [row for n in notes for p in n["plans"] or [] for row in rows_of(self.renderers[p["arm"]], n, p)]
        return rows.table([*made, *(receipt(n["note_id"]) for n in notes)], RENDERED)


def rows_of(renderer: Renderer, note: Mapping[str, Any], plan: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One plan of a note as rows of RENDERED."""
    try:
        examples = renderer.examples(note["text"], plan)
    except RowError:  # no room; `counts` tells how many plans became no row
        return
    key = f"{note['note_id']}\t{plan['task_id']}\t{plan['draw']}"
    for part, example in enumerate(examples):
        counts = {"n_spans": example.n_spans, "n_cut_tokens": example.n_cut_tokens}
        yield {"arm": plan["arm"], "key": f"{key}\t{part}", "draw": plan["draw"], **example.row(), **counts}


def counts(rendered: Path, planned: Mapping[str, Tally]) -> dict[str, dict[str, int]]:
    """By arm: rows and their tokens, plans and spans without a row (they did not fit the context), tokens left out."""
    sums_of: Counter[tuple[str, str]] = Counter()
    columns = {name: pds.field(name) for name in ("arm", "n_spans", "n_cut_tokens")}
    first = {"plans": pc.ends_with(pds.field("key"), "\t0").cast("int64")}  # the first row of each plan
    length = {"tokens": pc.list_value_length(pds.field("input_ids")).cast("int64")}
    of_arms = pds.field("arm").is_valid()
    for batch in rows.dataset(rendered).to_batches(columns=columns | first | length, filter=of_arms):
        per_arm = pa.Table.from_batches([batch]).group_by("arm").aggregate(_SUMS)
        for row in per_arm.to_pylist():
            sums_of.update({(row["arm"], name): value for name, value in row.items() if name != "arm"})
    return {
        arm: {
            "rows": sums_of[arm, "plans_count"],
            "plans_without_rows": tally.plans - sums_of[arm, "plans_sum"],
            "dropped_spans": tally.spans - sums_of[arm, "n_spans_sum"],
            "tokens": sums_of[arm, "tokens_sum"],
            "cut_tokens": sums_of[arm, "n_cut_tokens_sum"],
        }
        for arm, tally in planned.items()
    }
