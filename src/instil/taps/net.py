"""Network that returns its outputs by role."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from instil.items.batch import Batch, Outputs, first_tensor, in_dtype_of
from instil.roles.lazy_outputs import LazyOutputs
from instil.taps.freezing import parts_to_freeze
from instil.taps.path import Taps
from instil.taps.recorder import Recorder, Recording, StopForward
from instil.taps.replacement import replaced_outputs

Call = Callable[..., Outputs]
"""Function ``(model, batch) -> outputs`` by which a task runs a model.

A call with a parameter ``roles`` also receives the roles that will be read (None: all), so that it
need not compute the others.
"""


def plain_call(model: nn.Module, batch: Batch) -> Outputs:
    """Run the model on the first tensor of the batch; an output tensor is ``logits``.

    Raises:
        ValueError: for an output of another type.
    """
    outputs = model(first_tensor(batch))
    if isinstance(outputs, Mapping):
        return dict(outputs)
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"model: returned a {type(outputs).__name__}. Expected a tensor, or a dict of outputs "
            "by role. Pass a Net with a call that returns outputs by role"
        )
    return {"logits": outputs}


class Net(nn.Module):
    """A model, the function that calls it, and the activations that are returned with its outputs.

    Nothing of the model is edited.

    Args:
        model: the model.
        call: function ``(model, batch) -> outputs``.
        taps: role -> path of a module as in ``named_modules``, or a list of paths for a tuple.
            ``path`` is the output of the module's last call, ``path:in`` its first input and
            ``path[*]`` a tuple over all calls. ``path:weight`` is the weight (C, D) and bias (C,)
            of a linear layer or 1x1 convolution. ``path@sequence`` reads a sequence (N, T, C) as a
            feature map (N, C, 1, T). ``path@signal`` reads a signal (N, C, T) as the same.
            ``path@8x14x14`` reads tokens as a map of that grid. Prefixes of wrappers may be left
            out.

    Attributes:
        early_stop: a forward pass may end after the last tap that is read; the engine turns this
            off for sharded nets.

    Raises:
        ValueError: for a path that names no module, and a model or taps of another type.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
        >>> outputs = Net(model, taps={"embedding": "0"})({"x": torch.zeros(5, 4)})
        >>> outputs["logits"].shape, outputs["embedding"].shape
        (torch.Size([5, 2]), torch.Size([5, 3]))
    """

    def __init__(self, model: nn.Module, call: Call = plain_call, taps: Taps | None = None):
        super().__init__()
        if not isinstance(model, nn.Module):
            raise ValueError(f"model: Expected a module, got {type(model).__name__}")
        if not isinstance(taps or {}, Mapping):
            raise ValueError(
                f"taps: Expected role -> path or paths, got {type(taps).__name__}. Write "
                '{"features": ["layer1", "layer2"]}'
            )
        self.model = model
        self.call = call
        self.taps: dict[str, str | list[str]] = {
            role: paths if isinstance(paths, str) else list(paths)
            for role, paths in (taps or {}).items()
        }
        self.early_stop = True
        self._call_takes_roles = _takes_roles(call)
        self._recorder = Recorder(model, self.taps)
        self._frozen: list[nn.Parameter] = []
        self._frozen_modules: list[nn.Module] = []

    def freeze(self, paths: Sequence[str]) -> None:
        """Exclude parts of the model from training, BatchNorm statistics included.

        Parts that an earlier call froze are trainable again.

        Args:
            paths: names of modules or parameters, or patterns such as ``layer*``.

        Raises:
            ValueError: for a path that names nothing.
        """
        modules, parameters = parts_to_freeze(self.model, paths)
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen_modules = modules
        self._frozen = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Net:
        """Set the mode of every part except the frozen modules, which stay in eval mode."""
        super().train(mode)
        for module in self._frozen_modules:
            module.eval()
        return self

    def forward(
        self,
        batch: Batch,
        call: Call | None = None,
        roles: frozenset[str] | None = None,
        stop: bool = False,
        replace: Mapping[str, Tensor] | None = None,
    ) -> Outputs:
        """Outputs of the call and of the taps.

        The first tensor of the batch gets the dtype of the model's weights.

        Args:
            batch: the batch.
            call: another function that runs the model; its pass need not fire every tap.
            roles: roles that are read; None: all.
            stop: end the pass after the last tap that is read.
            replace: path of a module -> value in the place of its output.

        Raises:
            RuntimeError: for a tap that did not fire, or whose tensor was changed in place
                afterwards.
            ValueError: for a batch that is a tensor, and a path in ``replace`` that names no
                module.
        """
        if isinstance(batch, Tensor):
            raise ValueError(
                "batch: Expected a dict, got a tensor. Pass a dict such as {'image': images}, or "
                "call net.model"
            )
        with replaced_outputs(self.model, replace or {}):
            outputs, recording = self._run(
                batch, call or self.call, roles, stop and self.early_stop
            )
        return outputs | self._recorder.outputs(recording, allow_missing=call is not None)

    def remove_taps(self) -> None:
        """Remove the hooks of the taps from the model; the net then returns the outputs only."""
        self._recorder.remove(self.model)
        self.taps = {}
        self._recorder = Recorder(self.model, {})

    def can_stop(self, roles: frozenset[str], batch: Batch) -> bool:
        """Whether ``roles`` are taps that fire exactly once in a pass, tried on ``batch``."""
        if not roles or not roles <= set(self.taps):
            return False
        calls = self._run(batch, self.call, None, False)[1].calls
        taps = self._recorder.select(roles)
        return all(calls.get(tap.index) == 1 and not tap.every_call for tap in taps)

    def _run(
        self, batch: Batch, call: Call, roles: frozenset[str] | None, stop: bool
    ) -> tuple[Outputs, Recording]:
        self._recorder.active = recording = Recording(roles, stop)
        try:
            takes_roles = self._call_takes_roles if call is self.call else _takes_roles(call)
            options: dict[str, Any] = {"roles": roles} if takes_roles else {}
            result = call(self.model, in_dtype_of(self.model, batch), **options)
            outputs = result if isinstance(result, LazyOutputs) else dict(result)
        except StopForward:
            outputs = {}
        finally:
            self._recorder.active = None
        return outputs, recording


def _takes_roles(call: Callable[..., Any]) -> bool:
    return "roles" in inspect.signature(call).parameters


def as_net(model: nn.Module) -> Net:
    """A plain module as a Net with ``plain_call``; a Net unchanged."""
    return model if isinstance(model, Net) else Net(model)
