"""`check`: everything that does not fit together, at once, before anything starts."""

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from raypipe import rows
from raypipe.errors import InputError
from raypipe.evaluation.metrics import measurable
from raypipe.guard import limits
from raypipe.models import loading
from raypipe.notes.tasks import Task
from raypipe.runs.checking import of_model
from raypipe.runs.checking.check import check, examine
from raypipe.runs.checking.check_report import CheckReport
from raypipe.settings import configfile
from raypipe.settings.config import (
    Arm,
    Attribution,
    Columns,
    Config,
    Data,
    Lora,
    Masking,
    Model,
    Pretrain,
    Prompt,
    Scorer,
    Training,
)
from tests.tiny_models import tiny_model, tiny_tokenizer

LEAFLETS = Path(__file__).parents[3] / "jobs" / "configs" / "leaflets.tasks.yaml"
TASKS = 'tasks: [{id: fever, question: febbre, options: ["1", "0"], verbalizers: {"1": sì, "0": "no"}}]'


@pytest.fixture
def data(tmp_path):
    notes = {"note_id": [f"n{i}" for i in range(20)], "text": [f"Nota numero {i}." for i in range(20)]}
    pq.write_table(pa.table(notes), tmp_path / "notes.parquet")
    labels = [("fever", f"n{i}", str(i % 2), ("train", "dev", "test")[i % 3]) for i in range(12)]
    table = pa.Table.from_pylist([dict(zip(rows.LABELS.names, row, strict=True)) for row in labels])
    pq.write_table(table, tmp_path / "labels.parquet")
    (tmp_path / "tasks.yaml").write_text(TASKS)
    paths = ("notes.parquet", "labels.parquet", "tasks.yaml")
    return Data(**{path.partition(".")[0]: str(tmp_path / path) for path in paths})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def config(data, **sections):
    sections = {"pretrain": Pretrain(), "prompt": Prompt(max_tokens=128), **sections}
    return Config(data=data, **sections)


def problems_of(settings):
    with pytest.raises(InputError) as error:
        check(settings)
    return [str(problem) for problem in error.value.problems]


def test_a_good_run_prints_one_line_per_task(data):
    report = check(config(data))
    assert [task.id for task in report.tasks] == ["fever"]
    assert (report.labels.num_rows, report.n_notes) == (12, 20)
    assert str(report).splitlines()[2].split() == ["fever", "binary", "4", "4", "4", "1:", "2,", "0:", "2"]


def test_limits_are_applied(data):
    report = check(config(data.model_copy(update={"max_labelled": 2, "max_test": 1})))
    assert report.labels["split"].to_pylist().count("train") == 2
    assert "test has one class" in str(report)


def test_all_parts_report_together(data, tmp_path):
    nowhere = str(tmp_path / "nowhere.csv")
    bad = {"labels": nowhere, "tasks": nowhere, "columns": Columns(text="testo"), "pretraining": "ftp://x"}
    arms = {"a": Arm(masking=Masking(strategy="relevanse"))}
    settings = config(data.model_copy(update=bad), attribution=Attribution(layer=40, method="magic"), arms=arms)
    found = problems_of(settings)
    for start in (
        *("data.labels: ", "data.tasks: ", "data.columns.text: ", "data.pretraining: ", "arms.a.masking.strategy: "),
        *("attribution.method: ", "attribution.layer: is 40, but the model has layers 0..4"),
    ):
        assert sum(problem.startswith(start) for problem in found) == 1, (start, found)


@pytest.mark.parametrize(
    ("update", "what"),
    [
        ({"tasks": None}, "data.tasks: is not set"),
        ({"labels": None}, "data.labels: is not set"),
        ({"notes": None}, "data.notes: is not set"),
        ({"task_ids": ("fevr",)}, "Did you mean 'fever'?"),
        ({"max_chars": 3}, "none of the first 20 notes can be used (E_TOO_BIG)"),
        ({"columns": Columns(group_id="text")}, None),
    ],
)
def test_one_fault_in_the_data(data, update, what):
    settings = config(data.model_copy(update=update))
    if what is None:
        assert check(settings).n_notes == 20
    else:
        assert any(what in problem for problem in problems_of(settings))


