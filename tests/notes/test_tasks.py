"""Task files and task tables."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.errors import InputError
from raypipe.guard import limits
from raypipe.notes.tasks import NO, YES, Task, load_tasks

LEAFLETS = Path(__file__).parents[2] / "jobs" / "configs" / "leaflets.tasks.yaml"


def write(tmp_path, text):
    path = tmp_path / "tasks.yaml"
    path.write_text(text)
    return str(path)


def table(tmp_path, *rows):
    columns = ("task_id", "kind", "description", "class_counts")
    dicts = [dict(zip(columns, row, strict=True)) for row in rows]
    pq.write_table(pa.Table.from_pylist(dicts), tmp_path / "tasks.parquet")
    return str(tmp_path / "tasks.parquet")


def problems_of(path, task_ids=None):
    with pytest.raises(InputError) as error:
        load_tasks(path, task_ids)
    return [str(problem).removeprefix(f"{path}:") for problem in error.value.problems]


def test_defaults_and_own_words(tmp_path):
    path = write(
        tmp_path,
        """
defaults: {verbalizers: {"1": sì, "0": "no"}}
tasks:
  - {id: fever, question: febbre, options: ["1", "0"]}
  - {id: smoking, kind: multiclass, question: "fuma ({id})?", options: [now, past, never], verbalizers: {now: fumatore}}
""",
    )
    assert load_tasks(path) == [
        Task("fever", "binary", "febbre", ("1", "0"), ("sì", "no")),
        Task("smoking", "multiclass", "fuma (smoking)?", ("now", "past", "never"), ("fumatore", "past", "never")),
    ]


def test_a_hundred_tasks_from_a_table_with_patterns_and_exceptions(tmp_path):
    rows = [(f"atc_{i}", "binary", f"code is {i}", json.dumps({"0": 9, "1": 1})) for i in range(100)]
    table(tmp_path, *rows, ("class", "multiclass", "the class", '{"B": 2, "A": 5, "C": 1}'))
    path = write(
        tmp_path,
        """
from_table: tasks.parquet
defaults: {verbalizers: {"1": sì, "0": "no"}}
patterns:
  - {match: 'code is (?P<code>1\\d)', question: "teen {code}"}
  - {match: 'code is (?P<code>\\d+)', question: "codice {code}"}
tasks:
  - {id: class, question: classe, verbalizers: {A: prima}}
  - {id: extra, question: "{description}", description: in più, options: ["1", "0"]}
""",
    )
    tasks = {task.id: task for task in load_tasks(path)}
    assert len(tasks) == 102
    assert tasks["atc_7"] == Task("atc_7", "binary", "codice 7", ("1", "0"), ("sì", "no"))
    assert tasks["atc_17"].question == "teen 17"
    assert tasks["class"] == Task("class", "multiclass", "classe", ("A", "B", "C"), ("prima", "B", "C"))
    assert tasks["extra"].question == "in più"
    assert [task.id for task in load_tasks(path, ["extra", "atc_3"])] == ["atc_3", "extra"]


def test_a_table_by_itself(tmp_path):
    path = table(tmp_path, ("a", "binary", "is it?", '{"no": 1, "yes": 2}'))
    assert load_tasks(path) == [Task("a", "binary", "is it?", ("yes", "no"), ("yes", "no"))]


def test_multilabel_is_one_question_per_label(tmp_path):
    path = write(
        tmp_path,
        """
tasks:
  - {id: x, kind: multilabel, question: "c'è {label}?", options: [c 1, c2], verbalizers: {c2: tosse, "yes": sì}}
""",
    )
    first, second = load_tasks(path)
    assert first == Task("x.c_1", "binary", "c'è c 1?", (YES, NO), ("sì", "no"), ("x", "c 1"))
    assert second.question == "c'è tosse?"
    assert load_tasks(path, ["x"]) == [first, second]
    assert load_tasks(path, ["x.c2"]) == [second]


def test_problems_name_file_line_and_field_all_at_once(tmp_path):
    path = write(
        tmp_path,
        """\
