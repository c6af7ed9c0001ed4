"""Settings that no test of their own room names: each has its effect. And no setting is named by no test at all."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from raypipe import rows
from raypipe.errors import ExitCode, InputError
from raypipe.masking import mslm
from raypipe.masking.collocations import collocations
from raypipe.masking.weights import kind_weights
from raypipe.notes import labels, synthetic
from raypipe.notes.tasks import Task
from raypipe.runs.run import Run
from raypipe.settings.config import Attribution, Data, Masking, Model, Mslm, Pmi, Pretrain, Prompt, Resources
from raypipe.stream import cluster, pipeline
from raypipe.stream.stages.attribute import Attribute
from raypipe.stream.stages.cut import Cut
from tests.masking.cases import SENTENCES, STATISTICS
from tests.masking.test_oracles import hidden
from tests.settings.test_configfile import FIELDS
from tests.small_run import settings
from tests.tiny_models import tiny_model, tiny_tokenizer

ROOT = Path(__file__).parents[2]


def test_every_setting_is_named_by_a_test_or_a_recipe() -> None:
    files = [
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "jobs/configs").glob("*.yaml"),
        *(ROOT / "tune_spaces").glob("*.py"),
    ]
    words = {word for path in files for name in re.findall(r"\w+", path.read_text()) for word in name.split("__")}
    unnamed = {key for path, _ in FIELDS if (key := path.rpartition(".")[2]) != "some_name"} - words
    assert not unnamed, "add a test, or remove the setting"


def _labels() -> pa.Table:
    split = ["train"] * 30 + ["dev"] * 20
    columns = {"task_id": ["t"] * 50, "note_id": [f"n{i}" for i in range(50)], "label": ["yes", "no"] * 25}
    return pa.table({**columns, "split": split}).select(rows.LABELS.names).cast(rows.LABELS)


def _notes_of(split: str, **limits: Any) -> set[str]:
    table = labels.within_limits(_labels(), Data(**limits))
    return set(table.filter(pc.field("split") == split)["note_id"].to_pylist())


def test_another_label_seed_is_another_subset_of_the_training_labels() -> None:
    chosen = [_notes_of("train", max_labelled=10, label_seed=seed) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert {len(notes) for notes in chosen} == {10}
    assert _notes_of("dev", max_dev=5, label_seed=1) == _notes_of("dev", max_dev=5)


def test_max_dev_limits_dev_alone() -> None:
    assert len(_notes_of("dev", max_dev=5)) == 5
    assert len(_notes_of("train", max_dev=5)) == 30


def test_generated_mentions_have_modifiers() -> None:
    every = {modifier for finding in synthetic.FINDINGS for modifier in finding.modifiers}

    def share_with(modifiers: float) -> float:
        made = synthetic.generate(
            n_labelled=8, n_unlabelled=60, n_dev=8, n_test=8, n_pretraining=1, modifiers=modifiers
        )
        texts = made.notes["text"].to_pylist()
        return sum(any(modifier in text for modifier in every) for text in texts) / len(texts)

    assert share_with(0.0) < share_with(1.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return Model(path=str(folder), device="cpu")


def test_a_note_becomes_so_many_pieces(model: Model) -> None:
    text = " ".join(["dispnea e febbre"] * 40)
    every, two = (list(Cut(model, Pretrain(context=16, max_pieces=n))._rows("n", text)) for n in (None, 2))
    assert len(every) > 2
    assert [row["key"] for row in two] == [row["key"] for row in every[:2]]


def test_emphasised_words_weigh_more(model: Model) -> None:
    (plain,), (heavy,) = (Cut(model, Pretrain(emphasis=e))._rows("n", "nega febbre") for e in ({}, {" febbre": 5.0}))
    assert set(plain["loss_weight"].tolist()) == {0.0, 1.0}
    assert max(heavy["loss_weight"].tolist()) == 5.0


def _attributed(model: Model, **changes: Any) -> dict[str, Any]:
    tasks = [Task(f"t{i}", "binary", f"febbre {i}?", ("sì", "no"), ("sì", "no")) for i in range(3)]
    stage = Attribute(model, Attribution(**changes), Prompt(max_tokens=128), tasks, seed=0)
    note = {"note_id": "n", "text": "Paziente con dispnea.", "error": None, "tags": None}
    (row,) = stage(pa.Table.from_pylist([note])).to_pylist()
    return row


def test_tasks_of_a_note_are_sampled(model: Model) -> None:
    assert len(_attributed(model, tasks_per_note=2)["task_id"]) == 2
    assert _attributed(model, tasks_per_note=None)["task_id"] == ["t0", "t1", "t2"]


def test_relevance_of_a_word_is_reduced_over_its_tokens(model: Model) -> None:
    largest, added = (_attributed(model, word_reduction=how)["relevance"] for how in ("max", "sum"))
    assert largest != added


def test_so_many_notes_are_counted(tmp_path: Path) -> None:
    def n_words(max_notes: int) -> int:
        run = Run(settings(tmp_path, name=f"of{max_notes}", statistics__max_notes=max_notes)).open()
        what = SimpleNamespace(longest=1, phi_patterns=())
        counts = pipeline.count_words(run.job, what)  # type: ignore[arg-type]
        return sum(
            pc.sum(counts[name]).as_py() for name in counts.column_names if pa.types.is_integer(counts[name].type)
        )

    assert 0 < n_words(3) < n_words(20)


def test_so_many_collocations_of_each_length() -> None:
    every, first = (collocations(STATISTICS, Pmi(min_count=5, top_per_length=n)) for n in (5000, 1))
    assert len(every) > len(first)
    lengths = [gram.count(" ") for gram in first]
    assert len(lengths) == len(set(lengths)) > 1


def test_word_types_must_matter_in_a_share_of_their_occurrences() -> None:
    arms = [Masking(strategy="selective", selective={"min_share": share}) for share in (0.5, 0.9)]
    often, always = (set(words_of(hidden(arm, SENTENCES[0]))) for arm in arms)
    assert "dolore" in often
    assert "dolore" not in always


def words_of(spans: list[str]) -> list[str]:
    return [word for span in spans for word in span.split()]


def test_so_many_terms() -> None:
    one, many = (
        mslm.prepare_mslm(Masking(strategy="mslm", mslm={"terms": "tficf", "n_terms": n}), STATISTICS) for n in (1, 50)
    )
    assert one is not None
    assert many is not None
    assert one._terms < many._terms


def test_fixed_weights_of_terms_and_other_words() -> None:
    _, entity, base = kind_weights(Mslm(entity_weight=6, base_weight=2), 10, 30)
    assert entity / base == pytest.approx(3)


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A cluster that has been joined already; the dict says what it has."""
    import ray
    from ray.data import DataContext

    has = {"CPU": 8.0, "GPU": 2.0}
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: has)
    monkeypatch.setattr(ray, "nodes", list)
    context = DataContext.get_current()
    for key in ("execution_no_progress_timeout_s", "enable_progress_bars", "max_errored_blocks"):
        monkeypatch.setattr(context, key, getattr(context, key))  # put back afterwards
    return has


