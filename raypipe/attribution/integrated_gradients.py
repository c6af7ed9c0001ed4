"""Integrated gradients at a layer: the gradient averaged on the straight line from a note without content to the note.

Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks" (1703.01365), equation 1, at a layer as in captum's
LayerIntegratedGradients, with Gauss-Legendre steps. Baseline: the token embeddings of the note are zero, or the mean of
all embeddings; instruction and question stay. Completeness: relevance of all positions sums to z(note) - z(baseline);
`error_Q` is the gap, relative to that difference.

It is faster than captum's because the states of note and baseline at the layer are computed once, and each step runs
only the blocks above it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from raypipe.attribution import hooks
from raypipe.attribution.gradients import reduce_width
from raypipe.attribution.method import Method, NoteAttribution, Request
from raypipe.attribution.padded import Rows
from raypipe.models.prompts import EncodedNote


def attribute(request: Request, notes: Sequence[EncodedNote]) -> list[NoteAttribution]:
    """Layers one after the other: each has a path of its own."""
    decoder, how = request.decoder, request.config.norm
    rows = Rows(decoder, notes, request.config.target)
    embedded_RTD = decoder.embed(rows.ids_RT)
    with torch.no_grad(), hooks.cut(decoder.blocks, request.layers) as ends:
        values = rows.values(embedded_RTD)
    with torch.no_grad(), hooks.cut(decoder.blocks, request.layers) as starts:
        without_content = rows.values(rows.baseline(embedded_RTD, request.config.baseline), values.chosen_Q2)
    explained_Q = values.z_Q - without_content.z_Q
    relevance, errors = [], []
    for layer in request.layers:
        start_RTD, end_RTD = starts[layer].detach(), ends[layer].detach()
        average_RTD = _average_gradient(request, rows, layer, start_RTD, end_RTD, values.chosen_Q2)
        difference_RTD = end_RTD - start_RTD
        sum_Q = rows.readout.sum_of_questions((difference_RTD * average_RTD).float().sum((1, 2)))
        errors.append((sum_Q - explained_Q).abs() / explained_Q.abs())
        of_questions = rows.one_of_questions(difference_RTD), rows.readout.sum_of_questions(average_RTD)
        relevance.append(reduce_width(*of_questions, how))
    return rows.results(values, torch.stack(relevance, dim=1), errors[0])


def _average_gradient(
    request: Request, rows: Rows, layer: int, start_RTD: Tensor, end_RTD: Tensor, chosen_Q2: Tensor
) -> Tensor:
    """Weighted mean of dz/dh [R, T, D] over the steps; as many steps at once as the budget allows."""
    decoder = request.decoder
    points, weights = np.polynomial.legendre.leggauss(request.config.steps)
    alpha_S = torch.tensor((points + 1) / 2, device=decoder.device, dtype=torch.float32)
    weight_S = torch.tensor(weights / 2, device=decoder.device, dtype=torch.float32)
    total_RTD = torch.zeros_like(end_RTD, dtype=torch.float32)
    at_once = max(1, request.batch_tokens // rows.ids_RT.numel())
    for step in range(0, request.config.steps, at_once):
        alpha_S111 = alpha_S[step : step + at_once, None, None, None].to(end_RTD.dtype)
        path_XTD = (start_RTD + alpha_S111 * (end_RTD - start_RTD)).flatten(0, 1).requires_grad_()
        copies = len(alpha_S111)
        with torch.enable_grad(), hooks.resume(decoder.blocks, layer, path_XTD, decoder.loaded.family.returns_tuple):
            z = rows.sum_of_copies(copies, chosen_Q2)
        (gradient_XTD,) = torch.autograd.grad(z, path_XTD)
        gradient_SRTD = gradient_XTD.float().view(copies, *end_RTD.shape)
        total_RTD += torch.einsum("s,srtd->rtd", weight_S[step : step + at_once], gradient_SRTD)
    return total_RTD


INTEGRATED_GRADIENTS = Method(
    attribute=attribute,
    reads=lambda _: "mixing",
    settings=frozenset({"reduction", "steps", "baseline"}),
    copies_note=True,
)
