"""Every masking strategy in the real pipeline: from jobs/configs/strategies.yaml to rows, with a random model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import BertConfig, BertModel

from raypipe.findings import heat_maps
from raypipe.findings.show import show_note
from raypipe.masking import STRATEGIES
from raypipe.masking.corpus_needs import corpus_needs
from raypipe.masking.statistics import Statistics
from raypipe.models import loading
from raypipe.models.encoder import encoder_vectors
from raypipe.notes import synthetic
from raypipe.runs import corpus_counts, driver
from raypipe.runs.names import SCORER
from raypipe.runs.run import Run
from raypipe.settings import configfile
from raypipe.settings.arms import masking_of
from raypipe.settings.config import Arm
from raypipe.stream import pipeline
from raypipe.training import trainer
from tests.tiny_models import tiny_model, tiny_tokenizer

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]
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


def opened(folder: Path, name: str, *overrides: str, arms: dict[str, Arm] | None = None) -> Run:
    """A run of the recipe in which the model and the scorer are random, and one more arm reads the tags; or with
    these arms instead."""
    model = folder / "model"
    settings = configfile.load(ROOT / "jobs/configs/strategies.yaml", [f"runs={folder}", f"name={name}", *overrides])
    whole = settings.model_dump()
    whole |= {"data": write_corpus(folder, settings.data.synthetic), "model": {"path": str(model)}, "pretrain": None}
    whole["arms"]["mslm_ner"] = Arm(masking=NER).model_dump()
    if arms is not None:
        whole["arms"] = {name: arm.model_dump() for name, arm in arms.items()}
    for place in (model, folder / name / "finetune" / SCORER / "model"):
        tiny_model("llama").save_pretrained(place)
        tiny_tokenizer().save_pretrained(place)
    run = Run(type(settings)(**whole)).open()
    run.step(f"finetune/{SCORER}").open().finish()  # the random model is all the scorer that masking needs
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Masked and rendered once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # the recipe names its lexicon relative to the repository
        one = opened(tmp_path_factory.mktemp("strategies"), "many")
        driver.run_command(one, "mask")
        driver.make(one, ["train/rows"])
        yield one


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
    assert set(columns.drop_null().to_pylist()) == set(arms)


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


def test_plans_depend_neither_on_blocks_and_workers_nor_on_which_arm_came_first(run: Run) -> None:
    few = {name: run.settings.arms[name] for name in ("decselfmask", "pmi", "mslm_ner")}
    blocks = "resources.rows_per_block=1000", "resources.attribution_actors=1"
    first = opened(run.folder.parent, "one", *blocks, arms=few)
    driver.run_command(first, "mask")
    assert {plan["arm"] for plans in plans_of(first).values() for plan in plans} == set(few)
    again = Run(first.settings.model_copy(update={"arms": run.settings.arms})).open()
    driver.run_command(again, "mask")
    assert again.is_done("attribute")
    assert plans_of(again) == plans_of(run)


def test_counts_are_shared_by_runs_on_the_same_corpus(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is counted a second time; what another corpus or another question asks for is."""
    wanted = corpus_needs(masking_of(run.settings))
    known = Statistics.load(run.folder / "statistics" / "data")
    folder = corpus_counts.cache_folder(run, wanted)
    assert folder.parents[1].stat().st_mode & 0o077 == folder.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(pipeline, "count_words", lambda *_: pytest.fail("counted again"))
    again = corpus_counts._counted(run, wanted)
    assert (again.words, again.ngrams, again.n_words) == (known.words, known.ngrams, known.n_words)
    assert again.general_V is not None
    np.testing.assert_array_equal(again.general_V, known.general_V)
    data = run.settings.data.model_copy(update={"max_unlabelled": 10})
    changes = {"data": data}, {"statistics": run.settings.statistics.model_copy(update={"min_notes": 2})}
    others = [corpus_counts.cache_folder(Run(run.settings.model_copy(update=c)), wanted) for c in changes]
    others.append(corpus_counts.cache_folder(run, replace(wanted, longest=2)))
    assert len({folder, *others}) == 4


