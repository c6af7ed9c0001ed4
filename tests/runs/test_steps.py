"""Runs in this process: the steps fit together, are not repeated, and are shared with a base run where they can be."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.dataset as pds
import pyarrow.parquet as pq
import pytest

from raypipe import rows
from raypipe.errors import ExitCode, InputError
from raypipe.findings import material, results, show, training_curves
from raypipe.masking.tally import tally
from raypipe.models import loading
from raypipe.notes.tasks import Task
from raypipe.records import write_json
from raypipe.runs import determinants, driver, making
from raypipe.runs.folder import State, StepFolder
from raypipe.runs.names import LABELS, SCORER
from raypipe.runs.run import Run
from raypipe.settings import config
from raypipe.settings.config import Arm, Config, PseudoLabels
from raypipe.stream import pipeline
from raypipe.stream.stages.attribute import WITH_TEXT, Attribute
from raypipe.stream.stages.mask import Mask, unmasked
from raypipe.training import examples, pseudo_labels, schedule
from tests.small_run import settings

ARMS = {
    "sft": {},
    "random_init": {"start": "random"},
    "zero_shot": {"finetune": False},
    "pseudo": {"pseudo_labels": {"confidence": 0.5, "max_imbalance": None}},
    "decselfmask": {"masking": {"ratio": 0.2}},
    "mixed": {"masking": {"ratio": 0.2}, "label_share": 0.5, "train": {"max_steps": 3, "learning_rate": 1e-4}},
    "kv": {"masking": {"ratio": 0.2}, "attribution": {"method": "kv_direct_value", "layer": 1}, "label_share": 0.2},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished small run with relevance at every layer."""
    run = Run(settings(tmp_path_factory.mktemp("runs"), attribution__keep="all", arms=ARMS, repeats=2)).open()
    driver.prepare(run)
    driver.run_command(run, "attribute")  # on its own, so that other runs can read it
    for arm in ARMS:
        driver.learn(run, arm)
        driver.evaluate(run, arm)
    return run


def _made(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("manifest.json")}


def test_a_run_is_reported_whole(base: Run) -> None:
    built = results.build(base)
    assert [row.name for row in built.arms] == [*ARMS, "tfidf_logistic"]
    runs_of = {row.name: row.macro_f1.n_runs for row in built.arms}
    assert runs_of == dict.fromkeys(ARMS, 2) | {"zero_shot": 1, "tfidf_logistic": 1}
    assert {m.arm for m in built.material} == {"pseudo", "decselfmask", "mixed", "kv"}
    assert training_curves.undone([base], "tfidf_logistic") == {}, "no arm of labels alone"
    assert {"pseudo-labels of pseudo", "what mixed learned from"} <= built.remarks.keys()
    assert built.remarks["how mixed learned from notes"] == "learning_rate 0.0001, max_steps 3"
    assert {arm: base.of(arm).needed(f"train/{arm}").manifest["steps"] for arm in ("decselfmask", "mixed", "kv")} == {
        "decselfmask": 2,
        "mixed": 3,
        "kv": 2,
    }
    assert len(built.agreement) == 2  # the run's relevance, and that of kv


def test_a_note_is_shown_with_the_relevance_that_masking_read(base: Run, tmp_path: Path) -> None:
    """Of a run that keeps all layers: 0.5 of the depth is layer 1 here."""
    half = config.Attribution.model_validate(base.settings.attribution.model_dump() | {"layer": 0.5})
    run = Run(base.settings.model_copy(update={"name": "half", "attribution": half}), base).open()
    driver.make(run, ["mask"])
    number = run.needed("mask").manifest["layer"]
    assert number == pipeline.layer_of(half, run.model(SCORER)) > 0
    (note,) = (
        rows.dataset(run.step("mask").data).to_table(filter=pds.field("note_id") == "unlabelled-00001").to_pylist()
    )
    _, relevance_QW = rows.words_and_relevance(note, number)
    page = show.show_note([run.step("mask").output], "unlabelled-00001")
    shown = set(re.findall(r" (\d\.\d{3}) ", page))
    assert shown
    assert shown <= {f"{value:.3f}" for value in relevance_QW[0]}
    first = show.show_note([base.step("mask").output], "unlabelled-00001")
    assert page.splitlines()[3:] != first.splitlines()[3:]


