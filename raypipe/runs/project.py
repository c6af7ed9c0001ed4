"""`raypipe init`: a runnable project around a user's own table. Looks at the columns, proposes, and writes files.

What was taken for what is printed with its reason, and any of it can be named instead. No text and no label is printed;
the labels themselves go into the tasks file, which is the user's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from raypipe.errors import InputError, Problem
from raypipe.notes import columns as table
from raypipe.notes import copies, drafts, storage
from raypipe.notes.columns import Column
from raypipe.notes.drafts import Draft
from raypipe.settings.config import LabelColumns, Model, Splitting
from raypipe.settings.reference import schema_text

CONFIG, TASKS, SCHEMA = "raypipe.yaml", "tasks.yaml", "raypipe.schema.json"
NOTES, LABELS = "notes.csv", "labels.csv"  # copies, where the user's own tables cannot be read as they are
SMALL = 20_000  # notes up to which one process is quick enough
CONTEXT = 512  # tokens of the small model from scratch
MAX_TOKENS = 1024


@dataclass(frozen=True)
class Named:
    """What the user says of the tables; None: find out."""

    id: str | None = None
    text: str | None = None
    group: str | None = None
    split: str | None = None
    labels: tuple[str, ...] = ()  # columns of a wide table
    labels_id: str | None = None  # the note's id in a labels table of its own
    task_column: str | None = None  # of a table with a row per task and note
    label_column: str | None = None
    answers: tuple[str, str] = ("yes", "no")


@dataclass
class Proposal:
    """What the tables were taken for, and what to say about it."""

    notes: str
    labels: str
    id: str
    text: str
    group: str | None
    label_columns: LabelColumns
    tasks: list[Draft]
    n_notes: int
    said: list[tuple[str, str, str]] = field(default_factory=list)  # what, column, why

    def __str__(self) -> str:
        width = max(len(column) for _, column, _ in self.said)
        return "\n".join(f"  {what:9}  {column:{width}}  {why}".rstrip() for what, column, why in self.said)


@contextmanager
def copied(
    folder: Path, notes: str, labels: str | None, encoding: str | None, is_numbered: bool
) -> Iterator[tuple[str, str | None]]:
    """The tables, or copies of them in the project's folder. If the block fails, no copy stays.

    `encoding`: of the tables, where it is not UTF-8. `is_numbered`: the notes get a column with numbers as their ids.
    """
    is_one = labels is None or labels == notes
    if is_numbered and not is_one:
        raise InputError([Problem("--number-rows", "labels of a table of their own need the ids of the notes")])
    if encoding is None and not is_numbered:
        yield notes, labels
        return
    made = [folder / name for name in (NOTES, LABELS)][: 1 if is_one else 2]
    _refuse_old(folder / CONFIG, folder / TASKS, *made)  # a copy might be the very table that it is made of
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        copies.write(notes, "--notes", made[0], encoding, is_numbered)
        if labels is not None and not is_one:
            copies.write(labels, "--labels", made[1], encoding, False)
        yield str(made[0]), None if is_one else str(made[1])
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise


def propose(notes: str, labels: str | None, named: Named) -> Proposal:
    """Look at the tables. Raises `InputError` with the option that says what could not be found out."""
    columns = table.look(notes, "--notes")
    said: list[tuple[str, str, str]] = []

    def taken(what: str, name: str | None, option: str, choice: tuple[Column | None, str] | None) -> Column | None:
        column, why = (table.named(columns, name, option), "named") if name else choice or (None, "")
        said.append((what, column.name if column else "-", why))
        return column

    problems = table.not_utf8(columns, "--notes")
    try:
        text = taken("text", named.text, "--text", None if named.text else table.text_of(columns))
        rest = [column for column in columns if column is not text]
        note_id = taken("note id", named.id, "--id", None if named.id else table.id_of(rest))
    except InputError as error:
        raise InputError([*problems, *error.problems]) from None
    if problems:
        raise InputError(problems)
    rest = [column for column in rest if column is not note_id]
    group = taken("patient", named.group, "--group", table.group_of(rest))
    rest = [column for column in rest if column is not group]
    assert text is not None  # noqa: S101 (named, or the best)
    assert note_id is not None  # noqa: S101 (named, or unique)
    out = Proposal(
        str(Path(notes).resolve()) if "://" not in notes else notes, "", note_id.name, text.name,
        group.name if group else None, LabelColumns(), [], note_id.n_rows, said,
    )  # fmt: skip
    if labels is None or labels == notes:
        out.labels = out.notes
        _wide(out, rest, named, note_id.name)
    else:
        out.labels = str(Path(labels).resolve()) if "://" not in labels else labels
        of_labels = table.look(labels, "--labels")
        if problems := table.not_utf8(of_labels, "--labels"):
            raise InputError(problems)
        _of_own_table(out, note_id, of_labels, named)
    if not out.tasks:
        what = f"no column looks like a label (2 to {table.MAX_OPTIONS} different short values); name it"
        raise InputError([Problem("--label", what)])
    return out


def _of_own_table(out: Proposal, notes: Column, columns: Sequence[Column], named: Named) -> None:
    """Labels in a table of their own: wide, or with a row per task and note."""
    if named.labels_id:
        note_id = table.named(columns, named.labels_id, "--labels-id")
    else:
        note_id = max(columns, key=lambda column: column.n_in_common(notes))
        if note_id.n_in_common(notes) * 2 < note_id.n_distinct:
            raise InputError([Problem("--labels-id", "no column of the labels holds ids of the notes: name it")])
    rest = [column for column in columns if column is not note_id]
    if note_id.is_unique and not named.task_column:
        _wide(out, rest, named, note_id.name)
    else:
        _long(out, rest, named, note_id.name)


def _wide(out: Proposal, rest: Sequence[Column], named: Named, note_id: str) -> None:
    """A row per note, a column per task."""
    split = _split(out, rest, named)
    rest = [column for column in rest if column is not split]
    chosen = [table.named(rest, name, "--label") for name in named.labels]
    for column in chosen or rest:
        options = sorted(column.values) if chosen and column.values else column.options
        if chosen and len(options) < 2:
            raise InputError([Problem("--label", f"{column.name!r} cannot be a label: {column.why_no_label}")])
        if not options:
            out.said.append(("left out", column.name, column.why_no_label))
            continue
        out.tasks.append(drafts.draft(column.name, options, column.n_filled, [task.id for task in out.tasks]))
        out.said.append(("label", column.name, _about(out.tasks[-1], column.n_rows)))
    out.label_columns = LabelColumns(
        note_id=note_id,
        task_id=None,
        split=split.name if split else None,
        tasks={task.id: task.column for task in out.tasks if task.id != task.column},
    )


def _long(out: Proposal, rest: Sequence[Column], named: Named, note_id: str) -> None:
    """A row per task and note."""
    split = _split(out, rest, named)
    short = sorted(
        (c for c in rest if c is not split and c.n_filled and c.longest <= table.MAX_ID), key=lambda c: c.n_distinct
    )
    label = table.named(rest, named.label_column, "--label-column") if named.label_column else None
    task = table.named(rest, named.task_column, "--task-column") if named.task_column else None
    free = [column for column in short if column not in (label, task)]
    unnamed = [column for column in (label, task) if column is None]
    if unnamed and len(free) != len(unnamed):
        what = "the labels have a row per task and note, but which column is the task, which the label? Name both"
        raise InputError([Problem("--task-column, --label-column", what)])
    label = label or free.pop(0)  # fewer answers than questions
    task = task or free.pop(0)
    counted = storage.read_strings(out.labels, [task.name, label.name], "--labels")
    n_unnamed = 0
    for one in drafts.of_long_table(counted):
        if not drafts.is_id(one.id):
            n_unnamed += 1
        elif len(one.options) < 2:
            out.said.append(("left out", one.id, "has one label"))
        else:
            out.tasks.append(one)
    if n_unnamed:  # not by their values: the column may hold anything
        why = f"{n_unnamed:,} of its values are no names of tasks (letters, digits, dots, dashes)"
        out.said.append(("left out", task.name, why))
    out.said += [("task", task.id, _about(task, task.n_rows)) for task in out.tasks]
    out.label_columns = LabelColumns(
        note_id=note_id, task_id=task.name, label=label.name, split=split.name if split else None
    )


def _split(out: Proposal, columns: Sequence[Column], named: Named) -> Column | None:
    """The column with the split; without one, raypipe makes it. Raises `InputError` for one in other words."""
    split = table.named(columns, named.split, "--split") if named.split else table.split_of(columns)
    if split is not None:
        out.said.append(("split", split.name, "named" if named.split else "holds train, dev, test"))
        return split
    if not (named.labels or named.label_column) and (other := table.like_a_split(columns)) is not None:
        what = f"{other.name!r} seems to hold the split: call its parts train, dev and test; or name the labels"
        raise InputError([Problem("--split", what)])
    default = Splitting()
    shares = f"{1 - default.dev - default.test:.0%} train, {default.dev:.0%} dev, {default.test:.0%} test"
    out.said.append(("split", "-", f"raypipe makes one{' by patient' if out.group else ''}: {shares}"))
    return None


def _about(task: Draft, n_rows: int) -> str:
    return f"task {task.id}: {len(task.options)} labels, {task.n_rows:,} of {n_rows:,} rows have one"


def write(folder: Path, proposal: Proposal, model: str | None, answers: tuple[str, str]) -> list[Path]:
    """Write config, tasks and the schema for editors. Raises `InputError` if there is a project already."""
    files = [folder / CONFIG, folder / TASKS, folder / SCHEMA]
    _refuse_old(folder / CONFIG, folder / TASKS)
    folder.mkdir(parents=True, exist_ok=True)
    texts = (_config(folder.resolve(), proposal, model), _tasks(proposal, answers), schema_text())
    for path, text in zip(files, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return files


def _refuse_old(*files: Path) -> None:
    if present := [path for path in files if path.exists()]:
        raise InputError([Problem(str(path), "is there already: nothing was written") for path in present])


def _tasks(proposal: Proposal, answers: tuple[str, str]) -> str:
    entries = "\n".join(task.entry(answers) for task in proposal.tasks)
    return f"""\
