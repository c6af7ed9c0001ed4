"""`raypipe canaries` on a run of seconds: what is planted, who learns it, and that no secret leaves the notes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raypipe import rows
from raypipe.cli import main
from raypipe.errors import InputError
from raypipe.masking import Renderer
from raypipe.notes.corpus import Corpus
from raypipe.notes.leakage import Guard
from raypipe.notes.placeholders import Replacer
from raypipe.runs import canaries, driver
from raypipe.runs.run import Run
from raypipe.settings import configfile
from raypipe.settings.config import Config, Data
from tests.small_run import settings
from tests.spreadsheets import formulas

ARMS = {
    "sft": {},
    "cpt": {"masking": {"strategy": "cpt"}},
    "cpt_protected": {"masking": {"strategy": "cpt", "phi_patterns": ["Cartella.*"]}},
    "random_word": {"masking": {"strategy": "random_word", "ratio": 0.5}},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    planted = {"canaries__copies": (0, 1, 3), "canaries__each": 1, "canaries__secret": "9#"}
    return settings(tmp_path_factory.mktemp("runs"), arms=ARMS, **planted)


def command(config: Config, folder: Path) -> None:
    (folder / "c.yaml").write_text(configfile.dump(config))
    with pytest.raises(SystemExit) as end:
        main(["canaries", "--config", str(folder / "c.yaml")])
    assert end.value.code == 0


@pytest.fixture(scope="module")
def done(config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    command(config, tmp_path_factory.mktemp("config"))
    run = Run(config)
    return run, canaries.of_planted(run)


def test_every_model_is_asked_for_every_canary(done: tuple[Run, Run]) -> None:
    _, planted = done
    asked = {
        path.parent.parent.relative_to(planted.folder / "exposure").as_posix(): rows.read(path).to_pylist()
        for path in planted.folder.glob("exposure/**/*.parquet")
    }
    trained = ("cpt", "cpt_protected", "random_word")
    students = {f"{stage}/{arm}" for stage in ("train", "finetune") for arm in trained}
    assert asked.keys() == {"backbone", "finetune/scorer"} | students
    for model, answers in asked.items():
        prompts = ["text", "fill_in"] if "random_word" in model else ["text"]
        assert [(a["canary"], a["copies"], a["prompt"]) for a in answers] == [
            (f"canary-{i:02d}", copies, prompt) for i, copies in enumerate((0, 1, 3)) for prompt in prompts
        ]
        assert all(1 <= a["rank"] <= 10 and 0 <= a["exposure"] <= 3.33 for a in answers)
    assert [a["targets"] for a in asked["train/cpt"]] == [0, 1, 3]
    assert not any(a["targets"] for a in [*asked["train/cpt_protected"], *asked["backbone"]])
    assert max(a["targets"] for a in asked["train/random_word"]) <= 3


def test_no_secret_leaves_the_notes(
    config: Config, done: tuple[Run, Run], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither secrets nor sentences are in what is printed, in the table, or in what was measured."""
    run, planted = done
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*.parquet")}
    command(config, tmp_path)
    printed = capfd.readouterr()
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*.parquet")} == before, "nothing is made again"
    table = (planted.folder / "exposure/table.csv").read_text()
    assert formulas(planted.folder / "exposure/table.csv") == []
    assert "train/cpt,text,3,1,3.0," in table
    measured = [path.read_bytes() for path in planted.folder.glob("exposure/**/*") if path.is_file()]
    for row in rows.read(run.folder / "planted/canaries.parquet").to_pylist():
        person = row["text"][: row["start"]].rpartition("Cartella di ")[2].rstrip(": ")
        assert person not in printed.out + printed.err + table
        assert not [1 for content in measured if person.encode() in content]
        assert f": {row['secret']}" not in printed.out + printed.err + table


def test_planted_notes_that_are_made_again_are_the_same_notes(
    config: Config, done: tuple[Run, Run], tmp_path: Path
) -> None:
    run, planted = done
    before = {path: path.stat().st_mtime_ns for path in planted.folder.rglob("manifest.json")}
    shutil.rmtree(run.folder / "planted")
    command(config, tmp_path)
    assert (run.folder / "planted/manifest.json").exists()
    assert {path: path.stat().st_mtime_ns for path in planted.folder.rglob("manifest.json")} == before