def test_a_labelled_note_that_does_not_exist(data, tmp_path):
    pq.write_table(pa.table({"note_id": ["n0", "n1"], "text": ["a", "b"]}), tmp_path / "notes.parquet")
    assert any("10 labelled notes are not among the notes" in problem for problem in problems_of(config(data)))


def test_a_note_in_two_splits_of_different_tasks_is_a_warning(data, tmp_path):
    labels = pq.read_table(tmp_path / "labels.parquet").to_pylist()
    twin = [
        {**row, "task_id": "cough", "split": {"train": "test", "test": "train"}.get(row["split"], "dev")}
        for row in labels
    ]
    pq.write_table(pa.Table.from_pylist(labels + twin), tmp_path / "labels.parquet")
    (tmp_path / "tasks.yaml").write_text(f"{TASKS[:-1]}, {{id: cough, question: tosse, options: ['1', '0']}}]")
    assert "8 notes are in different splits of different tasks" in str(check(config(data)))


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        ({"pretrain": None}, "model.path: is pretrain, but there is no section pretrain"),
        ({"prompt": Prompt(max_tokens=1000)}, "prompt.max_tokens: is 1000, but the model's context is 512"),
        ({"model": Model(path="/nowhere")}, "model.path"),
        ({"arms": {}}, "arms: is empty"),
        ({"train": Training(eval_every=3)}, "train.eval_every: is for trainings on labels"),
        ({"arms": {"a": Arm(masking=Masking(), train=Training(lora=Lora()))}}, "arms.a.train.lora: adapters or all"),
    ],
)
def test_one_fault_in_the_settings(data, sections, what):
    assert any(problem.startswith(what) for problem in problems_of(config(data, **sections)))


def test_model_and_tokenizer_fit(data, model):
    assert check(config(data, model=Model(path=str(model)))).n_notes == 20


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        ({"attribution": Attribution(layer=5)}, "attribution.layer: is 5, but the model has layers 0..4"),
        (
            {"finetune": Training(lora=Lora(first_block=4))},
            "finetune.lora.first_block: is 4, which leaves no block to train: the model has 4",
        ),
        (
            {"scorer": Scorer(training=Training(lora=Lora(first_block=0.99)))},
            "scorer.training.lora.first_block: is 0.99",
        ),
        ({"finetune": Training(lora=Lora(first_block=3))}, None),
        ({"prompt": Prompt(max_tokens=300)}, "the model's context is 256"),
        ({"prompt": Prompt(max_tokens=16, instruction="Leggi la nota. " * 9)}, "leaves no room for a note"),
        ({"prompt": Prompt(max_tokens=128, answer_prefix="")}, None),
    ],
)
def test_model_against_settings(data, model, sections, what):
    settings = config(data, **{"model": Model(path=str(model)), **sections})
    if what is None:
        check(settings)
    else:
        assert any(what in problem for problem in problems_of(settings))


def test_special_tokens_without_a_row(data, model, tmp_path):
    shutil.copytree(model, tmp_path / "m")
    tokenizer = loading.load_tokenizer(Model(path=str(model)))
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(tmp_path / "m")
    problems = problems_of(config(data, model=Model(path=str(tmp_path / "m"))))
    assert any("([PAD]) of the tokenizer has no place among the model's" in problem for problem in problems)


def test_adapter_without_weights(data, model, tmp_path):
    settings = config(data, model=Model(path=str(model), adapter=str(tmp_path)))
    assert problems_of(settings) == [
        "model.adapter: no adapter_model.safetensors in the folder; other formats are refused"
    ]


