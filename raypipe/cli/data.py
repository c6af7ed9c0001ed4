"""Tables and spans for other tools, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from raypipe.cli.app import ConfigPath, app, folder_of
from raypipe.errors import InputError
from raypipe.guard.terminal import say


@app.command()
def export(
    config: ConfigPath,
    what: Annotated[
        Literal["attributions", "spans"],
        typer.Option(
            help="attributions: a row per note, task, layer and word; spans: words, marked in the notes' text"
        ),
    ],
    out: Annotated[Path, typer.Option(help="a new file: .parquet of attributions, .json or .jsonl of spans")],
    text: Annotated[bool, typer.Option("--text", help="attributions: with each word's text (NOTE TEXT)")] = False,
    to: Annotated[
        Literal["label-studio", "doccano"] | None, typer.Option(help="spans: the tool (the file holds NOTE TEXT)")
    ] = None,
    arm: Annotated[str | None, typer.Option(help="spans: what this arm hides")] = None,
    top: Annotated[
        float | None, typer.Option(min=0, max=100, help="spans: instead, the most relevant words, in percent")
    ] = None,
    task: Annotated[str | None, typer.Option(help="spans: of this task alone; default: of all")] = None,
) -> None:
    """Write relevance or spans of a run for other tools. `--what spans` and `--text` write note text.

    The file is readable by you alone; treat it as your notes where it holds their text. Without `--text`, attributions
    hold ids, offsets and numbers.
    """
    run = folder_of(config)
    if what == "attributions":
        if to or arm or top or task:
            raise InputError("--to, --arm, --top and --task belong to --what spans")
        from raypipe.findings import attributions

        n_notes, n = attributions.export(run, out, text)
        say(f"{out}: {n:,} rows of {n_notes:,} notes{'; it holds note text' if text else ''}")
        return
    if to is None or (arm is None) == (top is None) or text:
        raise InputError("--what spans needs --to, and either --arm or --top; --text belongs to --what attributions")
    from raypipe.findings import spans

    which = spans.Hidden(arm, task) if arm is not None else spans.Relevant(float(top or 0), task)
    n_notes, n = spans.export(run, out, to, which)
    say(f"{out}: {n:,} spans over {n_notes:,} notes; it holds note text")


@app.command("import-spans")
def import_spans(
    file: Annotated[Path, typer.Argument(help="what you exported: Label Studio's JSON, doccano's JSONL")],
    out: Annotated[Path, typer.Option(help="a new .parquet file with note_id, text (NOTE TEXT) and spans")],
) -> None:
    """Read annotated spans back, into the column that `data.columns.spans` names. The notes come from `export`."""
    from raypipe import rows
    from raypipe.notes import annotation_tools
    from raypipe.records import new_file

    notes, n_without = annotation_tools.read(file)
    with new_file(out) as fresh:
        rows.write(notes, fresh)
    say(f"{out}: {len(notes):,} notes; left out, because nobody annotated them: {n_without:,}")