tasks:
  - {id: a, question: q, options: ["no", si, x]}
  - id: b
    kind: multiclass
    question: "x {zz}"
    options: [a, b, a]
    verbalizers: {aa: x}
  - {id: c, kind: multilabel, question: q, options: [l]}
  - {id: d, question: " ", options: [x, X]}
  - {id: d, question: q, options: [x, ""]}
  - {id: e, kind: multilabel, question: "{label}", options: [a b, a/b]}
""",
    )
    assert problems_of(path) == [
        "10: tasks.4: id 'd' given twice",
        "2: tasks.0.options: a binary task cannot have 3 options",
        "5: tasks.1.question: nothing fills {zz}",
        "6: tasks.1.options: must be distinct and not empty",
        "7: tasks.1.verbalizers: 'aa' is not an option. Did you mean 'a'?",
        "7: tasks.1.verbalizers: two options have the same answer",
        "8: tasks.2.question: must hold {label}: it is asked once per label",
        "10: tasks.4.options: must be distinct and not empty",
        "10: tasks.4.verbalizers: an answer is empty",
        "1: two tasks have the same id once multilabel tasks are expanded",
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("tasks: [{id: a, question: q, options: [no, yes]}]", 'must be a string; quote it: "no"'),
        ("tasks: [{id: a, question: q, options: [1, 0]}]", 'must be a string; quote it: "1"'),
        ("tasks: [{id: a, qestion: q}]", "tasks.0.qestion: unknown key. Did you mean 'question'?"),
        ("defaults: {kindd: binary}", "unknown key. Did you mean 'kind'?"),
        ("patterns: [{match: '('}]", "not a regular expression"),
        ("tasks: [{id: a, kind: ternary}]", "must be 'binary', 'multiclass' or 'multilabel'"),
        ("", "there is no task in it"),
        ("from_table: nowhere.parquet", "no such file or folder"),
        ("tasks: 3", "must be a list"),
        *[
            (f"tasks: [{{id: {json.dumps(id)}, question: q, options: [a, b]}}]", "tasks.0.id")
            for id in ("../x", "a/b", "", ".", "..", "-x", "a b", "x" * 65, "a\x00b", "à", "s3://b", "..%2f", "a\n")
        ],
    ],
)
def test_one_fault(tmp_path, text, what):
    assert any(what in problem for problem in problems_of(write(tmp_path, text)))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (("../a", "binary", "d", "{}"), "task_id must match"),
        ((None, "binary", "d", '{"a": 1, "b": 2}'), "task_id must match"),
        (("a", "ternary", "d", '{"a": 1, "b": 2}'), "kind must be"),
        (("a", "binary", "d", "not json"), "class_counts must be JSON"),
        (("a", "binary", "d", "[1, 2]"), "class_counts must be JSON"),
        (("a", "binary", "d", '{"a": 1, "b": 1, "c": 1}'), "a binary task cannot have 3 options"),
    ],
)
def test_one_faulty_row(tmp_path, row, what):
    (problem,) = problems_of(table(tmp_path, row))
    assert what in problem


def test_unknown_task_id_is_a_hint(tmp_path):
    path = table(tmp_path, ("fever", "binary", "d", '{"a": 1, "b": 2}'))
    assert problems_of(path, ["fevr"]) == ["data.task_ids: no task 'fevr'. Did you mean 'fever'?"]


@pytest.mark.skipif(not os.environ.get("RAYPIPE_DATA"), reason="RAYPIPE_DATA is not set: no real corpora here")
def test_leaflets_ask_italian_questions():
    tasks = load_tasks(str(LEAFLETS))
    assert len(tasks) == 150
    questions = [task.question for task in tasks]
    assert len(set(questions)) == 150
    assert not any(" is " in question for question in questions)  # no description is left in English
    assert {task.answers for task in tasks if task.kind == "binary"} == {("sì", "no")}


def test_a_pattern_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "LIMIT_S", 0.05)
    table = {
        "task_id": ["t"],
        "kind": ["binary"],
        "description": ["a" * 80 + "!"],
        "class_counts": ['{"1": 2, "0": 2}'],
    }
    pq.write_table(pa.table(table), tmp_path / "tasks.parquet")
    (tmp_path / "tasks.yaml").write_text("from_table: tasks.parquet\npatterns: [{match: '(a|aa)+$'}]\n")
    with pytest.raises(InputError, match=r"takes over .* s on one description"):
        load_tasks(str(tmp_path / "tasks.yaml"))
