"""Config files: strict, all problems at once, and back again."""

import json
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from raypipe.errors import ExitCode, InputError, Problem
from raypipe.settings import configfile, yamlfile
from raypipe.settings.config import Config


def problems_of(tmp_path, text, overrides=()):
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as error:
        configfile.load(path, overrides)
    assert error.value.exit_code == ExitCode.CONFIG
    return [str(problem).removeprefix(f"{path}:") for problem in error.value.problems]


def load(tmp_path, text, overrides=()):
    (tmp_path / "c.yaml").write_text(text)
    return configfile.load(tmp_path / "c.yaml", overrides)


def test_every_problem_at_once_with_its_line(tmp_path):
    text = """\
name: no
data:
  notes: ${RAYPIPE_NOWHERE}/notes.parquet
  task_ids: [007, yes, 3]
attribution:
  layr: 3
  steps: 0
  steps: 1
train: {betas: [0.9]}
arms:
  a: {masking: {ratoi: 0.2, ratio: 2}}
modle: {}
"""
    assert problems_of(tmp_path, text, ["evaluation.split=tset", "seed"]) == [
        "3: data.notes: the environment variable RAYPIPE_NOWHERE is not set",
        "8: attribution.steps: key given twice",
        "--set seed: must look like section.key=value",
        '1: name: must be a string; quote it: "no"',
        '4: data.task_ids.1: must be a string; quote it: "yes"',
        '4: data.task_ids.2: must be a string; quote it: "3"',
        "7: attribution.steps: must be greater than or equal to 1; got '0'",
        "6: attribution.layr: unknown key. Did you mean 'layer'?",
        "11: arms.a.masking.ratio: must be less than 1; got '2'",
        "11: arms.a.masking.ratoi: unknown key. Did you mean 'ratio'?",
        "9: train.betas: needs at least 2 values",
        "--set: evaluation.split: must be 'dev' or 'test'; got 'tset'",
        "12: modle: unknown key. Did you mean 'model'?",
    ]


