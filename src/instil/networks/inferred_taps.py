"""Taps of image models of no known family, found by running the model once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs, first_tensor, side_effect_free
from instil.items import in_dtype_of
from instil.networks.presets import Taps


def infer_taps(model: nn.Module, call: Callable[[nn.Module, Batch], Outputs], batch: Batch) -> Taps:
    """Find stages, embedding and head of an image model from the shapes of its activations.

    A stage ends with the last module of each resolution, so that a residual stage or a
    ``Sequential`` is tapped as a whole. Maps of 1 x 1, modules that run more than once and outputs
    that are changed in place afterwards are left out.

    Args:
        model: any module with maps (N, C, H, W) inside.
        call: how the task runs the model.
        batch: one batch on the device of the model; the first tensor has N rows.

    Returns:
        ``features`` (shallow to deep) if there are maps; ``embedding`` and ``head`` if the logits
        are the output of a linear layer.
    """
    recorder = _Recorder(len(first_tensor(batch)))
    hooks = [
        module.register_forward_hook(recorder.hook(name))
        for name, module in model.named_modules()
        if name
    ]
    try:
        with side_effect_free(model):
            outputs = call(model, in_dtype_of(model, batch))
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError):
        # A model that does not read this batch, such as a generator of images, has no taps. If it
        # should read the batch, the first forward pass raises the error.
        return {}
    finally:
        for hook in hooks:
            hook.remove()
    taps: Taps = {}
    if stages := recorder.stages():
        taps["features"] = stages
    logits = outputs.get("logits")
    if isinstance(logits, Tensor) and (classifier := recorder.linear_with_output(logits, model)):
        taps["embedding"] = f"{classifier}:in"
        taps["head"] = f"{classifier}:weight"
    return taps


class _Recorder:
    """Outputs of modules in the order in which they end: a module ends after those inside it."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.outputs: list[tuple[str, Tensor, int]] = []

    def hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                self.outputs.append((name, output, _version(output)))

        return record

    def stages(self) -> list[str]:
        names = [name for name, _, _ in self.outputs]
        last_of_resolution: dict[torch.Size, str] = {}
        for name, output, version in self.outputs:
            is_map = output.ndim == 4 and len(output) == self.rows and output[0, 0].numel() > 1
            is_stable = _version(output) == version and names.count(name) == 1
            if is_map and is_stable:
                # Taken out first: the order is that of the last module of each resolution.
                last_of_resolution.pop(output.shape[2:], None)
                last_of_resolution[output.shape[2:]] = name
        return list(last_of_resolution.values())

    def linear_with_output(self, logits: Tensor, model: nn.Module) -> str:
        modules = dict(model.named_modules())
        for name, output, _ in reversed(self.outputs):
            if not isinstance(modules[name], nn.Linear) or output.shape != logits.shape:
                continue
            # Tensors without values can be the same tensor, but cannot be compared.
            if output is logits or torch.equal(output, logits):
                return name
        return ""


def _version(value: Tensor) -> int:
    """Number of in-place changes; tensors of inference mode do not count them."""
    return 0 if value.is_inference() else value._version
