"""raypipe turns a hospital's unlabelled notes into training data for its own decoder models.

notes -> prompts -> attributions -> masked examples -> training -> evaluation -> report: the folders read like that
sentence. Read `rows.py` first (what a row holds after each step), then `pipeline.py` (the whole graph).

For Python: `attributions`, and the commands as functions, `raypipe.run("my.yaml")` (functions.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from raypipe.findings.attributions import Attribution
    from raypipe.functions import attribute, evaluate, finetune, mask, pretrain, report, run, train

__all__ = [
    "attribute", "attributions", "evaluate", "finetune", "mask", "pretrain", "report", "run", "train"
]  # fmt: skip

__version__ = "0.1.0"


def attributions(path: Path | str, with_text: bool = False) -> Iterator[Attribution]:
    """Relevance as numpy arrays, note by note, from the folder of a run or of its step `attribute` or `mask`.

        for note in raypipe.attributions("runs/demo"):
            note.relevance_QKW[note.task_ids.index("fever"), 0]  # [W], at the lowest layer stored

    `with_text`: also the note's text, which `mask` alone holds. Raises `InputError` if there is no relevance, or a file
    is damaged.
    """
    from raypipe.findings import attributions as reader  # not above: `import raypipe` stays light

    return reader.read(path, with_text)


def __getattr__(name: str) -> Any:
    """The functions, imported when one is asked for: `import raypipe` stays light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from raypipe import functions

    return getattr(functions, name)
