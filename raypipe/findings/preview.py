"""What the model will read: prompt, question, answers and a masked example, as text and as tokens.

    raypipe preview --config FILE [--task T] [--note ID]

The note is made up, unless the user names one of their own. Makes nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from raypipe.errors import InputError, Problem, RowError
from raypipe.guard.terminal import printable
from raypipe.masking.masker import Masker
from raypipe.masking.rendering import Renderer
from raypipe.models import loading
from raypipe.models.prompts import MASK, PromptEncoder, with_mark
from raypipe.notes import synthetic
from raypipe.notes.files import iter_notes
from raypipe.notes.tasks import Task, load_tasks
from raypipe.runs.run import Run
from raypipe.settings.arms import masking_of
from raypipe.settings.config import Config, Masking
from raypipe.words import word_spans

SHOWN = 150  # tokens of a line; the others are counted
MADE_UP = "made-up"
DRAWN = ("ratio", "stop_words", "max_span_words", "phi_patterns")  # what of an arm decides which words may be hidden


@dataclass(frozen=True)
class Shown:
    """A note to show."""

    id: str
    text: str
    says: str  # whose it is


def preview(run: Run, task_id: str | None = None, note_id: str | None = None) -> str:
    """The page for one task and one note. Raises `InputError` if either is not there, or the model cannot be read."""
    task, note = _task(run.settings, task_id), _note(run.settings, note_id)
    lines = [note.says, f"task {task.id} ({task.kind})", ""]
    if run.pretrains and not run.is_done("pretrain/rows"):
        lines += [_plain(run.settings, task, note), "", "tokens: once `raypipe pretrain` has made the tokenizer"]
        return "\n".join(lines)
    encoder = _encoder(run, task)
    try:
        lines += _read(encoder, task, note)
    except RowError as error:
        raise InputError([Problem("prompt.max_tokens", f"leaves no room for this note ({error})")]) from None
    return "\n".join([*lines, *_masked(run, encoder, task, note)])


def _encoder(run: Run, task: Task) -> PromptEncoder:
    """The prompt of the run with its mark."""
    sentinels = run.sentinels  # refuses a model that cannot be read
    try:
        tokenizer = loading.load_tokenizer(run.tokenizer)
        prompt = with_mark(run.settings.prompt, tokenizer, sentinels, run.settings.train.lora is None)
        return PromptEncoder(tokenizer, prompt, [task], run.settings.model.chat)
    except (OSError, ValueError) as error:
        raise InputError([Problem("model.path", f"its tokenizer cannot be used ({type(error).__name__})")]) from None


def _task(settings: Config, task_id: str | None) -> Task:
    data = settings.data
    if data.source == "synthetic":
        made = synthetic.generate(n_labelled=0, n_unlabelled=0, n_dev=0, n_test=0, n_pretraining=0).tasks
        tasks = [
            Task(one["id"], one["kind"], one["question"], tuple(one["options"]), tuple(one["options"])) for one in made
        ]
    elif data.tasks is None:
        raise InputError([Problem("data.tasks", "is not set")])
    else:
        tasks = load_tasks(data.tasks, data.task_ids)
    chosen = [task for task in tasks if task_id in (None, task.id)]
    if not chosen:
        raise InputError([Problem("--task", f"no task {task_id}; there are {', '.join(t.id for t in tasks[:20])}")])
    return chosen[0]


def _note(settings: Config, note_id: str | None) -> Shown:
    if note_id is None:
        made = synthetic.generate(n_labelled=0, n_unlabelled=1, n_dev=0, n_test=0, n_pretraining=0)
        return Shown(MADE_UP, made.notes["text"][0].as_py(), "a made-up note (one of your own: --note ID)")
    if settings.data.source == "synthetic":
        raise InputError([Problem("--note", "the notes are generated when the run starts; leave it out")])
    for table in iter_notes(settings.data, ["note_id", "text", "error"]):
        for note in table.filter(pc.equal(table["note_id"], note_id)).to_pylist():
            if note["text"] is None:
                raise InputError([Problem("--note", f"note {note_id} cannot be used: {note['error']}")])
            return Shown(note_id, note["text"], f"note {note_id}: its text is shown, because you named it")
    raise InputError([Problem("--note", f"no note {note_id} in data.notes")])


def _plain(settings: Config, task: Task, note: Shown) -> str:
    """The prompt without a tokenizer: plain text, no chat template."""
    prompt = settings.prompt
    question = prompt.question.replace("{question}", task.question).replace("{options}", ", ".join(task.answers))
    head = f"{prompt.instruction}\n" if prompt.instruction else ""
    answers = " | ".join(prompt.answer_prefix + answer for answer in task.answers)
    return printable(f"{head}{note.text}{question.replace(MASK, '<mask_1>')}[{answers}]")


def _read(encoder: PromptEncoder, task: Task, note: Shown) -> Iterator[str]:
    """What scorer and students read to answer the task."""
    encoded, tokenizer = encoder.encode(note.id, note.text, [task.id]), encoder.tokenizer
    (question,) = encoded.questions
    parts = {
        "before the note": encoded.prefix_ids[: encoded.note_start],
        "note": encoded.prefix_ids[encoded.note_start :],
        "question": question.suffix_ids,
    }
    yield "--- as text, up to the answer"
    yield _text(tokenizer, [*encoded.prefix_ids, *question.suffix_ids])
    yield ""
    yield "--- as tokens"
    for name, ids in parts.items():
        yield f"{name} ({len(ids)}): {_tokens(tokenizer, ids)}"
    for option, answer, ids in zip(task.options, task.answers, question.option_ids, strict=True):
        yield f"answer for label {option!r}, {answer!r} ({len(ids)}): {_tokens(tokenizer, ids)}"
    total = len(encoded.prefix_ids) + len(question.suffix_ids) + max(map(len, question.option_ids)) + 1
    cut = f"; {encoded.n_cut_tokens} tokens of the note are cut" if encoded.n_cut_tokens else ""
    yield f"{total} of {encoder.prompt.max_tokens} tokens{cut}"


def _masked(run: Run, encoder: PromptEncoder, task: Task, note: Shown) -> Iterator[str]:
    """The first masked example of the first arm that hides words of its own choice."""
    arms = {arm: one for arm, one in masking_of(run.settings).items() if one.match_ratio_to is None}
    if not arms:
        return
    name, arm = next(iter(arms.items()))
    drawn = Masking(strategy="random_word", **{key: getattr(arm, key) for key in DRAWN})
    renderer = Renderer(
        encoder,
        arm.model_copy(update={"strategy": drawn.strategy}),
        encoder.prompt.max_tokens,
        run.sentinels,
        rows_train=run.settings.train.lora is None,
    )
    try:
        plans = Masker({name: drawn}, run.settings.seed)
        (plan, *_) = plans.plans(note.id, note.text, word_spans(note.text), [task.id], None)
        examples = renderer.examples(note.text, plan)
    except RowError:
        examples = []
    yield ""
    yield f"--- a masked example of the arm {name}; words are drawn at random here, in the run by {arm.strategy}"
    if not examples:
        yield "nothing can be hidden in this note"
        return
    ids, weights = examples[0].input_ids, examples[0].loss_weight
    learned = [id for id, weight in zip(ids, weights, strict=True) if weight > 0]
    yield _text(encoder.tokenizer, ids)
    yield f"{len(ids)} tokens, of which {len(learned)} are learned: {_tokens(encoder.tokenizer, learned)}"


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return printable(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _tokens(tokenizer: Any, ids: Sequence[int]) -> str:
    """Tokens between bars, line breaks visible."""
    one_by_one = [printable(tokenizer.decode([id])).replace("\n", "⏎") for id in ids[:SHOWN]]
    more = f" ... and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return "|".join(one_by_one) + more