def _join(**changes: Any) -> cluster.Cluster:
    joined = cluster.join(Resources(**changes))
    assert isinstance(joined, cluster.Cluster)
    return joined


def test_gpus_are_used_if_wanted(fake_ray: dict[str, float]) -> None:
    assert (_join().gpus, _join(use_gpu=True).gpus, _join(use_gpu=False).gpus) == (2, 2, 0)
    del fake_ray["GPU"]
    with pytest.raises(InputError, match=r"resources\.use_gpu") as refused:
        _join(use_gpu=True)
    assert refused.value.exit_code == ExitCode.CLUSTER


def test_actors_have_so_many_cpus_as_far_as_there_is_room(
    fake_ray: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _join(use_gpu=False, attribution_actors=2, cpus_per_actor=1).cpus_per_actor == 1
    assert _join(use_gpu=False, attribution_actors=2, cpus_per_actor=8).cpus_per_actor == 1.5, "five CPUs stay free"
    assert _join(use_gpu=False, attribution_actors=9, cpus_per_actor=8).cpus_per_actor * 9 == pytest.approx(3)
    fake_ray["CPU"] = 4
    assert _join(attribution_actors=2).cpus_per_actor == 0, "a pool on cards leaves a node of 4 CPUs to the stream"
    assert "warning: the cluster has 4 CPUs" in "".join(capsys.readouterr())


def test_the_pool_follows_the_gpus(fake_ray: dict[str, float]) -> None:
    whole, quarters = _join(), _join(gpus_per_actor=0.25)
    assert (whole.actors, whole.gpus_per_actor, whole.limits) == (2, 1.0, (2, math.inf))
    assert (quarters.actors, quarters.gpus_per_actor, quarters.limits) == (8, 0.25, (8, math.inf))
    assert _join(gpus_per_actor=0.3).actors == 6, "three on each card: an actor is on one card"
    assert _join(min_attribution_actors=1).limits == (1, math.inf)
    alone = _join(use_gpu=False)
    assert alone.limits == (alone.actors, alone.actors), "CPUs are shared with the stages beside"
    assert _join(use_gpu=False).gpus_per_actor == 0


def test_a_pool_of_a_stated_size_is_fixed_or_begins_with_what_there_is(fake_ray: dict[str, float]) -> None:
    fixed, growing = _join(attribution_actors=6), _join(attribution_actors=6, min_attribution_actors=1)
    assert (fixed.actors, fixed.limits, fixed.gpus_per_actor) == (6, (6, 6), pytest.approx(1 / 3))
    assert (growing.actors, growing.limits) == (6, (1, 6))
    alone = _join(attribution_actors=6, min_attribution_actors=4, gpus_per_actor=1.0)
    assert (alone.actors, alone.limits) == (2, (2, 6)), "no more can be asked for than there is room"
    pool = growing.on_devices()["compute"]
    assert (pool.min_size, pool.initial_size, pool.max_size) == (1, 6, 6)
    pool = fixed.on_devices()["compute"]
    assert (pool.min_size, pool.initial_size, pool.max_size) == (6, 6, 6)


@pytest.mark.parametrize(("cpus", "size"), [(0.5, 1), (2, 2), (512, 4)])
def test_pools_of_cheap_stages_keep_their_size(
    cpus: float, size: int, fake_ray: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray ends idle actors of one that may grow, and starts them anew ten seconds later."""
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    fake_ray["CPU"] = cpus
    pool = _join(use_gpu=False).light()["compute"]
    assert (pool.min_size, pool.max_size) == (size, size)


def test_ray_takes_the_stages_that_hold_a_model(fake_ray: dict[str, float]) -> None:
    """With GPUs it refuses a stage without a size of its batches; a batch is a block there, too."""
    from ray.data import Dataset

    dataset: Any = SimpleNamespace(map_batches_internal=lambda stage, **options: options)
    for use_gpu, size in ((True, 40), (False, None)):
        options = _join(use_gpu=use_gpu, rows_per_block=40).on_devices()
        assert Dataset.map_batches(dataset, Attribute, **options, **pipeline.BLOCK)["batch_size"] == size


@pytest.mark.parametrize("share", [2.0, 0.0, -1.0])
def test_a_model_is_held_by_one_card(share: float) -> None:
    with pytest.raises(ValueError, match="must be a share of one card"):
        Resources(gpus_per_actor=share)


def test_the_fewest_actors_are_no_more_than_the_most() -> None:
    with pytest.raises(ValueError, match="min_attribution_actors is more than attribution_actors"):
        Resources(attribution_actors=2, min_attribution_actors=3)


def test_training_workers_have_so_many_cpus(fake_ray: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    for cpus_per_worker, expected in ((2.0, 2.0), ("auto", 3.0)):
        resources = Resources(use_gpu=False, cpus_per_worker=cpus_per_worker)
        assert cluster.join(resources).worker(2, resources.cpus_per_worker, 1) == {"CPU": expected}


def test_no_training_worker_asks_for_more_cpus_than_a_node_has(
    fake_ray: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": True, "Resources": {}}]
    monkeypatch.setattr("ray.nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 64.0}}])
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    fake_ray["CPU"] = 12.0
    joined = cluster.join(Resources(use_gpu=False))
    assert [joined.worker(1, "auto", workers) for workers in (1, 3, 12)] == [{"CPU": 4.0}, {"CPU": 4.0}, {"CPU": 1.0}]


def test_a_stream_without_progress_ends(fake_ray: dict[str, float]) -> None:
    from ray.data import DataContext

    _join(no_progress_timeout_s=77)
    assert DataContext.get_current().execution_no_progress_timeout_s == 77


def test_a_cluster_without_a_token_is_joined_only_if_allowed(
    fake_ray: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    joined: list[Any] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: joined.append(options["address"]))
    monkeypatch.setattr(ray, "shutdown", lambda: joined.append("left"))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    monkeypatch.setattr(cluster, "doubt_about_token", lambda address: f"{address} runs without token authentication")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "invented")  # what the client has proves nothing
    with pytest.raises(InputError, match="allow_unauthenticated_cluster") as refused:
        _join()
    assert refused.value.exit_code == ExitCode.CLUSTER
    assert joined == ["10.0.0.1:6379", "left"]
    _join(allow_unauthenticated_cluster=True)
    assert joined[2:] == ["10.0.0.1:6379"]
