"""DPHuBERT: distillation and pruning at once, with gates and a target sparsity."""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import functools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    Net,
    Objective,
    Objectives,
    Scheme,
    Teacher,
    Update,
    item_weights,
)
from instil.functional.keyed_random import keyed_uniform
from instil.modules.hard_concrete import HardConcreteGates

STREAM = "scheme.dphubert"
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def lagrangian_loss(sparsity: Tensor, target: Tensor, multipliers: Tensor) -> Tensor:
    """Augmented Lagrangian of a sparsity constraint (Peng et al. 2023, Eq. 5).

    ``m1 * (s - t) + m2 * (s - t) ** 2``. Gradient steps decrease it in the sparsity and increase it
    in the multipliers, whose gradients are reversed.

    Args:
        sparsity: expected share of removed weights s, scalar.
        target: target share t, scalar.
        multipliers: m1 and m2 (2,).

    Returns:
        Scalar.

    Example:
        >>> multipliers = torch.tensor([2.0, 4.0])
        >>> lagrangian_loss(torch.tensor(0.25), torch.tensor(0.5), multipliers)
        tensor(-0.2500)
    """
    difference = sparsity - target
    ascending = 2 * multipliers.detach() - multipliers
    return ascending[0] * difference + ascending[1] * difference.square()


