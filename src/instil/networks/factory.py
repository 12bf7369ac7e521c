"""Factory of models from names such as ``cnn``, ``timm:resnet18`` or ``my_module:build``."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from instil import networks
from instil.cards import suggestion
from instil.cards.bounds import require_in_bounds
from instil.catalogue.user_code import UntrustedCode, declared_models, user_function
from instil.data.paths import MissingPath
from instil.networks.diffusers_scheduler import scheduler_text
from instil.networks.inputs import input_of
from instil.networks.model_source import ModelRequest
from instil.networks.source_registry import find_source, source_names
from instil.networks.unknown_options import check_options, refused_option
from instil.networks.valueless import construction
from instil.networks.weights import load_weights

__all__ = ["build", "input_of", "load_weights", "network_names"]

OWN_SOURCES = ("", "networks")
"""Prefixes of the networks of this package."""
WRAPPERS = ("denoiser",)
"""Networks of this package around another one, which their option ``network`` names."""


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
        spec: ``cnn`` or ``networks:cnn`` for a network of this package; ``SOURCE:NAME`` for a
            model of a source, such as ``timm:resnet18``; ``module:function`` for a function of a
            module in ``base`` or in ``imports``, or for one that an installed package declares.
        options: options of the builder.
        base: folder of the recipe.
        imports: modules of the user.
        pretrained: whether the library of the source loads its weights.
        fetch: False to set only the expected input of those weights, for weights that are loaded
            afterwards.
        trust_code: whether code that no installed package declares may run.
        **facts: properties of the data: ``classes`` and, for images, ``channels`` and ``size``.
            A builder gets those that it has parameters for.

    Raises:
        UntrustedCode: for a function that may not run.
        ValueError: for an unknown name or option, with the closest ones; for a builder that fails
            or returns no module.
    """
    source, _, name = spec.rpartition(":")
    options = dict(options or {})
    if find_source(spec):
        request = _request(spec, options, facts, Path(base), pretrained, fetch)
        with construction():
            return _model_of_source(request, trust_code)
    if pretrained:
        raise ValueError(_no_weights(spec))
    if source in OWN_SOURCES:
        builder = own_builder(name)
    elif trust_code or spec in declared_models():
        builder = user_function(source, name, Path(base), imports, source_names())
    else:
        raise UntrustedCode("model", spec, Path(base))
    # Only builders of this package read paths of the recipe; a user's `base` may be anything.
    if builder.__module__.startswith("instil."):
        part = functools.partial(
            build,
            base=base,
            imports=imports,
            pretrained=False,
            fetch=fetch,
            trust_code=trust_code,
        )
        facts = facts | {"base": Path(base), "build_part": part}
    with construction():
        return _built(spec, builder, _arguments(spec, builder, options, facts))


def _built(spec: str, builder: Callable[..., Any], arguments: Mapping[str, Any]) -> nn.Module:
    """Return the module of a builder; ValueError if it fails or returns something else."""
    try:
        model = builder(**arguments)
    except MissingPath as error:
        key = error.key_in(arguments)
        raise ValueError(f"options{key}: {error}" if key else str(error)) from error
    except ValueError as error:
        # Also an option that is left out, whose default does not fit another one.
        if str(error).partition(":")[0] in inspect.signature(builder).parameters:
            raise ValueError(f"options.{error}") from error
        raise
    except Exception as error:
        # The user's code may raise anything.
        problem = refused_option(error, spec, arguments)
        raise ValueError(
            problem or f"{spec} cannot be built: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{spec} returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def code_of(spec: str, base: Path, options: Mapping[str, Any] | None = None) -> str:
    """Return the source code that a model depends on, in addition to its options.

    Args:
        spec: see ``build``.
        base: folder of the recipe.
        options: options of the model, which may name further files.

    Returns:
        Path and text of the user's module in ``spec``, or the identity that its source returns;
        empty for a network of this package.
    """
    source, _, name = spec.rpartition(":")
    if source in OWN_SOURCES:
        inner = options or {}
        if name not in WRAPPERS:
            return ""
        code = scheduler_text(inner, base)
        if "network" not in inner:
            return code
        return code + code_of(str(inner["network"]), base, inner.get("network_options"))
    model_source = find_source(spec)
    if model_source is not None:
        return model_source.identity(_request(spec, dict(options or {}), {}, base))
    file = base / Path(*source.split(".")).with_suffix(".py")
    return f"{base.resolve()}\n{file.read_text(encoding='utf-8') if file.is_file() else ''}"


def network_names() -> list[str]:
    """Return the networks of this package: files with a function of the same name."""
    files = [module.name for module in pkgutil.iter_modules(networks.__path__)]
    return [
        name for name in files if hasattr(importlib.import_module(f"instil.networks.{name}"), name)
    ]


def _request(
    spec: str,
    options: dict[str, Any],
    facts: Mapping[str, Any],
    base: Path,
    pretrained: bool = False,
    fetch: bool = True,
) -> ModelRequest:
    name = spec.partition(":")[2]
    return ModelRequest(spec, name, options, facts, base, pretrained, fetch)


def _model_of_source(request: ModelRequest, trust_code: bool) -> nn.Module:
    source = find_source(request.spec)
    assert source is not None
    if request.pretrained and not source.has_weights:
        raise ValueError(_no_weights(request.spec))
    if source.executes_code and not trust_code:
        raise UntrustedCode("model", request.spec, request.base)
    return source.build(request)


def _no_weights(spec: str) -> str:
    names = []
    for name in source_names():
        source = find_source(f"{name}:")
        if source is not None and source.has_weights:
            names.append(f"{name}:")
    return (
        f"pretrained: only models of {', '.join(names)} have weights, not '{spec}'. Set `weights`"
    )


def own_builder(name: str) -> Callable[..., nn.Module]:
    """Return the function that builds a network of this package.

    Raises:
        ValueError: for an unknown name, with the closest one.
    """
    names = network_names()
    if name not in names:
        raise ValueError(
            f"model: unknown network '{name}'. Expected a network of instil, SOURCE:NAME with one "
            f"of the sources {', '.join(source_names())}, or your_module:function."
            f"{suggestion(name, names)}"
        )
    module = importlib.import_module(f"instil.networks.{name}")
    builder: Callable[..., nn.Module] = getattr(module, name)
    return builder


def find_builder(spec: str) -> Callable[..., nn.Module] | None:
    """Return the function of a network of this package; None for any other model.

    Args:
        spec: model as a recipe names it, such as ``networks:cnn``.
    """
    source, _, name = spec.rpartition(":")
    if source not in OWN_SOURCES or name not in network_names():
        return None
    return own_builder(name)


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
    if not accepts_any:
        check_options(spec, options, names)
    require_in_bounds("options", builder, (), options)
    arguments = {key: value for key, value in facts.items() if key in names} | options
    required = [name for name in names if parameters[name].default is inspect.Parameter.empty]
    missing = [name for name in required if name not in arguments]
    if missing:
        raise ValueError(f"{spec} needs the option{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return arguments
