"""The notebooks run, and what they were committed with is small, generated, and of no machine."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from raypipe.settings import configfile
from raypipe.tuning import trial_tables
from tests.small_run import settings
from tests.tuning.searches import made_search

REPOSITORY = Path(__file__).parents[1]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
MAX_IMAGE, MAX_NOTEBOOK = 100_000, 300_000  # bytes
# A folder of somebody's machine, an address, a mail address.
OF_A_MACHINE = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users|mnt|opt|usr)/|\d+\.\d+\.\d+\.\d+|\w@\w+\.\w")


def _cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def test_there_is_one_of_the_steps_and_one_of_a_search() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["notes_to_heat_maps", "tune_report"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_there_and_may_be_published(path: Path) -> None:
    cells = _cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), "run in order, once"
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert len(outputs) >= len(cells) - 1
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
    images = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert all(len(image) < MAX_IMAGE for image in images)
    assert path.stat().st_size < MAX_NOTEBOOK
    shown = json.dumps([{k: v for k, v in o.get("data", {}).items() if k != "image/png"} | {"text": o.get("text")}
                        for o in outputs])  # fmt: skip
    assert OF_A_MACHINE.search(shown + json.dumps([cell["source"] for cell in cells])) is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_their_notes_are_generated(path: Path) -> None:
    named = set(re.findall(r"jobs/configs/\w+\.yaml", path.read_text()))
    assert named
    assert {configfile.load(REPOSITORY / name).data.source for name in named} == {"synthetic"}
    runs = set(re.findall(r"runs/(\w+)", path.read_text())) - {"heat_map_"}
    assert runs <= {Path(name).stem for name in named}, "outputs are those of these configs"


def test_the_search_has_two_backbones() -> None:
    cells = _cells(REPOSITORY / "notebooks/tune_report.ipynb")
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2, "a heat map for each"
    best = "".join(text for output in outputs for text in output.get("text", ()))
    assert re.findall(r"^(\w+): ratio [\d.]+, layer [\d.]+: ", best, re.M) == ["llama", "gpt_neox"]
    (between,) = (output for output in outputs if "between" in "".join(output.get("data", {}).get("text/plain", ())))
    assert "llama and gpt_neox" in "".join(between["data"]["text/plain"])


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a small run, and on a search that nobody ran, in the place of those of the demo."""
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    (tmp_path / "jobs/configs").mkdir(parents=True)
    (tmp_path / "jobs/configs/demo.yaml").write_text(configfile.dump(settings(Path("runs"), name="demo")))
    trial_tables.save(made_search(), tmp_path / "runs/demo/tune")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute(cwd=str(tmp_path))
    shown = json.dumps([cell.get("outputs") for cell in notebook.cells])
    for expected in {
        "notes_to_heat_maps": ["54 of 74 notes", "decselfmask", "background: rgba"],
        "tune_report": ["ratio 0.3, layer 0.25", "image/png"],
    }[path.stem]:
        assert expected in shown