# One question per label, drafted by `raypipe init` from the names of the columns. Read each of them: ask what an expert
# would ask, in the language of the notes, and delete what is no question about the text (a ward, a year).
# Of two options the first is the positive one. `raypipe preview` shows what the model reads.
tasks:
{entries}
"""


def _config(folder: Path, proposal: Proposal, model: str | None) -> str:
    columns = {"note_id": proposal.id, "text": proposal.text, "group_id": proposal.group}
    labels = proposal.label_columns.model_dump(exclude_defaults=True)
    of_labels = "\n".join(f"    {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in labels.items())
    are_default = "" if labels else " {}"  # a key without a value would be null
    split = Splitting()
    made = (
        f"  split: {{dev: {split.dev}, test: {split.test}, seed: {split.seed}}} # of the labelled notes, by patient\n"
    )
    max_tokens = _max_tokens(model)
    ray = "false # one process; true for several GPUs or a cluster" if proposal.n_notes <= SMALL else "true"
    return f"""\
# yaml-language-server: $schema={SCHEMA}
# Written by `raypipe init`. Every key: docs/settings.md
#   raypipe check --config {folder / CONFIG}
#   raypipe run   --config {folder / CONFIG}
name: first
runs: {json.dumps(str(folder / "runs"), ensure_ascii=False)}

