"""Heads that get outputs for new classes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Outputs
from instil.students.head_growth import grow_head
from instil.students.quantized import quantized

BATCH = {"x": torch.randn(2, 6, 3, 3, generator=torch.Generator().manual_seed(0))}


class Dense(nn.Module):
    """One logit per class and pixel, with an auxiliary layer of the same size."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Conv2d(6, 4, 1)
        self.head = nn.Conv2d(6, 4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        self.auxiliary(x)
        logits: Tensor = self.head(x)
        return logits


def channels_last(model: nn.Module, batch: Batch) -> Outputs:
    return {"logits": model(batch["x"]).movedim(1, -1)}


def linear() -> Net:
    torch.manual_seed(0)
    return Net(nn.Sequential(nn.Flatten(), nn.Linear(54, 5), nn.ReLU(), nn.Linear(5, 5)))


def test_old_outputs_stay_and_new_ones_depend_on_seed_and_stream() -> None:
    net = linear()
    before = copy.deepcopy(net)
    random_state = torch.random.get_rng_state()
    grow_head(net, 8, BATCH, 3, "a")
    assert torch.equal(torch.random.get_rng_state(), random_state)
    head = net.model[3]
    assert isinstance(head, nn.Linear)
    assert (head.out_features, head.weight.shape, head.bias.shape) == (8, (8, 5), (8,))
    assert torch.equal(net(BATCH)["logits"][:, :5], before(BATCH)["logits"])
    assert head.weight[5:].abs().max() <= 5**-0.5
    assert head.weight[5:].std() > 0.1
    for seed, stream, is_equal in ((3, "a", True), (4, "a", False), (3, "b", False)):
        other = copy.deepcopy(before)
        grow_head(other, 8, BATCH, seed, stream)
        assert torch.equal(other.model[3].weight, head.weight) == is_equal
    assert net.model[1].weight.shape == (5, 54), "the hidden layer keeps its outputs"


def test_a_1x1_convolution_grows_and_stays_frozen() -> None:
    torch.manual_seed(0)
    net = Net(Dense(), channels_last)
    net.model.head.weight.requires_grad_(False)
    before = net(BATCH)["logits"]
    grow_head(net, 7, BATCH, 0, "a")
    assert net(BATCH)["logits"].shape == (2, 3, 3, 7)
    assert torch.equal(net(BATCH)["logits"][..., :4], before)
    assert not net.model.head.weight.requires_grad
    assert net.model.auxiliary.out_channels == 4


def test_a_head_of_the_right_size_is_unchanged() -> None:
    net = linear()
    before = net.model[3].weight
    grow_head(net, 5, BATCH, 0, "a")
    assert net.model[3].weight is before


@pytest.mark.parametrize(
    ("net", "num_classes", "message"),
    [
        (linear(), 4, "grow_head: the head '3' has 5 outputs. Expected at most 4"),
        (Net(quantized(linear().model)), 8, "grow_head: the head '3' is ParametrizedLinear"),
        (
            Net(nn.Sequential(nn.Flatten(), nn.Linear(54, 5), nn.Tanh())),
            8,
            "grow_head: no layer of Sequential has the logits as its output",
        ),
        (Net(nn.Conv2d(6, 4, 3)), 8, "grow_head: the head '' is Conv2d. Expected nn.Linear or"),
    ],
)
def test_other_heads_are_errors(net: Net, num_classes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grow_head(net, num_classes, BATCH, 0, "a")
