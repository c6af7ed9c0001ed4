"""A cheap proxy as a first filter: how far the scorer's answer falls when a layer's most relevant words are removed.

Comprehensiveness (evaluation/faithfulness.py) of each layer at the share of removed words that is nearest to a masking
ratio. No student is trained. Whether it says anything about macro F1 is an open question: the report sets the two
against each other, and nothing is filtered unless `tune.proxy_keep` asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from scipy.stats import rankdata

from raypipe.attribution.layers import masking_layer
from raypipe.evaluation.faithfulness import SHARES, faithfulness_table
from raypipe.models import loading
from raypipe.runs import faithfulness
from raypipe.runs.run import SCORER, Run
from raypipe.tuning import samplers
from raypipe.tuning.plan import Plan
from raypipe.tuning.space import LAYER


def key(layer: int | None, ratio: float) -> str:
    """Name of a layer at the share of removed words nearest to a masking ratio."""
    return f"{layer}/{min(SHARES, key=lambda share: abs(share - ratio))}"


def measure(run: Run) -> dict[str, float]:
    """Comprehensiveness of every valid layer at every share, on labelled dev notes; by `key`."""
    settings = run.settings
    notes = {note["note_id"]: (note["text"], labels) for note, labels in run.corpus.labelled("dev")}
    labels = {note_id: labels for note_id, (_, labels) in notes.items()}
    asked = faithfulness.choose(labels, settings.faithfulness.questions, settings.seed)
    every = {"searched": settings.attribution.model_copy(update={"layer": "all"})}
    chosen = [(note_id, notes[note_id][0], task_ids) for note_id, task_ids in asked.items()]
    scorer = loading.load(run.model(SCORER))
    table = faithfulness_table(scorer, run.encoder(), chosen, every, n_bootstrap=100, seed=settings.seed)
    found = [row for row in table if row["variant"] != "random"]
    return {f"{row['layer']}/{share}": row[f"comprehensiveness_{100 * share:.0f}"] for row in found for share in SHARES}


def filtered(plan: Plan, known: Mapping[str, float], keep: float) -> tuple[Plan, list[int]]:
    """The plan without the layers that rank low, by mean rank over the ratios; and the layers that were left out."""
    name = next((name for name, grid in plan.params.items() if name.endswith(LAYER) and samplers.is_grid(grid)), None)
    if name is None:
        return plan, []
    values = samplers.values(plan.params[name])
    read = [plan.config({**plan.constants, name: value}, "trial", "runs").attribution for value in values]
    layers = [masking_layer(attribution, plan.backbone.depth) for attribution in read]
    ratios = next((samplers.values(s) for n, s in plan.params.items() if n.endswith(".ratio")), list(SHARES))
    rank = sum(rankdata([-known[key(layer, ratio)] for layer in layers]) for ratio in ratios)
    best: Sequence[int] = sorted(range(len(values)), key=lambda i: rank[i])[: math.ceil(keep * len(values))]
    grid = {samplers.GRID: [values[i] for i in sorted(best)]}
    return replace(plan, params={**plan.params, name: grid}), [n for i, n in enumerate(layers) if i not in best]
