"""Gradient x activation at a layer: which hidden states of the note the explained scalar leans on, to first order.

R_i = sum_d h_id * dz/dh_id (Shrikumar et al. 2016, "Not Just a Black Box", 2.1, for inputs; captum's
LayerGradientXActivation for layers), or the L2 norm of the same product, the default (`reduction: l2`). Where a layer's
scale has no effect the sum is rounding noise, and the layer is refused: docs/method.md, section 4.3.
"""

from __future__ import annotations

from raypipe.attribution import gradients
from raypipe.attribution.method import Method

GRAD_X_ACTIVATION = Method(
    attribute=gradients.attribute,
    reads=lambda config: "scale" if config.norm == "sum" else "mixing",
    settings=frozenset({"reduction"}),
)
