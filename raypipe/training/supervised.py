"""Fine-tuning rows: a note as the trunk, every labelled question a branch that ends in the right answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from raypipe.models.prompts import EncodedNote, question_groups
from raypipe.models.tree import TokenTree


def training_rows(note: EncodedNote, answer: Mapping[str, int], eos_id: int | None) -> Iterator[dict[str, Any]]:
    """Rows of rows.TRAINING. `answer` maps task_id to the index of the right option; loss on the answer and its end."""
    questions = [question for question in note.questions if question.task_id in answer]
    end = () if eos_id is None else (eos_id,)
    for _, group in question_groups(questions):
        tree, weight = TokenTree.of_trunk(note.prefix_ids), [0.0] * len(note.prefix_ids)
        for question in group:
            target = (*question.option_ids[answer[question.task_id]], *end)
            tree.add_branch([*question.suffix_ids, *target])
            weight += [0.0] * len(question.suffix_ids) + [1.0] * len(target)
        yield {"input_ids": tree.ids, "loss_weight": weight, "branch": tree.branch}
