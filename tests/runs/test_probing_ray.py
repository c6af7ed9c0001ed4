"""States and probes on Ray are those of one process."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.runs import driver
from raypipe.runs.run import Run
from raypipe.settings.config import Config
from tests.runs.test_probing import settings, with_models

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]
KEYS = ["task_id", "layer", "pooling", "is_control", "note_id"]


def test_the_same_as_in_one_process(tmp_path: Path) -> None:
    found: list[tuple[pa.Table, pa.Table]] = []
    for uses_ray in (False, True):
        asked: Config = settings(tmp_path / str(uses_ray))
        asked = asked.model_copy(update={"resources": asked.resources.model_copy(update={"ray": uses_ray})})
        run = with_models(Run(asked).open())
        driver.make(run, ["probe/backbone"])
        states = pq.read_table(run.step("states/backbone").data).sort_by("note_id")
        probed = pq.read_table(run.step("probe/backbone").data).sort_by([(key, "ascending") for key in KEYS])
        found.append((states, probed))
    (states, probed), (states_on_ray, probed_on_ray) = found
    assert states.select(["note_id", "task_id"]).equals(states_on_ray.select(["note_id", "task_id"]))
    assert probed.select([*KEYS, "label", "c"]).equals(probed_on_ray.select([*KEYS, "label", "c"]))
    same = pa.compute.equal(probed["predicted"], probed_on_ray["predicted"])
    assert pa.compute.mean(same.cast(pa.float32())).as_py() > 0.99  # batches differ, and so does rounding
