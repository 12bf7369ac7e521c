"""Recording of activations inside a model."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from instil.cards.closest import suggestion
from instil.taps.layout import as_layout
from instil.taps.path import Tap, Taps, modules_by_path, parse_taps


class StopForward(Exception):
    """Signal that every tap to be read has fired, so that the forward pass can end."""


@dataclass
class Recording:
    """Activations of one forward pass.

    Attributes:
        roles: roles to record; None: all.
        stop: raise ``StopForward`` after the last of them.
        tensors: index of a tap -> tensors and their version at the time of recording.
        calls: index of a tap -> how often it fired.
    """

    roles: frozenset[str] | None
    stop: bool
    tensors: dict[int, list[tuple[Tensor, int]]] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=dict)


class Recorder:
    """Hooks on the tapped modules of a model.

    Args:
        model: the model; nothing of it is edited.
        taps: role -> path or list of paths.

    Attributes:
        active: recording of the forward pass that is running; None outside of one.

    Raises:
        ValueError: for a path that names no module, or a weight that does not exist.
    """

    def __init__(self, model: nn.Module, taps: Taps) -> None:
        self.taps = parse_taps(taps)
        self.active: Recording | None = None
        modules = modules_by_path(model)
        for tap in self.taps:
            if tap.path not in modules:
                raise ValueError(
                    f"taps.{tap.role}: {type(model).__name__} has no module '{tap.path}'."
                    f"{suggestion(tap.path, filter(None, modules))}"
                )
            self._register(tap, modules[tap.path])

    def remove(self, model: nn.Module) -> None:
        """Remove the hooks from the model."""
        for module in model.modules():
            for hooks in (module._forward_hooks, module._forward_pre_hooks):
                own = [key for key, hook in hooks.items() if self._owns(hook)]
                for key in own:
                    del hooks[key]
            # Torch keeps the options of a hook in dictionaries of their own.
            kwargs = module._forward_pre_hooks_with_kwargs
            for key in [key for key in kwargs if key not in module._forward_pre_hooks]:
                del kwargs[key]

    def _owns(self, hook: Any) -> bool:
        function = hook.func if isinstance(hook, functools.partial) else hook
        return getattr(function, "__self__", None) is self

    def select(self, roles: frozenset[str] | None) -> list[Tap]:
        """Taps of some roles; None: all taps."""
        return [tap for tap in self.taps if roles is None or tap.role in roles]

    def outputs(self, recording: Recording, allow_missing: bool) -> dict[str, Any]:
        """Recorded values by role.

        Args:
            recording: a forward pass that has ended.
            allow_missing: leave out taps that did not fire.

        Raises:
            RuntimeError: for a tap that did not fire, or whose tensor was changed in place.
        """
        outputs: dict[str, Any] = {}
        for tap in self.select(recording.roles):
            tensors = recording.tensors.get(tap.index)
            if tensors is None:
                if allow_missing:
                    continue
                raise RuntimeError(
                    f"taps.{tap.role}: '{tap.path}' never fired: the forward pass did not call "
                    "that module"
                )
            value = _value(tap, tensors)
            outputs[tap.role] = (*outputs.get(tap.role, ()), value) if tap.is_part else value
        return outputs

    def _register(self, tap: Tap, module: nn.Module) -> None:
        if tap.side == "weight":
            if not isinstance(getattr(module, "weight", None), Tensor):
                raise ValueError(
                    f"taps.{tap.role}: '{tap.path}' is a {type(module).__name__} and has no weight"
                )
            module.register_forward_hook(functools.partial(self._record_weight, tap))
        elif tap.side == "in":
            # Before the module runs, because it may change its input in place.
            hook = functools.partial(self._record_input, tap)
            module.register_forward_pre_hook(hook, with_kwargs=True)
        else:
            module.register_forward_hook(functools.partial(self._record_output, tap))

    def _record_input(
        self, tap: Tap, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._record(tap, next(iter((*args, *kwargs.values())), None))

    def _record_output(
        self, tap: Tap, _module: nn.Module, _args: tuple[Any, ...], output: Any
    ) -> None:
        self._record(tap, output)

    def _record_weight(
        self, tap: Tap, module: nn.Module, _args: tuple[Any, ...], _output: Any
    ) -> None:
        if self.active is None:  # torch.fx calls modules with a proxy in place of their weight
            return
        weight, bias = module.weight, getattr(module, "bias", None)
        assert isinstance(weight, Tensor)
        flat = weight.view(len(weight), -1)  # a view: outputs hold no parameter
        self._store(tap, flat, flat.new_zeros(len(flat)) if bias is None else bias.view_as(bias))

    def _record(self, tap: Tap, value: Any) -> None:
        value = value[0] if isinstance(value, (tuple, list)) else value
        if self.active is not None and not isinstance(value, Tensor):
            raise RuntimeError(
                f"taps.{tap.role}: '{tap.path}' gave a {type(value).__name__}, not a tensor; tap "
                "a module inside it"
            )
        self._store(tap, value)

    def _store(self, tap: Tap, *values: Tensor) -> None:
        recording = self.active
        if recording is None or (recording.roles is not None and tap.role not in recording.roles):
            return
        earlier = recording.tensors.get(tap.index, []) if tap.every_call else []
        versioned = [(value, in_place_changes(value)) for value in values]
        recording.tensors[tap.index] = [*earlier, *versioned]
        recording.calls[tap.index] = recording.calls.get(tap.index, 0) + 1
        if recording.stop and len(recording.calls) == len(self.select(recording.roles)):
            raise StopForward


def in_place_changes(value: Tensor) -> int:
    """Number of in-place changes of a tensor; tensors made in inference mode do not count them."""
    return 0 if not torch.compiler.is_compiling() and value.is_inference() else value._version


def _value(tap: Tap, tensors: list[tuple[Tensor, int]]) -> Tensor | tuple[Tensor, ...]:
    """Recorded value of a tap, if no tensor was changed since."""
    if not torch.compiler.is_compiling() and any(
        in_place_changes(tensor) != version for tensor, version in tensors
    ):
        raise RuntimeError(
            f"taps.{tap.role}: '{tap.path}' was changed in place after it was recorded; tap the "
            "module after it"
        )
    values = tuple(tensor for tensor, _ in tensors)
    if tap.layout:
        name = f"taps.{tap.role}: '{tap.path}'"
        values = tuple(as_layout(value, tap.layout, name) for value in values)
    return values if tap.every_call or tap.side == "weight" else values[-1]
