"""What README and docs/ tell a reader to type is typed here: on small data, in the order of the pages.

Every command line is put through the parser of its program first, and what it names must be there. Then each page's
commands and Python run in one folder in which small things stand for the reader's (`scene`). What is not run, and why,
is NOT_RUN.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from raypipe import cli, rows
from raypipe.errors import Code, ExitCode
from raypipe.guard import process
from raypipe.notes import synthetic
from raypipe.settings import configfile
from raypipe.tuning import space, trial_tables
from tests.documents import EXPERIMENTS, PAGES, REPOSITORY, Block, blocks, in_sentences
from tests.exports import wide_export
from tests.small_run import settings
from tests.tiny_models import tiny_model, tiny_tokenizer
from tests.tuning.searches import made_search

# Beginnings of commands that are parsed and not run.
NOT_RUN = {
    "make test": "these are the tests",
    "make models": "fetches models; tests/test_get_models.py",
    "make demo-pretrained": "needs `make models`, and half an hour",
    "python3 -m venv": "installs raypipe; `make test` has done that",
    "pip install": "installs a package",
    "docker build": "needs Docker; tests/test_deploy.py reads the file",
    "export ": "variables of a cluster; tests/test_jobs.py starts one with them",
    "ray start": "a cluster; tests/test_jobs.py starts one",
    "ray job submit": "needs a cluster; tests/test_jobs.py submits",
    "ray get-auth-token": "writes a token into the home folder",
    "raypipe submit": "needs a cluster; tests/stream/test_submission.py submits",
    "raypipe compare": "half an hour; tests/runs/test_compare_ray.py compares a small run",
    "raypipe tune --": "minutes on Ray; tests/tuning/test_search_ray.py searches",
    "raypipe import MODEL": "needs a model that reads; tests/models/test_importing.py imports one",
    "raypipe upload": "needs an object store; tests/runs/test_store.py copies to one",
    "raypipe download": "needs an object store; tests/runs/test_store.py copies from one",
    "python benchmarks/bench": "measures for minutes",
}
# Blocks that are neither commands nor code, by how they begin.
DRAWN = {
    "notes -> prompts": "a drawing",
    "arm             macro F1": "what the demo printed when it was last recorded",
    "jobs/  ": "the listing of the repository; its own test is below",
}
# What the documents call the reader's own things, and what stands for it here.
STAND_INS = {
    "/data/": "data/",
    "/models/Llama-3.2-1B-Instruct": "model",
    "/tmp/scale": "scale",
    "config DIR": "config project",
    "init DIR": "init project",
    "note ID": "note unlabelled-00001",
}
# Laid over README's config, as with --set: a small job without Ray.
SMALLER = (
    "train.max_steps=2",
    "finetune.max_steps=2",
    "evaluation.bootstrap=100",
    "faithfulness.questions=4",
    "faithfulness.methods=[grad_x_activation]",
    "resources.ray=false",
)
ALL = [*PAGES, *EXPERIMENTS]


@pytest.fixture(autouse=True, scope="module")
def open_process() -> Iterator[None]:
    """This process is that of all tests: it stays as it is (guard/test_process.py)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raypipe.guard.command.protect", lambda: None)
        patch.setattr(process, "protect", lambda: None)
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))  # else built for each line
        for name in ("RAYPIPE_DATA", "RAYPIPE_PRETRAINED"):
            patch.setenv(name, "somewhere")
        yield


# --- every command is one that its program takes


ANY_COMMAND = re.compile(r"(?<=step\.py )[A-Z]+")
OPTIONAL = re.compile(r"\[(--[^]|]+(?: \| --[^]|]+)*)(?:\|\w+)*\]")  # of a synopsis: [--a FILE | --b FILE] [--c x|y]


