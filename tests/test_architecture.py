"""The listing is the architecture: a file imports from lower layers only, and only a few files know Ray."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "raypipe"

# Low to high. A file may import from its own layer (without cycles) and from lower ones.
LAYERS = [
    ["errors", "hashing", "words"],
    ["config", "rows"],
    ["yamlfile", "storage"],
    ["configfile", "tasks"],
    ["models", "notes"],
    ["prompts", "inline"],
    ["cluster"],
    [f"evaluation.{name}" for name in ("metrics", "resampling", "uncertainty", "agreement", "generation")],
    [f"evaluation.{name}" for name in ("probing", "baselines", "conformal", "layers")],
    ["attribution", "masking", "evaluation"],
    ["arms"],
    ["training", "check", "run_dir"],
    ["corpus"],
    ["stages", "frequencies"],
    ["pipeline", "reporting"],
    ["statistics", "show"],
    ["run"],
    ["probing"],
    ["experiment"],
    ["gates", "coverage", "known_words"],
    ["results", "choosing", "compare"],
    ["tuning"],
    ["cli"],
]  # fmt: skip
KNOW_RAY = {"cluster", "notes.files", "notes.source", "training.trainer", "tuning.search"}
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def _modules() -> dict[str, Path]:
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = {name: path for name, path in _modules().items() if name}


def _imports(path: Path) -> set[str]:
    """Modules that a file imports, at its top and inside functions, but not for type checking alone."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.unparse(test.test)
        for node in ast.walk(test)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _own_imports(name: str) -> set[str]:
    """The raypipe modules that a module imports."""
    inside = {full.removeprefix("raypipe.") for full in _imports(MODULES[name]) if full.startswith("raypipe.")}
    known = {i for i in inside if i in MODULES}
    # `from raypipe.notes import synthetic` imports notes.synthetic; the package alone is then only a path to it
    return {i for i in known if not any(other.startswith(f"{i}.") for other in known)} - {name}


def _layer(name: str) -> int:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        for level, members in enumerate(LAYERS):
            if prefix in members:
                return level
    raise AssertionError(f"{name} stands in no layer: add it to LAYERS")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_downwards(name: str) -> None:
    above = {other for other in _own_imports(name) if _layer(other) > _layer(name)}
    assert not above, f"{name} (layer {_layer(name)}) imports {above} from above"


def test_no_import_cycles() -> None:
    graph = {name: _own_imports(name) for name in MODULES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(MODULES))
def test_only_a_few_files_know_ray(name: str) -> None:
    knows = any(module == "ray" or module.startswith("ray.") for module in _imports(MODULES[name]))
    assert not knows or name in KNOW_RAY


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_is_unpickled(name: str) -> None:
    assert not {module.split(".")[0] for module in _imports(MODULES[name])} & PICKLES
    text = MODULES[name].read_text()
    assert "torch.load(" not in text
    assert "trust_remote_code=True" not in text


@pytest.mark.parametrize("name", sorted(n for n in MODULES if n.startswith("masking")))
def test_masking_needs_no_torch(name: str) -> None:
    assert not any(module.split(".")[0] in ("torch", "transformers") for module in _imports(MODULES[name]))
