"""The columns of a row after each step: the contract between stages. Read this file first.

Shape letters, one legend for the whole project: B rows, T tokens, W words, D width, L decoder blocks, K stored layers,
V vocabulary, C options of a task, Q tasks whose questions are put to one note.

One row in, one row out, at every stage: a row that cannot be processed keeps its id and gets an `error` code
(`errors.Code`), so that every note is accounted for. Every schema is explicit, because Arrow would guess two types for
a column that is all null in one block and text in another, and the two could not be read back together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
import pyarrow.parquet as pq

from raypipe.errors import InputError, Problem
from raypipe.words import F32, F64, I32, word_spans

# What every source of notes must yield. `group_id` is the patient (or whatever must not straddle a split).
NOTES = pa.schema(
    [
        ("note_id", pa.string()),
        ("group_id", pa.string()),  # null: the note is its own group
        ("text", pa.string()),  # NFC; every character offset in the project counts from here
        ("error", pa.string()),
    ]
)

LABELS = pa.schema(
    [
        ("task_id", pa.string()),
        ("note_id", pa.string()),
        ("label", pa.string()),  # one of the task's options
        ("split", pa.string()),  # train, dev or test
    ]
)

# After `attribute`: no note text. Relevance is [Q, K, W] flattened in C order (float16: half the bytes of float32,
# overlap of the top words >= 0.9995).
ATTRIBUTED = pa.schema(
    [
        ("note_id", pa.string()),
        ("task_id", pa.list_(pa.string())),  # [Q] tasks whose question the scorer answered
        ("predicted", pa.list_(pa.string())),  # [Q] the option the scorer prefers
        ("margin", pa.list_(pa.float32())),  # [Q] its mean log-probability less the runner-up's, nats
        ("word_start", pa.list_(pa.int32())),  # [W] character offsets into the note
        ("word_end", pa.list_(pa.int32())),  # [W]
        ("layers", pa.list_(pa.int16())),  # [K] 0 = embeddings, k = output of decoder block k
        ("relevance", pa.list_(pa.float16())),  # [Q*K*W] of the words that the scorer could see, 0 for the others
        ("n_tokens", pa.int32()),  # tokens of the note that the scorer saw
        ("n_cut_tokens", pa.int32()),  # tokens of the note that did not fit the context
        ("error", pa.string()),
    ]
)

# One masking plan: which characters an arm hides in this note. Tokenizer-neutral, so one plan serves several students.
PLAN = pa.struct(
    [
        ("arm", pa.string()),
        ("task_id", pa.string()),  # the task the plan was made for; null if the note has none
        ("draw", pa.int16()),  # 0.. : redrawn plans, one per epoch, of the strategies that sample
        ("start", pa.list_(pa.int32())),  # [S] character offsets into the note, sorted, disjoint
        ("end", pa.list_(pa.int32())),
        ("kind", pa.list_(pa.int8())),  # [S] 0 plain, 1 entity (a domain term), 2 base: see masking/weights.py
        ("n_masked", pa.int32()),  # eligible words hidden
        ("n_eligible", pa.int32()),
    ]
)

# After `mask`: what training needs of a note, and what the report needs to explain it.
MASKED = pa.schema(
    [
        ("note_id", pa.string()),
        ("text", pa.string()),
        ("plans", pa.list_(PLAN)),
        *[field for field in ATTRIBUTED if field.name not in ("note_id", "error")],
        ("error", pa.string()),
    ]
)

# How every table is written and read (pyarrow's options). Without checksums, a flipped bit may be read as other text.
WRITE: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
CHECKED: dict[str, Any] = {"page_checksum_verification": True}

# How ATTRIBUTED and MASKED are written. Offsets grow by a word at a time, so a difference takes one
# byte where the number takes four. A dictionary helps only where few values recur. zstd needs 3/5 of snappy's bytes.
_OFFSETS = ("word_start", "word_end", "plans.list.element.start", "plans.list.element.end")
_RECURRING = ("task_id.list.element", "predicted.list.element", "layers.list.element", "error")
PARQUET: dict[str, Any] = {
    **WRITE,
    "use_dictionary": [*_RECURRING, "plans.list.element.arm", "plans.list.element.task_id"],
    "column_encoding": {f"{name}.list.element": "DELTA_BINARY_PACKED" for name in _OFFSETS},
}

# After `answer`: the scorer's own answers.
ANSWERED = pa.schema(
    [
        ("note_id", pa.string()),
        ("text", pa.string()),
        ("task_id", pa.list_(pa.string())),  # [Q] all tasks
        ("predicted", pa.list_(pa.string())),  # [Q] the option that the scorer prefers
        ("confidence", pa.list_(pa.float32())),  # [Q] its share of the options' exp(mean log-probability per token)
        ("error", pa.string()),
    ]
)

# What every training loop reads. A row may be a tree: tokens of branch 0 (the trunk) see the trunk; a token of branch
# b > 0 sees the trunk and its own branch, and its positions go on from the trunk's end. So one note and its Q questions
# are one row that equals Q separate prompts.
TRAINING = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),  # [T]
        ("loss_weight", pa.list_(pa.float32())),  # [T] weight of predicting this token; 0 = context only
        ("branch", pa.list_(pa.int16())),  # [T] 0 trunk, 1.. questions; non-decreasing
    ]
)

# After scoring: one row per labelled note and task.
PREDICTIONS = pa.schema(
    [
        ("task_id", pa.string()),
        ("note_id", pa.string()),
        ("group_id", pa.string()),
        ("label", pa.string()),
        ("predicted", pa.string()),
        ("scores", pa.list_(pa.float32())),  # [C] mean log-probability per token of each option, nats
    ]
)

# After probing: what a classifier on the states of one layer answers, and how it was chosen (evaluation/heads.py).
PROBED = pa.schema(
    [
        *PREDICTIONS,
        ("is_control", pa.bool_()),  # the labels are random ones of the control task; `label` holds those
        ("layer", pa.int16()),  # 0 = embeddings, k = output of decoder block k; the last after the final norm
        ("pooling", pa.string()),  # last or mean
        ("c", pa.float32()),  # chosen 1 / L2 penalty; null: the head has none
        ("inner_f1", pa.float32()),  # macro F1 of cross-validation within the training notes; null: too few of a class
    ]
)


def states(layers: Sequence[int]) -> pa.Schema:
    """What the probe reads of a labelled note. One column per layer and pooling: a reader takes what it needs.

    A note that does not fit the context has no task, and no states.
    """
    columns = [(f"{pooling}_{layer}", pa.list_(pa.float32())) for pooling in ("mean", "last") for layer in layers]
    # mean_k [D] over the note's tokens; last_k [Q*D] of the last token before the answer to each question.
    # float32: some families have activations beyond float16
    return pa.schema([("note_id", pa.string()), ("task_id", pa.list_(pa.string())), *columns])


def layers_of(schema: pa.Schema) -> list[int]:
    """The layers of a `states` schema."""
    return [int(name.removeprefix("mean_")) for name in schema.names if name.startswith("mean_")]


# Words that decide a task, where a corpus says so, as character offsets into the note.
DECIDING = pa.schema([("note_id", pa.string()), ("task_id", pa.string()), ("start", pa.int32()), ("end", pa.int32())])

# What `raypipe export --what attributions` writes: a row per note, task, layer and word.
ATTRIBUTIONS = pa.schema(
    [
        ("note_id", pa.string()),
        ("task_id", pa.string()),
        ("layer", pa.int16()),  # 0 = embeddings, k = output of decoder block k
        ("word", pa.int32()),  # its number in the note, from 0
        ("start", pa.int32()),  # character offsets into the note
        ("end", pa.int32()),
        ("relevance", pa.float32()),
        ("text", pa.string()),  # the word itself: only where it was asked for
    ]
)

# Secrets that `raypipe canaries` plants: a row for each note that holds one (notes/canaries.py).
CANARIES = pa.schema(
    [
        ("canary", pa.string()),
        ("copies", pa.int32()),  # notes that hold it; 0: none does, and it is asked about in this note all the same
        ("note_id", pa.string()),
        ("secret", pa.string()),
        ("text", pa.string()),  # of the note with the canary, as students read it: with `data.placeholders`
        ("start", pa.int32()),  # characters of the secret, or of what stands in its place
        ("end", pa.int32()),
    ]
)

# What a model knows of them: a row for each canary and way to ask (evaluation/memorisation.py). No secret, no text.
EXPOSURES = pa.schema(
    [
        ("canary", pa.string()),
        ("copies", pa.int32()),
        ("prompt", pa.string()),  # text: the note up to the secret goes on; fill_in: the note with the secret hidden
        ("targets", pa.int32()),  # how often the secret was to be predicted in one pass over the masked notes
        ("rank", pa.int32()),  # of the secret among the candidates, the likeliest first, from 1
        ("exposure", pa.float32()),  # log2(candidates) - log2(rank), bits
        ("is_extracted", pa.bool_()),  # greedy decoding says the secret
    ]
)

DEAD_LETTERS = pa.schema([("note_id", pa.string()), ("step", pa.string()), ("error", pa.string())])


def table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as an Arrow table with exactly this schema; missing keys become null."""
    return pa.Table.from_pydict({name: [row.get(name) for row in rows] for name in schema.names}, schema=schema)


