"""Detector classes of torchvision on a backbone and a feature pyramid of any size."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from instil.cards import suggestion
from instil.networks.cnn import conv_stages
from instil.networks.distribution_heads import distribution_head
from instil.networks.model_source import ModelRequest
from instil.networks.unknown_options import check_options

DETECTOR_CLASSES = ("FCOS", "FasterRCNN", "MaskRCNN", "RetinaNet")
"""Classes of torchvision that are built on any backbone."""
DENSE_CLASSES = ("FCOS", "RetinaNet")
"""Classes of one stage."""
ANCHOR_FACTORS = {
    "FCOS": (1.0,),
    "RetinaNet": tuple(4 * 2 ** (octave / 3) for octave in range(3)),
    "FasterRCNN": (8.0,),
    "MaskRCNN": (8.0,),
}
"""Sizes of the anchors of a level over its stride, as in the models of torchvision."""
NUM_GROUPS = 32
"""Groups of the normalisation in the heads of FCOS."""
CHANNELS_PER_GROUP = 8
"""Channels of each group of the normalisation in the heads of RetinaNet."""
RESNET_STRIDES = (4, 8, 16, 32)
"""Strides of the four stages of a ResNet."""
SMALLEST_STRIDE = 2


def build_detector(request: ModelRequest) -> nn.Module:
    """Build a detector class of torchvision.

    Args:
        request: class, options and data. Options of this package: ``backbone``, ``cnn`` (default)
            or a ResNet of torchvision; ``width``, the width of the first stage of ``cnn`` (16);
            ``strides`` of the pyramid levels ([8, 16]), to which a pooled level is added;
            ``pyramid_channels`` (64); ``anchor_sizes``, the sizes of each level in pixels;
            ``aspect_ratios``; and, for FCOS, ``regression`` (``distance``, or ``distribution`` over
            ``bins`` distances of each edge). All others are those of the class. By default
            ``min_size`` and ``max_size`` are those of the data.

    Raises:
        ValueError: for options that do not fit.
    """
    options = dict(request.options)
    spec = request.spec
    strides = _checked_strides(spec, options.pop("strides", [8, 16]))
    channels = int(options.pop("pyramid_channels", 64))
    factor = NUM_GROUPS if request.name == "FCOS" else CHANNELS_PER_GROUP
    if channels < factor or channels % factor:
        raise ValueError(
            f"{spec}: pyramid_channels: wrong number. Expected a multiple of {factor}, got "
            f"{channels}"
        )
    backbone = _backbone(spec, options, strides, channels)
    levels = (*strides, 2 * strides[-1])
    generator = _anchors(request, options, levels)
    _check_options(request, options)
    size = request.facts.get("size")
    if size is not None:
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        options = {"min_size": min(height, width), "max_size": max(height, width)} | options
    is_dense = request.name in DENSE_CLASSES
    options["anchor_generator" if is_dense else "rpn_anchor_generator"] = generator
    # Class 0 is the background.
    options.setdefault("num_classes", request.fact("classes") + 1)
    head = distribution_head(request, options, channels)
    if head is not None:
        options.setdefault("head", head)
    if request.name == "RetinaNet":
        options.setdefault("head", _retina_head(channels, generator, options["num_classes"]))
    detector = getattr(_detection(), request.name)
    return request.create(lambda: detector(backbone, **options))  # type: ignore[no-any-return]


def _detection() -> Any:
    from torchvision.models import detection  # type: ignore[import-untyped]

    return detection


def _retina_head(channels: int, generator: Any, num_classes: int) -> nn.Module:
    """Head with normalisation, as in the second version of torchvision's RetinaNet.

    Without it, the signal of narrow heads vanishes: their weights start with a deviation of 0.01.
    """
    from torchvision.models.detection.retinanet import (  # type: ignore[import-untyped]
        RetinaNetHead,
    )

    norm = functools.partial(nn.GroupNorm, max(1, min(NUM_GROUPS, channels // CHANNELS_PER_GROUP)))
    num_anchors = generator.num_anchors_per_location()[0]
    head: nn.Module = RetinaNetHead(channels, num_anchors, num_classes, norm_layer=norm)
    return head


def _checked_strides(spec: str, strides: Any) -> list[int]:
    """Strides of the levels; each is twice the one before."""
    is_list = isinstance(strides, (list, tuple)) and len(strides) > 0
    values = list(strides) if is_list else []
    doubles = all(b == 2 * a for a, b in itertools.pairwise(values))
    is_power = bool(values) and values[0] >= SMALLEST_STRIDE and math.log2(values[0]).is_integer()
    if not (doubles and is_power):
        raise ValueError(
            f"{spec}: strides: wrong values. Expected powers of 2 that double, such as [8, 16], "
            f"got {strides}"
        )
    return values


def _backbone(
    spec: str, options: dict[str, Any], strides: Sequence[int], channels: int
) -> nn.Module:
    """Backbone with a feature pyramid; its options are removed from ``options``."""
    name = options.pop("backbone", "cnn")
    width = options.pop("width", None)
    if width is not None and width < 1:
        raise ValueError(f"{spec}: width: wrong number. Expected at least 1, got {width}")
    if name == "cnn":
        return _cnn_pyramid(width or 16, strides, channels)
    from torchvision.models import resnet
    from torchvision.models.detection.backbone_utils import (  # type: ignore[import-untyped]
        resnet_fpn_backbone,
    )

    names = [key for key in resnet.__all__ if key.islower()]
    if name not in names:
        raise ValueError(
            f"{spec}: backbone: unknown name '{name}'. Expected cnn or a ResNet of torchvision."
            f"{suggestion(name, ['cnn', *names], is_listed=True)}"
        )
    if width is not None:
        raise ValueError(f"{spec}: width: only the backbone cnn has a width. Leave width out")
    if not set(strides) <= set(RESNET_STRIDES):
        raise ValueError(
            f"{spec}: strides: a ResNet has the strides 4, 8, 16 and 32. Expected some of them, "
            f"got {list(strides)}"
        )
    stages = [RESNET_STRIDES.index(stride) + 1 for stride in strides]
    pyramid: Any = resnet_fpn_backbone(
        backbone_name=name,
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=stages,
    )
    pyramid.out_channels = channels
    if channels != 256:
        widths = [block.in_channels for block in _first_convolutions(pyramid)]
        pyramid.fpn = _pyramid(widths, channels)
    return pyramid  # type: ignore[no-any-return]


def _first_convolutions(pyramid: Any) -> list[nn.Conv2d]:
    return [block[0] for block in pyramid.fpn.inner_blocks]


def _pyramid(widths: Sequence[int], channels: int) -> nn.Module:
    from torchvision.ops import feature_pyramid_network as networks  # type: ignore[import-untyped]

    pool = networks.LastLevelMaxPool()
    pyramid: nn.Module = networks.FeaturePyramidNetwork(list(widths), channels, pool)
    return pyramid


def _cnn_pyramid(width: int, strides: Sequence[int], channels: int) -> nn.Module:
    """Convolutional stages with a feature pyramid; stage k has the stride 2**k."""
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    exponents = [int(math.log2(stride)) for stride in strides]
    # Two convolutions of stride 2 keep the cost of large images low, as in a ResNet.
    stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    body = nn.Sequential()
    body.add_module("1", stem)
    stages = conv_stages(width, width, exponents[-1], 1, "batch")
    for exponent in range(2, exponents[-1] + 1):
        body.add_module(str(exponent), stages[exponent - 1])
    widths = [width * 2 ** (exponent - 1) for exponent in exponents]
    names = {str(exponent): str(level) for level, exponent in enumerate(exponents)}
    pyramid: nn.Module = BackboneWithFPN(body, names, widths, channels)
    return pyramid


def _anchors(request: ModelRequest, options: dict[str, Any], levels: Sequence[int]) -> Any:
    """Generator of anchors of each level; its options are removed from ``options``."""
    from torchvision.models.detection.anchor_utils import (  # type: ignore[import-untyped]
        AnchorGenerator,
    )

    factors = ANCHOR_FACTORS[request.name]
    default = [[stride * factor for factor in factors] for stride in levels]
    sizes = options.pop("anchor_sizes", None) or default
    ratios = options.pop("aspect_ratios", [1.0] if request.name == "FCOS" else [0.5, 1.0, 2.0])
    counts = {len(level) if isinstance(level, (list, tuple)) else 0 for level in sizes}
    if len(sizes) != len(levels) or len(counts) > 1 or 0 in counts:
        raise ValueError(
            f"{request.spec}: anchor_sizes: wrong form. Expected one list of sizes for each of the "
            f"{len(levels)} levels with the strides {list(levels)}, all of one length, got {sizes}"
        )
    if request.name == "FCOS" and (counts != {1} or len(ratios) != 1):
        raise ValueError(
            f"{request.spec}: anchor_sizes: FCOS has one anchor per position. Expected one size "
            "per level and one aspect ratio"
        )
    return AnchorGenerator(tuple(map(tuple, sizes)), (tuple(ratios),) * len(levels))


def _check_options(request: ModelRequest, options: dict[str, Any]) -> None:
    detector = getattr(_detection(), request.name)
    own = ["backbone", "width", "strides", "pyramid_channels", "anchor_sizes", "aspect_ratios"]
    own += ["regression", "bins"]
    hidden = ("self", "backbone", "kwargs")
    parameters = inspect.signature(detector.__init__).parameters
    names = [*own, *(name for name in parameters if name not in hidden)]
    check_options(request.spec, options, names)
