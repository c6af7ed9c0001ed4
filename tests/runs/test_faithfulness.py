"""`raypipe faithfulness` on a tiny scorer and a few generated notes; spans of files as deciding words."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.errors import InputError
from raypipe.findings.pages import faithfulness_page
from raypipe.notes.annotated_spans import in_nfc, parsed
from raypipe.notes.deciding import is_annotated, read_deciding
from raypipe.notes.tasks import Task
from raypipe.runs import driver, faithfulness
from raypipe.runs.run import Run
from raypipe.settings import config
from tests.spreadsheets import formulas
from tests.tiny_models import tiny_loaded

METHODS = ("grad_x_activation", "grad_x_activation/sum", "kv_direct", "occlusion")


def settings(folder: Path, **faithfulness: Any) -> config.Config:
    sizes = {"n_labelled": 80, "n_unlabelled": 4, "n_dev": 8, "n_test": 8, "n_pretraining": 4}
    asked = {"methods": METHODS, "layers": (0.0, 0.5, 1.0), "questions": 6, "bootstrap": 100, **faithfulness}
    return config.Config(
        runs=str(folder),
        data=config.Data(source="synthetic", synthetic=sizes),
        pretrain=config.Pretrain(),
        prompt=config.Prompt(max_tokens=192),
        faithfulness=asked,
    )


def with_scorer(run: Run) -> Run:
    """The run, as if it had trained its scorer: the tiny model."""
    loaded, step = tiny_loaded(), run.step("finetune/scorer").open()
    for folder in (run.folder / "pretrain/tokenizer", step.path / "model"):
        loaded.tokenizer.save_pretrained(folder)
    loaded.model.save_pretrained(step.path / "model")
    step.finish()
    return run


def measured(run: Run) -> Path:
    """What `raypipe faithfulness` does."""
    driver.run_command(run, "faithfulness")
    return faithfulness_page(run)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    run = with_scorer(Run(settings(tmp_path_factory.mktemp("runs"))).open())
    return run, measured(run)


def test_an_arm_with_an_attribution_of_its_own_is_not_measured_again(tmp_path: Path) -> None:
    own = config.Arm(masking=config.Masking(), attribution=config.Attribution(method="kv_direct"))
    asked = settings(tmp_path, methods=("kv_direct",), layers=(0.0,), questions=2)
    run = with_scorer(Run(asked.model_copy(update={"arms": {"own": own}})).open())
    assert driver.run_command(run, "faithfulness") == [(run, "faithfulness")]
    assert not (run.folder / "variants").exists()


def test_table_page_and_csv_hold_every_variant(done: tuple[Run, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, page = done
    found = json.loads((page.parent / "metrics.json").read_text())["faithfulness"]
    layers = {(row["method"], row["reduction"]): set() for row in found}
    for row in found:
        layers[row["method"], row["reduction"]].add(row["layer"])
    # the last layer reaches no answer; after the last but one, the sum is rounding noise
    assert layers["grad_x_activation", "l2"] == layers["kv_direct", "sum"] == {0, 2}
    assert layers["grad_x_activation", "sum"] == {0, 2}
    assert ("random", "sum") in layers
    for row in found:
        assert row["n_notes"] > 1
        assert 0 <= row["agreement"]["chance"] <= 1
    with (page.parent / "table.csv").open() as file:
        assert [line["variant"] for line in csv.DictReader(file)] == [row["variant"] for row in found]
    assert formulas(page.parent / "table.csv") == []
    measured(run)  # once more: nothing is computed
    shown = capsys.readouterr().out
    assert "kv_direct layer 2" in shown
    assert "6 questions on" in shown


def test_output_holds_no_note_text_and_no_script(done: tuple[Run, Path]) -> None:
    run, page = done
    written = "".join(path.read_text() for path in page.parent.iterdir() if path.is_file())
    assert written.count("<script") == 1
    assert "http://" not in page.read_text().split("</style>")[1]
    for note, _ in run.corpus.labelled("dev"):
        assert note["text"][:40] not in written


def test_needs_a_scorer_and_known_methods(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="raypipe finetune"):
        measured(Run(settings(tmp_path)).open())
    with pytest.raises(InputError, match=r"faithfulness\.methods\.1: 'no_such' is not a method"):
        Run(settings(tmp_path, methods=("occlusion", "no_such"))).open()


def test_questions_take_tasks_and_labels_in_turn() -> None:
    labels = {f"n{i}": {"a": "no" if i else "yes", "b": "no"} for i in range(20)}
    asked = faithfulness.choose(labels, 9, seed=0)
    pairs = [(note_id, task_id) for note_id, task_ids in asked.items() for task_id in task_ids]
    assert len(pairs) == len(set(pairs)) == 9
    assert ("n0", "a") in pairs  # the only yes
    assert sum(task_id == "a" for _, task_id in pairs) == 5
    assert asked == faithfulness.choose(labels, 9, seed=0) != faithfulness.choose(labels, 9, seed=1)


def notes_file(folder: Path, texts: list[str], spans: list[str | None]) -> config.Data:
    table = pa.table({"note_id": [str(i) for i in range(len(texts))], "text": texts, "annotated": spans})
    pq.write_table(table, folder / "notes.parquet")
    return config.Data(notes=str(folder / "notes.parquet"), columns=config.Columns(spans="annotated"))


def task(*spans: str) -> Task:
    return Task("negation", "binary", "negazione", ("1", "0"), ("sì", "no"), spans=spans)


def test_spans_of_the_named_types_decide(tmp_path: Path) -> None:
    cells = ['[["CUE", 0, 4], ["SCOPE", 5, 12]]', None, '[["CUE", 5, 7]]']
    data = notes_file(tmp_path, ["Nega febbre.", "Febbre.", "perche\u0301 no"], cells)
    assert read_deciding(data, [task("CUE")]).to_pylist() == [
        {"note_id": "0", "task_id": "negation", "start": 0, "end": 4},
        {"note_id": "2", "task_id": "negation", "start": 5, "end": 6},  # the accent is one character in NFC
    ]


def test_entities_of_bio_tags_decide_where_there_are_no_spans(tmp_path: Path) -> None:
    texts, tags = ["Ha febbre alta , tosse", "febbre"], ["O B-SIGN I-SIGN O I-DRUG", "O"]
    pq.write_table(pa.table({"note_id": ["0", "1"], "text": texts, "bio": tags}), tmp_path / "notes.parquet")
    data = config.Data(notes=str(tmp_path / "notes.parquet"), columns=config.Columns(tags="bio"))
    assert read_deciding(data, [task("SIGN")]).to_pylist() == [
        {"note_id": "0", "task_id": "negation", "start": 3, "end": 14}
    ]
    assert is_annotated(data, [task("SIGN")])
    assert not is_annotated(data, [task()])  # tags for masking alone
    for wrong in ("O", "Ha anti-febbre", "O o"):
        table = pa.table({"note_id": ["0", "1"], "text": ["Ha anti-febbre", "untagged"], "bio": [wrong, None]})
        pq.write_table(table, tmp_path / "notes.parquet")
        with pytest.raises(InputError, match=r"data\.columns\.tags: 1 notes hold no BIO tag") as refused:
            read_deciding(data, [task("Febbre")])
        assert "febbre" not in str(refused.value)


@pytest.mark.parametrize("cell", ["{}", "[[1, 0, 2]]", '[["CUE", 3, 3]]', '[["CUE", 0, 99]]', "[", "[" * 5000, "[[]]"])
def test_malformed_spans_are_refused_without_quoting_the_note(tmp_path: Path, cell: str) -> None:
    data = notes_file(tmp_path, ["Nega febbre.", "Nega tosse."], [cell, '[["CUE", 0, 4]]'])
    with pytest.raises(InputError, match=r"data\.columns\.spans: 1 notes") as refused:
        read_deciding(data, [task("CUE")])
    assert "febbre" not in str(refused.value)
    assert in_nfc(cell, "Nega febbre.") == cell


def test_types_that_no_note_has_and_tasks_without_types_are_refused(tmp_path: Path) -> None:
    data = notes_file(tmp_path, ["Nega febbre."], ['[["CUE", 0, 4]]'])
    with pytest.raises(InputError, match=r"'CUES'.*CUE"):
        read_deciding(data, [task("CUES")])
    with pytest.raises(InputError, match="no task says"):
        read_deciding(data, [task()])


def test_parsed_reads_an_empty_cell_as_no_spans() -> None:
    assert parsed(None, 5) == parsed("", 5) == parsed("[]", 5) == []


def test_a_scorer_is_held_against_one_answer_for_each_task() -> None:
    labels = {f"n{i}": {"rare": "yes" if i < 2 else "no", "even": "yes" if i % 2 else "no"} for i in range(20)}
    tasks_of = faithfulness.choose(labels, 40, 0)
    assert faithfulness.by_one_answer(labels, tasks_of) == (18 + 10) / 40