def test_what_a_variant_shares_with_its_run_is_planned_once(tmp_path: Path) -> None:
    names = Counter(t.name for t in driver.missing_in_job(Run(settings(tmp_path, arms=ARMS))))
    assert names["finetune/scorer"] == names["pretrain"] == names["finetune/rows"] == names["corpus"] == 1
    assert names["mask"] == 2


def test_times_of_a_search_are_not_those_of_the_run(tmp_path: Path) -> None:
    for name in ("mask", "tune/m/base/mask", "canaries/run/mask", "cells/seed0-all/mask"):
        (tmp_path / name).mkdir(parents=True)
        write_json(tmp_path / name / "manifest.json", {"seconds": 10.0})
    (time,) = material.step_times(Run(settings(tmp_path.parent, name=tmp_path.name)))
    assert (time.name, time.seconds) == ("mask", 20.0)


def test_a_note_is_shown_with_arms_of_another_attribution(base: Run) -> None:
    masks = show.masks_of(base.folder)
    assert masks == [base.folder / "mask", base.folder / "variants/kv/mask"]
    page = show.show_note(masks, "unlabelled-00001")
    captions = [line.split(" ")[1] for line in page.splitlines() if " eligible words, " in line]
    assert captions == ["decselfmask:", "mixed:", "kv:"]


def test_a_finished_run_does_nothing_again(base: Run) -> None:
    before = _made(base.folder)
    driver.run_all(Run(base.settings).open())
    assert _made(base.folder) == before


def test_repeats_differ_in_order_alone(base: Run) -> None:
    first, second = (loading.load(base.model(f"random_init{at}")).model.state_dict() for at in ("", "@1"))
    assert any((first[name] != second[name]).any() for name in first)
    steps = [json.loads((base.folder / f"finetune/random_init{at}/manifest.json").read_text()) for at in ("", "@1")]
    assert steps[0]["steps"] == steps[1]["steps"]


def test_labels_are_learned_between_the_masks(base: Run) -> None:
    masks = examples.read(base.step("train/rows").data, "mixed")
    labels = examples.read(base.step("finetune/rows").path / "train", LABELS)
    learned = examples.mixed(masks, labels, 0.5)
    assert len(learned) == 2 * len(masks)
    steps = schedule.steps(learned.length, learned.draw, base.settings.training_of("mixed"))
    assert base.needed("train/mixed").manifest["tokens"] == sum(learned.length[rows].sum() for rows in steps)
    assert base.of("kv").needed("train/kv").manifest["tokens"] > 0, "with an attribution of its own, too"
    with pytest.raises(ValueError, match="nothing to mix"):
        Arm(label_share=0.5)
    with pytest.raises(InputError, match="no labelled rows"):
        examples.mixed(masks, examples.from_rows([]), 0.5)


def test_a_child_shares_what_its_settings_do_not_touch(base: Run) -> None:
    child = Run(_child(base, arms={"decselfmask": {"masking": {"ratio": 0.4}}}), base=base).open()
    for step in ("pretrain", "finetune/rows", f"finetune/{SCORER}", "attribute"):
        assert child.step(step).path == base.folder / step, step
    for step in ("mask", "train/rows", "train/decselfmask"):
        assert child.step(step).path == child.folder / step, step
    assert child.corpus is base.corpus


