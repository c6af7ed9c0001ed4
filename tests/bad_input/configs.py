"""Configs: every field with values that it cannot have, broken YAML, credentials, and what fits no other setting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from raypipe.errors import ExitCode
from tests.bad_input.case import CANARY, Accepted, Case, Handled, Refused
from tests.bad_input.ground import Ground, write_config
from tests.settings.test_configfile import BEYOND, BOMB, BOUNDS, FIELDS

SECTIONS = sorted({path.rpartition(".")[0] for path, _ in FIELDS})
TEXTS: dict[str, tuple[str | bytes, str]] = {
    "python object": ("name: !!python/object/apply:os.system [exit 1]", "is not allowed"),
    "python name": ("name: !!python/name:os.system", "is not allowed"),
    "alias bomb": (BOMB, "too many values"),
    "alias of itself": ("a: &a [*a]", "too many values or levels"),
    "deep": ("a: " + "[" * 5000, "over 20 levels"),
    "huge": ("#" * 2_000_000, "not a configuration"),
    "huge number": ("seed: " + "9" * 5000, "not a usable value"),
    "unclosed list": ("a: [1", "not valid YAML"),
    "two colons": ("a: b: c", "not valid YAML"),
    "tab": ("a:\n\t- b", "not valid YAML"),
    "NUL": ("a: \x00", "control characters"),
    "escape": ("name: \x1b[2J", "control characters"),
    "escape in quotes": ('name: "\\e[2J"', "c.yaml:1: name"),
    "not UTF-8": (b"a: \xff", "not valid UTF-8"),
    "UTF-16": ("name: a".encode("utf-16"), "c.yaml"),
    "list": ("- a list", "must be a mapping"),
    "word": (CANARY.lower(), "must be a mapping"),
    "two documents": ("a: 1\n---\nb: 2", "not valid YAML"),
    "key twice": ("seed: 1\nseed: 2", "c.yaml:2: seed: key given twice"),
    "key of two": ("[1, 2]: x", "a key must be plain text"),
    "variable": ("name: ${RAYPIPE_NOWHERE}", "RAYPIPE_NOWHERE is not set"),
    "merge key": ("a: &a {seed: 1}\n<<: *a", "c.yaml"),
    "infinite": ("train: {clip: .inf}", "train.clip: must be a number"),
    "binary": ("name: !!binary aGk=", "is not allowed"),
    "boolean name": ("name: no", "quote it"),
}
URIS = (
    f"s3://key:{CANARY}@bucket/x.csv",
    f"s3:/a:{CANARY}@b/x.csv",
    f"//a:{CANARY}@h/x.csv",
    f"a:{CANARY}@h/x.csv",
    f"s3://a%3A{CANARY}@b/x.csv",
    f"s3://b/x.csv?access_key={CANARY}",
    f"abfs://c:{CANARY}@a.dfs.core.windows.net/x.csv",
    f"gs://u:{CANARY}@b/x.csv",
)
NAMES = (
    "../x",
    "..",
    ".",
    "",
    "/etc",
    "a/b",
    "a\\b",
    "..%2f",
    "-rf",
    ".x",
    "a b",
    "à",
    "a" * 65,
    "s3://b",
    "~x",
    "$HOME",
    "a;b",
    "`a`",
    "*",
    "con:",
    "a\tb",
    "file:///x",
)
# Changes that are right alone and wrong together, with the place of the problem
CONFLICTS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"arms": {}}, "arms: is empty"),
    ({"arms": {"scorer": {}}}, "arms.scorer: is the name of a folder"),
    ({"arms": {"a": {"masking": {"strategy": "nosuch"}}}}, "strategy"),
    ({"arms": {"a": {"masking": {"match_ratio_to": "b"}}}}, "match_ratio_to"),
    ({"arms": {"a": {"masking": {"strategy": "mslm", "mslm": {"terms": "lexicon"}}}}}, "lexicon"),
    ({"arms": {"a": {"masking": {"strategy": "mslm", "mslm": {"terms": "ner"}}}}}, "data.columns.tags"),
    ({"arms": {"a": {"masking": {"phi_patterns": ["("]}}}}, "phi_patterns"),
    ({"attribution__layer": 5}, "attribution.layer: is 5, but the model has layers 0..4"),
    ({"attribution__method": "nosuch"}, "attribution.method"),
    ({"attribution__method": "random", "attribution__steps": 3}, "attribution.steps: not read"),
    ({"faithfulness__methods": ["nosuch"]}, "faithfulness.methods.0"),
    ({"prompt__max_tokens": 4096}, "prompt.max_tokens: is 4096, but the model's context is 256"),
    ({"prompt__question": "no place for it"}, "prompt.question"),
    ({"probe__arms": ["nosuch"]}, "probe.arms: no such arm: nosuch"),
    ({"evaluation__split": "dev", "evaluation__conformal": {}}, "evaluation.conformal"),
    ({"data__notes": None}, "data.notes: is not set"),
    ({"data__labels": None}, "data.labels"),
    ({"data__tasks": None}, "data.tasks: is not set"),
    ({"data__notes": "nowhere.csv"}, "data.notes"),
    ({"data__notes": "http://127.0.0.1:1/x.csv"}, "data.notes"),
    ({"data__notes": "ftp://127.0.0.1:1/x.csv"}, "data.notes"),
    ({"data__notes": "notes.xlsx"}, "data.notes"),
    ({"data__pretraining": "nowhere.csv"}, "data.pretraining"),
    ({"data__columns": {"text": "txt"}}, "data.columns.text: "),
    ({"data__columns": {"tags": "tags"}}, "data.columns.tags"),
    ({"data__task_ids": ["fevr"]}, "data.task_ids: no task 'fevr'. Did you mean 'fever'?"),
    ({"data__label_columns": {"label": "value"}}, "no column value"),
    ({"data__label_columns": {"task_id": None}}, "no column fever"),
    ({"data__label_columns": {"tasks": {"fever": "label"}}}, "data.label_columns"),
    ({"model__path": "nowhere"}, "model.path"),
    ({"model__path": "org/name"}, "model.path: no such folder; a hub id needs model.revision"),
    ({"model__path": "pretrain"}, "model.path: is pretrain, but there is no section pretrain"),
    ({"model__path": "."}, "model.path: not a readable model folder"),
    ({"model__revision": "main"}, "model.revision"),
    ({"model__adapter": "nowhere"}, "model.adapter"),
    ({"statistics__general_counts": "nowhere.csv"}, "ok, "),
    ({"runs": "s3://bucket/runs"}, "runs: "),
    ({"runs": "a\x00b"}, "runs"),
)


def examples(strategy: st.SearchStrategy[Any], n: int) -> list[Any]:
    """The first `n` values that hypothesis draws; the same in every run."""
    drawn: list[Any] = []

    @settings(
        max_examples=n,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def draw(value: Any) -> None:
        drawn.append(value)

    draw()
    return drawn


def fields(ground: Ground) -> Iterator[Case]:
    """Every field with a value of the wrong type, and beyond its bounds; an unknown key in every section."""
    wrong = [(path, "[[1], {a: b}]", path) for path, _ in FIELDS]
    wrong += [(f"{section}.zzz".strip("."), "1", f"{section}.zzz".strip(".")) for section in SECTIONS]
    wrong += [(path, str(limit + BEYOND[bound]), path) for path, bound, limit in BOUNDS]
    for path, value, place in wrong:
        arguments = ["report", "--config", str(ground.project / "c.yaml"), "--set", f"{path}={value}"]
        yield Case(f"{path}={value}", arguments, Refused(place))


def texts(_: Ground) -> Iterator[Case]:
    """Files that are no config."""
    for name, (text, place) in TEXTS.items():
        raw = text if isinstance(text, bytes) else text.encode()

        def write(folder: Path, raw: bytes = raw) -> None:
            (folder / "c.yaml").write_bytes(raw)

        for command in ("check", "run"):
            yield Case(f"{command} {name}", [command, "--config", "c.yaml"], Refused(place), write)
    for name in ("missing.yaml", ".", "c.yaml/x"):
        yield Case(f"path {name}", ["check", "--config", name], Refused("cannot be read"))
    yield Case("a long path", ["check", "--config", "a" * 5000], Refused("too long", ExitCode.STORAGE))


def names_and_uris(ground: Ground) -> Iterator[Case]:
    """Names that would leave the run's folder, and credentials in every place that takes a path."""
    config = str(ground.project / "c.yaml")
    for uri in URIS:
        for key in (
            "data.notes",
            "data.labels",
            "data.tasks",
            "data.pretraining",
            "model.path",
            "model.adapter",
            "runs",
        ):
            yield Case(f"{key}={uri}", ["check", "--config", config, "--set", f"{key}={uri}"], Refused(f"{key}: "))
    for name in NAMES:
        for key in ("name", "arms"):
            change = {"name": name} if key == "name" else {"arms": {name: {}}}
            yield Case(f"{key} {name[:20]!r}", ["run", "--config", "c.yaml"], Refused(f"{key}"), _with(change))


def conflicts(ground: Ground) -> Iterator[Case]:
    """Settings that do not fit each other, the tables, or the model."""
    for change, place in CONFLICTS:
        outcome = Accepted(place) if place.startswith("ok") else Refused(place)
        yield Case(f"{change}", ["check", "--config", "c.yaml"], outcome, _with(change), ground.project)


def drawn(ground: Ground) -> Iterator[Case]:
    """Random values at random keys, by hypothesis: refused at that key, or taken."""
    value = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.lists(st.integers() | st.text(max_size=3), max_size=3),
        st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    )
    paths = st.sampled_from([path for path, _ in FIELDS if not path.startswith("resources.")])
    for path, other in examples(st.tuples(paths, value), 100):
        # all that a config alone can tell; a value that is taken makes this look at a run that is not there
        arguments = ["status", "--config", "c.yaml"]
        change = {path.replace(".", "__"): other}
        yield Case(f"{path}={other!r}", arguments, Handled(path.partition(".")[0]), _with(change), ground.project)


def _with(change: dict[str, Any]) -> Any:
    return lambda folder: write_config(folder, **change)
