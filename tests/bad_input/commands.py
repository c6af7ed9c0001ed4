"""Command lines, search spaces, and tables that `raypipe init` looks at."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from raypipe import cli
from raypipe.errors import ExitCode
from tests.bad_input.case import CANARY, Accepted, Case, Handled, Refused
from tests.bad_input.files import BYTES, GOOD
from tests.bad_input.ground import Ground

HOSTILE = ("\x1b]0;title\x07", "\x9b2J", "\u202e", "\x7f", "a\nb", "")


def lines(ground: Ground) -> Iterator[Case]:
    """Every command with an option that it does not have, an option without its value, and nothing at all."""
    group = typer.main.get_command(cli.app)
    for name, command in sorted(group.commands.items()):
        yield Case(f"{name} --nosuch", (name, "--nosuch"), Refused("No such option"))
        options = [option for option in command.params if option.opts[0].startswith("--")]
        for option in options:
            if not option.is_flag:
                yield Case(f"{name} {option.opts[0]}", (name, option.opts[0]), Refused(option.opts[0]))
        if any(option.required for option in command.params):
            yield Case(f"{name} alone", (name,), Refused("Missing"))
        if any(option.opts[0] == "--config" for option in options):
            for path in ("nowhere.yaml", "\x1b[2J.yaml"):
                more = {
                    "show": ("--note", "n"),
                    "tune": ("--space", "x"),
                    "submit": ("--address", "http://127.0.0.1:1"),
                    "import": ("a", "b"),
                    "export": ("--what", "attributions", "--out", "x"),
                    "upload": ("s3://nowhere/x",),
                    "download": ("s3://nowhere/x",),
                }.get(name, ())
                yield Case(f"{name} {path!r}", (name, "--config", path, *more), Refused("cannot be read"))
    for name, option in (
        ("export", "--what"),
        ("export", "--to"),
        ("export", "--top"),
        ("submit", "--command"),
        ("submit", "--retry"),
        ("plan", "--share"),
        ("plan", "--peak"),
        ("plan", "--notes"),
        ("import", "--dtype"),
    ):
        yield Case(f"{name} {option} of words", (name, option, "x\x1b[2J"), Refused(option))
    yield Case("no such command", ("nosuch",), Refused("No such command"))
    for hostile in HOSTILE:
        for place in ("na{}me=x", "name=a{}b", "data.max_chars={}", "{}"):
            override = place.replace("{}", hostile)
            arguments = ("check", "--config", "c.yaml", "--set", override)
            yield Case(f"--set {override!r}", arguments, Handled("--set"), of=ground.project)
        yield Case(
            f"--arm {hostile!r}",
            ("train", "--config", "c.yaml", "--arm", hostile),
            Refused("no such arm"),
            of=ground.project,
        )
    for option, value in (
        ("--gpus", "x"),
        ("--gpus", "0"),
        ("--gpus", "-1"),
        ("--memory", "lots"),
        ("--peak", "x"),
        ("--peak", "nan"),
        ("--peak", "-1"),
        ("--share", "2"),
        ("--share", "0"),
        ("--notes", "-1"),
        ("--notes", "0"),
        ("--memory", "-1GB"),
    ):
        yield Case(
            f"plan {option} {value}", ("plan", "--config", "c.yaml", option, value), Refused(option), of=ground.project
        )
    arguments = ("plan", "--config", "c.yaml", "--model-config", "nowhere")
    yield Case("plan for no model", arguments, Refused("nowhere: not a readable config.json"), of=ground.project)
    for address in ("", "nonsense", "http://127.0.0.1:1", "ftp://127.0.0.1:1", f"http://u:{CANARY}@127.0.0.1:1"):
        arguments = ("submit", "--config", "c.yaml", "--address", address)
        yield Case(
            f"submit to {address}", arguments, Handled("", (ExitCode.CONFIG, ExitCode.CLUSTER)), of=ground.project
        )


RATIO = '"arms.decselfmask.masking.ratio": tune.choice([0.1, 0.2])'
SPACES: dict[str, tuple[str, str]] = {
    "empty": ("", "PARAM_SPACE"),
    "no Python": ("PARAM_SPACE = {", "SyntaxError"),
    "an error": ("1/0", "ZeroDivisionError"),
    "an exit": ("raise SystemExit(0)", "s.py"),
    "no such module": ("import nosuch_xyz", "ModuleNotFoundError"),
    "NUL": ("\x00", "s.py"),
    "a list": ("PARAM_SPACE = []", "PARAM_SPACE"),
    "nothing in it": ("PARAM_SPACE = {}", "PARAM_SPACE"),
    "numbers as keys": ("PARAM_SPACE = {1: 2}", "PARAM_SPACE"),
    "unknown key": ("PARAM_SPACE = {'attribution.layr': 1}", "attribution.layr"),
    "a key of the study": ("PARAM_SPACE = {'data.notes': 'x'}", "is the same for all trials"),
    "no such arm": ("PARAM_SPACE = {'arms.nosuch.masking.ratio': 0.1}", "no such arm"),
    "a value out of range": ("PARAM_SPACE = {'arms.decselfmask.masking.ratio': 2.0}", "ratio"),
    "a function": ("PARAM_SPACE = {'attribution.layer': lambda: 1}", "attribution.layer"),
    "a drawing function": (
        "from ray import tune\nPARAM_SPACE = {'attribution.layer': tune.sample_from(lambda _: 1)}",
        "is a function",
    ),
    "nested": ("PARAM_SPACE = {'attribution': {'layer': 1}}", "write nested keys with dots"),
    "no values": ("from ray import tune\nPARAM_SPACE = {'attribution.layer': tune.choice([])}", "attribution.layer"),
    "another metric": (
        f"from ray import tune\nMETRIC = 'loss'\nPARAM_SPACE = {{{RATIO}}}",
        "METRIC: must be dev_macro_f1 or dev_auc",
    ),
    "another mode": (f"from ray import tune\nMODE = 'min'\nPARAM_SPACE = {{{RATIO}}}", "MODE: must be max"),
    "no samples": (f"from ray import tune\nNUM_SAMPLES = 0\nPARAM_SPACE = {{{RATIO}}}", "NUM_SAMPLES"),
    "samples of words": (f"from ray import tune\nNUM_SAMPLES = 'x'\nPARAM_SPACE = {{{RATIO}}}", "NUM_SAMPLES"),
    "models as text": (f"from ray import tune\nMODELS = 'x'\nPARAM_SPACE = {{{RATIO}}}", "MODELS"),
    "models of numbers": (f"from ray import tune\nMODELS = 7\nPARAM_SPACE = {{{RATIO}}}", "MODELS"),
    "no such model": (f"from ray import tune\nMODELS = ['nowhere']\nPARAM_SPACE = {{{RATIO}}}", "nowhere"),
    "an unknown name": (f"from ray import tune\nNUM_SAMPELS = 3\nPARAM_SPACE = {{{RATIO}}}", "NUM_SAMPELS"),
    "another ARM": (f"from ray import tune\nARM = 'nosuch'\nPARAM_SPACE = {{{RATIO}}}", "nosuch"),
    "an ARM of numbers": (f"from ray import tune\nARM = 5\nPARAM_SPACE = {{{RATIO}}}", "ARM"),
}


def spaces(ground: Ground) -> Iterator[Case]:
    """Python files that name no space."""
    for name, (text, place) in SPACES.items():
        yield Case(
            name,
            ("tune", "--config", "c.yaml", "--space", "s.py"),
            Refused(place),
            lambda f, t=text: (f / "s.py").write_text(t),
            ground.project,
        )
    for path in ("nowhere.py", ".", "model/config.json", "notes.csv"):
        yield Case(f"space {path}", ("tune", "--config", "c.yaml", "--space", path), Refused(path), of=ground.project)
    for models in (",", "nowhere", "pretrain:nosuch", "a@b", "org/name@main"):
        arguments = ("tune", "--config", "c.yaml", "--space", "s.py", "--models", models)
        text = f"from ray import tune\nMODELS = ['nowhere2']\nPARAM_SPACE = {{{RATIO}}}"
        yield Case(
            f"models {models}",
            arguments,
            Handled("", (ExitCode.CONFIG,)),
            lambda f, t=text: (f / "s.py").write_text(t),
            ground.project,
        )


NO_NAMES, NO_ROW, NOT_UTF8 = "does not look like names of columns", "holds no row", "names of columns are not UTF-8"
NO_ID, NO_TEXT, NO_LABEL = (
    "--id: no column",
    "--text: no column looks like notes",
    "--label: no column looks like a label",
)
# What `raypipe init` says of a table to which something befell (files.BYTES), by its format; else what stands first.
SAID = {
    "parquet": ("n.parquet: cannot be read", {"another magic": NO_LABEL}),
    "csv": (
        NO_LABEL,
        {"empty": NO_NAMES, "zeros": NO_NAMES, "as gzip": NOT_UTF8, "UTF-16": NOT_UTF8, "a page": NO_ROW},
    ),
    "jsonl": (NO_NAMES, {"cut": NO_ID, "without its end": NO_ID, "another magic": NO_ID, "flipped": NO_LABEL}),
}
SAID_OF_COPY = {
    "csv": (NO_LABEL, {"empty": NO_ROW, "zeros": NO_NAMES, "as gzip": "n.csv:", "a page": NO_ROW}),
}


def projects(ground: Ground) -> Iterator[Case]:
    """Tables that somebody gives to `raypipe init`."""
    for kind, good in GOOD.items():
        for what, change in BYTES.items():
            arguments, copied = ("init", "p", "--notes", f"n.{kind}"), ("--number-rows", "--encoding", "cp1252")
            usual, odd = SAID[kind]
            usual_of_copy, odd_of_copy = SAID_OF_COPY.get(kind, (f"n.{kind}: is no .csv file", {}))
            for name, more, place in (
                ("", (), odd.get(what, usual)),
                (", copied", copied, odd_of_copy.get(what, usual_of_copy)),
            ):
                yield Case(
                    f"init {kind} {what}{name}",
                    (*arguments, *more),
                    Refused(place),
                    lambda f, kind=kind, good=good, change=change: (f / f"n.{kind}").write_bytes(change(good)),
                )
    texts = {
        "no header": ("".join(f"{i},{CANARY} dolore toracico da ieri sera\n" for i in range(9)), NO_NAMES),
        "one column": (f"text\n{CANARY} dolore da ieri\n" * 3, NO_ID),
        "no ids": ("text,x\n" + f"{CANARY} dolore toracico da ieri,1\n" * 9, NO_ID),
        "no text": ("id,x\n" + "".join(f"{i},1\n" for i in range(9)), NO_TEXT),
        "names twice": ("id,text,text\n1,a,b\n", "two columns have the same name"),
        "a note as header": (
            f"Paziente {CANARY} di anni 74 giunge in pronto soccorso per dolore e febbre,x\n1,2\n",
            NO_NAMES,
        ),
    }
    for name, (text, place) in texts.items():
        yield Case(
            f"init {name}",
            ("init", "p", "--notes", "n.csv"),
            Refused(place),
            lambda f, t=text: (f / "n.csv").write_text(t),
        )
    init = ("init", "p", "--notes", "notes.csv", "--labels", "labels.csv", "--labels-id", "note_id")
    init += ("--task-column", "task_id", "--label-column", "label", "--split", "split")
    for option in ("--id", "--text", "--group", "--split", "--labels-id", "--task-column", "--label-column"):
        outcome = Refused(f"{option}: there is no column 'nosuch'")
        yield Case(f"init {option} nosuch", (*init, option, "nosuch"), outcome, of=ground.project)
    yield Case("init --model nosuch", (*init, "--model", "nosuch"), Refused("model.path"), of=ground.project)
    none, more = Refused("is no encoding"), ("--id", "note_id", "--text", "text")
    for encoding, said in {
        **dict.fromkeys(("", "nosuch", "hex", "undefined", "\x1b"), none),
        "utf-16": Refused("notes.csv: cannot be read"),
        "utf-8": Accepted("ok, "),
    }.items():
        yield Case(f"init --encoding {encoding!r}", (*init, "--encoding", encoding, *more), said, of=ground.project)
    yield Case(
        "init --number-rows beside labels", (*init, "--number-rows"), Refused("--number-rows"), of=ground.project
    )
    for answers in ("", ",", "yes", "yes,"):
        yield Case(
            f"init --answers {answers!r}", (*init, "--answers", answers), Refused("--answers"), of=ground.project
        )
    same = Refused("two options have the same answer")
    yield Case("init --answers twice the same", (*init, "--answers", "yes,yes"), same, of=ground.project)
    there = Refused("tasks.yaml: is there already")
    yield Case("init over a project", ("init", ".", *init[2:]), there, of=ground.project)
    yield Case("init beside other files", ("init", "model", *init[2:]), Accepted("ok, "), of=ground.project)
    yield Case("init of nothing", ("init", "p", "--notes", "nowhere.csv"), Refused("--notes"))


def looking(ground: Ground) -> Iterator[Case]:
    """Commands that only look, at what is not there."""
    yield Case("status of nothing", ("status", "--runs", "nowhere"), Handled())
    yield Case("status of a file", ("status", "--runs", "c.yaml"), Handled(), of=ground.project)
    yield Case(
        "preview of a task", ("preview", "--config", "c.yaml", "--task", "nosuch"), Refused("nosuch"), of=ground.project
    )
    for note in ("", "\x1b[2J", "a\ud800", "x" * 100_000):
        yield Case(
            f"preview of {note!r:.20}", ("preview", "--config", "c.yaml", "--note", note), Handled(), of=ground.project
        )
    yield Case("the project as it is", ("check", "--config", "c.yaml"), Accepted("ok, "), of=ground.project)
