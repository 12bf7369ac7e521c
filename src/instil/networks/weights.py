"""Loading of weights from a file into a model, with an error for every difference."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from instil.cards import suggestion

PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that wrappers such as DataParallel and torch.compile add to names."""
KEYS = ("state_dict", "model")
"""Keys of a checkpoint that may hold the weights."""
DAMAGED = (
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    OSError,
)
"""Exceptions of PyTorch for files of another format."""
SHOWN_NAMES = 3
"""Largest number of names per kind of difference in a message."""


def load_weights(model: nn.Module, path: str | Path, base: Path = Path()) -> None:
    """Load weights into a model.

    A checkpoint may hold the weights itself or as ``state_dict`` or ``model``. Prefixes of wrappers
    are removed.

    Args:
        model: model, which is changed in place.
        path: a ``.safetensors``, ``.pt`` or ``.pth`` file.
        base: start of a relative path.

    Raises:
        ValueError: for a missing or unreadable file, and for names or shapes that differ, with
            their number and the first of them.
    """
    file = Path(base) / path
    weights = {_without_prefixes(key): value for key, value in _read(file).items()}
    own = model.state_dict()
    missing = _missing(own, weights)
    unexpected = [key for key in weights if key not in own]
    shapes = [
        f"{key} {tuple(value.shape)} for {tuple(own[key].shape)}"
        for key, value in weights.items()
        if key in own and value.shape != own[key].shape
    ]
    differences = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    parts = [
        f"{len(names)} {kind} ({_first_names(names)})"
        for kind, names in differences.items()
        if names
    ]
    if parts:
        hint = ""
        if missing and unexpected:
            hint = f". Missing '{missing[0]}':{suggestion(missing[0], unexpected)}"
        raise ValueError(f"{file} does not fit {type(model).__name__}: {', '.join(parts)}{hint}")
    model.load_state_dict(weights, strict=False)


def _missing(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    # One name of tied weights is enough.
    loaded = {own[key].data_ptr() for key in weights if key in own}
    return [
        key
        for key, value in own.items()
        if key not in weights
        and not key.endswith("num_batches_tracked")
        and value.data_ptr() not in loaded
    ]


def _read(file: Path) -> dict[str, Tensor]:
    if file.is_dir():
        raise ValueError(f"{file} is a folder. Expected a .safetensors, .pt or .pth file in it")
    if not file.is_file():
        neighbours = [entry.name for entry in file.parent.glob("*")] if file.parent.is_dir() else []
        raise ValueError(f"no such weights file: {file}.{suggestion(file.name, neighbours)}")
    if file.suffix == ".safetensors":
        try:
            return dict(load_file(file))
        except SafetensorError as error:
            raise ValueError(f"{file} cannot be read as safetensors: {error}") from error
    if file.suffix not in (".pt", ".pth"):
        raise ValueError(f"weights are .safetensors, .pt or .pth files, not {file.name}")
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's text recommends to load the file with its code, which is unsafe for files of
        # others.
        raise ValueError(
            f"{file} cannot be read as plain weights: it is damaged or holds more than tensors, and"
            " code in it is not run. Expected a state_dict; save it as .safetensors"
        ) from error
    except DAMAGED as error:
        reason = (str(error) or "it is cut off").splitlines()[0]
        raise ValueError(f"{file} cannot be read as plain weights: {reason}") from error
    return _state(content, file)


def _state(content: Any, file: Path) -> dict[str, Tensor]:
    received = f"a {type(content).__name__}"
    if isinstance(content, Mapping):
        nested = [content[key] for key in KEYS if isinstance(content.get(key), Mapping)]
        if nested:
            content = nested[0]
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return dict(content)
        received = f"the keys {_first_names([str(key) for key in content])}"
    raise ValueError(
        f"{file} holds no weights by name, itself or as {' or '.join(KEYS)}, but {received}"
    )


def _without_prefixes(key: str) -> str:
    while key.startswith(PREFIXES):
        key = key.split(".", 1)[1]
    return key


def _first_names(names: list[str]) -> str:
    return ", ".join(names[:SHOWN_NAMES]) + (" ..." if len(names) > SHOWN_NAMES else "")
