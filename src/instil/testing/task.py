"""What a task promises."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Net, batch_size, first_tensor
from instil.testing.samples import replace_with_noise, select_rows

Make = Callable[[], Any]


class Probe(nn.Module):
    """A model of flat inputs with all that an evaluation could leave a trace in: dropout and running statistics."""

    def __init__(self, inputs: int, classes: int):
        super().__init__()
        self.norm, self.drop, self.head = (
            nn.BatchNorm1d(inputs),
            nn.Dropout(),
            nn.Linear(inputs, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.drop(self.norm(x.flatten(1))))
        return logits


def check_task(make: Make, batch: Batch, model: nn.Module | None = None) -> None:
    """Every contract of a task that ``make`` builds; AssertionError names the one that is broken.

    ``batch`` has at least eight samples, some of them labelled; ``model`` is one that the task's ``call`` can ask, by default a linear one of the
    flat first tensor; of a graph it asks each node alone. Metrics are floats, ``accuracy`` and the headline among them in [0, 1] (a headline of which
    lower is better is at least 0); of real labels there is only the headline, at most 1.
    """
    classes = _classes(batch["label"])
    model = model or Probe(first_tensor(batch).flatten(1).shape[1], classes)
    for contract in (
        _call_gives_its_roles,
        _metrics_are_floats,
        _perfect_logits,
        _evaluation_leaves_no_trace,
        _only_labelled_items,
        _cut_into_batches,
    ):
        try:
            contract(make, batch, copy.deepcopy(model).eval())
        except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise AssertionError(
                f"{contract.__name__.strip('_').replace('_', ' ')}: {type(error).__name__}: {error}"
            ) from error


def _classes(label: Tensor) -> int:
    return label.shape[1] if label.is_floating_point() else int(label.max()) + 1


def _part(batch: Batch, rows: Tensor) -> Batch:
    """These samples; of a graph with the edges among them."""
    edges: Tensor | None = batch.get("edge_index")
    if edges is None:
        return select_rows(batch, rows)
    kept = torch.arange(batch_size(batch))[rows]
    place = torch.full((batch_size(batch),), -1)
    place[kept] = torch.arange(len(kept))
    edges = place[edges]
    return select_rows(
        {key: value for key, value in batch.items() if key != "edge_index"}, rows
    ) | {"edge_index": edges[:, (edges >= 0).all(0)]}


def _measured(make: Make, net: nn.Module, batches: list[Batch]) -> dict[str, float]:
    metrics: dict[str, float] = make().evaluate(net, batches)[0]
    return metrics


def _call_gives_its_roles(make: Make, batch: Batch, model: nn.Module) -> None:
    with torch.no_grad():
        outputs = make().call(model, batch)
    assert isinstance(outputs, dict), f"call gives a {type(outputs).__name__}, not a dict of roles"
    for role in make().roles:
        assert role in outputs, f"call gives {', '.join(outputs) or 'nothing'}, and no {role}"
        shape = outputs[role].shape
        assert len(shape) >= 2, (
            f"{role} have shape {tuple(shape)}; expected (samples, ..., classes)"
        )
        assert shape[0] == batch_size(batch), (
            f"call gives {role} {tuple(shape)} for {batch_size(batch)} samples"
        )
    make().check_data(batch)


def _metrics_are_floats(make: Make, batch: Batch, model: nn.Module) -> None:
    metrics = _measured(make, Net(model, make().call), [batch])
    for name, value in metrics.items():
        assert type(value) is float, f"metric '{name}' is a {type(value).__name__}, not a float"
        assert math.isfinite(value), f"metric '{name}' is {value}"
    least, names = (-math.inf, []) if make().kind == "real" else (0, ["accuracy"])
    if make().higher_is_better:
        names = [*names, make().headline]
    else:
        lowest = metrics[make().headline]
        assert lowest >= 0, f"{make().headline} is {lowest}, not at least 0"
    for name in names:
        assert least <= metrics[name] <= 1, f"{name} is {metrics[name]}, not in [{least}, 1]"


def _perfect_logits(make: Make, batch: Batch, model: nn.Module) -> None:
    """Answers that are sure of every label have accuracy 1; those that are sure of the contrary, 0. Real outputs at the label have headline 1."""
    if make().kind == "real":
        return _perfect_outputs(make, batch)
    label, classes = batch["label"], _classes(batch["label"])
    sure = label.clamp_min(0)
    sure = (
        sure.float()
        if label.is_floating_point()
        else torch.nn.functional.one_hot(sure, classes).float()
    )
    for sign, wanted in ((1.0, 1.0), (-1.0, 0.0)):
        first = dict.fromkeys(("image_embedding", "sentence_embedding"), sign * sure)
        second = dict.fromkeys(("text_embedding", "partner_embedding"), sure)
        said = {
            **_sharp_boxes(batch, sign),
            "logits": sign * 20 * (2 * sure - 1),
            **first,
            **second,
        }
        net = Net(
            nn.Identity(), lambda _, asked: {role: asked[f"sure {role}"] for role in make().roles}
        )
        accuracy = _measured(
            make, net, [batch | {f"sure {role}": value for role, value in said.items()}]
        )["accuracy"]
        assert accuracy == wanted, (
            f"accuracy is {accuracy}, not {wanted}, for logits that are sure of {'the' if sign > 0 else 'no'} label"
        )


def _sharp_boxes(batch: Batch, sign: float) -> Batch:
    """Sure of the edges of boxes that lie on bins, or of the contrary."""
    if "box" not in batch:
        return {}
    edges = batch["box"].clamp_min(0).round().long()
    return {
        "box_logits": sign * 20 * (2 * torch.nn.functional.one_hot(edges).float() - 1).flatten(1)
    }


def _perfect_outputs(make: Make, batch: Batch) -> None:
    label, headline = batch["label"].nan_to_num(), make().headline
    net = Net(nn.Identity(), lambda _, asked: {"logits": asked["said"]})
    perfect, other = (
        _measured(make, net, [batch | {"said": said}])[headline]
        for said in (label, label.roll(1, 0))
    )
    assert math.isclose(perfect, 1, abs_tol=1e-6), (
        f"{headline} is {perfect}, not 1, for outputs at the label"
    )
    assert other < 1, f"{headline} is {other} for outputs at the labels of other samples"


def _evaluation_leaves_no_trace(make: Make, batch: Batch, model: nn.Module) -> None:
    model.train()
    net = Net(model, make().call)
    if parts := list(model.children()):
        parts[0].eval()
    modes, state, random = (
        {n: m.training for n, m in net.named_modules()},
        copy.deepcopy(net.state_dict()),
        torch.get_rng_state(),
    )
    held = {key: value.clone() for key, value in batch.items() if isinstance(value, Tensor)}
    one, two = _measured(make, net, [batch]), _measured(make, net, [batch])
    assert one == two, "two evaluations differ: the net was not in eval mode"
    assert {n: m.training for n, m in net.named_modules()} == modes, (
        "a module was left in another mode"
    )
    assert torch.equal(torch.get_rng_state(), random), "the random state moved"
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items()), (
        "the state of the net moved"
    )
    for key, value in held.items():
        torch.testing.assert_close(
            batch[key],
            value,
            rtol=0,
            atol=0,
            equal_nan=True,
            msg=f"the batch's {key} was changed in place",
        )
    assert torch.is_grad_enabled(), "gradients were left switched off"


def _only_labelled_items(make: Make, batch: Batch, model: nn.Module) -> None:
    """What has no label changes no metric of labels, whatever is in it."""
    net, rows = Net(model, make().call), torch.arange(batch_size(batch)) % 3 == 0
    label = batch["label"].masked_fill(rows.view(-1, *[1] * (batch["label"].ndim - 1)), UNLABELLED)
    inputs = {
        key: replace_with_noise(value, rows)
        for key, value in batch.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim
    }
    unlabelled = batch | inputs | {"label": label}
    with_noise, without = (
        _measured(make, net, [unlabelled]),
        _measured(make, net, [_part(batch, ~rows)]),
    )
    of_labels = list(without) if "logits" in make().roles else ["accuracy", make().headline]
    _same({name: with_noise[name] for name in of_labels}, without, "an unlabelled item changes")


def _cut_into_batches(make: Make, batch: Batch, model: nn.Module) -> None:
    net, number = Net(model, make().call), batch_size(batch)
    pieces = [_part(batch, rows) for rows in torch.split(torch.arange(number), [1, 4, number - 5])]
    _same(
        _measured(make, net, [batch]), _measured(make, net, pieces), "the cut into batches changes"
    )


def _same(one: dict[str, float], two: dict[str, float], message: str) -> None:
    for name in one:
        assert math.isclose(one[name], two[name], rel_tol=1e-4, abs_tol=1e-5), (
            f"{message} '{name}': {one[name]:.6g} and {two[name]:.6g}"
        )
