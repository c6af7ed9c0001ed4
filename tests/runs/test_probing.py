"""`raypipe probe`, prediction sets and constrained decoding on a run whose models are tiny and were never trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from raypipe import rows
from raypipe.errors import InputError
from raypipe.evaluation.heads import answers_of
from raypipe.evaluation.metrics import by_task
from raypipe.findings import results
from raypipe.findings.pages import probing_page
from raypipe.notes.tasks import Task
from raypipe.runs import driver
from raypipe.runs.checking import of_model
from raypipe.runs.determinants import settings_of
from raypipe.runs.probing import probed_models
from raypipe.runs.run import Run
from raypipe.settings import config
from tests.tiny_models import tiny_loaded


def settings(folder: Path, **probe: object) -> config.Config:
    sizes = {"n_labelled": 40, "n_unlabelled": 4, "n_dev": 24, "n_test": 20, "n_pretraining": 4}
    return config.Config(
        runs=str(folder),
        data=config.Data(source="synthetic", synthetic=sizes, task_ids=("febbre", "cefalea")),
        pretrain=config.Pretrain(),
        prompt=config.Prompt(max_tokens=192),
        evaluation={"mode": "generate", "conformal": {"alpha": 0.2}, "bootstrap": 100},
        probe={"layers": (0.0, 0.5, 1.0), "c": (0.1,), "folds": 2, **probe},
        resources={"rows_per_block": 16, "ray": False},
    )


def with_models(run: Run) -> Run:
    """The run, as if it had trained everything."""
    for name in ("pretrain", "finetune/scorer", "train/decselfmask", "finetune/decselfmask"):
        loaded, step = tiny_loaded("llama"), run.step(name).open()
        loaded.tokenizer.save_pretrained(run.folder / "pretrain/tokenizer")
        loaded.tokenizer.save_pretrained(step.path / "model")
        loaded.model.save_pretrained(step.path / "model")
        step.finish(target_tokens=1, tokens=1, steps=1)  # what the report reads
    return run


def probe(run: Run) -> Path:
    """What `raypipe probe` does."""
    driver.make(run, [f"probe/{model}" for model in probed_models(run)], "probe")
    return probing_page(run)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    folder = tmp_path_factory.mktemp("runs")
    with pytest.raises(InputError, match=r"train/decselfmask: is not finished"):
        probe(Run(settings(folder)).open())
    run = with_models(Run(settings(folder)).open())
    for arm in run.settings.arms:
        driver.evaluate(run, arm)
    return run, probe(run)


def test_every_student_layer_and_pooling(done: tuple[Run, Path]) -> None:
    run, page = done
    found = json.loads((page.parent / "metrics.json").read_text())["probing"]
    students = {"backbone", "train/decselfmask", "finetune/scorer", "finetune/decselfmask"}
    cells = {(s["student"], s["layer"], s["pooling"]) for s in found["scores"]}
    assert cells == {(s, layer, p) for s in students for layer in (0, 2, 4) for p in ("last", "mean")}
    # the same model in every place: the same scores, and no difference
    assert len({(b["score"]["layer"], b["score"]["macro_f1"]["value"]) for b in found["best"]}) == 1
    assert {b["difference"]["value"] for b in found["best"] if b["difference"]} == {0.0}
    probed = pq.read_table(run.step("probe/backbone").data)
    assert set(probed.schema.names) == set(rows.PROBED.names)
    assert set(probed["is_control"].to_pylist()) == {True, False}
    stored = pq.read_table(run.step("states/backbone").data)
    assert rows.layers_of(stored.schema) == [0, 2, 4]
    assert len(stored) == 60  # training and test


def test_again_computes_nothing_and_another_head_keeps_the_states(
    done: tuple[Run, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = done
    probe(run)
    assert "states/" not in (said := capsys.readouterr().out)
    assert "heads on every layer" not in said
    assert "backbone" in said
    other = Run(settings(run.folder.parent, head="mlp256")).open()
    with pytest.raises(InputError, match=r"probe\.head"):
        probe(other)
    assert other.is_done("states/backbone")


def test_report_has_sets_and_the_baseline(done: tuple[Run, Path]) -> None:
    run, _ = done
    report = results.build(run)
    assert {row.name for row in report.arms} == {"sft", "decselfmask", "tfidf_logistic", "embeddings_logistic"}
    assert set(report.conformal) == {"sft", "decselfmask", "tfidf_logistic"}
    assert all(t.n_calibration == 24 and t.n == 20 for t in report.conformal["sft"].tasks)
    assert report.probing is not None


def test_generated_answers_are_options_with_probabilities(done: tuple[Run, Path]) -> None:
    run, _ = done
    for step in ("evaluate/scorer", "calibrate/scorer"):
        for of_task in by_task(pq.read_table(run.step(step).data), run.corpus.tasks):
            assert (of_task.predicted_N >= 0).all()
            np.testing.assert_allclose(np.exp(of_task.scores_NC).sum(axis=1), 1, atol=1e-5)


def test_a_head_reads_the_last_state(done: tuple[Run, Path], tmp_path: Path) -> None:
    probed = pq.read_table(done[0].step("probe/finetune/scorer").data)
    of_probe = answers_of(probed, layer=4, pooling="last").sort_by([("task_id", "ascending"), ("note_id", "ascending")])
    asked = settings(tmp_path)
    run = with_models(
        Run(asked.model_copy(update={"evaluation": asked.evaluation.model_copy(update={"mode": "head"})})).open()
    )
    driver.evaluate(run, "sft")
    answers = pq.read_table(run.step("evaluate/scorer").data)
    assert answers.sort_by([("task_id", "ascending"), ("note_id", "ascending")]).equals(of_probe)
    assert len(pq.read_table(run.step("calibrate/scorer").data)) == 48  # dev notes, two tasks
    left = {path.name for path in run.step("evaluate/scorer").path.iterdir()}
    assert left == {"data", "settings.json", "manifest.json"}
    keys = [settings_of("evaluate/scorer", r.settings, r.inputs) for r in (run, done[0])]
    assert ["probe.c" in key for key in keys] == [True, False]  # another penalty is another answer


def test_no_note_text_is_kept_but_in_the_corpus(done: tuple[Run, Path]) -> None:
    run, _ = done
    texts = [note["text"][:40].encode() for split in ("train", "test") for note, _ in run.corpus.labelled(split)]
    for folder in ("states", "probe", "calibrate"):
        for path in (run.folder / folder).rglob("*"):
            assert not path.is_file() or not any(text in path.read_bytes() for text in texts)


def test_what_cannot_be_is_said_at_once(tmp_path: Path) -> None:
    asked = settings(tmp_path, arms=("sft", "no_such"), head="mlp256")
    asked = asked.model_copy(
        update={"evaluation": asked.evaluation.model_copy(update={"split": "dev", "embeddings": True})}
    )
    with pytest.raises(InputError) as refused:
        Run(asked).open()
    where = {problem.where for problem in refused.value.problems}
    assert where == {"probe.arms", "evaluation.conformal", "evaluation.embeddings"}


def test_answers_without_an_end_must_not_begin_one_another() -> None:
    task = Task("t", "multiclass", "?", ("a", "b", "c"), ("acuta", "acuta grave", "no"))
    (problem,) = of_model._endless(task, ((1,), (1, 2), (3,)))
    assert "'acuta' begins 'acuta grave'" in problem.what
    assert not list(of_model._endless(task, ((1, 4), (1, 2), (3,))))