def test_numbers_words_and_variables_as_people_write_them(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPIPE_SOMEWHERE", "/data")
    text = """
name: 2024-01-01
finetune: {learning_rate: 3e-4, batch_rows: 1_000}
model:
data:
  notes: ${RAYPIPE_SOMEWHERE}/n.csv
"""
    config = load(tmp_path, text)
    assert (config.name, config.finetune.learning_rate, config.finetune.batch_rows) == ("2024-01-01", 3e-4, 1000)
    assert config.data.notes == "/data/n.csv"
    assert config.model == Config().model  # a section whose keys are all commented out


def test_overrides_win_and_reach_names_with_dots(tmp_path):
    text = "arms:\n  v1.2: {masking: {ratio: 0.3, seed: 5}}\n"
    config = load(tmp_path, text, ["arms.v1.2.masking.ratio=0.4", "train.betas=[0.8, 0.9]", "data.notes=x.csv"])
    assert (config.arms["v1.2"].masking.ratio, config.arms["v1.2"].masking.seed) == (0.4, 5)
    assert (config.train.betas, config.data.notes) == ((0.8, 0.9), "x.csv")


@pytest.mark.parametrize("text", ["", "# nothing\n", "arms: {a.b: {}, c: {masking: {}}}\nname: 'no'\n"])
def test_dump_loads_back_equal(tmp_path, text):
    config = load(tmp_path, text)
    assert load(tmp_path, configfile.dump(config)) == config


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name: !!python/object/apply:os.system [exit 1]", "is not allowed"),
        ("name: !!python/name:os.system", "is not allowed"),
        ("name: !!int abc", "not a usable value"),
        ("seed: " + "9" * 5000, "not a usable value"),
        ("train: {clip: 1e999}", "not a usable value"),
        ("train: {clip: .inf}", "must be a number"),
        (BOMB, "too many values"),
        ("a: &a [*a]", "too many values or levels"),
        ("a: " + "[" * 5000, "over 20 levels"),
        ("#" * 2_000_000, "not a configuration"),
        ("a: [1", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
        ("a: \x00", "control characters"),
        ('runs: "a\\0b"', "1: runs: holds a NUL character"),
        ('runs: "\\ud83d\\ude00"', "1: runs: holds half of a character; write it out"),
        (b"a: \xff", "not valid UTF-8"),
        ("[1, 2]: x", "a key must be plain text"),
        ("- a list", "must be a mapping"),
        ("plain", "must be a mapping"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
    ],
)
@pytest.mark.timeout(60)  # an endless expansion must not pass: 0.3 s on an idle core
def test_hostile_yaml_is_one_problem(tmp_path, text, what):
    assert any(what in problem for problem in problems_of(tmp_path, text))


@pytest.mark.parametrize("path", ["missing.yaml", ".", "a\x00b"])
def test_unreadable_path(tmp_path, path):
    with pytest.raises(InputError, match="cannot be read"):
        configfile.load(tmp_path / path)


@pytest.mark.parametrize(
    "uri",
    ["s3://key:secret@bucket/x.parquet", "s3://b/x?access_key=secret", "abfs://c:secret@a.dfs.core.windows.net/x.csv"],
)
def test_credentials_are_refused_and_not_repeated(tmp_path, uri):
    (problem,) = problems_of(tmp_path, f"data: {{notes: '{uri}'}}")
    assert "credential" in problem
    assert "secret" not in problem


@pytest.mark.parametrize("key", ["name", "arms"])
@pytest.mark.parametrize(
    "name",
    [
        "../x", "..", ".", "", "/etc", "a/b", "a\\b", "..%2f", "a\x00b", "-rf", ".x", "a b", "a\n", "à", "a" * 65,
        "\u2215x", "s3://b", "~x", "$HOME", "a;b", "`a`", "*", "con:", "a\tb", "\u202ex", "file:///x",
    ],
)  # fmt: skip
def test_names_that_become_folders_cannot_leave_them(tmp_path, key, name):
    value = json.dumps(name)
    assert f": {key}" in problems_of(tmp_path, f"arms: {{{value}: {{}}}}" if key == "arms" else f"name: {value}")[0]


def test_changed_keys_are_named(tmp_path):
    old = configfile.determinants(Config(), ["attribution", "arms", "model.path"], {"notes": [["a", 1, 2]]})
    changed = load(tmp_path, "attribution: {layer: 2}\narms: {decselfmask: {masking: {ratio: 0.2}}}")
    new = configfile.determinants(changed, ["attribution", "arms", "model.path"], {"notes": [["a", 1, 3]]})
    keys = configfile.changed_keys(old, new)
    assert {"attribution.layer", "arms.decselfmask.masking.ratio", "inputs.notes"} <= set(keys)
    assert not any(key.startswith(("model", "prompt")) for key in keys)
    assert configfile.changed_keys(old, old) == []


def test_located_adds_the_line_of_a_config_key(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("seed: 1\nattribution:\n  layer: 40\n")
    error = InputError([Problem("attribution.layer", "too high"), Problem("x.csv", "broken")], ExitCode.DATA)
    located = configfile.located(error, path)
    assert str(located) == f"{path}:3: attribution.layer: too high\nx.csv: broken"
    assert located.exit_code == ExitCode.DATA


# --- for every field of the schema: wrong type, unknown key beside it, out of range


def fields_of(section: type[BaseModel], path: str = "") -> list[tuple[str, Any]]:
    """(dotted path, pydantic's field) of every field; in a mapping of sections, of a section with some name."""
    out = []
    for name, info in section.model_fields.items():
        here, inner = f"{path}{name}", yamlfile._section(info.annotation)
        out.append((here, info))
        if get_origin(info.annotation) is dict:
            inner, here = yamlfile._section(get_args(info.annotation)[1]), f"{here}.some_name"
        if inner is not None:
            out += fields_of(inner, f"{here}.")
    return out


FIELDS = fields_of(Config)
BOUNDS = [
    (path, bound, getattr(rule, bound))
    for path, info in FIELDS
    for rule in info.metadata
    for bound in ("ge", "gt", "le", "lt")
    if getattr(rule, bound, None) is not None
]
BEYOND = {"ge": -1, "gt": 0, "le": 1, "lt": 0}


def problem_at(tmp_path, override, path):
    problems = problems_of(tmp_path, "seed: 0", [override])
    assert any(f"{path}: " in problem or f"{path}." in problem for problem in problems), problems


@pytest.mark.parametrize("path", [path for path, _ in FIELDS])
def test_wrong_type(tmp_path, path):
    problem_at(tmp_path, f"{path}=[[1], {{a: b}}]", path)


@pytest.mark.parametrize("path", sorted({path.rpartition(".")[0] for path, _ in FIELDS}))
def test_unknown_key(tmp_path, path):
    key = f"{path}.zzz" if path else "zzz"
    problem_at(tmp_path, f"{key}=1", key)


@pytest.mark.parametrize(("path", "bound", "limit"), BOUNDS)
def test_out_of_range(tmp_path, path, bound, limit):
    problem_at(tmp_path, f"{path}={limit + BEYOND[bound]}", path)


def test_the_fuzz_covers_the_schema():
    assert len(FIELDS) > 100
    assert len(BOUNDS) > 50


def test_fewest_workers(tmp_path):
    assert load(tmp_path, "resources: {training_workers: 4}").resources.workers == 4
    assert load(tmp_path, "resources: {training_workers: 4, min_training_workers: 2}").resources.workers == (2, 4)
    (problem,) = problems_of(tmp_path, "resources:\n  training_workers: 2\n  min_training_workers: 3\n")
    assert problem == "1: resources: min_training_workers is more than training_workers"


def test_changes_lie_over_what_was_written(tmp_path):
    """Keys that the file leaves open stay open, sections are made where there are none, the file stays as it is."""
    path = tmp_path / "a.yaml"
    path.write_text("name: a\ntrain:\narms: {m.1: {masking: {ratio: 0.2}}}\n")
    written = configfile.written(path).value
    changed = configfile.changed(written, {"arms.m.1.masking.draws": 2, "train.betas": [0.5, 0.6]})
    config = configfile.build(changed, "here")
    assert config.arms["m.1"].masking.draws == 2
    assert config.arms["m.1"].masking.ratio == 0.2
    assert config.train.betas == (0.5, 0.6)
    assert configfile.written(path).value == written
    with pytest.raises(InputError, match=r"here: name: must be a string"):
        configfile.build(configfile.changed(written, {"name.x": 1}), "here")
    with pytest.raises(InputError, match=r"here: train\.epochs: must be a number"):
        configfile.build(configfile.changed(written, {"train.epochs": "many"}), "here")


def test_what_is_wrong_is_left_out_so_that_the_rest_can_be_checked(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "seed: x\ndata: {nots: a, labels: l.csv}\nprompt: {max_tokens: 5}\narms: {a: {masking: {ratio: 2}}}\n"
    )
    read = configfile.salvaged(path, ["attribution.layer=-1"])
    assert sorted(problem.where.rpartition(": ")[2] for problem in read.problems) == [
        "arms.a.masking.ratio", "data.nots", "prompt.max_tokens", "seed"
    ]  # fmt: skip
    assert str(path) + ":2: data.nots" in [problem.where for problem in read.problems]
    assert read.result is not None
    assert (read.result.data.labels, read.result.seed, read.result.attribution.layer) == ("l.csv", 0, -1)
    assert read.is_of_left_out("prompt.max_tokens")
    assert read.is_of_left_out("arms.a"), "a problem of the whole may come from the part"
    assert not read.is_of_left_out("data.labels")
    assert not read.is_of_left_out("seeds")


def test_salvaging_a_good_file_is_loading_it(tmp_path):
    (tmp_path / "c.yaml").write_text("seed: 3\n")
    read = configfile.salvaged(tmp_path / "c.yaml")
    assert (read.result, read.problems) == (configfile.load(tmp_path / "c.yaml"), [])


@pytest.mark.parametrize(
    "text", ["- a\n- b\n", "just text\n", "data: 5\n", "arms: {a: [1, 2]}\ncomparison: {pairs: [[1]]}\n"]
)
def test_salvaging_ends_whatever_the_file_holds(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    assert configfile.salvaged(tmp_path / "c.yaml").problems


def test_the_line_of_an_override_is_the_command_line(tmp_path):
    (tmp_path / "c.yaml").write_text("seed: 3\n")
    error = InputError([Problem("attribution.layer", "too high")])
    (problem,) = configfile.located(error, tmp_path / "c.yaml", ["attribution.layer=9"]).problems
    assert problem.where == "--set: attribution.layer"


def test_a_training_of_an_arm_has_the_keys_of_train_that_it_does_not_give(tmp_path):
    text = (
        "train: {learning_rate: 0.5, epochs: 3, lora: {rank: 8}}\narms:\n  sft: {}\n  a: {masking: {}}\n"
        "  b: {masking: {}, train: {epochs: 1}}\n  c: {masking: {}, train:}\n"
    )
    loaded = load(tmp_path, text, ["arms.c.train.learning_rate=0.1"])
    of = {arm: loaded.training_of(arm) for arm in loaded.arms}
    assert of["sft"] is of["a"] is loaded.train
    assert [(t.learning_rate, t.epochs, t.lora.rank) for t in of.values()][2:] == [(0.5, 1, 8), (0.1, 3, 8)]
    dumped = configfile.dump(loaded)
    assert configfile.dump(load(tmp_path, dumped)) == dumped
    (said,) = problems_of(tmp_path, "arms: {sft: {train: {epochs: 1}}}")
    assert said.startswith("1: arms.sft: a train of its own needs masking or pseudo_labels")
