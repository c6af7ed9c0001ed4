"""Any layer method of captum, one question at a time: for comparison, not for scale.

`captum:<Name>` runs `captum.attr.<Name>` on the input of the block at the attribution layer. Kokhlikyan et al. 2020
(2009.07896). Baselines are those of integrated gradients: the note's embeddings zero or mean, instruction and question
as they are. LayerDeepLift knows no module of a modern decoder (SiLU, RMSNorm and attention are not among its rules), so
there it is gradient x difference from the baseline; it is offered because captum can.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import captum.attr
import numpy as np
import torch
from torch import Tensor, nn

from raypipe.attribution.gradients import reduce_width
from raypipe.attribution.method import Method, NoteAttribution, Request
from raypipe.attribution.rows import Rows
from raypipe.attribution.targets import Values
from raypipe.hashing import stable_hash
from raypipe.prompts import EncodedNote

PREFIX = "captum:"
# They do not depend on the note's tokens, or need modules that decoders do not have.
REFUSED = {"LayerActivation", "LayerLRP", "LayerFeaturePermutation", "LayerGradCam"}


def names() -> list[str]:
    """Layer methods of the installed captum that can attribute to the tokens of a note."""
    classes = [n for n in dir(captum.attr) if n.startswith("Layer") or n == "InternalInfluence"]
    return [name for name in classes if name not in {*REFUSED, "LayerAttribution"}]


def captum_layer(name: str) -> Method:
    """The captum class of this name as a method."""
    return Method(
        attribute=lambda request, notes: [_one(request, note, getattr(captum.attr, name)) for note in notes],
        reads=lambda config: "scale" if config.reduction == "sum" and name == "LayerGradientXActivation" else "mixing",
    )


class Target(nn.Module):
    """The explained scalar as a function of embeddings [X, T, D], X a multiple of the rows of one question."""

    def __init__(self, rows: Rows, values: Values) -> None:
        super().__init__()
        self.model = rows.decoder.model
        self._rows, self._chosen_Q2 = rows, values.chosen_Q2

    def forward(self, embedded_BRTD: Tensor) -> Tensor:
        """[B, R, T, D] -> [B]"""
        rows = self._rows
        n_copies, n_rows = embedded_BRTD.shape[:2]
        hidden_XTD = rows.decoder.body(inputs_embeds=embedded_BRTD.flatten(0, 1), use_cache=False).last_hidden_state
        hidden_BRTD = hidden_XTD.view(n_copies, n_rows, *hidden_XTD.shape[1:])
        return torch.cat(
            [
                rows.readout.values(rows.decoder, h[rows.rows_P, rows.columns_P], self._chosen_Q2).z_Q
                for h in hidden_BRTD
            ]
        )


def _one(request: Request, note: EncodedNote, method: Any) -> NoteAttribution:
    parts = [_question(request, replace(note, questions=(question,)), method) for question in note.questions]
    return NoteAttribution.joined(parts, len(request.layers))


def _question(request: Request, note: EncodedNote, method: Any) -> NoteAttribution:
    decoder = request.decoder
    rows = Rows(decoder, [note], request.config.target)
    with torch.no_grad():
        values = rows.values()
    embedded_RTD = decoder.embed(rows.ids_RT)
    empty = torch.zeros_like(embedded_RTD) if request.config.baseline == "zero" else decoder.mean_embedding
    baseline_RTD = torch.where(rows.is_note_RT[:, :, None], empty.to(embedded_RTD.dtype), embedded_RTD)
    given: dict[str, Any] = {
        "baselines": baseline_RTD[None],
        "n_steps": request.config.steps,
        "attribute_to_layer_input": True,
    }
    accepted = inspect.signature(method.attribute).parameters
    arguments = {key: value for key, value in given.items() if key in accepted}
    target = Target(rows, values)
    relevance = []
    for layer in request.layers:
        # a copy: captum turns on gradients of its inputs
        with seeded(stable_hash(request.seed, note.note_id, note.questions[0].task_id)), torch.enable_grad():
            found = method(target, decoder.blocks[layer]).attribute(embedded_RTD[None].clone(), **arguments)
        found_RTD = (found[0] if isinstance(found, tuple) else found).detach()
        found_RTD = found_RTD.reshape(rows.ids_RT.shape[0], *found_RTD.shape[-2:])
        found_QTD = rows.sum_of_questions(found_RTD)
        relevance.append(reduce_width(found_QTD, torch.ones_like(found_QTD), request.config.reduction))
    return rows.results(values, torch.stack(relevance, dim=1), torch.full_like(values.z_Q, torch.nan))[0]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """captum draws from the global streams of numpy and torch: seed them, and put them back."""
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
