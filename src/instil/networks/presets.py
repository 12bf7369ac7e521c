"""Where the standard roles are in the models of known families."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

from torch import nn

Taps = dict[str, "str | list[str]"]

DEPTHS = 4  # of a transformer's equal blocks, so many are tapped
TORCHVISION_STAGES = {
    "ResNet": ["layer1", "layer2", "layer3", "layer4"],
    "RegNet": [
        "trunk_output.block1",
        "trunk_output.block2",
        "trunk_output.block3",
        "trunk_output.block4",
    ],
    "SwinTransformer": ["permute"],  # inside, maps are (N, H, W, C)
}
PROJECTIONS = {
    "queries": ("query", "q_lin", "q_proj"),
    "keys": ("key", "k_lin", "k_proj"),
    "values": ("value", "v_lin", "v_proj"),
}
"""What the linear layers of an attention are called."""
TORCHVISION_SEQUENTIAL = ("EfficientNet", "MobileNetV2", "MobileNetV3", "ConvNeXt", "VGG")


def taps_for(model: nn.Module) -> Taps:
    """Taps of a timm, torchvision, transformers or own model; of no known family, {}.

    ``features`` (stages, shallow to deep), ``embedding`` (what goes into a linear classifier) and ``head`` (its weight); of a text model ``queries``,
    ``keys`` and ``values``, one a layer. Only looks at the modules, runs nothing. A role whose place is not known is left out.
    """
    looks = {
        "timm": _timm,
        "torchvision": _torchvision,
        "transformers": _transformers,
        "instil": _own,
    }
    family = next(
        (
            base.__module__.split(".")[0]
            for base in type(model).__mro__
            if base.__module__.split(".")[0] in looks
        ),
        "",
    )
    if not family:
        return {}
    features, classifier = looks[family](model)
    taps: Taps = {"features": features} if features else {}
    if classifier:
        head = model.get_submodule(classifier)
        if head is _language_head(
            model
        ):  # it is asked for when logits are read, not in the forward
            return taps | _projections(model)
        taps |= {"embedding": f"{classifier}:in"} if not isinstance(head, nn.Conv2d) else {}
        taps |= {"head": f"{classifier}:weight"} if isinstance(head, (nn.Linear, nn.Conv2d)) else {}
    return taps | _projections(model)


def _language_head(model: Any) -> nn.Module | None:
    return model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None


def _own(model: nn.Module) -> tuple[list[str], str]:
    path, staged = next(
        ((name, part) for name, part in model.named_modules() if hasattr(part, "stages")),
        ("", model),
    )
    stages: Any = getattr(staged, "stages", ())
    flat = any(
        isinstance(layer, nn.Linear)
        for stage in stages
        if isinstance(stage, nn.Sequential)
        for layer in stage
    )
    prefix = f"{path}.stages" if path else "stages"
    return [] if flat else [
        f"{prefix}.{number}" for number in range(len(stages))
    ], "head" if hasattr(model, "head") else ""


def _timm(model: Any) -> tuple[list[str], str]:
    info = list(getattr(model, "feature_info", None) or [])
    paths = [stage["module"] for stage in info]
    if len({stage["reduction"] for stage in info}) == 1:
        paths = _evenly(paths)
    if getattr(model, "output_fmt", "") == "NHWC":  # Swin; its perceptrons see (N, L, C)
        paths = [_last_mlp(model, path) for path in paths]
    classifier = model.get_classifier()
    classifier = classifier[0] if isinstance(classifier, tuple) else classifier
    known = isinstance(classifier, (nn.Linear, nn.Identity))
    names = dict(model.named_modules())
    return [path for path in paths if path.removesuffix(":in") in names], next(
        (n for n, m in names.items() if known and m is classifier), ""
    )


def _last_mlp(model: nn.Module, path: str) -> str:
    inside = [
        name for name, _ in model.get_submodule(path).named_modules() if name.endswith(".mlp")
    ]
    return f"{path}.{inside[-1]}:in" if inside else ""


def _torchvision(model: Any) -> tuple[list[str], str]:
    name = type(model).__name__
    features = TORCHVISION_STAGES.get(name, [])
    if name in TORCHVISION_SEQUENTIAL:
        features = [
            f"features.{number}" for number in _ends_of_resolution(list(model.features.children()))
        ]
    if name == "VisionTransformer":
        features = _evenly(
            [f"encoder.layers.{block}" for block, _ in model.encoder.layers.named_children()]
        )
    return list(features), _last_linear(model)


def _ends_of_resolution(children: Sequence[nn.Module]) -> list[int]:
    """Children after which the resolution falls, and the last one unless it is itself a pooling."""

    def halves(child: nn.Module) -> bool:
        return any(getattr(part, "stride", 1) not in (1, (1, 1)) for part in child.modules())

    ends = [number for number in range(len(children) - 1) if halves(children[number + 1])]
    last = len(children) - 1
    return [*ends, last] if not isinstance(children[last], nn.MaxPool2d) else ends


def _transformers(model: nn.Module) -> tuple[list[str], str]:
    lists = [
        (name, len(module))
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) > 1
    ]
    features = (
        _evenly([f"{lists[0][0]}.{number}" for number in range(lists[0][1])]) if lists else []
    )
    return features, _last_linear(model)


def _projections(model: nn.Module) -> Taps:
    """Where the layers of a text model make queries, keys and values."""
    if not any(isinstance(part, nn.Embedding) for part in model.children()) and not _reads_tokens(
        model
    ):
        return {}
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    found = {
        role: [name for name in linear if name.rpartition(".")[2] in names]
        for role, names in PROJECTIONS.items()
    }
    return {
        role: paths
        for role, paths in found.items()
        if paths and len(paths) == len(found["queries"])
    }


def _reads_tokens(model: Any) -> bool:
    """Whether a transformers model is one of text."""
    return (
        hasattr(model, "get_input_embeddings")
        and getattr(model, "main_input_name", "") == "input_ids"
    )


def _evenly(paths: list[str]) -> list[str]:
    """``DEPTHS`` of the paths, evenly spaced, with the last; all of a short list."""
    if len(paths) <= DEPTHS:
        return paths
    return [paths[ceil((number + 1) * len(paths) / DEPTHS) - 1] for number in range(DEPTHS)]


def _last_linear(model: nn.Module) -> str:
    return next(
        (
            name
            for name, module in reversed(list(model.named_modules()))
            if isinstance(module, nn.Linear)
        ),
        "",
    )
