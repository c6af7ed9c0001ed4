"""Corpus statistics: counts add up in any order, keep no protected or rare word, and survive the disk."""

from __future__ import annotations

import pickle
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import normalizers

from raypipe.errors import Code, InputError, RowError
from raypipe.masking import Masker
from raypipe.masking.case import Note
from raypipe.masking.counting import count_block, merge, relevance_block
from raypipe.masking.general import read_counts
from raypipe.masking.statistics import Statistics
from raypipe.masking.terms import Terms, read_terms, tagged
from raypipe.masking.vectors import type_vectors, unit
from raypipe.words import word_spans
from tests.masking.cases import SENTENCES, STATISTICS, arms, masking
from tests.tiny_models import tiny_tokenizer


def test_counts_of_blocks_add_up_in_any_order() -> None:
    texts = [*SENTENCES, "Febbre febbre, FEBBRE alta"] * 3
    whole = count_block(texts, longest=3)
    blocks = [count_block(texts[i : i + 2], longest=3) for i in range(0, len(texts), 2)]
    assert merge([whole]).equals(merge(blocks[::-1]))
    assert merge(blocks).equals(merge([merge(blocks[:3]), *blocks[3:]]))
    row = {r["gram"]: r for r in whole.to_pylist()}["febbre"]
    assert (row["count"], row["n_notes"]) == (3 * (1 + 1 + 3), 9)


def test_runs_end_at_punctuation_and_protected_words() -> None:
    grams = count_block(["dolore toracico. Forte tosse mario rossi oggi"], 2, ("mario rossi",))["gram"].to_pylist()
    assert {"dolore toracico", "forte tosse", "oggi"} <= set(grams)
    assert not {"toracico forte", "mario", "tosse mario", "rossi oggi", "tosse oggi"} & set(grams)


def test_relevance_by_word() -> None:
    text = "alfa beta"
    table = relevance_block(
        Note(text, word_spans(text), np.array([values], np.float32), is_cut=False)
        for values in ([2.0, 1.0], [0.0, 0.01])
    )
    assert table.to_pylist() == [
        {"gram": "alfa", "n_seen": 2, "relevance": 1.0, "n_important": 1},
        {"gram": "beta", "n_seen": 2, "relevance": 1.5, "n_important": 1},
    ]


def test_words_that_the_scorer_did_not_see_are_no_occurrences() -> None:
    text = "alfa beta alfa gamma"
    note = Note(text, word_spans(text), np.array([[2.0, 1.0, 0.0, 0.0]], np.float32), is_cut=True)
    assert {row["gram"]: row["n_seen"] for row in relevance_block([note]).to_pylist()} == {"alfa": 1, "beta": 1}
    note = Note(text, word_spans(text), note.relevance_QW, is_cut=False)
    assert {row["gram"]: row["n_seen"] for row in relevance_block([note]).to_pylist()} == {
        "alfa": 2,
        "beta": 1,
        "gamma": 1,
    }


def test_saved_and_loaded(tmp_path: Path) -> None:
    STATISTICS.save(tmp_path)
    again = Statistics.load(tmp_path)
    for name in ("words", "n_words", "ngrams", "n_general", "lexicons"):
        assert getattr(again, name) == getattr(STATISTICS, name)
    for name in ("count_V", "general_V", "relevance_V", "important_V", "vectors_VD"):
        np.testing.assert_array_equal(getattr(again, name), getattr(STATISTICS, name))
    Statistics().save(tmp_path / "empty")
    assert Statistics.load(tmp_path / "empty").words == ()


def test_a_masker_survives_pickling() -> None:
    text = " ".join(SENTENCES)
    masker = Masker(arms(), 0, STATISTICS)
    relevance_QW = np.ones((1, len(word_spans(text))), np.float32)
    plans = [
        m.plans("n", text, word_spans(text), ["t"], relevance_QW) for m in (masker, pickle.loads(pickle.dumps(masker)))
    ]
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    "name", ["mslm", "mslm_tficf", "mslm_attribution", "difference_masking", "pmi", "keyword", "selective_tagger"]
)
def test_missing_statistics_are_said(name: str) -> None:
    with pytest.raises(InputError, match="needs"):
        Masker({"a": masking(name)}, 0)


