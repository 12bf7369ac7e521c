"""Scaled rotary frequencies of Llama 3, as parameters and as the factors of a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""Parameters of Llama 3.1 to 3.3 without ``factor``; a GGUF file does not have them."""
FACTORS = "rope_freqs.weight"
"""Tensor of the factors in a GGUF file."""


def frequency_factors(config: Any) -> Tensor | None:
    """Return the numbers by which the rotary frequencies of a model are divided.

    Args:
        config: configuration of the model.

    Returns:
        Factors (head_dim / 2) of the type ``llama3``, or None for the others.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = config.rope_parameters
    if rope["rope_type"] != "llama3":
        return None
    scaled, _ = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, torch.device("cpu"))
    exponents = torch.arange(len(scaled), dtype=torch.float32) / len(scaled)
    frequencies: Tensor = 1.0 / rope["rope_theta"] ** exponents
    return frequencies / scaled


def set_frequency_factors(config: Any, factors: Tensor, path: Path) -> None:
    """Set the rotary parameters that give the factors of a file.

    Args:
        config: configuration of the model, with the rotary type ``default``; it is changed.
        factors: numbers by which the rotary frequencies are divided (head_dim / 2).
        path: file, for the message.

    Raises:
        ValueError: for factors that are not those of Llama 3, and for a second scaling.
    """
    rope = config.rope_parameters
    if rope["rope_type"] != "default":
        raise ValueError(
            f"{path}: two scalings of rotary frequencies. Expected {FACTORS} or "
            f"rope.scaling.type, got both ({rope['rope_type']})"
        )
    theta = rope["rope_theta"]
    config.rope_parameters = LLAMA3 | {"factor": float(factors.max()), "rope_theta": theta}
    expected = frequency_factors(config)
    if (
        expected is None
        or expected.shape != factors.shape
        or not torch.allclose(expected, factors, rtol=1e-3)
    ):
        raise ValueError(
            f"{path}: unsupported rotary frequencies. Expected the factors of Llama 3 for theta "
            f"{theta:g} in {FACTORS}, got others"
        )
