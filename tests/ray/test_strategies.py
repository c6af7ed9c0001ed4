"""Every masking strategy in the real pipeline: from jobs/configs/strategies.yaml to training rows, with a random model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as pds
import pytest
import ray
from pyarrow import parquet as pq

from raypipe import configfile, experiment, results
from raypipe.config import Config
from raypipe.experiment import SCORER, Run
from raypipe.masking import STRATEGIES
from raypipe.masking.statistics import Statistics
from raypipe.notes import synthetic
from raypipe.pipeline import masking_of
from raypipe.show import show
from tests.tiny_models import tiny_model, tiny_tokenizer

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
RECIPE = Path(__file__).parents[2] / "jobs/configs/strategies.yaml"
NER = {"masking": {"strategy": "mslm", "mslm": {"terms": "ner"}, "match_ratio_to": "decselfmask"}}


def opened(folder: Path, **changes: Any) -> Run:
    """The recipe with a random model in place of a trained one, notes with BIO tags, and an arm that reads them."""
    settings = configfile.load(RECIPE, [f"runs={folder}", f"model.path={folder / 'model'}", "pretrain=null"])
    made = synthetic.generate(**settings.data.synthetic.model_dump(exclude={"seed"}) | {"n_pretraining": 100})
    words = [text.split() for text in made.notes["text"].to_pylist()]
    tags = [" ".join("B-X" if len(word) > 8 else "O" for word in note) for note in words]
    pq.write_table(made.notes.append_column("tags", [tags]), folder / "notes.parquet")
    data = {"source": "synthetic", "synthetic": settings.data.synthetic.model_dump() | {"n_pretraining": 100}}
    return settings, data  # type: ignore[return-value]