def test_a_corpus_without_a_frequent_word_is_said_before_notes_are_masked() -> None:
    empty = replace(STATISTICS, words=(), vectors_VD=np.zeros((0, 4), np.float32))
    with pytest.raises(InputError, match=r"keyword: no word is in statistics\.min_notes notes"):
        Masker({"a": masking("keyword")}, 0, empty)


def test_terms_match_longest_first(tmp_path: Path) -> None:
    file = tmp_path / "terms.txt"
    file.write_text("# sintomi\nDolore\ndolore toracico\n\nl'addome\n", encoding="utf-8")
    terms = Terms(read_terms(str(file)))
    text = "Dolore toracico, dolore. Toracico: l\u2019addome dolore"
    note = Note(text, word_spans(text), None, None)
    assert [" ".join(note.words[a : b + 1]) for a, b in terms.find(note)] == [
        "dolore toracico",
        "dolore",
        "l addome",
        "dolore",
    ]


def test_files_with_accents_of_two_characters_mean_the_words_of_the_notes(tmp_path: Path) -> None:
    """As editors on macOS write them; notes are NFC."""
    apart = unicodedata.normalize("NFD", "perché")
    assert apart != "perché"
    (tmp_path / "terms.txt").write_text(apart, encoding="utf-8")
    note = Note("perché no", word_spans("perché no"))
    assert Terms(read_terms(str(tmp_path / "terms.txt"))).find(note) == [(0, 0)]
    (tmp_path / "counts.csv").write_text(f"word,count\n{apart},3\nperché,1\n", encoding="utf-8")
    assert read_counts(str(tmp_path / "counts.csv")) == {"perché": 4}


def test_tags_must_fit_the_note() -> None:
    text = "dolore toracico"
    with pytest.raises(RowError, match=Code.TYPE.value):
        tagged(Note(text, word_spans(text), None, ["O"]))


def test_words_of_tagged_entities() -> None:
    text = "forte dolore toracico-addominale , \u2192 tosse secca"
    tags = ["O", "B-SIGN", "I-SIGN", "O", "B-SIGN", "B-SIGN", "B-SIGN"]
    found = tagged(Note(text, word_spans(text), None, tags))
    words = [text[a:b] for a, b in word_spans(text)]
    assert [words[a : b + 1] for a, b in found] == [["dolore", "toracico", "addominale"], ["tosse"], ["secca"]]


def test_vectors_of_words() -> None:
    tokenizer = tiny_tokenizer()
    embeddings_VD = np.random.default_rng(0).normal(size=(len(tokenizer), 4)).astype(np.float32)
    vectors = type_vectors(["febbre", "x"], tokenizer, embeddings_VD)
    ids = tokenizer(" febbre", add_special_tokens=False)["input_ids"]
    np.testing.assert_allclose(vectors[0], embeddings_VD[ids].mean(0) - embeddings_VD.mean(0), rtol=1e-5)
    tokenizer.backend_tokenizer.normalizer = normalizers.Prepend("no ")  # as SentencePiece puts a blank before a text
    np.testing.assert_allclose(type_vectors(["febbre"], tokenizer, embeddings_VD)[0], vectors[0], rtol=1e-5)
    assert np.linalg.norm(unit(vectors), axis=1) == pytest.approx(1)
    assert unit(np.zeros((1, 4), np.float32)).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".parquet"])
def test_general_counts_are_read(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"counts{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"word": ["Il", "il", "null"], "count": [3, 4, 1]}), file)
    else:
        by = "\t" if suffix == ".tsv" else ","
        file.write_text(f"word{by}count\nIl{by}3\nil{by}4\nnull{by}1\n", encoding="utf-8")
    assert read_counts(str(file)) == {"il": 7, "null": 1}


def test_broken_general_counts(tmp_path: Path) -> None:
    file = tmp_path / "counts.csv"
    file.write_text("parola,n\nil,3\n", encoding="utf-8")
    pq.write_table(pa.table({"word": [["il"]], "count": [1]}), tmp_path / "lists.parquet")
    for path in (file, tmp_path / "absent.tsv", tmp_path / "lists.parquet"):
        with pytest.raises(InputError, match="needs columns word and count"):
            read_counts(str(path))
