"""Mean attention from the answer position to each note token, over heads and over the blocks from `layer` on.

DecSelfMask's code has it as an unused alternative. It is a control more than a method: attention says where a position
looks, not what it takes from there (Jain & Wallace 2019, 1902.10186).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from raypipe.attribution.method import Method, NoteAttribution, Request
from raypipe.attribution.padded import Rows
from raypipe.models.prompts import EncodedNote
from raypipe.models.swapping import attention_as


def attribute(request: Request, notes: Sequence[EncodedNote]) -> list[NoteAttribution]:
    """Attention weights exist only in the eager implementation, so this runs with it."""
    decoder = request.decoder
    rows = Rows(decoder, notes, request.config.target)
    answers = torch.tensor(rows.columns_P, device=decoder.device)
    # of each question, the first position whose prediction is read: where its label begins
    first = rows.readout.first_rows
    point = [rows.rows_P.index(row) for row in first]
    with torch.no_grad():
        values = rows.values()
        with attention_as(decoder.model, "eager"):
            weights = decoder.body(input_ids=rows.ids_RT, use_cache=False, output_attentions=True).attentions
    columns = answers[point]
    per_block = [weight[first, :, columns].float().mean(1) for weight in weights]  # [Q, T] each
    relevance = [torch.stack(per_block[layer:]).mean(0) for layer in request.layers]
    return rows.results(values, torch.stack(relevance, dim=1), torch.full_like(values.z_Q, torch.nan))


ATTENTION_MEAN = Method(attribute=attribute, reads=lambda _: "mixing", copies_note=True)
