"""Contracts of tasks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Net, batch_size, first_tensor
from instil.testing.perfect_outputs import check_perfect_outputs
from instil.testing.structures import replace_with_noise, select_rows

MakeTask = Callable[[], Any]


class Probe(nn.Module):
    """Linear model of flattened inputs with BatchNorm and dropout.

    Its outputs change if an evaluation leaves it in another mode or state.

    Args:
        inputs: number of inputs.
        classes: number of classes.
    """

    def __init__(self, inputs: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs)
        self.drop = nn.Dropout()
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.drop(self.norm(x.flatten(1))))
        return logits


def check_task(make: MakeTask, batch: Batch, model: nn.Module | None = None) -> None:
    """Check all contracts of a task.

    Metrics are floats. ``accuracy`` and the headline metric are in [0, 1]; a headline that is
    better when lower is at least 0, and needs no ``accuracy``. With real-valued labels only the
    headline has a bound: 1.

    Args:
        make: returns a new task.
        batch: batch of at least eight samples, some of them labelled.
        model: model for the task's ``call``; None: a linear model of the first tensor, flattened.

    Raises:
        AssertionError: for the first broken contract, with its name.
    """
    num_classes = _num_classes(batch["label"])
    model = model or Probe(first_tensor(batch).flatten(1).shape[1], num_classes)
    for contract in (
        _call_returns_its_roles,
        _metrics_are_floats,
        _perfect_logits,
        _evaluation_changes_no_state,
        _only_labelled_items_count,
        _batch_size_does_not_matter,
    ):
        try:
            contract(make, batch, copy.deepcopy(model).eval())
        except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise AssertionError(
                f"{contract.__name__.strip('_').replace('_', ' ')}: {type(error).__name__}: {error}"
            ) from error


def _num_classes(label: Tensor) -> int:
    return label.shape[1] if label.is_floating_point() else int(label.max()) + 1


def _select(batch: Batch, rows: Tensor) -> Batch:
    """Select samples, and the edges between them if the samples are nodes of a graph."""
    if "pair_position" in batch:
        # Samples are pairs of nodes: all of them keep the whole graph.
        names = ("pair_index", "pair_position", "label")
        return batch | select_rows({name: batch[name] for name in names}, rows)
    edges: Tensor | None = batch.get("edge_index")
    if edges is None:
        return select_rows(batch, rows)
    selected = torch.arange(batch_size(batch))[rows]
    new_index = torch.full((batch_size(batch),), -1)
    new_index[selected] = torch.arange(len(selected))
    edges = new_index[edges]
    others = {key: value for key, value in batch.items() if key != "edge_index"}
    return select_rows(others, rows) | {"edge_index": edges[:, (edges >= 0).all(0)]}


def _evaluate(make: MakeTask, net: nn.Module, batches: list[Batch]) -> dict[str, float]:
    metrics: dict[str, float] = make().evaluate(net, batches)[0]
    return metrics


def _call_returns_its_roles(make: MakeTask, batch: Batch, model: nn.Module) -> None:
    with torch.no_grad():
        outputs = make().call(model, batch)
    assert isinstance(outputs, dict), (
        f"call returns a {type(outputs).__name__}. Expected a dict of roles"
    )
    for role in make().roles:
        assert role in outputs, f"call returns {', '.join(outputs) or 'nothing'}, without {role}"
        shape = tuple(outputs[role].shape)
        smallest = 1 if role.endswith("_length") else 2
        assert len(shape) >= smallest, (
            f"{role} have shape {shape}. Expected (samples, ..., classes)"
        )
        assert shape[0] == batch_size(batch), (
            f"call returns {role} {shape} for {batch_size(batch)} samples"
        )
    make().check_data(batch)


def _metrics_are_floats(make: MakeTask, batch: Batch, model: nn.Module) -> None:
    metrics = _evaluate(make, Net(model, make().call), [batch])
    for name, value in metrics.items():
        assert type(value) is float, f"metric '{name}' is a {type(value).__name__}, not a float"
        assert math.isfinite(value), f"metric '{name}' is {value}"
    is_real = make().kind == "real"
    minimum = -math.inf if is_real else 0
    names = [] if is_real else ["accuracy"]
    headline = make().headline
    if make().higher_is_better:
        names = [*names, headline]
    else:
        assert metrics[headline] >= 0, f"{headline} is {metrics[headline]}, not at least 0"
        names = [name for name in names if name in metrics]
    for name in names:
        assert minimum <= metrics[name] <= 1, f"{name} is {metrics[name]}, not in [{minimum}, 1]"


def _perfect_logits(make: MakeTask, batch: Batch, model: nn.Module) -> None:
    check_perfect_outputs(make, batch, _num_classes(batch["label"]))


def _evaluation_changes_no_state(make: MakeTask, batch: Batch, model: nn.Module) -> None:
    model.train()
    net = Net(model, make().call)
    # One part in another mode: an evaluation must restore the mode of each module.
    if parts := list(model.children()):
        parts[0].eval()
    modes = {name: module.training for name, module in net.named_modules()}
    state = copy.deepcopy(net.state_dict())
    random_state = torch.get_rng_state()
    inputs = {key: value.clone() for key, value in batch.items() if isinstance(value, Tensor)}
    first = _evaluate(make, net, [batch])
    second = _evaluate(make, net, [batch])
    assert first == second, "two evaluations differ. Call eval() on the net"
    assert {name: module.training for name, module in net.named_modules()} == modes, (
        "the evaluation changed the mode of a module"
    )
    assert torch.equal(torch.get_rng_state(), random_state), "the random state changed"
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items()), (
        "the state of the net changed"
    )
    for key, value in inputs.items():
        message = f"the batch's {key} was changed in place"
        torch.testing.assert_close(batch[key], value, rtol=0, atol=0, equal_nan=True, msg=message)
    assert torch.is_grad_enabled(), "the evaluation left gradients disabled"


def _only_labelled_items_count(make: MakeTask, batch: Batch, model: nn.Module) -> None:
    """Check that unlabelled samples change no metric of labels, whatever their inputs are."""
    # A task of data without labels evaluates all samples.
    if "none" in make().kinds:
        return
    net = Net(model, make().call)
    rows = torch.arange(batch_size(batch)) % 3 == 0
    label = batch["label"].masked_fill(rows.view(-1, *[1] * (batch["label"].ndim - 1)), UNLABELLED)
    noise = {
        key: replace_with_noise(value, rows)
        for key, value in batch.items()
        if _has_real_rows(value, len(rows))
    }
    unlabelled = batch | noise | {"label": label}
    with_noise = _evaluate(make, net, [unlabelled])
    without = _evaluate(make, net, [_select(batch, ~rows)])
    names = list(without)
    if "logits" not in make().roles:
        names = [name for name in ("accuracy", make().headline) if name in without]
    subset = {name: with_noise[name] for name in names}
    _check_same(subset, without, "an unlabelled item changes")


def _has_real_rows(value: Any, num_samples: int) -> bool:
    """Whether a value of a batch is a tensor of real numbers with a row for each sample."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return False
    return value.ndim > 0 and len(value) == num_samples


def _batch_size_does_not_matter(make: MakeTask, batch: Batch, model: nn.Module) -> None:
    net = Net(model, make().call)
    num_samples = batch_size(batch)
    parts = torch.split(torch.arange(num_samples), [1, 4, num_samples - 5])
    batches = [_select(batch, rows) for rows in parts]
    whole = _evaluate(make, net, [batch])
    _check_same(whole, _evaluate(make, net, batches), "the split into batches changes")


def _check_same(actual: dict[str, float], expected: dict[str, float], message: str) -> None:
    for name, value in actual.items():
        assert math.isclose(value, expected[name], rel_tol=1e-4, abs_tol=1e-5), (
            f"{message} '{name}': {value:.6g} and {expected[name]:.6g}"
        )
