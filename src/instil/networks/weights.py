"""Weights from a file into a model, with every difference named."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from instil.cards import closest

PREFIXES = ("module.", "_orig_mod.")
KEYS = ("state_dict", "model")
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
"""Exceptions of PyTorch for files that are none of its own."""


def load_weights(model: nn.Module, path: str | Path, base: Path = Path()) -> None:
    """Load a ``.safetensors``, ``.pt`` or ``.pth`` file; a relative ``path`` starts at ``base``.

    A checkpoint may hold the weights itself or under ``state_dict`` or ``model``; prefixes of wrappers are taken off.
    Raises ValueError for a missing or unreadable file and for keys or shapes that do not fit, with how many and which.
    """
    file = Path(base) / path
    given = {_plain(key): value for key, value in _read(file).items()}
    own = model.state_dict()
    there = {
        own[key].data_ptr() for key in given if key in own
    }  # of tied weights one name is enough
    missing = [
        k
        for k in own
        if k not in given
        and not k.endswith("num_batches_tracked")
        and own[k].data_ptr() not in there
    ]
    unexpected = [key for key in given if key not in own]
    shapes = [
        f"{k} {tuple(given[k].shape)} for {tuple(own[k].shape)}"
        for k in given
        if k in own and given[k].shape != own[k].shape
    ]
    if missing or unexpected or shapes:
        hint = (
            f"; for '{missing[0]}' {closest(missing[0], unexpected)}"
            if missing and unexpected
            else ""
        )
        parts = [
            f"{len(names)} {what} ({_some(names)})"
            for what, names in _named(missing, unexpected, shapes)
            if names
        ]
        raise ValueError(f"{file} does not fit {type(model).__name__}: {', '.join(parts)}{hint}")
    model.load_state_dict(given, strict=False)


def _named(
    missing: list[str], unexpected: list[str], shapes: list[str]
) -> list[tuple[str, list[str]]]:
    return [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        near = [name.name for name in file.parent.glob("*")] if file.parent.is_dir() else []
        raise ValueError(f"there is no weights file {file}; {closest(file.name, near)}")
    if file.suffix == ".safetensors":
        try:
            return dict(load_file(file))
        except SafetensorError as error:
            raise ValueError(f"{file} cannot be read as safetensors: {error}") from error
    if file.suffix not in (".pt", ".pth"):
        raise ValueError(f"weights come as .safetensors, .pt or .pth, not {file.name}")
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's text recommends to load the file with its code, which is not for strangers' files.
        raise ValueError(
            f"{file} cannot be read as plain weights: it is damaged or holds more than tensors, and"
            " code in it is not run. Expected a state_dict; save it as .safetensors"
        ) from error
    except DAMAGED as error:
        reason = (str(error) or "it is cut off").splitlines()[0]
        raise ValueError(f"{file} cannot be read as plain weights: {reason}") from error
    return _state(content, file)


def _state(content: Any, file: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        content = next(
            (content[key] for key in KEYS if isinstance(content.get(key), Mapping)), content
        )
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return dict(content)
    what = (
        f"the keys {_some([str(key) for key in content])}"
        if isinstance(content, Mapping)
        else f"a {type(content).__name__}"
    )
    raise ValueError(
        f"{file} holds no weights by name, itself or under {' or '.join(KEYS)}, but {what}"
    )


def _plain(key: str) -> str:
    while key.startswith(PREFIXES):
        key = key.split(".", 1)[1]
    return key


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
