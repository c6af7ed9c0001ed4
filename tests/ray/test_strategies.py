"""Every masking strategy in the real pipeline: from jobs/configs/strategies.yaml to rows, with a random model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import yaml

from raypipe import configfile, experiment, results
from raypipe.config import Arm
from raypipe.masking import STRATEGIES
from raypipe.masking.statistics import Statistics
from raypipe.notes import synthetic
from raypipe.pipeline import masking_of
from raypipe.run import SCORER, Run
from raypipe.show import show
from tests.tiny_models import tiny_model, tiny_tokenizer

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[2]
NER = {"strategy": "mslm", "mslm": {"terms": "ner"}, "match_ratio_to": "decselfmask"}


def write_corpus(folder: Path, settings: Any) -> dict[str, Any]:
    """The recipe's generated notes as files, with BIO tags: long words are entities."""
    made = synthetic.generate(**settings.model_dump())
    words = [text.split() for text in made.notes["text"].to_pylist()]
    tags = [" ".join("B-X" if len(word) > 8 else "O" for word in note) for note in words]
    tables = {
        "notes": made.notes.append_column("tags", pa.array(tags)),
        "labels": made.labels,
        "pretraining": made.pretraining,
    }
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    (folder / "tasks.yaml").write_text(yaml.safe_dump({"tasks": made.tasks}, allow_unicode=True))
    paths = {name: str(folder / f"{name}.parquet") for name in tables} | {"tasks": str(folder / "tasks.yaml")}
    return {**paths, "source": "files", "columns": {"group_id": "group_id", "tags": "tags"}}


def opened(folder: Path, name: str, *overrides: str) -> Run:
    """A run of the recipe in which the model and the scorer are random, and one more arm reads the tags."""
    model = folder / "model"
    settings = configfile.load(ROOT / "jobs/configs/strategies.yaml", [f"runs={folder}", f"name={name}", *overrides])
    whole = settings.model_dump()
    whole |= {"data": write_corpus(folder, settings.data.synthetic), "model": {"path": str(model)}, "pretrain": None}
    whole["arms"]["mslm_ner"] = Arm(masking=NER).model_dump()
    for place in (model, folder / name / "finetune" / SCORER / "model"):
        tiny_model("llama").save_pretrained(place)
        tiny_tokenizer().save_pretrained(place)
    run = Run(type(settings)(**whole))
    run.step(f"finetune/{SCORER}").finish()  # the random model is all the scorer that masking needs
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Masked and rendered once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # the recipe names its lexicon relative to the repository
        one = opened(tmp_path_factory.mktemp("strategies"), "many")
        experiment.mask(one)
        experiment.render(one)
        yield one
        ray.shutdown()


def plans_of(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Plans by note id."""
    rows = pq.read_table(run.step("mask").data, columns=["note_id", "plans"]).to_pylist()
    return {row["note_id"]: row["plans"] for row in rows if row["plans"] is not None}


def test_every_strategy_has_an_arm_plans_and_rows(run: Run) -> None:
    arms = masking_of(run.settings)
    assert {masking.strategy for masking in arms.values()} == set(STRATEGIES)
    planned = run.step("mask").manifest["arms"]
    assert set(planned) == set(arms)
    rendered = run.step("train/rows").manifest["arms"]
    for name, found in rendered.items():
        assert found["rows"] > 0, name
        assert found["plans_without_rows"] == found["dropped_spans"] == 0, name
    columns = pq.read_table(run.step("train/rows").data, columns=["arm"])["arm"]
    assert set(columns.to_pylist()) == set(arms)


def test_matched_arms_hide_as_many_words_note_by_note(run: Run) -> None:
    matched = {name for name, masking in masking_of(run.settings).items() if masking.match_ratio_to and name != "cpt"}
    assert len(matched) == 14
    for note_id, plans in plans_of(run).items():
        wanted = {plan["task_id"]: plan["n_masked"] for plan in plans if plan["arm"] == "decselfmask"}
        own = [plan for plan in plans if plan["arm"] in matched]
        assert len(own) >= len(matched) * len(wanted)
        assert all(abs(plan["n_masked"] - wanted[plan["task_id"]]) <= 1 for plan in own), note_id


def test_statistics_hold_what_was_asked_for_and_no_rare_word(run: Run) -> None:
    step = run.folder / "statistics"
    known = Statistics.load(step / "data")
    everything = (known.general_V, known.relevance_V, known.important_V, known.vectors_VD, known.ngrams, known.lexicons)
    assert all(part is not None and len(part) for part in everything)
    assert known.n_words > known.count_V.sum() > 0
    assert known.count_V.min() >= run.settings.statistics.min_notes


def test_plans_depend_on_neither_blocks_nor_workers(run: Run) -> None:
    again = opened(run.folder.parent, "one", "resources.rows_per_block=1000", "resources.attribution_actors=1")
    experiment.mask(again)
    assert plans_of(again) == plans_of(run)


def test_arms_are_shown_side_by_side(run: Run) -> None:
    note_id = min(plans_of(run))
    page = show(run.step("mask").data, note_id)
    assert all(f" {name}: " in page for name in masking_of(run.settings))
    assert page.count("of") >= len(masking_of(run.settings))
    (first, *_) = results._heat_maps(run)
    assert {panel.title for panel in first.panels} == set(masking_of(run.settings))