class DPHuBERT(Scheme):
    """Distillation of a student whose channels are pruned in the same training.

    The outputs of layers have hard-concrete gates. A Lagrangian with trained multipliers moves the
    expected share of removed weights of these layers to a target, which rises from 0. The student
    is exported with the gates multiplied into its weights: a closed gate is a row of zeros. Layers
    with weight norm, and those whose weight another module reads, have no gates.

    Raises:
        ValueError: if no layer matches ``layers``.
    """

    card = Card(
        "DPHuBERT: Joint Distillation and Pruning of Self-Supervised Speech Models",
        "https://arxiv.org/abs/2305.17651",
        "Interspeech",
        2023,
        source="offline",
        labels=("single", "multi", "binary", "sequence"),
        algorithms=("adaptive",),
        equation=r"\min_{s, z} \max_{\lambda} \sum_i w_i \mathcal{L}_i + \lambda_1 (s(z) - t) + "
        r"\lambda_2 (s(z) - t)^2",
        deviations="Gates are on the output channels of linear layers and convolutions. The paper "
        "also has gates on attention heads, and counts the weights of the whole model. Losses are "
        "the objectives of the recipe, such as distilhubert.",
        use="For a student that starts as a copy of its teacher: model: teacher. Follow it with a "
        "stage of the same objectives and scheme offline, as the paper does.",
        pitfalls="Rows of zeros save no time until a program removes them. Set a larger learning "
        "rate for the gates by train.optimizers.gates; the paper has 0.02. With few steps the "
        "target is not reached; watch the loss sparsity.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        layers: Annotated[
            str | None,
            Doc(
                "pattern of the paths of the layers with gates, such as `*intermediate_dense`; "
                "null: all linear layers and convolutions but the last one"
            ),
        ] = None,
        sparsity: Annotated[
            float, Gt(0), Lt(1), Doc("target share of removed weights of the layers with gates")
        ] = 0.5,
        rise: Annotated[
            float, Gt(0), Lt(1), Doc("part of the training in which the target rises from 0")
        ] = 0.3,
    ):
        super().__init__(student, teacher, objectives)
        self.layers = layers
        self.sparsity = sparsity
        self.rise = rise
        self.paths: list[str] = []
        self.gates = nn.ModuleList()
        self.multipliers = nn.ParameterList([torch.zeros(2)])
        self.learners["gates"] = ("gates", "multipliers")

    def sharding_obstacle(self) -> str | None:
        """Reason why the nets cannot be sharded."""
        return "reads the gates outside a forward pass"

    def build(self, batch: Batch) -> None:
        candidates = self._candidates(batch)
        if self.layers is None:
            matching = candidates[:-1]
        else:
            matching = [entry for entry in candidates if fnmatch.fnmatch(entry[0], self.layers)]
        if not matching:
            paths = ", ".join(path for path, _ in candidates[:8]) or "none"
            raise ValueError(
                f"scheme.layers: no layer matches '{self.layers}'. Expected a pattern of linear "
                f"layers or convolutions, such as {paths}"
            )
        self.paths = [path for path, _ in matching]
        self.gates.extend(HardConcreteGates(layer) for _, layer in matching)
        super().build(batch)

    def _candidates(self, batch: Batch) -> list[tuple[str, nn.Module]]:
        """Paths and layers that may have gates: the network calls them, and their weight is stored.

        The attention of torch reads the weight of a layer that it never calls, and weight norm
        computes it from other parameters. Gates on the output would not be those of the export.
        """
        called: set[nn.Module] = set()

        def record(layer: nn.Module, *_: Any) -> None:
            called.add(layer)

        modules = self.student.model.named_modules()
        layers = [(path, part) for path, part in modules if isinstance(part, LAYERS)]
        with contextlib.ExitStack() as hooks:
            for _, layer in layers:
                hooks.callback(layer.register_forward_hook(record).remove)
            self.student(batch)
        return [
            (path, layer)
            for path, layer in layers
            if layer in called and "weight" in dict(layer.named_parameters(recurse=False))
        ]

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "sparsity": item_weights(batch).sum()}

    def compute_losses(self, batch: Batch) -> Update:
        """Compute the losses of the gated student, and the Lagrangian as the loss ``sparsity``."""
        with gated(self.student, dict(zip(self.paths, self._samples(batch), strict=True))):
            update = super().compute_losses(batch)
        progress = torch.as_tensor(batch.get("progress", 0.0)).to(self.multipliers[0].device)
        target = self.sparsity * (progress / self.rise).clamp(max=1)
        update.losses["sparsity"] = lagrangian_loss(
            self.expected_sparsity(), target, self.multipliers[0]
        )
        update.learner = ("student", "gates")
        return update

    def expected_sparsity(self) -> Tensor:
        """Expected share of the weights of the layers with gates that are removed (scalar)."""
        removed: list[Tensor] = []
        total = 0
        for gate in self._gates():
            removed.append(gate.cost * (1 - gate.open_probability()).sum())
            total += gate.cost * len(gate.location)
        return torch.stack(removed).sum() / total

    def export(self) -> Net:
        """Return a copy of the student with the gates multiplied into its weights."""
        net = copy.deepcopy(self.student)
        with torch.no_grad():
            for path, gate in zip(self.paths, self._gates(), strict=True):
                layer: Any = net.model.get_submodule(path)
                values = gate.fixed().to(layer.weight.dtype)
                layer.weight.mul_(values.view(-1, *[1] * (layer.weight.ndim - 1)))
                if layer.bias is not None:
                    layer.bias.mul_(values)
        return net

    def _gates(self) -> list[HardConcreteGates]:
        return [gate for gate in self.gates if isinstance(gate, HardConcreteGates)]

    def _samples(self, batch: Batch) -> list[Tensor]:
        """Gates of each layer; all micro-batches of a step have the same ones."""
        if not self.training:
            return [gate.fixed() for gate in self._gates()]
        sizes = [len(gate.location) for gate in self._gates()]
        # The index is that of a gate, not of a sample.
        moment = {"index": torch.arange(sum(sizes), device=self.multipliers[0].device)}
        moment |= {key: batch[key] for key in ("seed", "step") if key in batch}
        draws = torch.split(keyed_uniform(moment, 1, STREAM)[:, 0], sizes)
        return [gate.sample(part) for gate, part in zip(self._gates(), draws, strict=True)]


@contextlib.contextmanager
def gated(net: Net, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Multiply the output channels of layers inside the block.

    Args:
        net: network with the layers.
        values: gates (C,) by path of a layer.
    """

    with contextlib.ExitStack() as hooks:
        for path, gate in values.items():
            hook = functools.partial(_multiply, gate)
            handle = net.model.get_submodule(path).register_forward_hook(hook)
            hooks.callback(handle.remove)
        yield


def _multiply(gate: Tensor, module: nn.Module, _arguments: Any, output: Tensor) -> Tensor:
    """Output of a layer times its gates, whose axis is the last one of a linear layer, else 1."""
    trailing = 0 if isinstance(module, nn.Linear) else output.ndim - 2
    return output * gate.view(-1, *[1] * trailing).to(output.dtype)