data:
  notes: {json.dumps(proposal.notes, ensure_ascii=False)}
  labels: {json.dumps(proposal.labels, ensure_ascii=False)}
  tasks: {json.dumps(str(folder / TASKS), ensure_ascii=False)}
  columns: # what the columns of the notes are called; group_id: the patient, whose notes are all in one split
{_lines(columns)}
  label_columns:{are_default} # task_id: null = a column per task; split: null = raypipe splits, as `split` says
{of_labels}
{made if proposal.label_columns.split is None else ""}
{_model(model, max_tokens)}
attribution: {{method: grad_x_activation, layer: 0}} # which words matter for a task
{_training(model)}
arms: # the lines of the result: labels alone, three controls, the method
  sft: {{}}
  random_init: {{start: random}} # no arm is called better unless the backbone beats random weights
  random_word: {{masking: {{strategy: random_word, match_ratio_to: decselfmask}}}}
  least_relevant: {{masking: {{strategy: least_relevant, match_ratio_to: decselfmask}}}}
  decselfmask: {{masking: {{strategy: relevance, ratio: 0.15}}}}

resources:
  ray: {ray}
"""


def _lines(values: dict[str, str | None]) -> str:
    return "\n".join(f"    {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())


def _model(model: str | None, max_tokens: int) -> str:
    if model is None:
        return f"""\
# A toy, trained from scratch on these notes, so that everything runs at once; its figures mean nothing. A real one:
# model: {{path: /models/Llama-3.2-1B-Instruct}}, no section `pretrain`, `lora: {{rank: 32, alpha: 64}}` for both
# trainings below, and `epochs: 8, batch_rows: 8` for `finetune`
model: {{path: pretrain}}
pretrain: {{hidden_size: 64, intermediate_size: 128, layers: 3, context: {CONTEXT}, training: {{max_steps: 200}}}}
prompt: {{question: "\\n{{question}} ({{options}})", max_tokens: {max_tokens}}} # of note and question
"""
    path = str(Path(model).resolve()) if Path(model).is_dir() else model  # a hub id stays one
    return f"""\
model:
  path: {json.dumps(path, ensure_ascii=False)}
  chat: bare # the chat template, if there is one, without a system text of its own
prompt: # in the language of the notes; `raypipe preview` shows what the model reads
  instruction: "Answer the question about the clinical note."
  question: "\\n\\n{{question}} ({{options}})"
  max_tokens: {max_tokens} # of note and question together; more are cut
"""


def _training(model: str | None) -> str:
    lora = "lora: {rank: 32, alpha: 64}"
    if model is None:
        return "train: {epochs: 1} # reconstruction of masked notes\nfinetune: {epochs: 3} # on labels\n"
    return f"""\
train: {{{lora}}} # reconstruction of masked notes
finetune: {{epochs: 8, batch_rows: 8, {lora}}} # on labels; with thousands of them fewer epochs will do
"""


def _max_tokens(model: str | None) -> int:
    """What the model can read, at most MAX_TOKENS."""
    if model is None:
        return CONTEXT
    from raypipe.models import families, loading

    try:
        context = families.context(loading.check(Model(path=model)))
    except InputError:  # `check` says so in a moment
        return MAX_TOKENS
    return min(MAX_TOKENS, context or MAX_TOKENS)
