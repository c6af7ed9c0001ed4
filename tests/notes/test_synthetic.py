"""The generated corpus keeps its promises: same seed same bytes, offsets on the words, splits share nothing."""

from __future__ import annotations

import pytest

from raypipe.notes.synthetic import CUES, FINDINGS, TASK_FINDINGS, Corpus, generate

SIZES = {"n_labelled": 120, "n_unlabelled": 150, "n_dev": 80, "n_test": 120, "n_pretraining": 150}


@pytest.fixture(scope="module", params=[0.0, 1.0], ids=["easy", "hard"])
def corpus(request: pytest.FixtureRequest) -> Corpus:
    return generate(seed=3, difficulty=request.param, **SIZES)


def texts(corpus: Corpus) -> dict[str, str]:
    return dict(zip(corpus.notes["note_id"].to_pylist(), corpus.notes["text"].to_pylist(), strict=True))


def words_by_case(corpus: Corpus) -> dict[tuple[str, str], list[str]]:
    """(note_id, task_id) -> the deciding words, in order of their rows."""
    text_of = texts(corpus)
    cases: dict[tuple[str, str], list[str]] = {}
    for row in corpus.deciding.to_pylist():
        words = text_of[row["note_id"]][row["start"] : row["end"]]
        cases.setdefault((row["note_id"], row["task_id"]), []).append(words)
    return cases


def test_same_seed_same_corpus_and_another_seed_another() -> None:
    first, again, other = generate(seed=5, **SIZES), generate(seed=5, **SIZES), generate(seed=6, **SIZES)
    assert first == again
    assert first.notes != other.notes
    assert first.pretraining != other.pretraining


def test_sizes_ids_and_splits(corpus: Corpus) -> None:
    splits = corpus.notes["split"].to_pylist()
    assert {s: splits.count(s) for s in set(splits)} == {"train": 120, "unlabelled": 150, "dev": 80, "test": 120}
    ids = corpus.notes["note_id"].to_pylist() + corpus.pretraining["note_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    assert len({t["id"] for t in corpus.tasks}) == len(corpus.tasks) >= 12


def test_every_note_and_patient_is_in_one_split(corpus: Corpus) -> None:
    everything = corpus.notes["text"].to_pylist() + [t.split("\n")[0] for t in corpus.pretraining["text"].to_pylist()]
    assert len(set(everything)) == len(everything)
    patients = {(row["group_id"], row["split"]) for row in corpus.notes.to_pylist()}
    assert len({group for group, _ in patients}) == len(patients)


def test_every_task_has_both_labels_in_every_labelled_split(corpus: Corpus) -> None:
    rows = corpus.labels.to_pylist()
    assert len(rows) == (120 + 80 + 120) * len(corpus.tasks)
    for task in corpus.tasks:
        for split in ("train", "dev", "test"):
            labels = {r["label"] for r in rows if r["task_id"] == task["id"] and r["split"] == split}
            assert labels == set(task["options"]), (task["id"], split)


def test_deciding_words_are_the_finding_and_for_a_no_also_its_cue(corpus: Corpus) -> None:
    cases = words_by_case(corpus)
    forms = {f.task_id: {*f.common, *f.local} for f in TASK_FINDINGS}
    absent_cues = {*CUES["negated"], *CUES["history"]}
    seen = {"sì": 0, "no": 0, "unmentioned": 0}
    for row in corpus.labels.to_pylist():
        words = cases.pop((row["note_id"], row["task_id"]), [])
        if row["label"] == "sì":
            (finding,) = words
        elif words:
            cue, finding = words
            assert cue in absent_cues
        else:
            text = texts(corpus)[row["note_id"]]
            assert not any(f" {form}" in text for form in forms[row["task_id"]])
            seen["unmentioned"] += 1
            continue
        assert finding in forms[row["task_id"]]
        seen[row["label"]] += 1
    assert all(note_id.startswith("unlabelled") for note_id, _ in cases), "deciding words of a case that has no label"
    assert min(seen.values()) > 100


def test_labels_miss_some_local_forms_that_unlabelled_notes_have(corpus: Corpus) -> None:
    local = {form for f in TASK_FINDINGS for form in f.local}

    def forms_in(*splits: str) -> set[str]:
        text = "\n".join(r["text"] for r in corpus.notes.to_pylist() if r["split"] in splits)
        return {form for form in local if form in text}

    assert len(forms_in("unlabelled") - forms_in("train", "dev")) >= len(TASK_FINDINGS) // 4


@pytest.mark.parametrize("unseen", [0.0, 1.0])
def test_how_many_forms_no_label_shows_can_be_set(unseen: float) -> None:
    corpus = generate(seed=3, difficulty=0.25, local_share=0.9, unseen=unseen, **SIZES)
    labelled = "\n".join(r["text"] for r in corpus.notes.to_pylist() if r["split"] in ("train", "dev"))
    assert sum(f.local[-1] not in labelled for f in TASK_FINDINGS) == round(unseen * len(TASK_FINDINGS))
    said = [words[-1] for (note, _), words in words_by_case(corpus).items() if note.startswith("test")]
    local = {form for f in TASK_FINDINGS for form in f.local}
    assert 0.85 < sum(word in local for word in said) / len(said) < 0.95


def test_only_pretraining_notes_have_a_check_list_and_only_over_common_forms(corpus: Corpus) -> None:
    assert not any("Sintesi" in text for text in texts(corpus).values())
    with_list = [text.split("\nSintesi: ") for text in corpus.pretraining["text"].to_pylist() if "\nSintesi: " in text]
    assert len(with_list) > 100
    for note, answers in with_list:
        items = dict(item.rsplit(" ", 1) for item in answers.split(", "))
        assert set(items) == {f.common[0].upper() for f in FINDINGS}
        assert not any(f" {form}" in note for f in FINDINGS for form in f.local)
        for finding in FINDINGS:
            if items[finding.common[0].upper()] == "sì":
                assert any(form in note for form in finding.common)


def test_questions_are_asked_in_the_words_of_the_check_list(corpus: Corpus) -> None:
    assert [t["question"] for t in corpus.tasks] == [f.common[0].upper() for f in TASK_FINDINGS]


def test_difficulty_is_checked() -> None:
    with pytest.raises(ValueError, match="difficulty"):
        generate(difficulty=1.5, **SIZES)
