"""A scorer, instrumented: runs on padded rows, reads single positions, and finds layers that carry no relevance.

Rows are padded on the right and run without an attention mask: a causal decoder cannot see what follows, so padding
changes nothing, and the fastest attention kernels accept it. Left padding (with a mask) is used only where rows
must end together, by `note_cache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from raypipe.attribution import hooks
from raypipe.models import tree
from raypipe.models.families import too_long
from raypipe.models.loading import Loaded

N_CHECK_TOKENS = 12  # tokens of the random prompts on which a model is checked


class Decoder:
    """One decoder. Its parameters are frozen: attribution needs gradients of activations alone.

    Raises `ValueError` for a model that is not built as its family is, or whose logits are not a function of its final
    hidden states.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.model: Any = loaded.model.requires_grad_(False).eval()
        self.body: Any = self.model.base_model
        self.blocks: list[Any] = list(self.model.get_submodule(loaded.family.blocks))
        self.depth = len(self.blocks)
        self.device = loaded.device
        self.dtype: torch.dtype = self.model.dtype
        self._check_head()

    def pad(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Token rows as [B, T], padded on the right.

        The padding is a real token, because models warn about pad tokens without a mask. No position that is read sees
        it.
        """
        width = max(map(len, rows))
        return torch.tensor([[*row, *[rows[0][0]] * (width - len(row))] for row in rows], device=self.device)

    def states(self, rows_P: Sequence[int], columns_P: Sequence[int], **inputs: Any) -> Tensor:
        """Final hidden states [P, D] at (row, column); `inputs` go to the model's body.

        Raises `ValueError` for rows so long that the model's positions would depend on the batch.
        """
        given = inputs["inputs_embeds"] if "inputs_embeds" in inputs else inputs["input_ids"]
        past = inputs.get("past_key_values")
        problem = too_long(self.model.config, given.shape[1] + (0 if past is None else past.get_seq_length()))
        if problem is not None:
            raise ValueError(problem)
        rows = torch.tensor(rows_P, device=self.device, dtype=torch.long)
        columns = torch.tensor(columns_P, device=self.device, dtype=torch.long)
        with hooks.only_rows(self.blocks[-1].mlp, rows, columns):
            hidden_BTD: Tensor = self.body(**{"use_cache": False, **inputs}).last_hidden_state
        return hidden_BTD[rows, columns]

    def logits(self, states_PD: Tensor, tokens_U: Tensor | None = None) -> Tensor:
        """Logits [P, V], or [P, U] for some tokens, in float32."""
        return tree.logits(self.model, states_PD, tokens_U)

    @cached_property
    def mean_embedding(self) -> Tensor:
        """The mean [D] of all token embeddings."""
        table = self.model.get_input_embeddings()
        every_V = torch.arange(table.num_embeddings, device=self.device)
        with torch.no_grad():
            total_D = sum(table(some).float().sum(0) for some in torch.split(every_V, 8192))
        return (torch.as_tensor(total_D) / len(every_V)).to(self.dtype)

    def embed(self, ids_BT: Tensor) -> Tensor:
        """Token embeddings [B, T, D] as the model's body takes them (`inputs_embeds`)."""
        embedded: Tensor = self.model.get_input_embeddings()(ids_BT)
        return embedded

    @torch.no_grad()
    def _check_head(self) -> None:
        name = type(self.model).__name__
        ids_BT = self.check_prompts(2)
        expected_PV = self.model(input_ids=ids_BT, use_cache=False).logits[:, -1].float()
        tokens_U = torch.arange(0, expected_PV.shape[1], max(1, expected_PV.shape[1] // 64), device=self.device)
        try:
            states_PD = self.states([0, 1], [ids_BT.shape[1] - 1] * 2, input_ids=ids_BT)
            every_PV, some_PU = self.logits(states_PD), self.logits(states_PD, tokens_U)
        except (AttributeError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"{name} is not built as its family in models/families.py ({type(error).__name__})"
            ) from error
        # bfloat16 keeps 8 bits; the head sums up many products
        tolerance = (2e-4 if self.dtype == torch.float32 else 3e-2) * expected_PV.abs().amax()
        worst = max((every_PV - expected_PV).abs().amax(), (some_PU - expected_PV[:, tokens_U]).abs().amax())
        if not worst <= tolerance:
            raise ValueError(f"{name}: logits are not a function of the final hidden states alone")

    @cached_property
    def can_cache(self) -> bool:
        """Whether the model can run on cached keys and values, also with padding on the left (note_cache.py).

        It must give the same states as without a cache, and finite gradients. If not, every question gets its own row.
        """
        n_past = N_CHECK_TOKENS // 2
        ids_BT = self.check_prompts(2)
        padded_BT = torch.cat([ids_BT[:, :1], ids_BT], dim=1)
        is_token_BT = torch.ones_like(padded_BT).index_fill(1, torch.tensor([0], device=self.device), 0)
        position_BT = (is_token_BT.cumsum(1) - 1).clamp(min=0)
        past = DynamicCache()

        def run(columns: slice, read: list[int]) -> Tensor:
            inputs = {"attention_mask": is_token_BT[:, : columns.stop], "position_ids": position_BT[:, columns]}
            rows = list(range(len(read)))
            return self.states(
                rows, read, input_ids=padded_BT[:, columns], past_key_values=past, use_cache=True, **inputs
            )

        try:
            with torch.enable_grad(), hooks.cut(self.blocks, [0]) as hidden:
                run(slice(0, n_past + 1), [])
            total = sum(layer.keys.float().sum() + layer.values.float().sum() for layer in past.layers)
            (gradient_BTD,) = torch.autograd.grad(total, [hidden[0]])
            with torch.no_grad():
                parts_BD = run(slice(n_past + 1, N_CHECK_TOKENS + 1), [N_CHECK_TOKENS - n_past - 1] * 2)
                whole_BD = self.states([0, 1], [N_CHECK_TOKENS - 1] * 2, input_ids=ids_BT)
        except (RuntimeError, TypeError, ValueError, AttributeError, KeyError):
            return False
        is_whole = len(past.layers) == self.depth and all(x.keys.shape[-2] == N_CHECK_TOKENS + 1 for x in past.layers)
        tolerance = (1e-4 if self.dtype == torch.float32 else 5e-2) * whole_BD.abs().amax()
        is_same = bool((whole_BD - parts_BD).abs().amax() <= tolerance)
        return is_whole and is_same and bool(gradient_BTD[:, 1:].isfinite().all())

    def check_prompts(self, n_rows: int) -> Tensor:
        """Random token rows [n_rows, N_CHECK_TOKENS] for the checks above, the same in every process."""
        generator = torch.Generator().manual_seed(0)
        size = self.model.get_input_embeddings().num_embeddings
        return torch.randint(size, (n_rows, N_CHECK_TOKENS), generator=generator).to(self.device)

    @cached_property
    def scale_free_layers(self) -> frozenset[int]:
        """Layers where doubling the hidden states of the note changes nothing (docs/method.md, section 4.3).

        The sum of gradient x activation is the derivative in that direction, so there it is 0 up to rounding. This is
        measured, not derived from the architecture: in one batch, one row has layer k doubled and another has it
        negated, which shows how much the note matters there. Doubling is exact in every float format.
        """
        ids_T = self.check_prompts(1)[0]
        ids_BT = ids_T.expand(2 * self.depth + 1, -1)
        handles = [
            block.register_forward_pre_hook(_scaled({layer: 2.0, self.depth + layer: -1.0}))
            for layer, block in enumerate(self.blocks)
        ]
        try:
            with torch.no_grad():
                hidden_BTD = self.body(input_ids=ids_BT, use_cache=False).last_hidden_state
        finally:
            for handle in handles:
                handle.remove()
        answer_BD = hidden_BTD[:, -1].float()
        moved_B = (answer_BD - answer_BD[-1]).norm(dim=-1).tolist()
        # measured on tiny models of all families: <= 2e-6 where free of scale, >= 6e-2 elsewhere
        return frozenset(k for k in range(self.depth) if moved_B[k] <= 0.02 * moved_B[self.depth + k]) | {self.depth}


def _scaled(factor_of_row: dict[int, float]) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_BTD = args[0].clone()
        for row, factor in factor_of_row.items():
            hidden_BTD[row, :-1] *= factor
        return (hidden_BTD, *args[1:])

    return hook
