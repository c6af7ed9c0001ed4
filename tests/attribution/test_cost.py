"""The FLOPs that are planned for a method against those that torch counts while the engine runs."""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from raypipe.attribution import AttributionEngine, cost
from raypipe.attribution.method import NoteAttribution
from raypipe.models.prompts import EncodedNote, PromptEncoder
from raypipe.models.shape import Shape
from raypipe.notes.tasks import Task
from raypipe.settings import config
from tests.tiny_models import TEXTS, tiny_loaded

TASKS = [Task(f"task{n}", "binary", f"Il paziente ha il sintomo {n}", ("1", "0"), ("sì", "no")) for n in range(3)]
METHODS = {
    "grad_x_activation": {"reduction": "l2"},
    "kv_direct": {},
    "integrated_gradients": {"steps": 4},
    "occlusion": {"window": 4},
    "attention_mean": {},
    "random": {},
}


class Counter(TorchDispatchMode):
    """Counts as torch's FlopCounterMode, which follows modules and cannot bear `autograd.grad`."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        return out


def _note(n_tasks: int) -> EncodedNote:
    encoder = PromptEncoder(tiny_loaded().tokenizer, config.Prompt(max_tokens=250), TASKS)
    return encoder.encode("n", " ".join(TEXTS[:2]), [task.id for task in TASKS[:n_tasks]])


@pytest.mark.parametrize("n_tasks", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_flops_are_those_of_the_passes(method: str, n_tasks: int) -> None:
    settings = config.Attribution(method=method, **METHODS[method])
    loaded, note = tiny_loaded(), _note(n_tasks)
    loaded.model.set_attn_implementation("eager")  # torch's counter misses the fused kernel of a CPU
    engine = AttributionEngine(loaded, settings)
    with Counter() as counter:
        (result,) = engine.attribute([note])
    assert isinstance(result, NoteAttribution)  # a note that fails is tried again, and counted twice
    planned = cost.flops(Shape.of(loaded.model), settings, engine.layers, cost.NoteSize.of(note))
    assert planned is not None
    assert planned == pytest.approx(counter.flops, rel=0.25)  # parts of the last of four blocks are left out


def test_sharing_a_note_saves_its_forward_passes() -> None:
    shape, size = Shape.of(tiny_loaded().model), cost.NoteSize.of(_note(3))
    direct = config.Attribution(method="kv_direct")
    together = cost.flops(shape, direct, (0,), size)
    apart = [cost.flops(shape, direct, (0,), part) for part in size.apart()]
    assert len(apart) == 3
    saved = sum(flops or 0 for flops in apart) - (together or 0)
    assert saved == pytest.approx(2 * shape.forward(size.prefix, size.prefix**2))


def test_a_method_of_captum_is_not_counted() -> None:
    captum = config.Attribution(method="captum:LayerGradientShap")
    assert cost.flops(Shape.of(tiny_loaded().model), captum, (0,), cost.NoteSize.of(_note(1))) is None


def test_a_layer_higher_up_costs_no_backward_pass_below_it() -> None:
    shape, size = Shape.of(tiny_loaded().model), cost.NoteSize.of(_note(1))
    low, high = (cost.flops(shape, config.Attribution(), (layer,), size) or 0 for layer in (0, 2))
    tokens = size.prefix + size.branches[0]
    assert low - high == pytest.approx(sum(shape.backward(n, n**2, 0.5) for n in [tokens] * len(size.branches)))
