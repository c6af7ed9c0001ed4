"""The table of `raypipe canaries`: what each model knows of the planted secrets, by how often they were planted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from raypipe import rows
from raypipe.guard.tables import align
from raypipe.records import write_csv
from raypipe.runs.probing import probed_models
from raypipe.runs.run import Run
from raypipe.runs.steps import named

LEGEND = """\
copies     notes that hold a secret; 0 is the control
learned    how often a secret is to be predicted in one pass over the masked notes, the mean
exposure   log2(candidates) - log2(rank), in bits, the median; 1.0 without a trace of the secret
likeliest  secrets that are the first of all candidates
said       secrets that greedy decoding goes on with, behind the rest of their note"""


@dataclass(frozen=True)
class Line:
    """One model, one way to ask, one number of copies."""

    model: str
    prompt: str
    copies: int
    canaries: int
    targets: float  # how often a secret was to be predicted in one pass over the masked notes, the mean
    exposure: float  # bits, the median
    lowest: float
    highest: float
    first: int  # canaries whose secret is the likeliest candidate
    extracted: int  # canaries whose secret greedy decoding says


def lines(run: Run) -> Iterator[Line]:
    """From the finished steps of a run on planted notes."""
    for model in probed_models(run):
        name = f"exposure/{model}"
        exposures = rows.read(run.of(named(name).arm).needed(name).data).to_pylist()
        for prompt, copies in sorted({(row["prompt"], row["copies"]) for row in exposures}):
            some = [row for row in exposures if (row["prompt"], row["copies"]) == (prompt, copies)]
            bits = [row["exposure"] for row in some]
            yield Line(
                model,
                prompt,
                copies,
                canaries=len(some),
                targets=float(np.mean([row["targets"] for row in some])),
                exposure=float(np.median(bits)),
                lowest=min(bits),
                highest=max(bits),
                first=sum(row["rank"] == 1 for row in some),
                extracted=sum(row["is_extracted"] for row in some),
            )


def page(run: Run) -> tuple[str, Path]:
    """The table as text, and the CSV file where it stands."""
    table, path = list(lines(run)), run.folder / "exposure" / "table.csv"
    write_csv(path, [asdict(line) for line in table])
    head = ["model", "asked as", "copies", "learned", "exposure", "range", "likeliest", "said"]
    body = [
        [line.model, line.prompt, str(line.copies), f"{line.targets:.1f}", f"{line.exposure:.1f}",
         f"{line.lowest:.1f} to {line.highest:.1f}", *(f"{n} of {line.canaries}" for n in (line.first, line.extracted))]
        for line in table
    ]  # fmt: skip
    return "\n\n".join([align([head, *body]), LEGEND]), path
