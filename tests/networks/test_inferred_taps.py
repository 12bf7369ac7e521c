"""Taps of models of unknown families: the last map of each resolution, the input of the head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from instil import recipe as recipes
from instil.core import Net
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.networks.cnn import cnn
from instil.networks.inferred_taps import infer_taps
from instil.networks.mlp import mlp
from instil.networks.presets import taps_for
from instil.tasks.classification import call

BATCH = {"image": torch.rand(2, 3, 32, 32)}


def test_inferred_levels_equal_the_preset() -> None:
    torch.manual_seed(0)
    model = cnn(10, 3, width=4)
    inferred = infer_taps(model, call, BATCH)
    preset = taps_for(model)
    assert inferred["embedding"] == preset["embedding"]
    assert inferred["head"] == preset["head"]
    features = (
        Net(model, call, {"features": taps["features"]})(BATCH)["features"]
        for taps in (inferred, preset)
    )
    sizes = [{maps.shape[2:] for maps in side} for side in features]
    assert sizes[0] >= sizes[1]


def test_a_torchvision_model_without_a_preset() -> None:
    models = pytest.importorskip("torchvision.models")
    model = models.squeezenet1_1(num_classes=5).eval()
    assert "features" not in taps_for(model)
    taps = infer_taps(model, call, {"image": torch.rand(2, 3, 64, 64)})
    outputs = Net(model, call, taps)({"image": torch.rand(2, 3, 64, 64)})
    resolutions = [maps.shape[-1] for maps in outputs["features"]]
    assert resolutions == sorted(set(resolutions), reverse=True)
    assert len(resolutions) >= 4


class Reduced(nn.Module):
    """Network whose first stage contains maps of the lowest resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.reduction = nn.Conv2d(4, 4, 16, 16)
        self.second = nn.Conv2d(4, 4, 4, 4)
        self.third = nn.Conv2d(4, 4, 4, 4)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.first(image)
        maps = maps + self.reduction(maps).mean((2, 3), keepdim=True)
        return self.third(self.second(maps)).mean((2, 3))


def test_levels_are_in_the_order_of_the_forward_pass() -> None:
    taps = infer_taps(Reduced(), call, BATCH)
    assert taps["features"] == ["first", "second", "third"]


class Shared(nn.Module):
    """Network with a repeated module, an in-place change, and logits without a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        maps = torch.relu_(self.first(image))
        return self.twice(self.twice(maps)).mean((2, 3)) * 2


def test_modules_that_cannot_be_tapped_are_left_out() -> None:
    assert infer_taps(Shared(), call, BATCH) == {}
    assert "features" not in infer_taps(mlp(10, 3, size=32), call, BATCH)


def test_model_and_modes_are_unchanged() -> None:
    model = cnn(10, 3, width=2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    infer_taps(model, call, BATCH)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_recipe_infers_the_levels_of_a_users_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_models.py").write_text(
        "from torch import nn\n\n\ndef tiny(classes, channels):\n"
        "    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 6, 1),\n"
        "                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes))\n"
    )

    def taps(objectives: str) -> dict[str, object]:
        Path("my.yaml").write_text(
            f"data: digits\nteacher: cnn\nstudent: 'my_models:tiny'\nobjectives: {objectives}\n"
        )
        experiment = Experiment.from_recipe(recipes.load("my.yaml"))
        return dict(build_network(experiment.recipe.student, experiment, "student").taps)

    assert taps("{cross_entropy: {}, fitnet: {}}") == {
        "features": ["0", "2"],
        "embedding": "5:in",
        "head": "5:weight",
    }
    assert taps("{cross_entropy: {}, kd: {}}") == {}
