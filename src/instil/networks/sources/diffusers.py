"""Source ``diffusers:``: networks of the library diffusers, such as ``diffusers:UNet2DModel``."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from torch import nn

from instil.cards import suggestion
from instil.networks.model_source import ModelRequest, ModelSource
from instil.networks.unknown_options import check_options, option_names

LOADING = (
    "subfolder",
    "revision",
    "variant",
    "dtype",
    "torch_dtype",
    "quantization_config",
    "use_safetensors",
    "low_cpu_mem_usage",
    "cache_dir",
    "force_download",
    "local_files_only",
    "token",
)
"""Options of ``from_pretrained``."""
SUFFIXES = (".json", ".safetensors", ".bin")
"""Endings of the files of a network: its configuration and its weights."""


class DiffusersSource(ModelSource):
    """Networks of diffusers by their class.

    Options: those of the class; or ``path``, a local folder (relative to the recipe) or the name of
    a model on the hub, and ``subfolder``. The weights of ``path`` are loaded with
    ``pretrained: true``, otherwise only its configuration. With ``path``, options of the class
    replace those of the folder.
    """

    package = "diffusers"
    extra = "diffusion"
    has_weights = True

    def files(self, request: ModelRequest) -> list[Path]:
        path = request.options.get("path")
        if path is None:
            return []
        folder = request.base / path / str(request.options.get("subfolder") or "")
        return sorted(file for file in folder.glob("*") if file.suffix in SUFFIXES)

    def build(self, request: ModelRequest) -> nn.Module:
        diffusers = self.library(request.spec)
        model_class = _model_class(diffusers, request)
        options = dict(request.options)
        path = options.pop("path", None)
        if path is None:
            if request.loads_weights:
                raise ValueError(f"{request.spec}: pretrained needs the option path")
            return request.create(lambda: model_class(**options))  # type: ignore[no-any-return]
        if (request.base / path).is_dir():
            path = str(request.base / path)
        # The library ignores unknown options.
        names = option_names(model_class)
        check_options(request.spec, options, [*names, "path", *LOADING])
        if request.loads_weights:
            model = request.create(lambda: model_class.from_pretrained(path, **options))
        else:
            changes = {name: options.pop(name) for name in names if name in options}
            model = request.create(
                lambda: model_class.from_config(model_class.load_config(path, **options), **changes)
            )
        return model  # type: ignore[no-any-return]


def _model_class(diffusers: Any, request: ModelRequest) -> Any:
    value = getattr(diffusers, request.name, None)
    if inspect.isclass(value) and issubclass(value, nn.Module):
        return value
    endings = ("Model", "2D", "3D", "KL")
    names = [name for name in dir(diffusers) if name.endswith(endings)]
    raise ValueError(f"diffusers has no network '{request.name}'.{suggestion(request.name, names)}")
