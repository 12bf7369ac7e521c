"""Source ``ultralytics:``: YOLO detectors of the library ultralytics."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from instil.cards import suggestion
from instil.networks.model_source import ModelRequest, ModelSource
from instil.networks.ultralytics_import import import_ultralytics
from instil.networks.unknown_options import check_options

WEIGHTS = ("box", "cls", "dfl")
"""Options that weight the parts of the loss of a detector."""
HEADS = ("Detect", "v10Detect")
"""Last module of a configuration whose model detects objects, and nothing else."""
SCALES = "nsmlx"
"""Letters of the model sizes."""
DEPENDS_ON_DATA = re.compile(r"model\.0\.conv\.weight|model\.\d+\.(one2one_)?cv3\..*")
"""Weights that depend on the channels or on the classes of the data."""


class UltralyticsSource(ModelSource):
    """Detectors of ``ultralytics.nn.tasks.DetectionModel``, such as ``ultralytics:yolo26n``.

    Names are those of the configurations of ultralytics, with the letter of the size. Options:

    - ``path``, a checkpoint of ultralytics relative to the recipe (``best.pt``), whose weights are
      loaded with ``pretrained: true``; without it, ultralytics downloads those of the name. Only
      classes of ultralytics and PyTorch are loaded from a checkpoint. The last layers for the
      classes are new if the data have another number of classes.
    - ``scale``, factors of the depth and of the width and the largest number of channels, for a
      size without a letter: ``[0.5, 0.125, 1024]`` is half as wide as ``n``.
    - ``box``, ``cls`` and ``dfl``, weights of the parts of the loss.
    """

    package = "ultralytics"
    extra = "ultralytics"
    has_weights = True

    def library(self, spec: str, package: str = "", extra: str = "") -> Any:
        # Its import must not change what other code of the process does.
        with contextlib.suppress(ImportError):
            import_ultralytics()
        return super().library(spec, package, extra)

    def files(self, request: ModelRequest) -> list[Path]:
        path = request.options.get("path")
        return [] if path is None else [request.base / path]

    def build(self, request: ModelRequest) -> nn.Module:
        channels, classes = request.fact("channels"), request.fact("classes")
        self.library(request.spec)
        from ultralytics.cfg import get_cfg
        from ultralytics.nn.tasks import DetectionModel

        check_options(request.spec, request.options, ("path", "scale", *WEIGHTS))
        configuration = _configuration(request) | {"nc": classes}
        model: Any = request.create(
            lambda: DetectionModel(configuration, ch=channels, nc=classes, verbose=False)
        )
        weights = {name: request.options[name] for name in WEIGHTS if name in request.options}
        model.args = request.create(lambda: get_cfg(overrides=weights))
        if request.loads_weights:
            _load(model, request)
        return model  # type: ignore[no-any-return]


def _configuration(request: ModelRequest) -> dict[str, Any]:
    """Layers of a model.

    Raises:
        ValueError: for a name without a configuration, or a model for another task.
    """
    from ultralytics.nn.tasks import yaml_model_load

    names = _names()
    # A configuration has all sizes of a model: yolo26.yaml that of yolo26n.
    stem = re.sub(rf"(\d+)[{SCALES}]", r"\1", request.name, count=1)
    if request.name not in names and stem not in names:
        sized = [re.sub(r"(\d+)", r"\1n", name, count=1) for name in names]
        close = suggestion(request.name, [*names, *sized])
        raise ValueError(f"ultralytics has no model '{request.name}'.{close}")
    configuration: dict[str, Any] = request.create(lambda: yaml_model_load(f"{request.name}.yaml"))
    head = configuration["head"][-1][2]
    if head not in HEADS:
        raise ValueError(
            f"{request.spec} ends in {head}. Expected a YOLO detector, such as ultralytics:yolo26n "
            "or ultralytics:yolo11s"
        )
    if (scale := request.options.get("scale")) is not None:
        _check_scale(scale)
        configuration |= {"scales": {"scale": scale}, "scale": "scale"}
    return configuration


def _names() -> list[str]:
    """Names of the configurations of ultralytics."""
    import ultralytics

    folder = Path(ultralytics.__file__).parent / "cfg" / "models"
    return [file.stem for file in folder.rglob("*.yaml")]


def _check_scale(scale: Any) -> None:
    is_triple = isinstance(scale, (list, tuple)) and len(scale) == 3
    if not is_triple or not all(isinstance(part, (int, float)) and part > 0 for part in scale):
        raise ValueError(
            "options.scale: Expected three positive numbers, the factors of the depth and of the "
            f"width and the largest number of channels, such as [0.5, 0.125, 1024]. Got {scale!r}"
        )


def _load(model: Any, request: ModelRequest) -> None:
    """Load the weights of a checkpoint.

    Raises:
        ValueError: for a file that does not exist, or with the weights of another network.
    """
    from ultralytics.nn.tasks import torch_safe_load

    path = request.options.get("path")
    if path is not None and not (request.base / path).is_file():
        names = [file.name for file in request.base.glob("*.pt")]
        raise ValueError(
            f"options.path: no file {request.base / path}. Expected a checkpoint of ultralytics"
            f"{suggestion(str(path), names)}"
        )
    file = f"{request.name}.pt" if path is None else str(request.base / path)
    checkpoint: Any = request.create(lambda: torch_safe_load(file, safe_only=True)[0])
    source = checkpoint.get("ema") or checkpoint["model"]
    _check_same_network(request.spec, file, model.state_dict(), source.state_dict())
    model.load(source, verbose=False)


def _check_same_network(
    spec: str, file: str, state: dict[str, Tensor], loaded: dict[str, Tensor]
) -> None:
    """Refuse weights if ultralytics would load only some of them."""
    for name, value in state.items():
        if DEPENDS_ON_DATA.fullmatch(name):
            continue
        if name not in loaded or loaded[name].shape != value.shape:
            shape = tuple(loaded[name].shape) if name in loaded else "none"
            raise ValueError(
                f"options.path: {file} has the weights of another network than {spec}. Expected "
                f"{name} of the shape {tuple(value.shape)}, got {shape}"
            )