def test_what_a_step_is_made_from(base: Run) -> None:
    def settings_of(name: str, **changes: object) -> dict[str, object]:
        return determinants.settings_of(name, settings(base.folder, arms=ARMS, **changes), inputs)

    inputs: dict[str, object] = {"model": {"backbone": [1]}, "statistics": {"encoder": [1]}}
    lora = {"rank": 4, "alpha": 8}
    assert settings_of("train/rows") != settings_of("train/rows", train__lora=lora), "plain-text sentinels"
    assert settings_of("mask") == settings_of("mask", train__lora=lora)
    fewer = determinants.settings_of("finetune/sft@1", settings(base.folder, arms={"sft": {}}), inputs)
    assert settings_of("finetune/sft@1") == fewer, "no mask touches an arm of labels alone"
    assert settings_of("finetune/sft@1") != settings_of("finetune/random_init@1")
    plain: dict[bool, Any] = {tuned: {"plain": {"finetune": tuned}} for tuned in (True, False)}
    answers = {
        (tuned, epochs): determinants.settings_of(
            "evaluate/plain", settings(base.folder, arms=plain[tuned], finetune__epochs=epochs), inputs
        )
        for tuned in plain
        for epochs in (1, 2)
    }
    assert answers[False, 1] == answers[False, 2], "a zero-shot arm is not fine-tuned"
    assert len({str(made_of) for made_of in answers.values()}) == 3
    mixed = ARMS | {"mixed": ARMS["mixed"] | {"label_share": 0.25}}
    shares_less = determinants.settings_of("train/mixed", settings(base.folder, arms=mixed), inputs)
    assert settings_of("train/mixed") != shares_less
    dotted = {"a": ARMS["decselfmask"], "a.masking": ARMS["decselfmask"]}
    other = dotted | {"a": {"masking": {"ratio": 0.3}}}
    with_dots = [determinants.settings_of("mask", settings(base.folder, arms=arms), inputs) for arms in (dotted, other)]
    assert with_dots[0] != with_dots[1]
    of_others = determinants.settings_of("train/decselfmask", settings(base.folder, arms=mixed), inputs)
    assert settings_of("train/decselfmask") == of_others, "another arm's share"
    tagged = ARMS | {"tagged": {"masking": {"strategy": "mslm", "mslm": {"terms": "ner"}}}}
    with_tags = determinants.settings_of("train/decselfmask", settings(base.folder, arms=tagged), inputs)
    assert settings_of("train/decselfmask") != with_tags, "a note without tags is lost to all arms"
    question = {"prompt__question": "\n{question} {mask}"}
    assert settings_of("finetune/rows") == settings_of("finetune/rows", train__lora=lora)
    assert settings_of("finetune/rows", **question) != settings_of("finetune/rows", **question, train__lora=lora)
    by_answers = settings_of("train/pseudo")
    assert by_answers == settings_of("train/pseudo", attribution__layer=2), "answers know no relevance"
    assert by_answers != settings_of("train/pseudo", evaluation__batch_tokens=100)
    own = {"arms": ARMS | {"decselfmask": ARMS["decselfmask"] | {"train": {"learning_rate": 1e-4}}}}
    slower = determinants.settings_of("train/decselfmask", settings(base.folder, **own), inputs)
    assert slower == settings_of("train/decselfmask", train__learning_rate=1e-4), "whose ever training it is"
    assert slower == determinants.settings_of(
        "train/decselfmask", settings(base.folder, **own, train__learning_rate=2e-4), inputs
    )
    for name in ("mask", "train/rows", "train/mixed", "finetune/sft@1"):
        assert determinants.settings_of(name, settings(base.folder, **own), inputs) == settings_of(name)
    asks = {step: settings_of(step) for step in ("corpus", "mask", "finetune/scorer")}
    inputs["model"] = {"backbone": [2]}  # other weights in the same folder
    assert settings_of("corpus") == asks["corpus"]
    assert settings_of("finetune/scorer") != asks["finetune/scorer"]
    inputs["model"] = {"backbone": [1]}
    inputs["statistics"] = {"encoder": [2]}
    assert settings_of("finetune/scorer") == asks["finetune/scorer"]
    assert settings_of("mask") != asks["mask"]


