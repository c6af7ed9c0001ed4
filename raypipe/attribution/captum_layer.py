"""Any layer method of captum, one question at a time: for comparison, not for scale.

`captum:<Name>` runs `captum.attr.<Name>` on the input of the block at the attribution layer. Kokhlikyan et al. 2020
(2009.07896). Baselines are those of integrated gradients: the note's embeddings are zero or their mean, instruction and
question stay. LayerDeepLift has no rule for the modules of a modern decoder (SiLU, RMSNorm, attention), so on these
models it equals gradient x difference from the baseline.

captum brings matplotlib and IPython along, and every worker imports this file: only who asks for captum imports it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raypipe.attribution import hooks
from raypipe.attribution.gradients import reduce_width
from raypipe.attribution.method import Method, NoteAttribution, Request
from raypipe.attribution.padded import Rows
from raypipe.hashing import stable_hash
from raypipe.models.prompts import EncodedNote

PREFIX = "captum:"
ARGUMENTS = {"baseline": "baselines", "steps": "n_steps"}  # our key -> captum's argument, where a method has it
# These do not depend on the question, need modules that decoders do not have, or need a distribution of baselines.
REFUSED = {"LayerActivation", "LayerDeepLiftShap", "LayerFeaturePermutation", "LayerGradCam", "LayerLRP"}


def names() -> list[str]:
    """Layer methods of the installed captum that can attribute to the tokens of a note."""
    import captum.attr

    classes = [n for n in dir(captum.attr) if n.startswith("Layer") or n == "InternalInfluence"]
    return [name for name in classes if name not in {*REFUSED, "LayerAttribution"}]


def settings_of(name: str) -> frozenset[str]:
    """The settings that the captum class of this name reads."""
    accepted = inspect.signature(_class(name).attribute).parameters
    return frozenset({"reduction", *(key for key, argument in ARGUMENTS.items() if argument in accepted)})


def captum_layer(name: str, settings: frozenset[str]) -> Method:
    """The captum class of this name as a method that reads these `settings`."""
    return Method(
        attribute=lambda request, notes: [_one(request, note, _class(name)) for note in notes],
        reads=lambda config: "scale" if config.norm == "sum" and name == "LayerGradientXActivation" else "mixing",
        settings=settings,
    )


def _class(name: str) -> Any:
    import captum.attr

    return getattr(captum.attr, name)


class Target(nn.Module):
    """The explained scalar as a function of the embeddings [B, T, D] of one row of a question.

    A question has several rows only if its labels have several tokens; the others stay as they are. The explained
    scalar is a sum over rows, and so is its relevance.
    """

    def __init__(self, rows: Rows, row: int, states_PD: Tensor, chosen_Q2: Tensor) -> None:
        super().__init__()
        self.model = rows.decoder.model
        self._rows, self._states_PD, self._chosen_Q2 = rows, states_PD, chosen_Q2
        self._is_here_P1 = torch.tensor(rows.rows_P, device=states_PD.device)[:, None] == row

    def forward(self, embedded_BTD: Tensor) -> Tensor:
        """[B, T, D] -> [B]"""
        rows = self._rows
        hidden_BTD = rows.decoder.body(inputs_embeds=embedded_BTD, use_cache=False).last_hidden_state
        states = [torch.where(self._is_here_P1, h_TD[rows.columns_P], self._states_PD) for h_TD in hidden_BTD]
        return torch.cat([rows.readout.values(rows.decoder, s, self._chosen_Q2).z_Q for s in states])


def _one(request: Request, note: EncodedNote, method: Any) -> NoteAttribution:
    parts = [_question(request, replace(note, questions=(question,)), method) for question in note.questions]
    return NoteAttribution.joined(parts)


def _question(request: Request, note: EncodedNote, method: Any) -> NoteAttribution:
    decoder = request.decoder
    rows = Rows(decoder, [note], request.config.target)
    embedded_RTD = decoder.embed(rows.ids_RT)
    baseline_RTD = rows.baseline(embedded_RTD, request.config.baseline)
    with torch.no_grad():
        states_PD = decoder.states(rows.rows_P, rows.columns_P, input_ids=rows.ids_RT)
        values = rows.readout.values(decoder, states_PD)
    seed = stable_hash(request.seed, note.note_id, note.questions[0].task_id)
    relevance = []
    for layer in request.layers:
        relevance_RTD = []
        for row in range(len(rows.ids_RT)):
            target = Target(rows, row, states_PD, values.chosen_Q2)
            given = {ARGUMENTS["baseline"]: baseline_RTD[[row]], ARGUMENTS["steps"]: request.config.steps}
            with seeded(seed), torch.enable_grad(), hooks.tap(decoder.blocks, layer) as module:
                explainer = method(target, module)
                accepted = inspect.signature(explainer.attribute).parameters
                arguments = {key: value for key, value in given.items() if key in accepted}
                # a copy: captum turns on gradients of its inputs
                result = explainer.attribute(embedded_RTD[[row]].clone(), **arguments)
            relevance_RTD.append(result[0] if isinstance(result, tuple) else result)
        relevance_QTD = rows.readout.sum_of_questions(torch.cat(relevance_RTD).detach())
        relevance.append(reduce_width(relevance_QTD, torch.ones_like(relevance_QTD), request.config.norm))
    return rows.results(values, torch.stack(relevance, dim=1), torch.full_like(values.z_Q, torch.nan))[0]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global random streams of numpy and torch, from which captum draws, and restores them afterwards."""
    state = np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(state)
