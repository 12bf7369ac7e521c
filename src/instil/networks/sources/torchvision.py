"""Source ``torchvision:``: models for classification, segmentation, detection and video."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from instil.cards import suggestion
from instil.networks.detector_classes import DETECTOR_CLASSES, build_detector
from instil.networks.inputs import torchvision_input
from instil.networks.model_source import ModelRequest, ModelSource
from instil.networks.unknown_options import check_options, option_names

FAMILIES = ("segmentation", "detection", "video")
"""Modules of torchvision with models for other tasks than image classification."""


class TorchvisionSource(ModelSource):
    """Models of ``torchvision.models.get_model``, with its options.

    - Image classifiers read images (N, C, H, W).
    - Segmentation models return ``out`` (N, classes, H, W).
    - Detection models read a list of images and, in training, targets; class 0 is the background,
      so they have one class more than the data.
    - ``RetinaNet``, ``FCOS``, ``FasterRCNN`` and ``MaskRCNN`` are those classes on a backbone of
      any size: options ``backbone``, ``width``, ``strides``, ``pyramid_channels``,
      ``anchor_sizes``, ``aspect_ratios``, of FCOS ``regression`` and ``bins``, and those of the
      class.
    - Video classifiers read clips (N, C, T, H, W).
    """

    package = "torchvision"
    extra = "vision"
    has_weights = True

    def build(self, request: ModelRequest) -> nn.Module:
        channels = request.fact("channels")
        self.library(request.spec)
        if request.name in DETECTOR_CLASSES:
            return _detector(request, channels)
        from torchvision import models  # type: ignore[import-untyped]

        names = models.list_models(module=models)
        families: dict[str, str] = {}
        for family in FAMILIES:
            names_of_family = models.list_models(module=getattr(models, family))
            families |= dict.fromkeys(names_of_family, family)
        if request.name not in names and request.name not in families:
            raise ValueError(
                f"torchvision has no classification model '{request.name}' and no model for "
                f"{', '.join(FAMILIES)}."
                f"{suggestion(request.name, [*names, *families, *DETECTOR_CLASSES])}"
            )
        _check_channels(request, channels)
        family = families.get(request.name, "")
        weights = models.get_model_weights(request.name).DEFAULT if request.pretrained else None
        model: Any = request.create(lambda: _create(models, request, family, weights))
        if family in ("segmentation", "detection"):
            check_options(request.spec, request.options, _declared(models, request.name, model))
        if request.loads_weights and family in ("", "video"):
            _fit_head(model, request.fact("classes"))
        transforms = weights.transforms() if weights and family != "detection" else None
        expects = torchvision_input(transforms, channels, getattr(model, "image_size", None))
        # Detection models normalise their images themselves, and clips have no image size.
        if family in ("", "segmentation") or (family == "video" and expects):
            model.expects = expects
        return model  # type: ignore[no-any-return]


def _check_channels(request: ModelRequest, channels: int) -> None:
    if channels not in (1, 3):
        raise ValueError(
            f"{request.spec} reads colour images, or grey images as colour images, not "
            f"{channels} channels. timm models read any number of channels"
        )


def _detector(request: ModelRequest, channels: int) -> nn.Module:
    _check_channels(request, channels)
    if request.pretrained:
        raise ValueError(
            f"pretrained: {request.spec} is a class without weights. Expected a model such as "
            "torchvision:retinanet_resnet50_fpn. Leave pretrained out, or set weights"
        )
    return build_detector(request)


def _create(models: Any, request: ModelRequest, family: str, weights: Any) -> Any:
    # Weights fit the number of classes that they were trained with; the head is replaced later.
    options: dict[str, Any] = {"weights": weights}
    if not request.loads_weights:
        background = 1 if family == "detection" else 0
        options = {"weights": None, "num_classes": request.fact("classes") + background}
        builder = models.get_model_builder(request.name)
        # Without this, the backbone alone would load its weights from the network.
        if "weights_backbone" in inspect.signature(builder).parameters:
            options["weights_backbone"] = None
    return models.get_model(request.name, **{**options, **request.options})


def _declared(models: Any, name: str, model: nn.Module) -> list[str]:
    """Return the options of a model whose builder ignores unknown ones."""
    names = option_names(models.get_model_builder(name))
    for kind in type(model).__mro__:
        parameters = inspect.signature(kind).parameters.values()
        # A detector class passes further options to its base class.
        if kind is nn.Module or all(one.kind is not one.VAR_KEYWORD for one in parameters):
            break
        names += option_names(kind)
    return [name for name in dict.fromkeys(names) if name != "backbone"]


def _fit_head(model: nn.Module, classes: int) -> None:
    """Replace the last linear layer if it has another number of classes."""
    linear = [item for item in model.named_modules() if isinstance(item[1], nn.Linear)]
    path, last = linear[-1]
    assert isinstance(last, nn.Linear)
    if last.out_features != classes:
        model.set_submodule(path, nn.Linear(last.in_features, classes))
