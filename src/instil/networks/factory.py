"""From ``timm:resnet18``, ``torchvision:resnet18``, ``cnn`` or ``my_module:build`` to a model."""

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
    """The model that ``spec`` names, for data of these ``facts``: ``classes``, and of images ``channels`` and ``size``.

    ``cnn`` or ``networks:cnn`` is a net of ours, ``timm:NAME`` and ``torchvision:NAME`` are theirs.

    ``module:function`` is a function of a module in the folder ``base`` or among ``imports``, or
    one that an installed package declares. It is refused (``UntrustedCode``) without ``trust_code``,
    unless an installed package declares it. ``options`` go to the builder, with those of ``facts`` that it takes. ``pretrained`` asks
    timm or torchvision for their weights; without ``fetch`` it only sets what they expect of their input, for weights that are loaded afterwards.

    Raises ValueError for an unknown name or option, with the closest ones, and for a builder that gives no module.
    """
    source, _, name = spec.rpartition(":")
    options = dict(options or {})
    if source in ("timm", "torchvision"):
        if "channels" not in facts:
            raise ValueError(
                f"{spec} takes images, and these data are none (they have {', '.join(facts)})"
            )
        return (_timm if source == "timm" else _torchvision)(
            name, options, facts["classes"], facts["channels"], pretrained, fetch
        )
    if pretrained:
        raise ValueError(
            f"pretrained: only timm: and torchvision: models bring weights, not '{spec}'; give `weights`"
        )
    if source in ("", "networks"):
        builder = _own(name)
    elif trust_code or spec in declared_models():
        builder = user_function(source, name, Path(base), imports)
    else:
        raise UntrustedCode("model", spec, Path(base))
    given = _accepted(
        spec,
        builder,
        options,
        facts | ({"base": Path(base)} if builder.__module__.startswith("instil.") else {}),
    )
    try:
        model = builder(**given)
    except ValueError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise ValueError(f"{spec} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{spec} gave a {type(model).__name__}, not a torch.nn.Module")
    return model


def code_of(spec: str, base: Path) -> str:
    """The text of the user's module that ``spec`` names, and where it is; empty for nets of ours, timm's and torchvision's."""
    source, _, _ = spec.rpartition(":")
    if source in ("", "networks", "timm", "torchvision"):
        return ""
    file = base / Path(*source.split(".")).with_suffix(".py")
    return f"{base.resolve()}\n{file.read_text(encoding='utf-8') if file.is_file() else ''}"


def network_names() -> list[str]:
    """Names of the nets in this folder: the files that define a function of their own name."""
    files = [module.name for module in pkgutil.iter_modules(networks.__path__)]
    return [
        name for name in files if hasattr(importlib.import_module(f"instil.networks.{name}"), name)
    ]


def _own(name: str) -> Callable[..., nn.Module]:
    names = network_names()
    if name not in names:
        raise ValueError(
            f"there is no network '{name}'; {closest(name, names)}, or timm:NAME, torchvision:NAME, your_module:function"
        )
    builder: Callable[..., nn.Module] = getattr(
        importlib.import_module(f"instil.networks.{name}"), name
    )
    return builder


def _accepted(
    spec: str, builder: Callable[..., Any], options: dict[str, Any], data: dict[str, Any]
) -> dict[str, Any]:
    """The options, checked, with what the builder takes of the facts of the data."""
    parameters = inspect.signature(builder).parameters
    anything = any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()
    )
    known = [
        name
        for name, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    for name in options:
        if name not in known and not anything:
            raise ValueError(f"{spec} has no option '{name}'; {closest(name, known)}")
    given = {key: value for key, value in data.items() if key in known} | options
    missing = [
        n for n in known if n not in given and parameters[n].default is inspect.Parameter.empty
    ]
    if missing:
        raise ValueError(f"{spec} needs the option{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return given


def _timm(
    name: str, options: dict[str, Any], classes: int, channels: int, pretrained: bool, fetch: bool
) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ValueError(MISSING.format(f"timm:{name}", "timm")) from error
    known = timm.list_models()
    if name.split(".")[0] not in known:
        raise ValueError(f"timm has no model '{name}'; {closest(name, known)}")
    options = {"num_classes": classes, "in_chans": channels} | options
    model: Any = _made(
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
    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(
            f"torchvision has no classification model '{name}'; {closest(name, known)}"
        )
    if channels not in (1, 3):
        raise ValueError(
            f"torchvision models take colour images, or grey ones made colour, not {channels} channels; timm models take any number"
        )
    weights = models.get_model_weights(name).DEFAULT if pretrained else None
    theirs = pretrained and fetch
    given = (
        {"weights": weights if theirs else None}
        | ({} if theirs else {"num_classes": classes})
        | options
    )
    model: Any = _made(f"torchvision:{name}", lambda: models.get_model(name, **given))
    if theirs:
        _fit_head(model, classes)
    model.expects = torchvision_input(
        weights.transforms() if weights else None, channels, getattr(model, "image_size", None)
    )
    return model  # type: ignore[no-any-return]


def _fit_head(model: nn.Module, classes: int) -> None:
    """A new last layer where the weights are for another number of classes."""
    path, last = [
        (name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)
    ][-1]
    if last.out_features != classes:
        model.set_submodule(path, nn.Linear(last.in_features, classes))


def _made(spec: str, create: Callable[[], Any]) -> Any:
    try:
        return create()
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ValueError(f"{spec} cannot be made: {error}") from error
