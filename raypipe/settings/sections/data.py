"""Notes, labels and tasks: where they come from, what their columns are called, how they are split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raypipe.settings.sections.values import Fraction, Location, Pattern, Section

Placeholder = Annotated[str, Field(pattern=r"^\S*[^\W_]\S*$")]  # one token that is a word


class Columns(Section):
    """What the columns of the notes file are called."""

    note_id: str = "note_id"
    """Column with the identifier of each note."""
    text: str = "text"
    """Column with the text of each note."""
    group_id: str | None = None
    """Column with what ties notes together (patient, ingredient, ...). No group is used for self-supervision and
    tested, too."""
    tags: str | None = None
    """Column with BIO tags, one per whitespace token: read by `mslm.terms: ner`, or in place of `spans`."""
    spans: str | None = None
    """Column with annotators' spans, for tasks that say with `spans:` which of them decide the answer."""


class LabelColumns(Section):
    """What the columns of the labels table are called. The table has a row per task and note, or is wide: a row per
    note and a column per task, as hospitals export them."""

    note_id: str = "note_id"
    """Column with the note's identifier."""
    task_id: str | None = "task_id"
    """Column that says which task a row answers. None: the table is wide. A task's column is called as the task, or as
    `tasks` says; an empty cell is no label."""
    label: str = "label"
    """Column with the label; not read in a wide table."""
    split: str | None = "split"
    """Column with train, dev or test. None: there is none, and the notes are split as `data.split` says."""
    tasks: dict[str, str] = {}
    """In a wide table: task id -> the name of its column."""

    @model_validator(mode="after")
    def _wide_only(self) -> LabelColumns:
        if self.tasks and self.task_id is not None:
            raise ValueError("`tasks` names the columns of a wide table: set `task_id: null`, or remove `tasks`")
        return self


class Splitting(Section):
    """The split of labelled notes that come without one (`label_columns.split: null`): by group (patient), so that no
    group is in two splits; as far as groups allow, each split has its share of every label (notes/split.py)."""

    dev: Fraction = 0.15
    """Share of the labelled notes that tune and calibrate."""
    test: Fraction = 0.25
    """Share of the labelled notes that are scored. The rest is for training."""
    seed: int = 0
    """Another seed is another split."""

    @model_validator(mode="after")
    def _leaves_training(self) -> Splitting:
        if self.dev + self.test >= 1:
            raise ValueError("dev and test leave nothing to train on: together they must be less than 1")
        return self


class Synthetic(Section):
    """The generated emergency notes of the demo (notes/synthetic.py)."""

    seed: int = 0
    """Seed of the generator: the same section gives the same notes, byte for byte."""
    n_labelled: int = Field(300, ge=8)
    """Number of labelled training notes."""
    n_unlabelled: int = Field(1000, ge=1)
    """Number of notes without labels."""
    n_dev: int = Field(200, ge=8)
    """Number of labelled dev notes."""
    n_test: int = Field(400, ge=8)
    """Number of labelled test notes."""
    n_pretraining: int = Field(4000, ge=1)
    """Number of notes that only `pretrain` reads."""
    difficulty: Fraction = 0.0
    """Adds negated and historical mentions, boilerplate, longer lists, and forms that no label shows."""
    modifiers: Fraction = 0.3
    """Share of the mentions with a modifier, which ties the forms of a finding to each other."""
    local_share: Fraction = 0.3
    """Share of the mentions of a task's finding that use a form of the hospital's own."""
    unseen: Fraction | None = None
    """Share of the tasks with a form that no label shows. None: `difficulty` decides."""


class Data(Section):
    """Where notes, labels and tasks come from. Paths are local, or URIs with a scheme of file, s3, gs, abfs, abfss or
    hdfs; `${VARS}` are expanded."""

    source: Literal["files", "synthetic"] = "files"
    """`files`: the paths below. `synthetic`: the generated notes of the section `synthetic`."""
    notes: Location | None = None
    """Notes as .parquet, .jsonl or .csv: a file, a folder or a glob."""
    labels: Location | None = None
    """Labels: a table with the columns task_id, note_id, label and split; other names and a wide table: see
    `label_columns`. It may be the file of the notes."""
    tasks: Location | None = None
    """Tasks: a YAML file, or a table with one task per row (notes/tasks.py)."""
    pretraining: Location | None = None
    """Notes for `pretrain`. None: the notes outside dev and test."""
    pretraining_share: float = Field(0.0, ge=0, lt=1)
    """Share of the notes (of the groups, if `columns.group_id` names them) that only `pretrain` reads. Neither training
    labels nor unlabelled notes come from it, so that the backbone has not seen what a comparison learns from."""
    columns: Columns = Columns()
    label_columns: LabelColumns = LabelColumns()
    split: Splitting = Splitting()
    synthetic: Synthetic = Synthetic()
    task_ids: tuple[str, ...] | None = None
    """The tasks to use. None: all."""
    max_unlabelled: int | None = Field(None, ge=1)
    """Most notes for self-supervision, the first by hashed id. None: all."""
    max_labelled: int | None = Field(None, ge=1)
    """Most training labels per task, the first by hashed id, so that smaller subsets lie within larger ones.
    None: all."""
    max_dev: int | None = Field(None, ge=1)
    """Most dev labels per task, the first by hashed id. None: all."""
    max_test: int | None = Field(None, ge=1)
    """Most test labels per task, the first by hashed id. None: all."""
    label_seed: int = 0
    """Internal: `raypipe compare` sets it for each of its seeds. Another order of the training labels, and so another
    subset under `max_labelled`."""
    transductive: bool = False
    """Whether notes of dev and test groups may be used for self-supervision (without their labels)."""
    placeholders: dict[str, Placeholder] = {}
    """What is replaced in every note before anything else reads it, and by what: `{date: "[DATA]", phone: "[TEL]"}`.
    Kinds are those that `check` looks for (tax_code, email, date, phone, name), those of `identifiers`, and the types
    of annotated spans (`columns.spans`; they move with the text). Empty: nothing."""
    identifiers: dict[str, Pattern] = {}
    """Regular expressions of further kinds for `placeholders`, such as a hospital's own record numbers; one for a kind
    that `check` looks for is looked for beside ours. A note on which one takes longer than 5 seconds becomes a dead
    letter."""
    on_duplicate_id: Literal["error", "keep_first"] = "error"
    """What to do with a note id that occurs twice."""
    max_chars: int = Field(200_000, ge=1)
    """Longest note, in characters. Longer ones become dead letters."""
    max_error_rate: Fraction = 0.05
    """Largest share of notes that may become dead letters before a step ends with an error."""

    @property
    def for_pretraining(self) -> Data:
        """This section as it reads the pretraining corpus: ids and text by the same names, no groups (its files may
        lack them: notes/reading.py looks), no limits. Annotated spans are read where placeholders stand for them."""
        if self.pretraining is None:
            return self
        spans = self.columns.spans if self.placeholders else None
        columns = self.columns.model_copy(update={"group_id": None, "tags": None, "spans": spans})
        return self.model_copy(update={"notes": self.pretraining, "columns": columns, "max_unlabelled": None})
