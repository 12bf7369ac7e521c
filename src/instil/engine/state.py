"""State of a scheme that training changes, and random states."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instil.cards import has_tag
from instil.core import Scheme, Teacher

BIT_GENERATOR = "MT19937"
"""Kind of NumPy's global generator, unless a program replaces it."""


def fixed_teachers(scheme: Scheme) -> tuple[str, ...]:
    """Return the name prefixes of all teachers that training does not change.

    Args:
        scheme: scheme with its teachers.
    """
    return tuple(
        f"{name}."
        for name, part in scheme.named_modules()
        if isinstance(part, Teacher) and not has_tag(part, "stateful")
    )


def trainable_state(scheme: Scheme) -> dict[str, Tensor]:
    """Return the state that training changes: all but the fixed teachers.

    Args:
        scheme: scheme with its teachers.
    """
    fixed = fixed_teachers(scheme)
    return {
        name: value for name, value in scheme.state_dict().items() if not name.startswith(fixed)
    }


def moving_buffers(scheme: Scheme) -> list[Tensor]:
    """Return the real buffers of learners and of teachers that training changes.

    Args:
        scheme: scheme with its teachers.
    """
    fixed = fixed_teachers(scheme)
    return [
        buffer
        for name, buffer in scheme.named_buffers()
        if buffer.is_floating_point() and not name.startswith(fixed)
    ]


def set_seed(seed: int) -> None:
    """Seed the generators of torch, Python and NumPy.

    Speech models of transformers draw the masks of a training with NumPy.

    Args:
        seed: any whole number.
    """
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def random_state(generators: Sequence[torch.Generator]) -> dict[str, Any]:
    """Return the random states of this process.

    Args:
        generators: further generators of torch.
    """
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": _numpy_state(),
        "generators": [generator.get_state() for generator in generators],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any], generators: Sequence[torch.Generator]) -> None:
    """Set the random states of this process.

    Args:
        state: result of ``random_state``.
        generators: further generators of torch, in the same order.
    """
    torch.set_rng_state(state["torch"].cpu())
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    # Checkpoints of earlier versions lack it.
    if state.get("numpy") is not None:
        saved = state["numpy"]
        keys = saved["key"].cpu().numpy().astype(np.uint32)
        content = {"bit_generator": BIT_GENERATOR, "state": {"key": keys, "pos": saved["pos"]}}
        np.random.set_state(content | {name: saved[name] for name in ("has_gauss", "gauss")})
    for generator, saved in zip(generators, state["generators"], strict=False):
        generator.set_state(saved.cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def _numpy_state() -> dict[str, Any] | None:
    """Global random state of NumPy, as values that a checkpoint holds; None for another kind."""
    state: Any = np.random.get_state(legacy=False)
    if state["bit_generator"] != BIT_GENERATOR:
        return None
    key = torch.from_numpy(state["state"]["key"].astype(np.int64))
    rest = {"has_gauss": int(state["has_gauss"]), "gauss": float(state["gauss"])}
    return {"key": key, "pos": int(state["state"]["pos"]), **rest}