def _parse(line: str, is_whole: bool = True) -> None:
    """Raise if a program does not take this command line, or what it names in the repository is not there."""
    program, *words = shlex.split(ANY_COMMAND.sub("mask", OPTIONAL.sub(r"\1", line).replace(" | ", " ")))
    if program == "raypipe":
        _parse_raypipe(words, is_whole)
    elif program in ("python", "python3") and words[0].endswith(".py"):
        _parse_script(*words)
    elif program == "make":
        assert re.search(rf"^{words[0]}:", (REPOSITORY / "Makefile").read_text(), re.M), f"no target {words[0]}"
    elif program == "ray":
        _parse_ray(words, is_whole)


def _parse_raypipe(words: list[str], is_whole: bool) -> None:
    if words[0].startswith("-"):
        assert words == ["--version"]
        return
    group: Any = typer.main.get_command(cli.app)
    known = {name for parameter in group.commands[words[0]].params for name in parameter.opts}
    own = words[: words.index("--")] if "--" in words else words
    assert {word.partition("=")[0] for word in own if word.startswith("--")} <= known
    if not is_whole:
        return
    options = cli.parsed(words)
    if (config := REPOSITORY / str(options.get("config"))).is_file():
        configfile.load(config, options.get("set_") or ())
    if (trials := options.get("space")) and str(trials).startswith("tune_spaces/"):
        space.load(REPOSITORY / trials)
    if options.get("more"):
        cli.parsed([options["command_"], "--config", "my.yaml", *options["more"]])


def _parse_script(script: str, *words: str) -> None:
    """Those of jobs/ take the options of a command; benchmarks name their own."""
    text = (REPOSITORY / script).read_text()
    if script.startswith("jobs/") and "cli" in text:
        command = words[:1] if script == "jobs/step.py" else re.findall(r'main\(\["([\w-]+)"', text)
        _parse_raypipe([*command, *words[len(words) and script == "jobs/step.py" :]], len(words) > 1)
    else:
        assert all(f'"{word}"' in text for word in words if word.startswith("--"))


def _parse_ray(words: list[str], is_whole: bool) -> None:
    from ray.scripts.scripts import cli as group

    command: Any = group
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    if not is_whole:
        return
    with command.make_context(name, list(words)) as context:
        inner = context.params.get("entrypoint") or ()
    if inner:
        _parse(shlex.join(inner))


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
def test_every_command_is_one_that_its_program_takes(page: Path) -> None:
    for block in blocks(page):
        for line in block.commands if block.language == "commands" else ():
            try:
                _parse(line)
            except Exception as error:
                pytest.fail(f"{block}: {line}: {error}")
    for place, line in in_sentences(page):
        try:
            _parse(line, is_whole="--config" in line.split()[:-1])
        except Exception as error:
            pytest.fail(f"{place}: {line}: {error!r}")


def test_blocks_of_no_language_are_known() -> None:
    texts = [block.text for page in PAGES for block in blocks(page) if not block.language]
    assert all(text.startswith(tuple(DRAWN)) for text in texts)
    assert {start for start in DRAWN if any(text.startswith(start) for text in texts)} == set(DRAWN)
    languages = {block.language for page in ALL for block in blocks(page)}
    assert languages == {"", "commands", "python", "yaml"}, "a block that no test reads"


def test_what_is_not_run_is_in_the_documents() -> None:
    lines = [line for page in PAGES for block in blocks(page) for line in block.commands]
    lines += [line for page in ALL for _, line in in_sentences(page)]
    stale = [start for start in NOT_RUN if not any(line.startswith(start) for line in lines)]
    assert stale == []


def test_the_listing_in_readme_is_that_of_the_repository() -> None:
    (listing,) = (block.text for block in blocks(PAGES[0]) if block.text.startswith("jobs/  "))
    named = [(line.startswith("  "), line.split()[0]) for line in listing.splitlines()]
    assert all((REPOSITORY / "raypipe" / name if inside else REPOSITORY / name).exists() for inside, name in named)
    rooms = {f"{path.parent.name}/" for path in (REPOSITORY / "raypipe").glob("*/__init__.py")}
    assert rooms <= {name for inside, name in named if inside}


# --- and it does what the page says


