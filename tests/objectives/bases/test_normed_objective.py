from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.modules.adapters import PointwiseConv
from instil.modules.connectors import BatchNorm, Connector, NormedLinear
from instil.objectives.features.activation_boundary import ActivationBoundary
from instil.objectives.features.ickd import ICKD
from instil.testing import sample_outputs


@pytest.mark.parametrize(
    ("norm", "kinds"), [("none", [PointwiseConv]), ("batch", [PointwiseConv, BatchNorm])]
)
def test_a_connector_ends_before_a_relu(norm: str, kinds: list[type]) -> None:
    connector = Connector(torch.zeros(2, 16, 5), torch.zeros(2, 7, 3, 2), norm)
    stage = torch.randn(2, 16, 5)
    assert connector(stage).shape == (2, 7, 3, 2)
    assert (connector(stage) < 0).any()
    assert [type(part) for part in connector.project if not isinstance(part, nn.Identity)] == kinds


@pytest.mark.parametrize("kind", [ActivationBoundary, ICKD])
def test_batch_norm_makes_one_loss_of_the_batch(
    kind: type[ActivationBoundary] | type[ICKD],
) -> None:
    student, teacher, batch = sample_outputs()
    shapes = {}
    for norm in ("none", "batch"):
        objective = kind(norm=norm)  # type: ignore[arg-type]
        objective.build(student, teacher)
        shapes[norm] = objective(student, teacher, batch).shape
    assert shapes == {"none": (8,), "batch": ()}


@pytest.mark.parametrize(
    ("norm", "ordinary"), [("group", nn.LayerNorm(3)), ("batch", nn.BatchNorm1d(3))]
)
def test_a_linear_layer_normalises_the_last_dimension(norm: str, ordinary: nn.Module) -> None:
    layer = NormedLinear(5, 3, norm)  # type: ignore[arg-type]
    values = torch.randn(4, 2, 5)
    assert torch.allclose(
        layer(values), ordinary(layer.linear(values).flatten(0, 1)).view(4, 2, 3), atol=1e-6
    )
    assert torch.isfinite(layer(torch.randn(1, 5))).all()