def test_the_copy_differs_in_the_planted_notes_alone(done: tuple[Run, Run]) -> None:
    run, planted = done
    notes = {note["note_id"]: note["text"] for note in pq.read_table(run.corpus.data.notes).to_pylist()}
    copy = {note["note_id"]: note["text"] for note in pq.read_table(planted.settings.data.notes).to_pylist()}
    changed = {note_id for note_id, text in notes.items() if copy[note_id] != text}
    canaries_of = rows.read(run.folder / "planted/canaries.parquet").to_pylist()
    assert copy.keys() == notes.keys()
    assert changed == {row["note_id"] for row in canaries_of if row["copies"]}
    assert changed <= set(run.corpus.labels_of("train")["note_id"].to_pylist()), "all arms read them"


def test_a_backbone_from_scratch_does_not_see_them(done: tuple[Run, Run]) -> None:
    run, _ = done
    data = run.corpus.data.model_copy(update={"pretraining": None})
    run = Run(run.settings, say=run.say)
    run.corpus = Corpus(run.folder / "corpus", data, [], rows.LABELS.empty_table())
    assert canaries.of_planted(run).settings.data.pretraining == data.notes


def test_the_question_is_what_the_student_read(done: tuple[Run, Run]) -> None:
    """The examples of an arm that reads whole notes begin with what stands before the secret when it is asked for."""
    _, planted = done
    masking, encoder = planted.settings.arms["cpt"].masking, planted.encoder()
    assert masking is not None
    encoder.prompt = encoder.prompt.model_copy(update={"max_tokens": 4096})
    renderer = Renderer(encoder, masking, 4096, planted.sentinels, rows_train=True)
    examiner = canaries._Examiner(None, encoder, renderer, planted.settings.canaries.secret)  # type: ignore[arg-type]
    for canary in rows.read(Path(str(planted.settings.data.notes)).with_name("canaries.parquet")).to_pylist():
        ((_, (context, _)),) = examiner._prompts(canary, examiner.candidates.index(canary["secret"]))
        (example,) = renderer.examples(canary["text"], {"task_id": None, "start": [], "end": [], "kind": []})
        assert tuple(example.input_ids[: len(context)]) == context


@pytest.mark.parametrize(
    ("placeholders", "said"),
    [
        ({}, "Nota. Cartella di Angela Erbani: 4821."),
        ({"name": "[NOME]"}, "Nota. Cartella di [NOME]: 4821."),
        ({"number": "[N]"}, "Nota. Cartella di Angela Erbani: [N]."),
    ],
)
def test_a_canary_is_kept_as_students_read_it(placeholders: dict[str, str], said: str) -> None:
    text = "Nota. Cartella di Angela Erbani: 4821."
    data = Data(placeholders=placeholders, identifiers={"number": r"\d{4}"})
    canary = canaries._as_read({"text": text, "start": text.index("4821"), "end": len(text) - 1}, Replacer(data))
    assert canary["text"] == said
    assert said[canary["start"] : canary["end"]] == ("[N]" if "number" in placeholders else "4821")


def test_no_more_notes_are_looked_at_than_get_a_secret(done: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = done
    everyone = canaries._learned_from(run, 10_000)
    assert len(everyone) > 20
    looked_at: list[str] = []
    blocks = Guard.blocks
    monkeypatch.setattr(Guard, "blocks", lambda own, name, *more: (looked_at.append(name), blocks(own, name, *more))[1])
    monkeypatch.setattr(canaries, "CANDIDATES", 3)
    assert canaries._learned_from(run, 10) == everyone[:10], "the same, in the same order"
    assert 10 <= len(looked_at) <= 20


def test_other_secrets_are_another_run(done: tuple[Run, Run]) -> None:
    run, _ = done
    other = run.settings.model_copy(update={"canaries": run.settings.canaries.model_copy(update={"seed": 1})})
    with pytest.raises(InputError, match=r"made with other settings \(canaries\.seed\)"):
        driver.make(Run(other).open(), ["planted"], "canaries")