def _prepare(scene: Path) -> None:
    """What the documents call the reader's: notes, labels, a model, an export, the demo's config, a search."""
    made = synthetic.generate(n_labelled=24, n_unlabelled=16, n_dev=8, n_test=12, n_pretraining=1)
    (scene / "data").mkdir()
    notes = made.notes.rename_columns(["patient" if name == "group_id" else name for name in made.notes.schema.names])
    rows.write(notes, scene / "data/notes.parquet")
    labels = made.labels.to_pandas()
    labels = labels[labels["task_id"].isin(["febbre", "dispnea"])]
    labels["task_id"] = labels["task_id"].map({"febbre": "fever", "dispnea": "smoking"})
    labels["label"] = labels["label"].map({"sì": "1", "no": "0"})
    smoking = labels["task_id"] == "smoking"
    labels.loc[smoking, "label"] = [("now", "ex", "never")[i % 3] for i in range(smoking.sum())]
    labels.to_csv(scene / "data/labels.csv", index=False)
    model = tiny_model()
    model.config.max_position_embeddings = 1024  # README's config leaves prompt.max_tokens at its default
    model.save_pretrained(scene / "model")
    tiny_tokenizer().save_pretrained(scene / "model")
    wide_export(scene / "export.csv")
    (scene / "jobs/configs").mkdir(parents=True)
    (scene / "jobs/configs/demo.yaml").write_text(configfile.dump(settings(Path("runs"), name="demo")))
    for folder in ("benchmarks", "tune_spaces"):
        shutil.copytree(REPOSITORY / folder, scene / folder)


def _annotated() -> None:
    """An annotator took over what raypipe proposed, and exported it."""
    tasks = json.loads(Path("spans.json").read_text())
    for task in tasks:
        task["annotations"] = [{"id": 1, "result": task.pop("predictions")[0]["result"]}]
    Path("exported.json").write_text(json.dumps(tasks))


def _searched() -> None:
    """A search that nobody ran."""
    Path("runs/my-run").mkdir(parents=True, exist_ok=True)
    trial_tables.save(made_search(), Path("runs/my-run/tune"))


# What a command takes for granted that no command of its page makes.
BEFORE: dict[str, Callable[[], object]] = {
    "raypipe import-spans": _annotated,
    "raypipe tune-report": _searched,
}


def _lines(page: Path, starts: tuple[str, ...]) -> list[str]:
    return [line for block in blocks(page) for line in block.commands if line.startswith(starts)]


def _run(block: Block) -> None:
    """Run a block, here. YAML whose first line names a file becomes that file; other YAML is laid over README's."""
    text = block.text
    for theirs, small in STAND_INS.items():
        text = re.sub(rf"(?<!\w){re.escape(theirs)}", small, text)  # /data/ of a path inside a run is none of them
    if block.language == "python":
        exec(compile(text, str(block), "exec"), {"__name__": "__main__"})
    elif block.language == "yaml":
        for document in text.split("---\n"):
            named = re.match(r"# (\S+\.yaml)[;,]", document)
            if named is None:
                _laid_over(Path("my.yaml"), document)
            elif named[1] == "my.yaml":
                Path("my.yaml").write_text(document)
                smaller = configfile.load("my.yaml", SMALLER).model_dump(mode="json", exclude_unset=True)
                Path("my.yaml").write_text(yaml.safe_dump(smaller, allow_unicode=True))
            else:
                (Path("data") / named[1]).write_text(document)
    for line, ours in zip(block.commands, Block("", 0, "", text).commands, strict=True):
        if block.language == "commands" and not line.startswith(tuple(NOT_RUN)):
            for start, prepare in BEFORE.items():
                if line.startswith(start):
                    prepare()
            _type(ours, Path.cwd())


def _laid_over(config: Path, document: str) -> None:
    """It is valid in this config."""
    merged = yaml.safe_load(config.read_text())
    for section, value in yaml.safe_load(document).items():
        merged[section] = {**merged[section], **value} if section in ("data", "arms") else value
    Path("laid-over.yaml").write_text(yaml.safe_dump(merged))
    configfile.load("laid-over.yaml")