def records(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table; lists of numbers stay arrays over its memory, which no Python list comes near in speed."""
    columns = {name: _values(table[name].combine_chunks()) for name in table.column_names}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(column: pa.Array) -> list[Any]:
    if not pa.types.is_list(column.type) or not pa.types.is_primitive(column.type.value_type):
        return column.to_pylist()
    values, cuts = column.values.to_numpy(), pairwise(column.offsets.to_numpy())
    return [values[a:b] if valid else None for (a, b), valid in zip(cuts, column.is_valid().to_pylist(), strict=True)]


def counts(column: pa.Array | pa.ChunkedArray) -> dict[Any, int]:
    """How often each value occurs, in the order of first occurrence."""
    return {one["values"]: one["counts"] for one in pc.value_counts(column).to_pylist()}


def write(table: pa.Table, where: Path | pa.NativeFile, **options: Any) -> None:
    """A table as one Parquet file. `options`: pyarrow's, beside the usual ones."""
    pq.write_table(table, where, **{**WRITE, **options})


def read(path: Path | str, columns: Sequence[str] | None = None, filters: pc.Expression | None = None) -> pa.Table:
    """A Parquet file or folder, in memory. Raises `OSError` where a page's checksum is wrong."""
    return pq.read_table(path, columns=None if columns is None else list(columns), filters=filters, **CHECKED)


def dataset(path: Path | str, schema: pa.Schema | None = None) -> pds.Dataset:
    """The same as a dataset, to stream from."""
    parquet = pds.ParquetFileFormat(default_fragment_scan_options=pds.ParquetFragmentScanOptions(**CHECKED))
    return pds.dataset(str(path), schema=schema, format=parquet)


def prediction(
    task_id: str,
    note_id: str,
    group_id: str | None,
    label: str,
    predicted: str | None = None,
    scores_C: Sequence[float] | F32 | F64 | None = None,
) -> dict[str, Any]:
    """One row of PREDICTIONS.

    A note that the model could not answer (it did not fit the context) has neither `predicted` nor scores, and its row
    counts as a wrong answer.
    """
    names = {"task_id": task_id, "note_id": note_id, "group_id": group_id, "label": label}
    return {**names, "predicted": predicted, "scores": scores_C}


def words_and_relevance(note: Mapping[str, Any], layer: int | None = None) -> tuple[I32, F32 | None]:
    """Words [W, 2] of a row of ATTRIBUTED or MASKED, and their relevance [Q, W] at a layer; None if it has none.

    `layer`: None for the lowest stored one. A row without relevance needs its `text`, from which the words are cut.
    Raises `InputError` if relevance was not stored at that layer.
    """
    if note.get("relevance") is None:
        return word_spans(note["text"]), None
    words = np.stack([note["word_start"], note["word_end"]], axis=1).astype(np.int32)
    shape = (len(note["task_id"]), len(note["layers"]), len(words))
    return words, np.asarray(note["relevance"], np.float32).reshape(shape)[:, _position(layer, list(note["layers"]))]


def _position(layer: int | None, stored: Sequence[int]) -> int:
    if layer is None:
        return 0
    if layer not in stored:
        raise InputError([Problem("attribution.layer", f"is {layer}, but relevance was stored at {list(stored)}")])
    return stored.index(layer)
