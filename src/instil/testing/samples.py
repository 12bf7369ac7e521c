"""Outputs to try a method on, and what the contracts do with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from instil.core import SHARED_ROLES, UNLABELLED, Batch, Outputs, closest

CLASSES = 7
STAGES = {"student": ((4, 8), (6, 4), (8, 2)), "teacher": ((6, 8), (8, 4), (10, 2))}  # channels, height = width, shallow to deep
WIDTHS = {"student": 12, "teacher": 16}
LAYERS = {"student": 2, "teacher": 4}
HIDDEN = {"student": 48, "teacher": 96}  # of a text model: both can be cut into 48 relation heads
HEADS, TOKENS = 4, 6

Draw = Callable[..., Tensor]
"""``draw(*shape)`` gives a normal tensor (number, *shape)."""
Maker = Callable[[Draw, str], Outputs]
"""The outputs of one side, student or teacher."""


def sample_outputs(
    number: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32, task: str = "classification"
) -> tuple[Outputs, Outputs, Batch]:
    """Student and teacher outputs with all standard roles of a task, and a batch of which every third sample has no label.

    Raises ValueError for a task of which there are no samples.
    """
    if task not in TASKS:
        raise ValueError(f"there are no sample outputs of task '{task}'; {closest(task, TASKS)}")
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(number, *shape, generator=generator).to(dtype)

    make, more = TASKS[task]
    student, teacher = make(draw, "student"), make(draw, "teacher")
    label = torch.randint(0, CLASSES, (number,), generator=generator)
    label[::3] = UNLABELLED
    clock = {"step": torch.tensor(3), "progress": torch.tensor(0.5), "seed": torch.tensor(0)}
    return student, teacher, {"label": label, "index": torch.arange(number), **more(number), **clock}


def _classification(draw: Draw, side: str) -> Outputs:
    return {
        "logits": 2 * draw(CLASSES),
        "embedding": draw(WIDTHS[side]),
        "features": tuple(draw(channels, height, height) for channels, height in STAGES[side]),
    }


def _text(draw: Draw, side: str) -> Outputs:
    """As transformers returns it: the embedding output leads ``hidden_states``, ``attentions`` are probabilities."""
    layers, width = range(LAYERS[side]), HIDDEN[side]
    return {
        "logits": 2 * draw(CLASSES),
        "embedding": draw(width),
        "hidden_states": tuple(draw(TOKENS, width) for _ in (-1, *layers)),
        "attentions": tuple(draw(HEADS, TOKENS, TOKENS).softmax(-1) for _ in layers),
        **{role: tuple(draw(TOKENS, width) for _ in layers) for role in ("queries", "keys", "values")},
    }


def _padding(number: int) -> Batch:
    """From three tokens to all."""
    lengths = TOKENS - torch.arange(number) % (TOKENS - 2)
    return {"attention_mask": (torch.arange(TOKENS) < lengths[:, None]).long()}


def _nothing(number: int) -> Batch:
    return {}


TASKS: dict[str, tuple[Maker, Callable[[int], Batch]]] = {
    "classification": (_classification, _nothing),
    "text_classification": (_text, _padding),
}
"""Of each task: the outputs of a side, and what its batch has more than ``label`` and ``index``."""


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors inside tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def flat(outputs: Outputs) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of everything in outputs."""
    for role, value in outputs.items():
        for number, tensor in enumerate(tensors(value)):
            yield f"{role}.{number}", tensor


def leaves(outputs: Outputs) -> Outputs:
    """Copies that ask for gradients."""
    return mapped(outputs, lambda tensor: tensor.detach().clone().requires_grad_())


def mapped(outputs: dict[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """The same structure with every tensor changed."""

    def changed(value: Any) -> Any:
        return tuple(map(changed, value)) if isinstance(value, tuple) else change(value)

    return {role: changed(value) for role, value in outputs.items()}


def rows_of(outputs: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """These rows of everything that has rows."""
    return outputs | mapped(_with_rows(outputs), lambda tensor: tensor[rows] if tensor.ndim else tensor)


def _with_rows(outputs: dict[str, Any]) -> dict[str, Any]:
    return {role: value for role, value in outputs.items() if role not in SHARED_ROLES}


def scaled(outputs: Outputs, factor: float) -> Outputs:
    """Everything times a factor."""
    return mapped(outputs, lambda tensor: tensor * factor)


def strided(outputs: Outputs) -> Outputs:
    """The same values, not contiguous, in a layout that a clone keeps."""
    return mapped(outputs, lambda tensor: tensor.transpose(0, -1).contiguous().transpose(0, -1) if tensor.ndim > 1 else tensor)


def with_noise(outputs: Outputs, rows: Tensor) -> Outputs:
    """Outputs with noise in these rows of everything that has rows."""
    return outputs | {role: spoiled(value, rows) for role, value in _with_rows(outputs).items()}


def spoiled(value: Any, rows: Tensor) -> Any:
    """The same values with noise in these rows."""
    if isinstance(value, tuple):
        return tuple(spoiled(part, rows) for part in value)
    noise = 100 * torch.randn(value.shape, generator=torch.Generator().manual_seed(5)).to(value.dtype)
    return torch.where(rows.view(-1, *[1] * (value.ndim - 1)), noise, value)


def assert_close(a: Tensor, b: Tensor, message: str) -> None:
    """AssertionError where two tensors differ by more than float32 rounding."""
    scale = max(1e-3, float(a.abs().max())) if a.numel() else 1.0
    assert (a - b).abs().max() <= 2e-4 * scale if a.numel() else True, f"{message} (off by {float((a - b).abs().max()):.2g} of {scale:.2g})"