def test_an_arm_added_later_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matched = {"match_ratio_to": "decselfmask"}
    few = {"sft": {}, "decselfmask": {"masking": {"ratio": 0.2}}, "pmi": {"masking": {"strategy": "pmi", **matched}}}
    few |= {"pseudo": ARMS["pseudo"]}
    surer = {"pseudo_labels": {"confidence": 0.505, "max_imbalance": None}}
    control, keyword = ({"masking": {"strategy": strategy, **matched}} for strategy in ("random_word", "keyword"))
    tagger = {"masking": {"strategy": "selective", **matched}}
    more = {
        "control": control,
        **few,
        "surer": surer,
        "keyword": keyword,
        "tagger": tagger,
    }
    first = Run(settings(tmp_path, arms=few)).open()
    driver.run_all(first)
    made, planned = _made(first.folder), [_plans(first, arm) for arm in few]
    shutil.copytree(first.folder / "mask", tmp_path / "child/small/mask")
    at_once = Run(settings(tmp_path / "at_once", arms=more)).open()
    driver.run_all(at_once)

    later = Run(settings(tmp_path, arms=more)).open()
    assert not later.is_done("mask")
    with pytest.raises(InputError, match="mask: was made without arms control, keyword, tagger, added since"):
        later.needed("mask")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "Answer", None)
        patch.setattr(pipeline, "Attribute", _OfLabelledNotes)
        driver.run_all(later)
    after = _made(later.folder)
    remade = {Path(path).parent for path, when in made.items() if after[path] != when}
    assert remade == {later.folder / step for step in ("statistics", "mask", "train/rows", "pseudo")}
    assert not (later.folder / "mask~").exists()
    assert [_plans(later, arm) for arm in few] == planned
    assert [_plans(later, arm) for arm in more] == [_plans(at_once, arm) for arm in more]
    for arm in ("control", "keyword", "tagger", "surer"):
        weights = [Path(run.model(arm).path, "model.safetensors").read_bytes() for run in (later, at_once)]
        assert weights[0] == weights[1]

    for arms, changed in (
        (few, r"arms\.control, arms\.keyword, arms\.tagger"),
        (more | {"decselfmask": {"masking": {"ratio": 0.3}}}, r"arms\.decselfmask\.masking\.ratio"),
    ):
        with pytest.raises(InputError, match=rf"mask: made with other settings \({changed}\)"):
            driver.run_command(Run(settings(tmp_path, arms=arms)).open(), "mask")

    child = Run(settings(tmp_path / "child", arms=more), base=at_once).open()  # its own masks are older than its base's
    assert child.is_done("mask")
    assert child.step("mask").path == at_once.folder / "mask"


class _OfLabelledNotes(Attribute):
    def __init__(self, scorer: config.Model, attribution: config.Attribution, *rest: object) -> None:
        assert attribution.method == "occlusion", "relevance of the unlabelled notes was computed again"
        super().__init__(scorer, attribution, *rest)


def _plans(run: Run, arm: str) -> list[tuple[str, dict[str, object]]]:
    notes = pq.read_table(run.step("mask").data, columns=["note_id", "plans"]).sort_by("note_id").to_pylist()
    return [(note["note_id"], plan) for note in notes for plan in note["plans"] or [] if plan["arm"] == arm]


def test_statistics_grow_with_what_is_asked_of_the_same_files(tmp_path: Path) -> None:
    def settings_of(needs: list[str], **files: int) -> dict[str, object]:
        return {"seed": 0, "asked": {"needs": needs, "longest": len(needs)}, "files": files}

    made = StepFolder(tmp_path / "statistics", settings_of(["counts"], own=1)).open()
    made.finish()
    edited = StepFolder(made.path, settings_of(["counts", "general"], own=2, other=1))
    with pytest.raises(InputError, match=r"\(asked\.longest, asked\.needs, files\.other, files\.own\)"):
        edited.open()
    assert StepFolder(made.path, settings_of(["counts", "general"], own=1, other=1)).state is State.OUTGROWN
    assert made.done


