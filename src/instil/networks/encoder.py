"""A text encoder of transformers, read from a folder."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from torch import nn

from instil.data.paths import located
from instil.networks.complete_weights import load_complete
from instil.networks.sentence_pooling import pooling_of

MISSING = 'an encoder needs the package transformers: pip install "instil[text]"'


def encoder(folder: str, base: Path = Path()) -> nn.Module:
    """Load an encoder with its weights in float32, without a pooler.

    A folder of sentence-transformers also defines how the states of the tokens are pooled.

    Args:
        folder: folder written by transformers; ``package:NAME/FOLDER`` for one in a package.
        base: start of a relative path.

    Raises:
        ValueError: if the folder has no encoder or a pooling that is not supported, or
            transformers is not installed.
    """
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise ValueError(MISSING) from error
    path = located(folder, base)
    try:
        model: Any = load_complete(
            AutoModel.from_pretrained, path, local_files_only=True, attn_implementation="eager"
        ).float()
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} holds no encoder that transformers can read: {error}") from error
    # The task reads the last hidden state: a pooler would be weights without a gradient.
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    model.sentence_pooling = pooling_of(functools.partial(_read_json, path))
    result: nn.Module = model.eval()
    return result


def _read_json(folder: Path, name: str) -> Any:
    file = folder / name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