def test_arms_are_shown_side_by_side(run: Run) -> None:
    note_id = min(plans_of(run))
    task_id = min(plan["task_id"] for plan in plans_of(run)[note_id] if plan["task_id"])
    plans = [p for p in plans_of(run)[note_id] if p["task_id"] in (task_id, None) and not p["draw"]]
    assert {plan["arm"] for plan in plans} == set(masking_of(run.settings))
    page = show_note([run.step("mask").output], note_id, task_id).splitlines()
    captions = [line.split(" ", 1)[1] for line in page if " eligible words, " in line]
    wanted = [(plan["arm"], plan["n_masked"], plan["n_eligible"]) for plan in plans]
    assert captions == [f"{arm}: {n} of {total} eligible words, {n / total:.1%}" for arm, n, total in wanted]
    (first, *_) = heat_maps.heat_maps(run)
    assert {panel.title for panel in first.panels} == set(masking_of(run.settings))


def test_every_arm_trains_on_its_rows(run: Run, tmp_path: Path) -> None:
    """A step of reconstruction on the rows of each arm, in this process: one after the other, from the same model."""
    start = run.backbone
    before = loading.load(start).model.state_dict()
    for arm in masking_of(run.settings):
        stage = trainer.TrainingSpec(
            str(tmp_path / arm), str(run.step("train/rows").data), arm, run.settings.train, start, run.tokenizer
        )
        trainer.run([stage], torch.device("cpu"))
        assert trainer.outcome(stage.folder).steps == 1
        (metrics,) = (json.loads(line) for line in (tmp_path / arm / "metrics.jsonl").read_text().splitlines())
        assert 0 < metrics["loss"] < 20, arm
        after = loading.load(start.model_copy(update={"path": f"{stage.folder}/model"})).model.state_dict()
        moved = max(float((after[name] - before[name]).abs().max()) for name in before)
        assert 0 < moved < 0.1, arm


def test_words_are_compared_by_an_encoder(run: Run) -> None:
    """`statistics.encoder`: the vectors are the encoder's, and the two strategies that read them use them."""
    folder = run.folder.parent / "encoder"
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=400, **shape)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    strategies = ("difference_masking", "keyword")
    arms = {name: Arm(masking={"strategy": name}) for name in strategies}
    hidden = {}
    for name, overrides in {"by_encoder": [f"statistics.encoder={folder}"], "by_student": []}.items():
        one = opened(run.folder.parent, name, "data.synthetic.n_unlabelled=60", *overrides, arms=arms)
        driver.run_command(one, "mask")
        known = Statistics.load(one.folder / "statistics" / "data")
        is_encoded = known.vectors_VD is not None and known.vectors_VD.shape[1] == shape["hidden_size"]
        assert is_encoded == bool(overrides)
        if overrides:
            np.testing.assert_allclose(known.vectors_VD, encoder_vectors(str(folder), known.words), atol=1e-5)
        plans = [plan for of_note in plans_of(one).values() for plan in of_note]
        hidden[name] = {a: [p["start"] for p in plans if p["arm"] == a] for a in strategies}
    for strategy in strategies:
        assert len(hidden["by_encoder"][strategy]) == len(hidden["by_student"][strategy]) >= 60
        assert hidden["by_encoder"][strategy] != hidden["by_student"][strategy]


def test_tfidf_counts_the_corpus(run: Run) -> None:
    """The control's relevance in the real pipeline is TF-IDF over the run's own notes, recomputed here by hand."""
    one = opened(run.folder.parent, "tfidf", "data.synthetic.n_unlabelled=60", "attribution.method=tfidf")
    driver.run_command(one, "attribute")
    found = pq.read_table(one.step("attribute").data).to_pylist()
    tokenizer = loading.load_tokenizer(one.tokenizer)
    seen = [set(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in one.corpus.texts(pretrains=False)]
    assert len(seen) > 100
    texts = {note["note_id"]: note["text"] for note in pq.read_table(one.corpus.data.notes).to_pylist()}
    tokens = {note_id: tokenizer(text, add_special_tokens=False)["input_ids"] for note_id, text in texts.items()}
    done = [row for row in found if row["error"] is None]
    assert len(done) >= 60
    for row in done[:20]:
        offsets = tokenizer(texts[row["note_id"]], return_offsets_mapping=True)["offset_mapping"]
        ids = tokens[row["note_id"]]
        relevance = [ids.count(t) * np.log((1 + len(seen)) / (1 + sum(t in note for note in seen))) for t in ids]
        words = list(zip(row["word_start"], row["word_end"], strict=True))
        by_word = [
            max((r for r, (a, b) in zip(relevance, offsets, strict=True) if a < end and b > start), default=0)
            for start, end in words
        ]
        own = np.array(row["relevance"], np.float32).reshape(-1, len(words))
        np.testing.assert_allclose(own, np.tile(np.array(by_word) / max(by_word), (len(own), 1)), atol=2e-3)
