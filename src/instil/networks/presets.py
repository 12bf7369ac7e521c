"""Paths of the standard roles in models of known families."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from instil.networks.feature_levels import evenly_spaced, timm_levels

Taps = dict[str, "str | list[str]"]
"""Module path, or paths, of each role."""
TORCHVISION_STAGES = {
    "ResNet": ["layer1", "layer2", "layer3", "layer4"],
    "VideoResNet": ["layer1", "layer2", "layer3", "layer4"],
    "RegNet": [
        "trunk_output.block1",
        "trunk_output.block2",
        "trunk_output.block3",
        "trunk_output.block4",
    ],
    # The maps inside are (N, H, W, C).
    "SwinTransformer": ["permute"],
}
"""Feature levels of classes of torchvision."""
TORCHVISION_SEQUENTIAL = ("EfficientNet", "MobileNetV2", "MobileNetV3", "ConvNeXt", "VGG")
"""Classes of torchvision whose layers are one ``features`` sequence."""
PROJECTIONS = {
    "queries": ("query", "q_lin", "q_proj"),
    "keys": ("key", "k_lin", "k_proj"),
    "values": ("value", "v_lin", "v_proj"),
}
"""Names of the linear layers of an attention."""
MODULE_END = re.compile(r"(:in)?(@\w+)?$")
"""End of the path of a tap after that of its module."""
SECOND_HEADS = ("head_dist", "aux_head", "dist_head", "distillation_classifier")
"""Names of heads that are added to the classifier."""
STAGE_OUTPUTS = {"PvtV2EncoderLayer": ".layer_norm"}
"""Ends of the paths of stages of transformers whose own outputs are nested tuples."""
WITHOUT_HEAD = ("Model", "Backbone")
"""Ends of the names of classes of transformers without a head."""
POOLER = "pooler.dense"
"""Layer of such a class after the state of the first token, which is its embedding."""


def taps_for(model: nn.Module) -> Taps:
    """Find taps of a timm, torchvision, transformers or own model without running it.

    Returns:
        - ``features``: levels, shallow to deep;
        - ``embedding``: input of a linear classifier, and ``head``: its weight;
        - ``queries``, ``keys`` and ``values`` of a text model, one per layer.

        A role is left out if its path is unknown. Empty for other families.
    """
    family = _family(model)
    if not family:
        return {}
    features, classifier = FAMILIES[family](model)
    taps: Taps = {"features": features} if features else {}
    if classifier:
        head = model.get_submodule(classifier)
        # The head of a language model runs when logits are read, not in the forward: no hook on it
        # fires.
        if head is not _language_head(model):
            if not isinstance(head, nn.Conv2d):
                taps["embedding"] = f"{classifier}:in"
            if isinstance(head, (nn.Linear, nn.Conv2d)) and not _has_second_head(model):
                taps["head"] = f"{classifier}:weight"
    return taps | _projections(model)


def _has_second_head(model: nn.Module) -> bool:
    """Whether logits are the sum or mean of two heads, so that one head does not give them."""
    return any(name.rpartition(".")[2] in SECOND_HEADS for name, _ in model.named_modules())


def _family(model: nn.Module) -> str:
    for base in type(model).__mro__:
        package = base.__module__.split(".")[0]
        if package in FAMILIES:
            return package
    return ""


def _language_head(model: Any) -> nn.Module | None:
    return model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None


def _own(model: nn.Module) -> tuple[list[str], str]:
    candidates = [item for item in model.named_modules() if hasattr(item[1], "stages")]
    path, part = candidates[0] if candidates else ("", model)
    stages: Any = getattr(part, "stages", ())
    prefix = f"{path}.stages" if path else "stages"
    layout = f"@{part.layout}" if hasattr(part, "layout") else ""
    features = [f"{prefix}.{i}{layout}" for i in range(len(stages))]
    # Stages of vectors, as in an MLP, are not feature maps.
    if any(_has_linear(stage) for stage in stages):
        features = []
    return features, "head" if hasattr(model, "head") else ""


def _has_linear(stage: nn.Module) -> bool:
    is_sequence = isinstance(stage, nn.Sequential)
    return is_sequence and any(isinstance(layer, nn.Linear) for layer in stage.children())


def _timm(model: Any) -> tuple[list[str], str]:
    classifier = model.get_classifier()
    classifier = classifier[0] if isinstance(classifier, tuple) else classifier
    modules = dict(model.named_modules())
    features = [path for path in timm_levels(model) if MODULE_END.sub("", path) in modules]
    if not isinstance(classifier, (nn.Linear, nn.Identity)):
        return features, ""
    names = [name for name, module in modules.items() if module is classifier]
    return features, names[0] if names else ""


def _torchvision(model: Any) -> tuple[list[str], str]:
    if hasattr(model, "backbone") and hasattr(model.backbone, "fpn"):
        num_levels = len(model.backbone.fpn.layer_blocks)
        return [f"backbone.fpn.layer_blocks.{level}" for level in range(num_levels)], ""
    name = type(model).__name__
    features = list(TORCHVISION_STAGES.get(name, []))
    if name in TORCHVISION_SEQUENTIAL:
        ends = _ends_of_resolution(list(model.features.children()))
        features = [f"features.{i}" for i in ends]
    if name == "VisionTransformer":
        blocks = [block for block, _ in model.encoder.layers.named_children()]
        features = evenly_spaced([f"encoder.layers.{block}" for block in blocks])
    return features, _last_linear(model)


def _ends_of_resolution(children: Sequence[nn.Module]) -> list[int]:
    """Children before a lower resolution, and the last one unless it is a pooling layer."""
    last = len(children) - 1
    ends = [i for i in range(last) if _halves(children[i + 1])]
    return ends if isinstance(children[last], nn.MaxPool2d) else [*ends, last]


def _halves(module: nn.Module) -> bool:
    return any(getattr(part, "stride", 1) not in (1, (1, 1)) for part in module.modules())


def _transformers(model: nn.Module) -> tuple[list[str], str]:
    # SAM: the mask decoder runs once per prompt, so only its image encoder is tapped.
    if hasattr(model, "mask_decoder") and hasattr(model, "vision_encoder"):
        return ["vision_encoder.neck"], ""
    text = _text_prefix(model)
    classifier = _transformers_classifier(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) > 1 and name.startswith(text):
            end = STAGE_OUTPUTS.get(type(module[0]).__name__, "")
            return evenly_spaced([f"{name}.{i}{end}" for i in range(len(module))]), classifier
    return [], classifier


def _transformers_classifier(model: Any) -> str:
    """Last linear layer, unless the model has no head: then that layer is inside of a block."""
    has_signals = getattr(model, "main_input_name", "input_ids") != "input_ids"
    has_head = not has_signals or not type(model).__name__.endswith(WITHOUT_HEAD)
    last = _last_linear(model)
    return last if has_head or last == POOLER else ""


def _projections(model: nn.Module) -> Taps:
    """Paths of the linear layers for queries, keys and values of a text model."""
    has_embedding = any(isinstance(part, nn.Embedding) for part in model.children())
    if not has_embedding and not _reads_tokens(model):
        return {}
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    text = _text_prefix(model)
    linear = [name for name in linear if name.startswith(text)]
    taps: Taps = {}
    num_layers = 0
    for role, names in PROJECTIONS.items():
        paths = [name for name in linear if name.rpartition(".")[2] in names]
        if role == "queries":
            num_layers = len(paths)
        # A role has one path per layer, so its number of paths is that of the queries.
        if paths and len(paths) == num_layers:
            taps[role] = paths
    return taps


def _text_prefix(model: Any) -> str:
    """Beginning of the paths in the decoder of a vision-language model; empty for other models."""
    is_with_images = hasattr(getattr(model, "config", None), "vision_config")
    if not is_with_images or not _reads_tokens(model) or _language_head(model) is None:
        return ""
    # The image tower runs for rows with images only.
    decoder = model.get_decoder()
    return next((f"{name}." for name, part in model.named_modules() if part is decoder), "")


def _reads_tokens(model: Any) -> bool:
    """Whether a transformers model reads text."""
    has_embeddings = hasattr(model, "get_input_embeddings")
    return has_embeddings and getattr(model, "main_input_name", "") == "input_ids"


def _last_linear(model: nn.Module) -> str:
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return names[-1] if names else ""


def _ultralytics(model: Any) -> tuple[list[str], str]:
    # The head reads the levels of the neck.
    return [f"model.{layer}" for layer in model.model[-1].f], ""


FAMILIES = {
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": _transformers,
    "instil": _own,
    "ultralytics": _ultralytics,
}
"""Function of each package that finds feature levels and the path of the classifier."""