@cache
def _type(line: str, here: Path) -> None:
    """A command as a reader types it, once in a folder. `make` stands for the command of its target."""
    program, *words = shlex.split(OPTIONAL.sub("", line))
    if program == "make":
        (recipe,) = re.findall(
            rf"^{words[0]}:.*\n\t\$\(BIN\)/raypipe (.*)", (REPOSITORY / "Makefile").read_text(), re.M
        )
        program, words = "raypipe", shlex.split(recipe)
    if program == "python":
        subprocess.run([sys.executable, *words], check=True)
        return
    assert program == "raypipe", f"{line} is not run, and not in NOT_RUN"
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == ExitCode.OK, line


def _follow(page: Path, scene: Path) -> None:
    with chdir(scene):
        for block in blocks(page):
            _run(block)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder, after README: it leaves `my.yaml` and its run, and the demo's."""
    folder = tmp_path_factory.mktemp("reader")
    _prepare(folder)
    _follow(PAGES[0], folder)
    return folder


@pytest.mark.slow
def test_readme(scene: Path) -> None:
    assert (scene / "runs/demo/report/report.html").exists()
    assert (scene / "runs/my-run/report/report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES[1:] if blocks(page)], ids=lambda page: page.name)
def test_page(page: Path, scene: Path) -> None:
    _follow(page, scene)


def test_the_italian_page_has_the_commands_of_the_english_ones() -> None:
    english = {line for page in PAGES if ".it." not in page.name for line in _lines(page, ("",))}
    (italian,) = (page for page in PAGES if ".it." in page.name)
    of_readme, of_italian = _lines(PAGES[0], ("make demo", "raypipe")), _lines(italian, ("",))
    assert [line for line in of_readme if "DIR" not in line] == [line for line in of_italian if "DIR" not in line]
    assert set(_lines(italian, ("",))) <= english


# --- what the page of troubles quotes is printed somewhere


def _messages() -> list[str]:
    """Every text in the package; what is filled in at run time is an ellipsis."""
    texts = []
    for path in (REPOSITORY / "raypipe").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                texts.append(node.value if isinstance(node.value, str) else node.value.decode(errors="ignore"))
            elif isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(str(getattr(part, "value", "…")) if _is_text(part) else "…" for part in node.values)
                )
    return texts


def _is_text(part: ast.expr) -> bool:
    return isinstance(part, ast.Constant)


TROUBLES = (REPOSITORY / "docs/troubleshooting.md").read_text()


def test_every_symptom_is_a_line_of_raypipe() -> None:
    symptoms = re.findall(r"^\| `([^`]+)` \| ", TROUBLES, re.M)
    assert len(symptoms) == len(re.findall(r"^\| `", TROUBLES, re.M)) > 0
    messages = _messages()
    assert [symptom for symptom in symptoms if not any(symptom in text for text in messages)] == []


def test_every_exit_code_and_every_dead_letter_is_explained() -> None:
    page = (REPOSITORY / "docs/cluster.md").read_text()
    for text in (TROUBLES, page):
        codes = {int(code) for code in re.findall(r"^\| (\d) \| ", text, re.M)}
        assert codes == {int(code) for code in ExitCode}
    assert [code for code in Code if f"`{code}`" not in page] == []


def test_settings_that_documents_name_are_there() -> None:
    """`section.key` between backticks, where a section of that name exists."""
    sections = configfile.Config.model_fields
    wrong = []
    for page in PAGES:
        for name in re.findall(r"`([a-z]+(?:\.[a-z_]+)+)(?:: [^`]*)?`", page.read_text()):
            first, *keys = name.removesuffix(".gguf").split(".")
            kind: Any = sections[first].annotation if first in sections and first != "arms" else None
            for key in keys if kind is not None and hasattr(kind, "model_fields") else ():
                if key not in kind.model_fields:
                    wrong.append(f"{page.name}: {name}")
                    break
                kind = next((a for a in _parts(kind.model_fields[key].annotation) if hasattr(a, "model_fields")), None)
                if kind is None:
                    break
    assert wrong == []


def _parts(annotation: Any) -> tuple[Any, ...]:
    return (annotation, *getattr(annotation, "__args__", ()))
