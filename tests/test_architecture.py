"""The listing is the architecture: a file imports from lower layers only, and only a few files know Ray."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "raypipe"

# Low to high: a file imports from its own folder (without cycles) and from folders below it.
LAYERS = (
    "errors hashing words",
    "guard",
    "rows records",
    "settings",
    "notes",
    "models",
    "attribution masking training",
    "evaluation",
    "stream",
    "runs",
    "findings",
    "tuning",
    "functions",
    "cli",
)
KNOW_RAY = {
    "stream.cluster",
    "stream.resuming",
    "stream.source",
    "stream.submission",
    "training.trainer",
    "tuning.search",
}
# Each takes a second or more to import, and every worker imports nearly the whole package: inside functions only.
SLOW, ARE_SLOW = {"captum.attr", "sklearn", "scipy.stats", "peft"}, {"tuning.stability"}
MAX_LOOSE = 6  # modules beside the folders
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def _modules() -> dict[str, Path]:
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = {name: path for name, path in _modules().items() if name}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def _imports(path: Path) -> frozenset[str]:
    """Modules that a file imports, at its top and inside functions, but not for type checking alone."""
    tree = _tree(path)
    typing_only = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.unparse(test.test)
        for node in ast.walk(test)
    }
    return frozenset(name for node in ast.walk(tree) if id(node) not in typing_only for name in _imported(node))


def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return set()


def _own_imports(name: str) -> set[str]:
    """The raypipe modules that a module imports."""
    inside = {full.removeprefix("raypipe.") for full in _imports(MODULES[name]) if full.startswith("raypipe.")}
    known = {i for i in inside if i in MODULES}
    # `from raypipe.notes import synthetic` imports notes.synthetic; the package alone is then only a path to it
    return {i for i in known if not any(other.startswith(f"{i}.") for other in known)} - {name}


LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms.split()}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_downwards(name: str) -> None:
    room = name.split(".")[0]
    assert room in LEVEL, f"{room} is no folder of LAYERS"
    others = {other for other in _own_imports(name) if other.split(".")[0] != room}
    above = {other for other in others if LEVEL[other.split(".")[0]] >= LEVEL[room]}
    assert not above, f"{name} imports {above}, which do not lie below {room}"


def test_few_modules_stand_beside_the_folders() -> None:
    assert len(list(PACKAGE.glob("[a-z]*.py"))) <= MAX_LOOSE


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


def test_a_worker_does_not_wait_for_libraries_that_it_may_not_use() -> None:
    at_the_top = {name: {m for node in _tree(path).body for m in _imported(node)} for name, path in MODULES.items()}
    slow = {name for name, found in at_the_top.items() for s in SLOW if any(f"{m}.".startswith(f"{s}.") for m in found)}
    assert slow == ARE_SLOW


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_is_unpickled(name: str) -> None:
    assert not {module.split(".")[0] for module in _imports(MODULES[name])} & PICKLES
    text = MODULES[name].read_text()
    assert "torch.load(" not in text
    assert "trust_remote_code=True" not in text


@pytest.mark.parametrize("name", sorted(MODULES))
def test_lines_are_printed_in_one_place(name: str) -> None:
    """Where control characters are taken out (guard/terminal.py)."""
    calls = [node.func for node in ast.walk(_tree(MODULES[name])) if isinstance(node, ast.Call)]
    prints = any(ast.unparse(call) in ("print", "typer.echo", "sys.stderr.write") for call in calls)
    assert not prints or name == "guard.terminal"


def test_every_table_for_spreadsheets_is_known() -> None:
    """Tests look into each for cells that a spreadsheet would compute (spreadsheets.py); `copies` makes the user's."""
    ways = ("csv.writer(", "DictWriter(", "import write_csv", ", write_csv", ".to_csv(")
    writing = {name for name, path in MODULES.items() if any(way in path.read_text() for way in ways)}
    known = {"records", "findings.pages", "findings.memorisation", "tuning.search_report", "notes.copies"}
    assert writing == known, "assert in a test of the new one that `formulas` finds none"


@pytest.mark.parametrize("name", sorted(n for n in MODULES if n.startswith("masking")))
def test_masking_needs_no_torch(name: str) -> None:
    assert not any(module.split(".")[0] in ("torch", "transformers") for module in _imports(MODULES[name]))
