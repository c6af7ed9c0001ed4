"""Which words of a note matter for a question: relevance of every note token, in plain torch, without Ray.

`engine.AttributionEngine` is what a stage calls. To add a method: write it in a file of its own, as a `Method`, and
name it in METHODS; the contract tests take it up by themselves.
"""

from raypipe.attribution.grad_x_activation import GRAD_X_ACTIVATION
from raypipe.attribution.method import Method

METHODS: dict[str, Method] = {
    "grad_x_activation": GRAD_X_ACTIVATION,
}
