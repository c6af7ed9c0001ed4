"""raypipe turns a hospital's unlabelled notes into training data for its own decoder models.

notes -> prompts -> attributions -> masked examples -> training -> evaluation -> report: the folders read like that
sentence. Read `rows.py` first (what a row holds after each step), then `pipeline.py` (the whole graph).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from raypipe.findings.attributions import Attribution

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
