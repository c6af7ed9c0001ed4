"""The steps of `raypipe probe`: states of every layer of a model, and classifiers that are trained on them.

Two steps per model: `states/<model>` (one forward pass over the labelled notes; stored, so that another head starts
from it) and `probe/<model>` (classifiers). A model is called `backbone`, `train/<student>` or `finetune/<student>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import rows
from raypipe.evaluation.baselines import best_of_states
from raypipe.runs.audit import audit
from raypipe.runs.names import BACKBONE, SCORER
from raypipe.settings import config
from raypipe.stream import pipeline

if TYPE_CHECKING:
    from raypipe.runs.folder import StepFolder
    from raypipe.runs.run import Run


def probed_models(run: Run) -> Iterator[str]:
    """Names of the models that the config asks to probe: the backbone, then the arms' in their order.

    Of repeated fine-tunings the first; of an arm without a step of its own, what it starts from is probed already.
    """
    yield BACKBONE
    yielded: set[str] = set()
    for stage in run.settings.probe.after:
        for arm in run.settings.probe.arms if run.settings.probe.arms is not None else run.settings.arms:
            own = run.of(arm)
            if own.reconstructs(arm) if stage == "train" else own.settings.arms[arm].finetune:
                name = f"{stage}/{arm if stage == 'train' else own.student_of(arm)}"
                if name not in yielded:
                    yield name
                yielded.add(name)


def states(run: Run, folder: StepFolder, student: str) -> dict[str, Any]:
    """States of the labelled notes, of every layer of a model."""
    name = model_of(run, folder)
    run.say(f"states/{name}: one pass over the labelled notes")
    pipeline.states(run.job, loaded_from(run, name, student), folder.data)
    stored = rows.read(folder.data, ["note_id", "task_id"])
    of_splits = pc.is_in(run.corpus.labels["split"], pa.array(["train", run.settings.evaluation.split]))
    audit(folder.path, pc.unique(run.corpus.labels.filter(of_splits)["note_id"]), stored["note_id"])
    size = sum(path.stat().st_size for path in folder.data.glob("*.parquet"))
    n_notes = pc.sum(pc.greater(pc.list_value_length(stored["task_id"]), 0)).as_py()
    return {"notes": n_notes, "megabytes": round(size / 1e6, 1)}


def probe(run: Run, folder: StepFolder, _: str) -> dict[str, Any]:
    """What classifiers on the states of each layer answer."""
    name = model_of(run, folder)
    run.say(f"probe/{name}: {run.settings.probe.head} heads on every layer")
    pipeline.probe(run.job, run.needed(f"states/{name}").data, folder.data)
    return {"answers": rows.read(folder.data, columns=[]).num_rows}


def backbone_answers(run: Run) -> pa.Table | None:
    """The baseline `embeddings_logistic`, if the backbone was probed with that head."""
    step = run.step(f"probe/{BACKBONE}")
    return best_of_states(rows.read(step.data)) if step.done and run.settings.probe.head == "logistic" else None


def model_of(run: Run, folder: StepFolder) -> str:
    """Whose step it is: `states/train/x` -> `train/x`."""
    return "/".join(folder.path.relative_to(run.folder).parts[1:])


def loaded_from(run: Run, name: str, student: str) -> config.Model:
    """The model that is called `name`."""
    if name == BACKBONE:
        return run.backbone
    return run.model(student or SCORER, name.partition("/")[0])
