"""How well `raypipe plan` foretells a run: plans it, makes it, and prints planned over recorded of every step.

    python benchmarks/bench_plan.py [--config jobs/configs/demo.yaml] [--set KEY=VALUE ...] [--json FILE]

Rates are measured here, as `raypipe plan` does without --peak. The run lies in a folder of its own, which is deleted.
Seconds within a factor of 2 are what a plan promises on a machine that is otherwise idle; nothing is asserted here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from raypipe.runs import driver
from raypipe.runs.planning import estimate
from raypipe.runs.planning.options import Options
from raypipe.runs.run import Run
from raypipe.settings import configfile
from raypipe.settings.config import Config

RECORDED = ("seconds", "flops", "tokens")


def compared(settings: Config) -> list[dict[str, Any]]:
    """By step: what was planned and what was recorded."""
    planned = estimate.plan(Run(settings), Options())
    run = Run(settings).open()
    driver.run_all(run)
    table = []
    for step, stage in zip(planned.steps, planned.stages, strict=True):
        folder = run.folder / step.name
        if not (folder / "manifest.json").exists():
            continue
        manifest = json.loads((folder / "manifest.json").read_text())
        made = {key: manifest.get(key) for key in RECORDED}
        made["bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        plan = {"seconds": stage.seconds, "flops": step.flops, "tokens": step.tokens, "bytes": step.bytes}
        if step.kind != "training":
            made |= {"flops": None, "tokens": None}
        table.append({"step": step.name, "planned": plan, "recorded": made, "source": stage.source})
    return table


def _ratio(row: dict[str, Any], key: str) -> str:
    planned, recorded = row["planned"][key], row["recorded"][key]
    return f"{planned / recorded:9.2f}" if planned and recorded else f"{'':9}"


def main() -> None:
    """Plans, runs, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("jobs/configs/demo.yaml"))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as runs:
        settings = configfile.load(options.config, ["resources.ray=false", *options.overrides, f"runs={runs}"])
        table = compared(settings)
    print(f"planned / recorded\n{'step':24}{'seconds':>9}{'FLOPs':>9}{'tokens':>9}{'bytes':>9}  recorded seconds")
    for row in table:
        ratios = "".join(_ratio(row, key) for key in ("seconds", "flops", "tokens", "bytes"))
        print(f"{row['step']:24}{ratios}  {row['recorded']['seconds']:.1f}")
    if options.json is not None:
        options.json.write_text(json.dumps({"rows": table}, indent=1))


if __name__ == "__main__":
    main()