def test_a_list_of_terms_is_part_of_what_an_arm_learns(tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("febbre\n")
    by_list = {"masking": {"strategy": "mslm", "mslm": {"terms": "lexicon", "lexicon": str(terms)}}}
    asked = settings(tmp_path, arms={"listed": by_list, "other": ARMS["decselfmask"]})
    before = [determinants.settings_of(step, asked, {}) for step in ("mask", "train/listed", "train/other")]
    terms.write_text("febbre\ntosse\n")
    after = [determinants.settings_of(step, asked, {}) for step in ("mask", "train/listed", "train/other")]
    assert [old != new for old, new in zip(before, after, strict=True)] == [True, True, False]


def test_who_looks_into_an_empty_folder_does_not_say_what_it_is_made_from(tmp_path: Path) -> None:
    works = StepFolder(tmp_path / "step", {"ratio": 0.1}).open()
    # a report of a config that was changed meanwhile
    assert StepFolder(tmp_path / "step", {"ratio": 0.2}).state is State.ABSENT
    works.finish()
    with pytest.raises(InputError, match="ratio"):
        StepFolder(tmp_path / "step", {"ratio": 0.2}).open()


def test_relevance_outlives_what_masking_finds_wrong(tmp_path: Path) -> None:
    hidden = config.Masking(strategy="selective", selective=config.Selective(source="relevance"))
    scored = {"task_id": ["t"], "predicted": ["si"], "margin": [1.0], "layers": [0], "n_tokens": 2, "n_cut_tokens": 0}
    words = {"word_start": [0, 7], "word_end": [6, 13], "relevance": [0.0, 0.0]}  # no word matters
    notes = [
        {"note_id": "idle", "text": "febbre tosse?", **scored, **words},
        {"note_id": "broken", "error": "E_EMPTY"},
    ]
    masked = Mask({"selective": hidden}, seed=0)(rows.table(notes, WITH_TEXT))
    assert masked["error"].to_pylist() == ["E_NO_SPAN", "E_EMPTY"]
    assert masked["text"].to_pylist() == [None, None]
    kept = unmasked(masked)
    assert kept.schema == rows.ATTRIBUTED
    assert kept["error"].to_pylist() == [None, "E_EMPTY"]
    assert kept["relevance"].to_pylist() == [[0.0, 0.0], None]


def test_other_weights_in_a_folder_are_another_model(base: Run, tmp_path: Path) -> None:
    shutil.copytree(base.backbone.path, tmp_path / "model")
    asked = settings(tmp_path, model__path=str(tmp_path / "model"), pretrain=None)
    assert Run(asked).open().step(f"finetune/{SCORER}").done is False
    weights = tmp_path / "model/model.safetensors"
    Run(asked).open().step(f"finetune/{SCORER}").open().finish()
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(weights, ns=(0, 0))
    with pytest.raises(InputError, match=r"inputs\.model"):
        Run(asked).open().step(f"finetune/{SCORER}").open()


def test_an_option_that_is_never_sure_teaches_nothing(tmp_path: Path) -> None:
    answers = [{"note_id": f"n{i}", "task_id": ["t"], "predicted": ["no"], "confidence": [0.9]} for i in range(50)]
    pq.write_table(rows.table(answers, rows.ANSWERED), tmp_path / "answers.parquet")
    task = Task("t", "binary", "?", ("yes", "no"), ("yes", "no"))
    _, shares = pseudo_labels.keep_shares(tmp_path, PseudoLabels(confidence=0.5, max_imbalance=3.0), [task])
    assert shares == {("t", "no"): 0.0}


def test_each_step_alone_also_for_an_arm_with_its_own_attribution(tmp_path: Path) -> None:
    run = Run(settings(tmp_path, arms=ARMS)).open()
    driver.run_command(run, "pretrain")
    driver.run_command(run, "finetune")
    driver.run_command(run, "mask")
    for arm in ("kv", "pseudo"):
        driver.run_command(run, "train", [arm])
        driver.run_command(run, "finetune", [arm])
        driver.evaluate(run, arm)
    assert (run.folder / "variants/kv/evaluate/kv/manifest.json").exists()
    assert run.is_done("evaluate/pseudo")
    with pytest.raises(InputError, match="there is nothing to finetune"):
        driver.run_command(run, "finetune", ["zero_shot"])


def test_errors_are_a_share_of_the_notes_that_were_tried(tmp_path: Path) -> None:
    run = Run(settings(tmp_path, data__max_error_rate=0.2)).open()
    step, ids = run.step("attribute"), run.corpus.note_ids().to_pylist()
    errors = ["E_OOM", "E_OOM", None, None] + ["NOT_SAMPLED"] * (len(ids) - 4)
    found = [{"note_id": note_id, "error": error} for note_id, error in zip(ids, errors, strict=True)]
    step.open().data.mkdir()
    pq.write_table(rows.table(found, rows.ATTRIBUTED), step.data / "part.parquet")
    with pytest.raises(InputError, match="2 of 4 notes failed") as error:
        making._audited(run, step)
    assert error.value.exit_code is ExitCode.DATA


def test_a_trial_equals_the_same_config_run_by_hand(base: Run, tmp_path: Path) -> None:
    changes = {"arms": {"decselfmask": {"masking": {"ratio": 0.4}}}, "attribution__layer": 1}
    child = Run(_child(base, **changes), base=base).open()
    driver.run_all(child)
    alone = Run(settings(tmp_path, **changes)).open()
    driver.run_all(alone)
    plans = [pq.read_table(run.step("mask").data).sort_by("note_id")["plans"].to_pylist() for run in (child, alone)]
    assert plans[0] == plans[1]
    scores = [pq.read_table(run.step("evaluate/decselfmask").data)["scores"].to_pylist() for run in (child, alone)]
    assert scores[0] == scores[1]


def test_plans_are_counted_once_and_as_an_earlier_version_left_them(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = base.step("mask")
    counted = tally(masks.data)
    monkeypatch.setattr(making, "tally", lambda data: pytest.fail("they were counted with the masks"))
    assert {arm: of.facts for arm, of in making.planned(masks).items()} == {
        arm: of.facts for arm, of in counted.items()
    }
    monkeypatch.setattr(making, "tally", tally)
    earlier = StepFolder(tmp_path / "mask", masks.settings).open()
    shutil.copytree(masks.data, earlier.path / "data")
    earlier.finish(arms={arm: {"plans": of.plans, "ratio": of.ratio} for arm, of in counted.items()})
    assert {arm: of.facts for arm, of in making.planned(earlier).items()} == {a: of.facts for a, of in counted.items()}


def test_masking_reads_the_layer_that_is_asked_for(base: Run) -> None:
    plans = []
    for layer in (0, 1):
        child = Run(_child(base, attribution__layer=layer, arms={"decselfmask": ARMS["decselfmask"]}), base=base).open()
        driver.run_command(child, "mask")
        plans.append(pq.read_table(child.step("mask").data).sort_by("note_id")["plans"].to_pylist())
    assert plans[0] != plans[1]


def test_a_layer_without_relevance_is_refused(base: Run) -> None:
    arms = {"decselfmask": ARMS["decselfmask"]}
    wanted = _child(base, attribution__layer=3, arms=arms)
    with pytest.raises(InputError, match=r"attribution\.layer: is 3, .* valid at 0\.\.2"):
        Run(wanted, base=base).open()
    child = Run(_child(base, arms=arms), base=base).open()
    child.settings = wanted  # past the check
    with pytest.raises(InputError, match="relevance was stored at"):
        driver.run_command(child, "mask")


def test_sure_answers_are_kept_and_classes_evened_out(base: Run) -> None:
    answers = base.step("answer").data
    arm = base.settings.arms["pseudo"].pseudo_labels
    assert arm is not None
    tasks = base.corpus.tasks
    _, every = pseudo_labels.keep_shares(answers, arm, tasks)
    assert set(every.values()) == {1.0}  # no limit
    found: Counter[tuple[str, str]] = Counter()
    for row in pq.read_table(answers).to_pylist():
        found.update(zip(row["task_id"] or (), row["predicted"] or (), strict=True))
    assert set(every) <= set(found)
    confidence, evened = pseudo_labels.keep_shares(
        answers, arm.model_copy(update={"max_imbalance": 1.0, "confidence": 0.01}), tasks
    )
    for (task_id, answer), share in evened.items():
        rarest = min(found[task_id, option] for task in tasks if task.id == task_id for option in task.options)
        assert share == pytest.approx(rarest / found[task_id, answer])
    task_id, answer = next(iter(evened))
    assert pseudo_labels.is_kept("n", task_id, answer, 0.5, (confidence, {(task_id, answer): 1.0}))
    assert not pseudo_labels.is_kept("n", task_id, answer, 0.001, (confidence, {(task_id, answer): 1.0}))
    assert not pseudo_labels.is_kept("n", task_id, answer, 0.5, (confidence, {(task_id, answer): 0.0}))


def _child(base: Run, **changes: object) -> Config:
    name = f"child{len(list(base.folder.parent.iterdir()))}"
    return settings(base.folder.parent, name=name, attribution__keep="all", **changes)


def test_questions_that_the_new_tokenizer_cannot_fit_are_refused_before_training(tmp_path: Path) -> None:
    run = Run(settings(tmp_path, prompt__max_tokens=16, prompt__instruction="Rispondi alla domanda. " * 9)).open()
    with pytest.raises(InputError, match="leaves no room for a note"):
        driver.run_command(run, "pretrain")
    assert not (run.folder / "pretrain/model").exists()


def test_pretraining_and_learning_read_different_notes(tmp_path: Path) -> None:
    generated = Run(settings(tmp_path, name="generated", arms=ARMS)).open().corpus.data
    asked = settings(tmp_path, arms={"sft": {}, "cpt": {"masking": {"strategy": "cpt_packed"}}})
    shared = {"source": "files", "pretraining": None, "pretraining_share": 0.5}
    asked = asked.model_copy(update={"data": generated.model_copy(update=shared)})
    with pytest.raises(InputError, match=r"data\.pretraining_share: is a share of data\.notes"):
        Run(
            asked.model_copy(update={"data": asked.data.model_copy(update={"pretraining": generated.pretraining})})
        ).open()
    run = Run(asked).open()
    assert not set(run.corpus.texts(pretrains=True)) & set(run.corpus.texts(pretrains=False))
    driver.run_command(run, "pretrain")
    driver.run_command(run, "finetune")
    driver.run_command(run, "mask")
    cut = pq.read_table(run.folder / "pretrain/rows/data", filters=[("arm", "=", "text")])
    pretrained = {key.split("\t")[0] for key in cut["key"].to_pylist()}
    masked = pq.read_table(run.step("mask").data, columns=["note_id", "error"]).to_pylist()
    learned = {note["note_id"] for note in masked if note["error"] is None}
    train = {note["note_id"] for note, _ in run.corpus.labelled("train")}
    assert pretrained
    assert learned
    assert train
    assert not pretrained & (learned | train)
    ids = {note["note_id"] for note in masked}
    assert pretrained | learned == {note_id for note_id in ids if note_id.startswith(("train", "unlabelled"))}
