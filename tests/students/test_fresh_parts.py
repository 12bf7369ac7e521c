"""New weights of parts: streams, statistics, errors, and a stage that trains only these parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instil import recipe as recipes
from instil.core import Net
from instil.experiment.compression import copy_of_stage
from instil.networks.pose_estimator import pose_estimator
from instil.recipe.sections import ModelConfig
from instil.students.fresh_parts import reset_parts


def network() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Flatten(), nn.TransformerEncoderLayer(12, 2)
    )
    model.append(nn.Linear(12, 3))
    model[1].running_mean += 1
    return model


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in model.state_dict().items() if not value.equal(before[name])}


def test_only_the_named_parts_change_and_the_stream_decides_their_weights() -> None:
    model = network()
    before = weights(model)
    state = torch.get_rng_state()
    reset_parts(model, ["1", "4"], 3, "a")
    assert torch.get_rng_state().equal(state)
    assert changed(model, before) == {"1.running_mean", "4.weight", "4.bias"}
    after = weights(model)
    for seed, stream, is_same in ((3, "a", True), (4, "a", False), (3, "b", False)):
        reset_parts(model, ["?"], 0, "other")
        reset_parts(model, ["1", "4"], seed, stream)
        assert model[4].weight.equal(after["4.weight"]) == is_same
    # All parameters of an attention layer are drawn again.
    before = weights(model)
    reset_parts(model, ["3"], 0, "a")
    assert "3.self_attn.in_proj_weight" in changed(model, before)
    assert not any(name.startswith(("0", "1", "4")) for name in changed(model, before))


def test_unknown_parts_and_layers_without_initial_weights_raise() -> None:
    with pytest.raises(ValueError, match=r"reset: Sequential has no part 'heads'"):
        reset_parts(network(), ["heads"], 0, "a")

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    with pytest.raises(ValueError, match=r"reset: '0\.0' is Scale, which cannot draw its weights"):
        reset_parts(nn.Sequential(nn.Sequential(Scale())), ["0"], 0, "a")


def test_a_stage_trains_a_new_head_on_fixed_features() -> None:
    net = Net(pose_estimator(3, 8, width=2), lambda model, batch: model(batch["image"]))
    config = ModelConfig(model="previous", reset=["*_head", "maps"], freeze=["stages"])
    copies = [copy_of_stage(net, config, None, seed, 1) for seed in (0, 0, 1)]
    first, again, other = (copy.model for copy in copies)
    names = changed(first, weights(net.model))
    assert {name.split(".")[0] for name in names} == {"maps", "x_head", "y_head"}
    assert not changed(first, weights(again))
    assert changed(other, weights(first)) == names
    trained = {name for name, value in first.named_parameters() if value.requires_grad}
    assert trained == names


@pytest.mark.parametrize("section", ["student", "teacher"])
def test_only_a_student_of_an_earlier_stage_has_parts_to_reset(section: str) -> None:
    override = f"{section}={{model: cnn, reset: [head]}}"
    with pytest.raises(ValueError, match=rf"{section}: reset: only a student of an earlier stage"):
        recipes.load("digits", [override])
