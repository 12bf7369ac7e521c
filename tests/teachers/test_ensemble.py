"""Ensemble as the mean of its members, in logits or in probabilities."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.teachers.ema import Ema
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen
from instil.testing import check_teacher
from tests.nets import batch, net
from tests.schemes import texts


@pytest.mark.parametrize("mean", ["logits", "probabilities"])
def test_contracts(mean: str) -> None:
    check_teacher(lambda: Ensemble([net(seed=1), net(4, seed=2)], mean), batch())


def test_the_mean_of_logits_and_of_probabilities() -> None:
    members = [net(seed=1), net(4, seed=2), net(6, seed=3)]
    logits = torch.stack([member(batch())["logits"].detach() for member in members])
    assert torch.allclose(Ensemble(members)(batch())["logits"], logits.mean(0), atol=1e-6)
    answer = Ensemble(members, "probabilities")(batch())["logits"]
    assert torch.allclose(answer.softmax(-1), logits.softmax(-1).mean(0), atol=1e-6)
    assert torch.allclose(
        answer.exp().sum(-1), torch.ones(16), atol=1e-5
    )  # they are log-probabilities


def test_the_mean_of_probabilities_is_finite_for_sure_members() -> None:
    class Sure(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[1e4, -1e4, 0.0]]).repeat(len(x), 1)

    assert torch.isfinite(Ensemble([Sure(), Sure()], "probabilities")(batch())["logits"]).all()


def test_all_outputs_of_the_members_are_there() -> None:
    members = [net(seed=1), net(4, seed=2)]
    outputs = Ensemble(members)(batch())
    assert [answer["embedding"].shape for answer in outputs["members"]] == [(16, 8), (16, 4)]
    assert torch.equal(outputs["members"][1]["logits"], members[1](batch())["logits"])


def test_members_may_be_teachers_of_any_kind() -> None:
    ensemble = Ensemble([Ema(net()), Frozen(net(seed=1)), net(seed=2)])
    assert [type(member) for member in ensemble.members] == [Ema, Frozen, Frozen]


def test_members_give_all_roles_whatever_is_wanted() -> None:
    inner = net()
    ensemble = Ensemble([Net(inner.model, inner.call, {"early": "stem"})])
    ensemble.select_roles({"members"}, batch())
    assert set(ensemble(batch())["members"][0]) == {"logits", "early"}


def test_full_precision_stays() -> None:
    x = {"x": batch()["x"].double()}
    for mean in ("logits", "probabilities"):
        assert (
            Ensemble([net().double(), net(seed=1).double()], mean)(x)["logits"].dtype
            == torch.float64
        )  # type: ignore[arg-type]
    half = Ensemble([net().bfloat16()])({"x": x["x"].bfloat16()})
    assert half["logits"].dtype == torch.float32


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="an ensemble needs at least one member"):
        Ensemble([])
    with pytest.raises(ValueError, match="Expected logits or probabilities, got 'median'"):
        Ensemble([net()], "median")  # type: ignore[arg-type]


def test_members_without_logits_are_handed_on() -> None:
    def features_only(model: nn.Module, rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"features": model(rows["x"])}

    outputs = Ensemble([Net(net(seed=1).model, features_only), net(seed=2)])(batch())
    assert set(outputs) == {"members"}
    assert [set(member) for member in outputs["members"]] == [{"features"}, {"logits", "embedding"}]


def test_of_language_models_together_the_likeliest_token_is_there() -> None:
    members, rows = [texts.net(seed=1), texts.net(seed=2)], texts.prompts()
    outputs = Ensemble(members)(rows)
    assert torch.equal(
        outputs["prediction"],
        torch.stack([member(rows)["logits"] for member in members]).mean(0).argmax(-1),
    )
    assert "prediction" not in Ensemble([net(seed=1)])(batch())
