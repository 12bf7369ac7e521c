"""Source ``hub:``: models of a local repository with a ``hubconf.py``, as ``torch.hub`` loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from instil.networks.model_source import ModelRequest, ModelSource

HUBCONF = "hubconf.py"


class HubSource(ModelSource):
    """Functions of ``hubconf.py`` in a folder: ``hub:FOLDER:FUNCTION``, with its options.

    The code of the folder is executed. ``classes`` and other properties of the data are not passed;
    set them as options.
    """

    executes_code = True

    def build(self, request: ModelRequest) -> nn.Module:
        folder, _, function = request.name.rpartition(":")
        path = request.base / folder
        if not folder or not function:
            raise ValueError(f"{request.spec}: expected hub:FOLDER:FUNCTION")
        if not (path / HUBCONF).is_file():
            raise ValueError(
                f"{request.spec}: there is no {HUBCONF} in {path}. Expected a local repository. "
                "Clone it first: the library does not download it"
            )
        load: Any = torch.hub.load
        model = request.create(lambda: load(str(path), function, source="local", **request.options))
        if not isinstance(model, nn.Module):
            raise ValueError(
                f"{request.spec} returned a {type(model).__name__}, not a torch.nn.Module"
            )
        return model

    def files(self, request: ModelRequest) -> list[Path]:
        folder = request.base / request.name.rpartition(":")[0]
        return sorted(folder.rglob("*.py"))
