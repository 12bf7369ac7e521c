"""A model that gives roles: how it is called, and what is read inside it."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from instil.core.batch import Batch, Outputs, first_tensor
from instil.core.card import closest
from instil.core.lazy_outputs import LazyOutputs

Call = Callable[..., Outputs]
"""How a task asks a model: the model and a batch in, its roles out.

A call with a parameter ``roles`` also gets the roles that will be read (None: all), so that it need not compute the others.
"""


def plain_call(model: nn.Module, batch: Batch) -> Outputs:
    """The first tensor of the batch goes in; a tensor that comes out is ``logits``, a mapping is taken as it is."""
    answer = model(first_tensor(batch))
    return dict(answer) if isinstance(answer, Mapping) else {"logits": answer}


class Net(nn.Module):
    """A model, how its task calls it, and ``taps``: role -> path of the module whose activation is returned with the outputs.

    A path is a module's name as in ``named_modules``; ``path:in`` is its input, ``path[*]`` a tuple over all its calls, ``path:weight`` the weight
    (C, D) and bias (C,) of a linear layer or 1x1 convolution, zeros where it has none; a list of paths gives a tuple. Nothing of the model is
    edited; wrapper prefixes (DistributedDataParallel, ``torch.compile``) may be left out of the path.

    Raises ValueError for a path that names no module (with the closest names); RuntimeError for a tap that never fired, or whose tensor was
    changed in place after it was recorded.
    """

    def __init__(
        self,
        model: nn.Module,
        call: Call = plain_call,
        taps: Mapping[str, str | list[str]] | None = None,
    ):
        super().__init__()
        self.model, self.call = model, call
        self._call_takes_roles = _takes_roles(call)
        self.taps = {
            role: paths if isinstance(paths, str) else list(paths)
            for role, paths in (taps or {}).items()
        }
        self.early_stop = (
            True  # the engine turns this off where every forward must run to its end (sharding)
        )
        self._recording: _Recording | None = None
        self._frozen: list[nn.Parameter] = []
        self._frozen_modules: list[nn.Module] = []
        self._places = list(self._parse())
        names = {_unwrapped(name): module for name, module in model.named_modules()}
        for tap in self._places:
            if tap.path not in names:
                raise ValueError(
                    f"taps.{tap.role}: {type(model).__name__} has no module '{tap.path}'; {closest(tap.path, names)}"
                )
            if tap.side == "weight":
                if not isinstance(getattr(names[tap.path], "weight", None), Tensor):
                    raise ValueError(
                        f"taps.{tap.role}: '{tap.path}' is a {type(names[tap.path]).__name__} and has no weight"
                    )
                names[tap.path].register_forward_hook(functools.partial(self._record_weight, tap))
            elif tap.side == "in":  # before the module runs, which may change its input in place
                names[tap.path].register_forward_pre_hook(
                    functools.partial(self._record_input, tap), with_kwargs=True
                )
            else:
                names[tap.path].register_forward_hook(functools.partial(self._record_output, tap))

    def freeze(self, paths: Sequence[str]) -> None:
        """Keep these parts as they are from now on, BatchNorm statistics too, and let go of what an earlier call froze.

        ``paths`` are names of modules or parameters, or patterns such as ``layer*``. Raises ValueError for one that names nothing.
        """
        modules = {_unwrapped(name): module for name, module in self.model.named_modules() if name}
        parameters = {
            _unwrapped(name): parameter for name, parameter in self.model.named_parameters()
        }
        for path in paths:
            if not fnmatch.filter([*modules, *parameters], path):
                raise ValueError(
                    f"freeze: {type(self.model).__name__} has no part '{path}'; {closest(path, [*modules, *parameters])}"
                )
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen_modules = [
            module
            for name, module in modules.items()
            if any(fnmatch.fnmatchcase(name, path) for path in paths)
        ]
        named = [
            parameter
            for name, parameter in parameters.items()
            if any(fnmatch.fnmatchcase(name, path) for path in paths)
        ]
        inside = [parameter for module in self._frozen_modules for parameter in module.parameters()]
        self._frozen = list(
            {
                id(parameter): parameter
                for parameter in (*inside, *named)
                if parameter.requires_grad
            }.values()
        )
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Net:
        """The mode of every part but the frozen modules, which stay in eval mode."""
        super().train(mode)
        for module in self._frozen_modules:
            module.eval()
        return self

    def _parse(self) -> Iterator[_Tap]:
        texts = [
            (role, text)
            for role, paths in self.taps.items()
            for text in ([paths] if isinstance(paths, str) else paths)
        ]
        for number, (role, text) in enumerate(texts):
            found = re.fullmatch(r"([^\[\]:]*)(?:(\[\*\])?(:in)?|(:weight))", text)
            if not found:
                forms = "write path, path[*] (all calls), path:in (its input), path[*]:in or path:weight (its weight and bias)"
                raise ValueError(f"taps.{role}: '{text}' is not a path; {forms}")
            side = "in" if found[3] else "weight" if found[4] else "out"
            yield _Tap(
                number, role, not isinstance(self.taps[role], str), found[1], side, bool(found[2])
            )

    def _record_input(
        self, tap: _Tap, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._record(tap, next(iter((*args, *kwargs.values())), None))

    def _record_output(
        self, tap: _Tap, _module: nn.Module, _args: tuple[Any, ...], output: Any
    ) -> None:
        self._record(tap, output)

    def _record_weight(
        self, tap: _Tap, module: nn.Module, _args: tuple[Any, ...], _output: Any
    ) -> None:
        weight, bias = module.weight, getattr(module, "bias", None)
        assert isinstance(weight, Tensor)
        flat = weight.view(len(weight), -1)  # a view: outputs carry no parameter
        self._store(tap, flat, flat.new_zeros(len(flat)) if bias is None else bias.view_as(bias))

    def _record(self, tap: _Tap, value: Any) -> None:
        value = value[0] if isinstance(value, (tuple, list)) else value
        if self._recording is not None and not isinstance(value, Tensor):
            raise RuntimeError(
                f"taps.{tap.role}: '{tap.path}' gave a {type(value).__name__}, not a tensor; tap a module inside it"
            )
        self._store(tap, value)

    def _store(self, tap: _Tap, *values: Tensor) -> None:
        recording = self._recording
        if recording is None or (recording.roles is not None and tap.role not in recording.roles):
            return
        before = recording.tensors.get(tap.number, []) if tap.every else []
        recording.tensors[tap.number] = [*before, *((value, _version(value)) for value in values)]
        recording.fired[tap.number] = recording.fired.get(tap.number, 0) + 1
        if recording.stop and len(recording.fired) == len(self._among(recording.roles)):
            raise _Stop

    def _among(self, roles: frozenset[str] | None) -> list[_Tap]:
        return [tap for tap in self._places if roles is None or tap.role in roles]

    def forward(
        self,
        batch: Batch,
        call: Call | None = None,
        roles: frozenset[str] | None = None,
        stop: bool = False,
        replace: Mapping[str, Tensor] | None = None,
    ) -> Outputs:
        """Outputs of the task's call and of the taps.

        ``call`` asks the same net another way (generate, body only); ``roles``: read only these (of the taps, and of the call if it takes them), and
        with ``stop`` end the forward after the last of them. ``replace``: path of a module -> what stands in for its output, so that
        the rest of the net runs on other features; ValueError for a path that names no module.
        """
        with self._replaced(replace or {}):
            outputs, recording = self._run(
                batch, call or self.call, roles, stop and self.early_stop
            )
        tapped: Outputs = {}
        for tap in self._among(roles):
            calls = recording.tensors.get(tap.number)
            if calls is None:
                if call is None:
                    raise RuntimeError(
                        f"taps.{tap.role}: '{tap.path}' never fired: the forward did not call that module"
                    )
                continue
            if not torch.compiler.is_compiling() and any(
                _version(value) != version for value, version in calls
            ):
                raise RuntimeError(
                    f"taps.{tap.role}: '{tap.path}' was changed in place after it was recorded; tap the module after it"
                )
            value = (
                tuple(tensor for tensor, _ in calls)
                if tap.every or tap.side == "weight"
                else calls[-1][0]
            )
            tapped[tap.role] = (*tapped.get(tap.role, ()), value) if tap.part else value
        return outputs | tapped

    @contextlib.contextmanager
    def _replaced(self, replace: Mapping[str, Tensor]) -> Iterator[None]:
        names = (
            {_unwrapped(name): module for name, module in self.model.named_modules()}
            if replace
            else {}
        )
        with contextlib.ExitStack() as hooks:
            for path, value in replace.items():
                if path not in names:
                    raise ValueError(
                        f"replace: {type(self.model).__name__} has no module '{path}'; {closest(path, names)}"
                    )
                stands_in = functools.partial(_instead, value)
                hooks.callback(
                    names[path].register_forward_hook(stands_in, prepend=True).remove
                )  # before the taps, which see it too
            yield

    def _run(
        self, batch: Batch, call: Call, roles: frozenset[str] | None, stop: bool
    ) -> tuple[Outputs, _Recording]:
        self._recording = recording = _Recording(roles, stop)
        try:
            takes_roles = self._call_takes_roles if call is self.call else _takes_roles(call)
            answer = call(self.model, batch, **({"roles": roles} if takes_roles else {}))
            outputs = answer if isinstance(answer, LazyOutputs) else dict(answer)
        except _Stop:
            outputs = {}
        finally:
            self._recording = None
        return outputs, recording

    def can_stop(self, roles: frozenset[str], batch: Batch) -> bool:
        """Whether ``roles`` are all taps that fire once a forward, so that it may end with the last of them; tried on ``batch``."""
        if not roles or not roles <= set(self.taps):
            return False
        fired = self._run(batch, self.call, None, False)[1].fired
        return all(fired.get(tap.number) == 1 and not tap.every for tap in self._among(roles))


def _takes_roles(call: Callable[..., Any]) -> bool:
    return "roles" in inspect.signature(call).parameters


class _Stop(Exception):
    """Ends a forward whose last wanted tap has fired."""


@dataclass(frozen=True)
class _Tap:
    """One place to read: the output, or with ``:in`` the first input, of a module's last call, or with ``[*]`` of all its calls; or its weight."""

    number: int
    role: str
    part: bool  # one tensor of the role's tuple, not the role itself
    path: str
    side: str
    every: bool


@dataclass
class _Recording:
    """What the taps saw in one forward: tensors with their version, and how often each tap fired."""

    roles: frozenset[str] | None  # None: all
    stop: bool
    tensors: dict[int, list[tuple[Tensor, int]]] = field(default_factory=dict)
    fired: dict[int, int] = field(default_factory=dict)


def _instead(value: Tensor, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
    """``value`` in the place of a module's output, or of the first of its outputs."""
    return type(output)((value, *output[1:])) if isinstance(output, (tuple, list)) else value


def _version(value: Tensor) -> int:
    """How often a tensor was changed in place; inference mode does not count."""
    return 0 if not torch.compiler.is_compiling() and value.is_inference() else value._version


def _unwrapped(name: str) -> str:
    """A module's name without the prefixes that wrappers add."""
    return ".".join(
        part
        for part in name.split(".")
        if part not in ("module", "_orig_mod", "_fsdp_wrapped_module")
    )


def as_net(model: nn.Module) -> Net:
    """A plain module as a Net with ``plain_call``; a Net as it is."""
    return model if isinstance(model, Net) else Net(model)
