"""A plan as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raypipe.runs.planning.figures import Memory, Plan

UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def text(plan: Plan) -> str:
    """All of it, in the order in which one asks: how much, how long, does it fit, what to change."""
    parts = [_head(plan), _steps(plan), _sources(plan), _gpus(plan), _memory(plan), _storage(plan), _several(plan)]
    lines = [line for part in parts for line in (*part, "")]
    lines += [f"! {line}" for line in plan.advice] or [
        "nothing would starve, overflow or not fit, as far as a plan sees"
    ]
    return "\n".join([*lines, "", *(f"supposed: {line}" for line in plan.assumptions)])


def size(n_bytes: float) -> str:
    """Bytes with a unit."""
    for unit, name in UNITS:
        if n_bytes >= 0.9995 * unit:  # else rounded to 1e+03 of the smaller one
            return f"{n_bytes / unit:.3g} {name}"
    return f"{n_bytes:.0f} B"


def number(value: float) -> str:
    """A count that one can read."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:,.0f}"


def span(seconds: float) -> str:
    """A time with the unit that fits it."""
    for unit, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.3g} s"


def _head(plan: Plan) -> Iterator[str]:
    c = plan.corpus
    yield f"plan of {plan.name}: nothing was started. {plan.model}, {number(plan.parameters)} parameters"
    stated = "stated" if c.is_count_stated else "counted"
    labelled = ", ".join(f"{split} {n:,}" for split, n in c.labelled.items())
    yield f"notes       {c.notes:,} ({stated}), {c.to_learn_from:,} to learn from; labelled: {labelled}"
    if c.unreadable:
        yield f"            {c.unreadable:,} cannot be read and become dead letters"
    t = c.tokens
    mean = t.value / max(1, c.to_learn_from)
    interval = f"95 % [{number(t.low)}, {number(t.high)}]"
    yield f"tokens      {number(t.value)}, {interval}, {mean:.0f} a note; {c.sampled:,} notes read"
    yield f"            by {c.tokenizer}; {c.truncated:.1%} of the notes are cut"
    if c.questions_per_note:
        saved = "not counted" if c.flops_saved is None else f"{c.flops_saved:.0%} of attribution's arithmetic"
        yield f"tasks       {c.tasks}, {c.questions_per_note:g} asked of a note; sharing it saves"
        yield f"            {number(c.forward_passes_saved)} passes over a note, {saved}"
    else:
        yield f"tasks       {c.tasks}; no note is attributed"


def _steps(plan: Plan) -> Iterator[str]:
    wide = max([4, *(len(step.name) for step in plan.steps)])
    head = f"{'step':{wide}}  {'rows':>9}  {'tokens':>8}  {'steps':>9}  {'FLOPs':>9}  {'1 GPU':>9}  {'CPU core':>9}"
    yield f"{head}  {'disk':>8}"
    for step, stage in zip(plan.steps, plan.stages, strict=True):
        flops = "?" if step.flops is None else f"{step.flops:.2e}" if step.flops else ""
        on_gpu = "" if step.kind == "rows" else "?" if stage.seconds is None else span(stage.seconds)
        cells = (
            f"{number(step.rows):>9}  {number(step.tokens) if step.tokens else '':>8}",
            f"{f'{step.optimiser_steps:,}' if step.optimiser_steps else '':>9}  {flops:>9}  {on_gpu:>9}",
            f"{span(step.cpu_seconds) if step.cpu_seconds else '':>9}  {size(step.bytes) if step.bytes else '':>8}",
        )
        remark = f"  {step.remark}" if step.remark else ""
        yield f"{step.name:{wide}}  {'  '.join(cells)}{remark}"
    if not plan.steps:
        yield "everything is finished: there is nothing left to make"
    if plan.seconds_per_note is not None:
        yield f"attribution: {span(plan.seconds_per_note)} a note on 1 GPU"


def _sources(plan: Plan) -> Iterator[str]:
    """Where the times come from: each source once, with the steps that it stands behind."""
    by_source: dict[str, list[str]] = {}
    for stage in plan.stages:
        by_source.setdefault(stage.source, []).append(stage.name)
    for source, names in by_source.items():
        which = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        yield f"time of {which}: {source}"


def _gpus(plan: Plan) -> Iterator[str]:
    yield f"{'GPUs':>5}  {'wall time':>10}  {'GPU-hours':>10}  {'a model runs':>12}  {'blocks a GPU':>12}"
    for of in plan.on_gpus:
        cells = f"{span(of.wall_hours * 3600):>10}  {of.gpu_hours:>10,.4g}  {of.busy:>11.0%}"
        yield f"{of.gpus:>5}  {cells}   {of.shards_per_gpu:>11,.1f}"


def _memory(plan: Plan) -> Iterator[str]:
    limit = "" if plan.memory_limit is None else f" (there are {size(plan.memory_limit)})"
    yield f"memory of one GPU{limit}"
    yield from (_parts(of) for of in plan.memory)
    yield f"  in the memory of each training worker: {size(plan.host_bytes)} for the order of training rows"


def _parts(of: Memory) -> str:
    parts = ", ".join(f"{part} {size(n_bytes)}" for part, n_bytes in of.parts.items() if n_bytes)
    return f"  {of.of}: {size(of.total)} = {parts}"


def _storage(plan: Plan) -> Iterator[str]:
    scratch = max((step.scratch_bytes for step in plan.steps), default=0)
    yield f"disk {size(plan.bytes)} in the end, and {size(scratch)} for rows and checkpoint of the largest training"
    blocks = f"{plan.shards:,} blocks of {plan.rows_per_block} notes"
    yield f"{blocks}; in the object store {size(plan.in_flight_bytes)} for each GPU"


def _several(plan: Plan) -> Sequence[str]:
    return [f"{of.what}: {of.runs:,} runs, {of.gpu_hours:,.4g} GPU-hours of a model" for of in plan.several]