def with_tokenizer(model, folder, vocabulary, **special):
    """A copy of the model whose tokenizer knows these words only."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=vocabulary[0]))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    shutil.copytree(model, folder)
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    return Model(path=str(folder))


@pytest.mark.parametrize(
    ("answers", "what"),
    [
        ('{"1": forse, "0": "no"}', "tasks.yaml:1: task 'fever': the tokenizer has no tokens for the answer 'forse'"),
        ('{"1": "no, sì", "0": "no; sì"}', "are the same tokens; change a verbalizer"),
    ],
)
def test_answers_that_the_tokenizer_cannot_tell_apart(data, model, tmp_path, answers, what):
    tokenizer = with_tokenizer(
        model, tmp_path / "m", ["<unk>", "no", "sì", "</s>"], unk_token="<unk>", eos_token="</s>"
    )
    tasks = 'tasks: [{id: fever, question: febbre, options: ["1", "0"], verbalizers: ' + answers + "}]"
    (tmp_path / "tasks.yaml").write_text(tasks)
    (problem,) = problems_of(config(data, model=tokenizer, arms={"sft": Arm()}))
    assert what in problem


def test_a_tokenizer_that_cannot_write_a_sentinel(data, model, tmp_path):
    tokenizer = with_tokenizer(
        model, tmp_path / "m", ["<unk>", "no", "sì", "</s>", "[X]"], unk_token="<unk>", eos_token="</s>"
    )
    (problem,) = problems_of(config(data, model=tokenizer, arms=dict.fromkeys("ab", Arm(masking=Masking()))))
    assert problem.startswith("arms.a.masking.sentinels: the tokenizer cannot write <mask_1>: list tokens")
    listed = Arm(masking=Masking(sentinels=["no"]))
    (problem,) = problems_of(config(data, model=tokenizer, arms={"a": listed}))
    assert problem == "arms.a.masking.sentinels: no: not a token of this tokenizer"


def test_a_tokenizer_without_end_or_padding(data, model, tmp_path):
    (problem,) = problems_of(config(data, model=with_tokenizer(model, tmp_path / "m", ["a"])))
    assert "neither a pad nor an end-of-text token" in problem


def test_generated_data_need_no_check():
    found = check(config(Data(source="synthetic")))
    assert found.tasks == []
    assert "generated" in str(found), "no count of what is not there yet"


@pytest.mark.skipif(not os.environ.get("RAYPIPE_DATA"), reason="RAYPIPE_DATA is not set: no real corpora here")
def test_a_large_corpus():
    folder = Path(os.environ["RAYPIPE_DATA"]) / "e3c_it_leaflets"
    data = Data(
        notes=str(folder / "notes.parquet"),
        labels=str(folder / "labels.parquet"),
        tasks=str(LEAFLETS),
        columns=Columns(group_id="ingredient_key"),
    )
    report = check(config(data))
    assert (len(report.tasks), report.n_notes, report.labels.num_rows) == (150, 8081, 1_150_329)


@pytest.mark.parametrize(
    ("attribution", "said"),
    [
        ({"layer": 1.0}, "attribution.layer: is 1.0, but the model has layers 0..4, and grad_x_activation"),
        ({"layer": 4}, "with reduction l2 is valid at 0..3"),
        ({"layer": 3, "reduction": "sum"}, "with reduction sum is valid at 0..2"),
        ({"layer": 1.0, "method": "kv_direct"}, "and kv_direct is valid at 0..3"),
        ({"layer": 1.0, "method": "occlusion"}, None),
        ({"layer": 3}, None),
        ({"reduction": "sum", "method": "kv_direct"}, "attribution.reduction: not read by kv_direct; remove it"),
        ({"reduction": "l2", "method": "random"}, "attribution.reduction: not read by random"),
        ({"window": 2}, "attribution.window: not read by grad_x_activation"),
        ({"steps": 50, "method": "attnlrp"}, "attribution.steps: not read by attnlrp"),
        ({"baseline": "mean", "method": "captum:LayerConductance"}, None),
        ({"baseline": "mean", "steps": 50, "method": "integrated_gradients"}, None),
        ({"baseline": "mean", "method": "captum:LayerGradientXActivation"}, "attribution.baseline: not read by captum"),
    ],
)
@pytest.mark.parametrize("of_arm", [False, True])
def test_attribution_that_says_nothing_or_is_not_read(data, attribution, said, of_arm):
    own = Attribution(**attribution)
    sections = {"arms": {"a": Arm(masking=Masking(), attribution=own)}} if of_arm else {"attribution": own}
    if said is None:
        check(config(data, **sections))
    else:
        (problem,) = problems_of(config(data, **sections))
        assert said in problem
        assert problem.startswith("arms.a.attribution." if of_arm else "attribution.")


def test_keys_of_methods_that_are_compared_are_read(data):
    check(config(data, attribution=Attribution(steps=50), faithfulness={"methods": ("integrated_gradients",)}))
    (problem,) = problems_of(config(data, attribution=Attribution(steps=50), faithfulness={"methods": ("attnlrp",)}))
    assert problem.startswith("attribution.steps: not read")


@pytest.mark.parametrize(
    ("faithfulness", "said"),
    [
        ({"methods": ("kv_direct/l2",)}, "faithfulness.methods.0: kv_direct does not read a reduction"),
        ({"layers": (1.0,)}, "faithfulness.layers: the model has layers 0..4, and no method says anything at these"),
        ({"layers": (0.75,), "methods": ("grad_x_activation/sum",)}, "valid at 0..2"),
        ({"layers": (0.75, 1.0)}, None),
        ({"layers": (1.0,), "methods": ("occlusion",)}, None),
    ],
)
def test_what_faithfulness_cannot_compare(data, faithfulness, said):
    if said is None:
        check(config(data, faithfulness=faithfulness))
    else:
        (problem,) = problems_of(config(data, faithfulness=faithfulness))
        assert said in problem


def test_a_resolved_config_is_no_complaint(data, tmp_path):
    """It holds every default as if the user had set it."""
    (tmp_path / "resolved.yaml").write_text(configfile.dump(config(data, attribution=Attribution(method="occlusion"))))
    check(configfile.load(tmp_path / "resolved.yaml"))


@pytest.mark.parametrize(
    ("masking", "expected"),
    [
        ({"strategy": "difference_masking"}, "statistics.general_counts: is not set, but a need a table of general"),
        ({"strategy": "mslm", "mslm": {"terms": "ner"}}, "data.columns.tags: is not set, but the terms of a are"),
        ({"strategy": "mslm", "mslm": {"lexicon": "/absent.txt"}}, "/absent.txt cannot be read (FileNotFoundError)"),
        ({"strategy": "selective", "selective": {"source": "relevance"}}, "set attribution.method to occlusion"),
    ],
)
def test_what_a_strategy_reads_must_be_there(data, masking, expected):
    problems = problems_of(config(data, arms={"a": Arm(masking=Masking(**masking))}))
    assert any(expected in problem for problem in problems), problems


def test_general_counts_must_be_readable(data, tmp_path):
    arms = {"a": Arm(masking=Masking(strategy="difference_masking"))}
    said = problems_of(config(data, arms=arms, statistics={"general_counts": str(tmp_path / "notes.parquet")}))
    assert any("needs columns word and count" in problem for problem in said)
    said = problems_of(config(data, arms=arms, statistics={"general_counts": "pretraining"}))
    assert "statistics.general_counts: is pretraining, but data.pretraining is not set" in said


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        ({"placeholders": {"datee": "[D]"}}, "data.placeholders: no such kind: datee; there are date, email, name, "),
        ({"placeholders": {"date": "[D]"}, "identifiers": {"ward": "R1"}}, "data.identifiers.ward: has no placeholder"),
        ({"placeholders": {"date": "[D]"}, "source": "synthetic"}, "data.placeholders: the generated notes hold no"),
    ],
)
def test_placeholders_that_replace_nothing_are_refused(data, update, expected):
    assert [problem[: len(expected)] for problem in problems_of(config(data.model_copy(update=update)))] == [expected]


def test_a_pattern_without_end_on_the_first_notes_is_refused(data, monkeypatch):
    monkeypatch.setattr(limits, "LIMIT_S", 0.05)
    notes = {"note_id": [f"n{i}" for i in range(20)], "text": ["a" * 80 + f"! {i}" for i in range(20)]}
    pq.write_table(pa.table(notes), data.notes)
    masking = Masking(strategy="random_word", phi_patterns=(r"(a|aa)+$",))
    (problem,) = problems_of(config(data, arms={"sft": Arm(), "a": Arm(masking=masking)}))
    assert problem.startswith("arms.a.masking.phi_patterns: '(a|aa)+$' takes over 0.05 s")


def of_family(folder, family):
    tiny_model(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return Model(path=str(folder))


@pytest.mark.parametrize(("family", "refused"), [("olmo2", True), ("llama", False)])
@pytest.mark.parametrize("of_arm", [False, True])
def test_attnlrp_is_refused_for_a_family_without_rules(data, tmp_path, family, refused, of_arm):
    own = Attribution(method="attnlrp")
    sections = {"arms": {"a": Arm(masking=Masking(), attribution=own)}} if of_arm else {"attribution": own}
    settings = config(data, model=of_family(tmp_path / "m", family), **sections)
    if not refused:
        check(settings)
    else:
        (problem,) = problems_of(settings)
        where = "arms.a.attribution" if of_arm else "attribution"
        assert problem == f"{where}.method: attnlrp has no tested rules for olmo2; use grad_x_activation"


def test_one_sided_labels_are_a_warning_that_counts_its_tasks(data, tmp_path):
    labels = [("fever", f"n{i}", str(int(i < 3)), "train" if i < 15 else "test") for i in range(20)]
    labels += [("cough", f"n{i}", str(int(i < 1)), "train" if i < 18 else "test") for i in range(20)]
    table = pa.Table.from_pylist([dict(zip(rows.LABELS.names, row, strict=True)) for row in labels])
    pq.write_table(table, tmp_path / "labels.parquet")
    (tmp_path / "tasks.yaml").write_text(f"{TASKS[:-1]}, {{id: cough, question: tosse, options: ['1', '0']}}]")
    report = check(config(data))
    assert "2 tasks: test has one class (fever, cough)" in report.doubts
    assert "1 task: over 95% of the training labels are one class (cough)" not in report.doubts, "17 of 18"
    assert "1 task: fewer than 2 training notes of 1 of its options (cough)" in report.doubts
    assert not [doubt for doubt in report.doubts if "left out of the result" in doubt], "all have few test labels"


def test_a_task_that_the_result_leaves_out_is_a_warning(data, tmp_path):
    cells = [("fever", f"n{i}", str(i % 2), "test") for i in range(20)] + [("cough", "n0", "1", "test")]
    labels = rows.table([dict(zip(rows.LABELS.names, row, strict=True)) for row in cells], rows.LABELS)
    two = [Task(id, "binary", "?", ("1", "0"), ("sì", "no")) for id in ("fever", "cough")]
    report = CheckReport(two, labels, 20)
    said = "fewer than 20 labels, or one class, in test, so it is left out of the result"
    assert f"1 task: {said} (cough)" in report.doubts
    assert [task.id for task in measurable(two, labels)] == ["fever"], "as it says"
    assert not [doubt for doubt in CheckReport(two, labels, 20, scored="dev").doubts if "left out" in doubt]


def test_an_id_without_a_commit_is_refused_and_not_asked_for(data, monkeypatch):
    monkeypatch.setattr(of_model, "encoder_of", lambda *_: pytest.fail("would ask the hub"))
    _, problems = examine(config(data, model=Model(path="org/name")))
    assert [problem.where for problem in problems] == ["model.path"]


def test_a_check_looks_closer_than_what_a_run_needs(data, model):
    settings = config(data, model=Model(path=str(model)))
    report, problems = examine(settings)
    assert problems == []
    assert any(line.startswith("tokens of a note: median") for line in report.lines)
    assert check(settings).lines == []


def test_a_system_text_of_the_template_is_told(data, model, tmp_path):
    folder = tmp_path / "chat"
    shutil.copytree(model, folder)
    own = tiny_tokenizer(chat=True)
    own.chat_template = (
        "{% if messages[0]['role'] != 'system' %}[s] Sii utile.{% endif %}"
        "{% for m in messages %}[{{ m['role'][0] }}] {{ m['content'] }}{% endfor %}[a] "
    )
    own.save_pretrained(folder)
    options = {"arms": {"sft": Arm(), "m": Arm(masking=Masking())}, "pretrain": None}
    doubts = examine(config(data, model=Model(path=str(folder)), **options))[0].doubts
    what = "without arms.m.masking.instruction, prompt.instruction the chat template adds its own 'Sii utile.'"
    assert f"{what}: `model.chat: bare` leaves it out" in doubts
    bare = examine(config(data, model=Model(path=str(folder), chat="bare"), **options))[0].doubts
    assert not any("chat template" in doubt for doubt in bare)


def test_dev_scores_need_a_whole_model(data):
    settings = config(data, tracking={"dev_scores": True}, resources={"sharding": "fsdp2"})
    assert any(problem.startswith("tracking.dev_scores: needs a whole model") for problem in problems_of(settings))


def test_a_strategy_that_is_not_known_is_one_problem_with_a_model_too(data, model):
    arms = {"a": Arm(masking=Masking(strategy="relevanse"))}
    problems = problems_of(config(data, model=Model(path=str(model)), arms=arms))
    assert [str(problem).split(";")[0] for problem in problems] == [
        "arms.a.masking.strategy: unknown strategy 'relevanse'"
    ]
