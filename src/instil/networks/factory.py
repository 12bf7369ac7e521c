"""Factory of models from names such as ``cnn``, ``timm:resnet18`` or ``my_module:build``."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from instil import networks
from instil.cards import closest
from instil.catalogue.user_code import UntrustedCode, declared_models, user_function
from instil.networks.inputs import input_of, timm_input, torchvision_input
from instil.networks.weights import load_weights

__all__ = ["build", "input_of", "load_weights", "network_names"]

MISSING = '{} needs the package {}: pip install "instil[vision]"'
OWN_SOURCES = ("", "networks")
"""Prefixes of the networks of this package."""
LIBRARIES = ("timm", "torchvision")
"""Prefixes of the models of other libraries."""


def build(
    spec: str,
    options: Mapping[str, Any] | None = None,
    *,
    base: Path = Path(),
    imports: Collection[str] = (),
    pretrained: bool = False,
    fetch: bool = True,
    trust_code: bool = True,
    **facts: Any,
) -> nn.Module:
    """Build a model for data of some properties.

    Args:
        spec: ``cnn`` or ``networks:cnn`` for a network of this package; ``timm:NAME`` or
            ``torchvision:NAME``; ``module:function`` for a function of a module in ``base`` or in
            ``imports``, or for one that an installed package declares.
        options: options of the builder.
        base: folder of the recipe.
        imports: modules of the user.
        pretrained: whether timm or torchvision loads its weights.
        fetch: False to set only the expected input of those weights, for weights that are loaded
            afterwards.
        trust_code: whether a function that no installed package declares may run.
        **facts: properties of the data: ``classes`` and, for images, ``channels`` and ``size``.
            A builder gets those that it has parameters for.

    Raises:
        UntrustedCode: for a function that may not run.
        ValueError: for an unknown name or option, with the closest ones; for a builder that fails
            or returns no module.
    """
    source, _, name = spec.rpartition(":")
    options = dict(options or {})
    if source in LIBRARIES:
        return _library_model(spec, options, facts, pretrained, fetch)
    if pretrained:
        raise ValueError(
            f"pretrained: only timm: and torchvision: models have weights, not '{spec}'. Set "
            "`weights`"
        )
    if source in OWN_SOURCES:
        builder = _own_builder(name)
    elif trust_code or spec in declared_models():
        builder = user_function(source, name, Path(base), imports)
    else:
        raise UntrustedCode("model", spec, Path(base))
    # Only builders of this package read paths of the recipe; a user's `base` may be anything.
    if builder.__module__.startswith("instil."):
        facts = facts | {"base": Path(base)}
    arguments = _arguments(spec, builder, options, facts)
    try:
        model = builder(**arguments)
    except ValueError:
        raise
    except Exception as error:
        # The user's code may raise anything.
        raise ValueError(f"{spec} cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{spec} returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def code_of(spec: str, base: Path) -> str:
    """Return path and text of the user's module in ``spec``; empty for all other models.

    Args:
        spec: see ``build``.
        base: folder of the recipe.
    """
    source, _, _ = spec.rpartition(":")
    if source in OWN_SOURCES or source in LIBRARIES:
        return ""
    file = base / Path(*source.split(".")).with_suffix(".py")
    return f"{base.resolve()}\n{file.read_text(encoding='utf-8') if file.is_file() else ''}"


def network_names() -> list[str]:
    """Return the networks of this package: files with a function of the same name."""
    files = [module.name for module in pkgutil.iter_modules(networks.__path__)]
    return [
        name for name in files if hasattr(importlib.import_module(f"instil.networks.{name}"), name)
    ]


def _own_builder(name: str) -> Callable[..., nn.Module]:
    names = network_names()
    if name not in names:
        raise ValueError(
            f"there is no network '{name}'; {closest(name, names)}, or timm:NAME, "
            "torchvision:NAME, your_module:function"
        )
    module = importlib.import_module(f"instil.networks.{name}")
    builder: Callable[..., nn.Module] = getattr(module, name)
    return builder


def _arguments(
    spec: str, builder: Callable[..., Any], options: dict[str, Any], facts: dict[str, Any]
) -> dict[str, Any]:
    """The checked options, and those facts that the builder has parameters for."""
    parameters = inspect.signature(builder).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    accepts_any = inspect.Parameter.VAR_KEYWORD in kinds
    names = [
        name
        for name, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    for name in options:
        if name not in names and not accepts_any:
            raise ValueError(f"{spec} has no option '{name}'; {closest(name, names)}")
    arguments = {key: value for key, value in facts.items() if key in names} | options
    required = [name for name in names if parameters[name].default is inspect.Parameter.empty]
    missing = [name for name in required if name not in arguments]
    if missing:
        raise ValueError(f"{spec} needs the option{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return arguments


def _library_model(
    spec: str, options: dict[str, Any], facts: Mapping[str, Any], pretrained: bool, fetch: bool
) -> nn.Module:
    if "channels" not in facts:
        raise ValueError(f"{spec} reads images, and these data have only {', '.join(facts)}")
    source, _, name = spec.rpartition(":")
    create = _timm if source == "timm" else _torchvision
    return create(name, options, facts["classes"], facts["channels"], pretrained, fetch)


def _timm(
    name: str, options: dict[str, Any], classes: int, channels: int, pretrained: bool, fetch: bool
) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ValueError(MISSING.format(f"timm:{name}", "timm")) from error
    names = timm.list_models()
    # A tag after the dot, such as resnet18.a1_in1k, selects weights.
    if name.split(".")[0] not in names:
        raise ValueError(f"timm has no model '{name}'; {closest(name, names)}")
    options = {"num_classes": classes, "in_chans": channels} | options
    model: Any = _create(
        f"timm:{name}", lambda: timm.create_model(name, pretrained=pretrained and fetch, **options)
    )
    model.expects = timm_input(
        model.pretrained_cfg, pretrained, options["in_chans"], options.get("img_size")
    )
    return model  # type: ignore[no-any-return]


def _torchvision(
    name: str, options: dict[str, Any], classes: int, channels: int, pretrained: bool, fetch: bool
) -> nn.Module:
    try:
        from torchvision import models  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError(MISSING.format(f"torchvision:{name}", "torchvision")) from error
    names = models.list_models(module=models)
    if name not in names:
        raise ValueError(
            f"torchvision has no classification model '{name}'; {closest(name, names)}"
        )
    if channels not in (1, 3):
        raise ValueError(
            f"torchvision:{name} reads colour images, or grey images as colour images, not "
            f"{channels} channels. timm models read any number of channels"
        )
    weights = models.get_model_weights(name).DEFAULT if pretrained else None
    loads_weights = pretrained and fetch
    # Weights fit the number of classes that they were trained with; the head is replaced below.
    defaults = {"weights": weights} if loads_weights else {"weights": None, "num_classes": classes}
    model: Any = _create(
        f"torchvision:{name}", lambda: models.get_model(name, **{**defaults, **options})
    )
    if loads_weights:
        _fit_head(model, classes)
    model.expects = torchvision_input(
        weights.transforms() if weights else None, channels, getattr(model, "image_size", None)
    )
    return model  # type: ignore[no-any-return]


def _fit_head(model: nn.Module, classes: int) -> None:
    """Replace the last linear layer if it has another number of classes."""
    linear = [item for item in model.named_modules() if isinstance(item[1], nn.Linear)]
    path, last = linear[-1]
    assert isinstance(last, nn.Linear)
    if last.out_features != classes:
        model.set_submodule(path, nn.Linear(last.in_features, classes))


def _create(spec: str, create: Callable[[], Any]) -> Any:
    try:
        return create()
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ValueError(f"{spec} cannot be built: {error}") from error
