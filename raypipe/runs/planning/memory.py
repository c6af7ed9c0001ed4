"""What one GPU must hold, part by part: at attribution, and at each kind of training."""

from __future__ import annotations

import torch

from raypipe.models.shape import Shape
from raypipe.runs.planning.figures import Memory
from raypipe.runs.planning.material import Material
from raypipe.runs.planning.work import trained_model
from raypipe.settings import config
from raypipe.training.loss import LOGITS

CONTEXT = 1.0e9  # bytes that CUDA, its libraries and the allocator's gaps take (an assumption)


def of_scorer(material: Material, attribution: config.Attribution, is_gpu: bool) -> Memory:
    """Attribution: weights, a batch of notes, and the copy that borderline answers are settled with."""
    shape, section = material.shape, material.run.settings.model
    is_half = section.dtype != "float32" and (is_gpu or section.dtype == "bfloat16")
    element = 2 if is_half else 4
    above = (shape.depth - min(material.layers(attribution))) / shape.depth
    per_token = shape.cache_bytes(element)
    keeps_graph = attribution.method not in ("kv_direct", "kv_direct_value", "occlusion", "attention_mean", "random")
    if keeps_graph:
        per_token += round(shape.activation_bytes(element) * shape.depth * above)
    tokens = max(attribution.batch_tokens, material.run.settings.prompt.max_tokens)
    parts = {
        "weights": float(element * shape.parameters),
        "activations and caches": float(per_token * tokens) + 4 * shape.cache_bytes(element) * tokens,
        "overhead": CONTEXT if is_gpu else 0.0,
    }
    if is_half:  # models/precision.py
        parts["float32 copy, if it fits"] = 4.0 * shape.parameters
    return Memory(f"attribution ({attribution.method})", parts)


def of_training(material: Material, name: str, training: config.Training, is_gpu: bool) -> Memory:
    """A training: weights, gradients and moments of what is trained, activations and logits of a forward pass."""
    model, resources = trained_model(material, training), material.run.settings.resources
    shape = material.shape
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    is_half = training.precision != "float32" and (is_gpu or training.precision == "bfloat16")
    frozen_element = 2 if is_half and material.model.stored == torch.bfloat16 else 4
    workers = resources.training_workers
    shards = workers if resources.sharding == "fsdp2" else 1
    buckets = 2 if workers > 1 and shards == 1 else 1  # data-parallel training exchanges copies of the gradients
    element = 2 if is_half else 4
    tokens = max(training.micro_batch_tokens, material.run.settings.prompt.max_tokens)
    parts = {
        "weights": (4 * trained + frozen_element * frozen) / shards,
        "gradients": 4 * trained * buckets / shards,
        "optimiser": 8 * trained / shards,
        "activations": float(_activations(shape, training, element) * tokens),
        "logits": 3 * 4 * min(float(LOGITS), float(tokens * shape.vocabulary)),  # they, their softmax, its gradient
        "overhead": CONTEXT if is_gpu else 0.0,
    }
    if is_half:  # autocast keeps a copy of each float32 matrix for the length of a forward pass
        cast = trained if frozen_element == 2 else trained + frozen
        parts["bfloat16 copies"] = 2 * cast / shards
    return Memory(name, parts)


def _activations(shape: Shape, training: config.Training, element: int) -> int:
    """Bytes of a token. Adapters on linear layers have inputs of their own only where they drop some out."""
    per_block = shape.activation_bytes(element)
    if training.lora is not None and training.lora.dropout:
        per_block += element * (shape.features + 2 * shape.hidden)
    if training.gradient_checkpointing:
        return 4 * shape.hidden * shape.depth + per_block
    return per_block * shape.depth


def host_bytes(n_rows: float, training: config.Training) -> float:
    """What a worker holds of the training rows, which it maps from a file: where each is, and in what order they come.

    While it sorts them, it needs half as much again.
    """
    return n_rows * (18 + 16 * training.epochs)
