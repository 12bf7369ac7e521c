"""Scalings of rotary frequencies, ``linear`` and ``yarn``, as parameters and keys of GGUF files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

PARAMETERS = {
    "linear": ("factor",),
    "yarn": ("factor", "original_max_position_embeddings"),
}
"""Parameters of each scaling that a GGUF file has."""
BASE = ("rope_type", "rope_theta", "partial_rotary_factor")
"""Parameters of all rotary embeddings."""
BETAS = {"beta_fast": 32.0, "beta_slow": 1.0}
"""Parameters of yarn, with the values that llama.cpp uses."""
UNSUPPORTED = {
    "attn_factor": 1.0,
    "yarn_attn_factor": 1.0,
    "yarn_ext_factor": 1.0,
    "yarn_log_multiplier": 0.0,
    "yarn_beta_fast": 32.0,
    "yarn_beta_slow": 1.0,
}
"""Other keys of a scaling, and the only value of each that transformers and llama.cpp share."""


def check_scaling(rope: Mapping[str, Any], types: Collection[str]) -> None:
    """Check that a GGUF file has all rotary parameters of a model.

    Args:
        rope: rotary parameters in transformers.
        types: supported types.

    Raises:
        ValueError: for another type, or for a parameter without a key in GGUF.
    """
    kind = rope["rope_type"]
    if kind not in types or rope.get("partial_rotary_factor", 1) != 1:
        raise ValueError(
            f"gguf: unsupported rotary embedding. Expected the type {' or '.join(types)} on all "
            f"dimensions of a head, got rope_parameters {dict(rope)}"
        )
    if kind not in PARAMETERS:
        return
    allowed = (*BASE, *PARAMETERS[kind])
    others = [
        key
        for key in rope
        if key not in allowed and rope[key] is not None and rope[key] != BETAS.get(key)
    ]
    if others or not (rope["factor"] or 0) >= 1:
        raise ValueError(
            f"gguf: unsupported {kind} scaling of rotary frequencies. Expected a factor of at "
            f"least 1 and only the parameters {', '.join(allowed)}, got rope_parameters "
            f"{dict(rope)}"
        )


def add_scaling(writer: Any, rope: Mapping[str, Any]) -> None:
    """Write the scaling of the rotary frequencies.

    Args:
        writer: ``gguf.GGUFWriter``.
        rope: rotary parameters that ``check_scaling`` accepts.
    """
    from gguf import RopeScalingType

    kind = rope["rope_type"]
    if kind not in PARAMETERS:
        return
    writer.add_rope_scaling_type(RopeScalingType(kind))
    writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def read_scaling(
    value: Callable[[str], Any], types: Collection[str], name: str, path: Path
) -> dict[str, Any]:
    """Return the rotary parameters of a scaling, without ``rope_theta``.

    Args:
        value: returns the value of a key of the family, or None.
        types: supported types.
        name: name of the family in GGUF, for the messages.
        path: file, for the messages.

    Raises:
        ValueError: for an unsupported scaling.
    """
    factor = value("rope.scaling.factor") or value("rope.scale_linear") or 1.0
    # llama.cpp scales linearly by a factor without a type.
    kind = value("rope.scaling.type") or ("none" if factor == 1 else "linear")
    expected = ["none" if one in ("default", "llama3") else one for one in types]
    if kind not in expected:
        raise ValueError(
            f"{path}: {name}.rope.scaling.type: unsupported scaling of rotary frequencies. "
            f"Expected {' or '.join(dict.fromkeys(expected))}, got {kind}"
        )
    for key, neutral in UNSUPPORTED.items():
        actual = value(f"rope.scaling.{key}")
        if actual not in (None, neutral):
            raise ValueError(
                f"{path}: {name}.rope.scaling.{key}: unsupported value. Expected {neutral}, got "
                f"{actual}"
            )
    if kind == "none":
        return {"rope_type": "default"}
    scaling = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        length = value("rope.scaling.original_context_length") or value("context_length")
        scaling["original_max_position_embeddings"] = length
    return scaling
