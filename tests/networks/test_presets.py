from functools import partial

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.networks.factory import build, input_of
from instil.networks.presets import taps_for
from instil.tasks.classification import call

OWN = [
    ("cnn", 1, 8, [(32, 8, 8), (64, 4, 4), (128, 2, 2)], 128),
    ("mlp", 1, 8, [], 32),
    ("resnet", 3, 16, [(16, 16, 16), (32, 8, 8), (64, 4, 4)], 64),
    ("vit", 1, 8, [(17, 64)] * 4, 64),
]
TIMM = [
    (
        "timm:resnet18",
        1,
        32,
        [(64, 16, 16), (64, 8, 8), (128, 4, 4), (256, 2, 2), (512, 1, 1)],
        512,
    ),
    (
        "timm:mobilenetv3_small_100",
        3,
        64,
        [(16, 32, 32), (16, 16, 16), (24, 8, 8), (48, 4, 4), (576, 2, 2)],
        1024,
    ),
    ("timm:vit_tiny_patch16_224", 3, 32, [(197, 192)] * 4, 192),
    (
        "timm:efficientnet_lite0",
        3,
        64,
        [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)],
        1280,
    ),
    ("timm:convnext_atto", 3, 64, [(40, 16, 16), (80, 8, 8), (160, 4, 4), (320, 2, 2)], 320),
]
_SLOW = [
    (
        "timm:swin_tiny_patch4_window7_224",
        3,
        32,
        [(3136, 96), (784, 192), (196, 384), (49, 768)],
        768,
    ),
    ("timm:deit_tiny_distilled_patch16_224", 3, 32, [(198, 192)] * 4, 192),
    (
        "timm:densenet121",
        3,
        64,
        [(64, 32, 32), (256, 16, 16), (512, 8, 8), (1024, 4, 4), (1024, 2, 2)],
        1024,
    ),
    ("torchvision:vit_b_16", 3, 32, [(197, 768)] * 4, 768),
    (
        "torchvision:vgg11",
        3,
        32,
        [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)],
        4096,
    ),
    (
        "torchvision:convnext_tiny",
        3,
        64,
        [(96, 16, 16), (192, 8, 8), (384, 4, 4), (768, 2, 2)],
        768,
    ),
    ("torchvision:swin_t", 3, 64, [(768, 2, 2)], 768),
]
TORCHVISION = [
    ("torchvision:resnet18", 1, 64, [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)], 512),
    (
        "torchvision:mobilenet_v2",
        3,
        64,
        [(16, 32, 32), (24, 16, 16), (32, 8, 8), (96, 4, 4), (1280, 2, 2)],
        1280,
    ),
    (
        "torchvision:mobilenet_v3_small",
        3,
        64,
        [(16, 32, 32), (16, 16, 16), (24, 8, 8), (48, 4, 4), (576, 2, 2)],
        1024,
    ),
    (
        "torchvision:efficientnet_b0",
        3,
        64,
        [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4), (1280, 2, 2)],
        1280,
    ),
    (
        "torchvision:regnet_y_400mf",
        3,
        64,
        [(48, 16, 16), (104, 8, 8), (208, 4, 4), (440, 2, 2)],
        440,
    ),
]


SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in _SLOW]


@pytest.mark.parametrize(
    ("spec", "channels", "size", "features", "embedding"),
    [*OWN, *TIMM, *TORCHVISION, *SLOW],
)
def test_roles_of_known_families(spec, channels, size, features, embedding):
    if ":" in spec:
        pytest.importorskip(spec.split(":")[0])
    model = build(spec, classes=7, channels=channels, size=size)
    net = Net(model, partial(call, **input_of(model)), taps_for(model))
    for training in (False, True):
        net.train(training)
        with torch.no_grad():
            outputs = net({"image": torch.rand(2, channels, size, size)})
        assert [tuple(stage.shape[1:]) for stage in outputs.get("features", ())] == features
        assert outputs["embedding"].shape == (2, embedding)
        assert outputs["logits"].shape == (2, 7)


def test_the_embedding_is_the_input_of_the_classifier():
    pytest.importorskip("timm")
    model = build("timm:mobilenetv3_small_100", classes=7, channels=3, size=32).eval()
    outputs = Net(model, call, taps_for(model))({"image": torch.rand(2, 3, 32, 32)})
    torch.testing.assert_close(model.get_classifier()(outputs["embedding"]), outputs["logits"])


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("volo_d1_224", [192, 384, 384, 384]),
        ("sequencer2d_s", [192, 384, 384, 384]),
        ("mambaout_femto", [48, 96, 192, 288]),
        ("tresnet_m", [64, 128, 1024, 2048]),
    ],
)
def test_levels_of_timm_have_the_channels_first(name, channels):
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, num_classes=7)
    outputs = _of(model)({"image": torch.rand(1, 3, 224, 224)})
    assert [level.shape[1] for level in outputs["features"]] == channels
    assert all(level.ndim == 4 for level in outputs["features"])


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("coat_tiny", [(3137, 152), (785, 152), (197, 152), (50, 152)]),
        ("twins_svt_small", [(3136, 64), (784, 128), (196, 256), (49, 512)]),
        ("mvitv2_tiny", [(3136, 96), (784, 192), (196, 384), (49, 768)]),
    ],
)
def test_levels_that_timm_declares_by_other_names_are_those_of_the_stages(name, shapes):
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, num_classes=7)
    outputs = _of(model)({"image": torch.rand(1, 3, 224, 224)})
    assert [tuple(level.shape[1:]) for level in outputs["features"]] == shapes


def test_stages_of_pvt_v2_are_tapped_after_their_norm():
    transformers = pytest.importorskip("transformers")
    widths = [8, 16, 24, 32]
    heads = {"num_attention_heads": [1, 1, 1, 1], "depths": [1, 1, 1, 1], "hidden_sizes": widths}
    model = transformers.PvtV2ForImageClassification(transformers.PvtV2Config(**heads))
    outputs = _of(model)({"image": torch.rand(2, 3, 64, 64)})
    shapes = [tuple(level.shape) for level in outputs["features"]]
    assert shapes == [(2, 256, 8), (2, 64, 16), (2, 16, 24), (2, 4, 32)]


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "volo_d1_224"])
def test_one_of_two_heads_is_not_the_classifier(name):
    timm = pytest.importorskip("timm")
    taps = taps_for(timm.create_model(name, num_classes=7))
    assert "head" not in taps
    assert taps["embedding"] == "head:in"


def test_transformers_models():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=8,
        patch_size=4,
        num_channels=1,
        num_labels=5,
    )
    net = _of(transformers.ViTForImageClassification(config))
    outputs = net({"image": torch.rand(2, 1, 8, 8)})
    assert [tuple(stage.shape) for stage in outputs["features"]] == [(2, 5, 8)] * 4
    assert outputs["embedding"].shape == (2, 8)
    for stage, block in zip(outputs["features"], (2, 3, 5, 6), strict=True):
        torch.testing.assert_close(stage, outputs["hidden_states"][block])
    config = transformers.ResNetConfig(
        num_channels=1,
        embedding_size=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        layer_type="basic",
        num_labels=5,
    )
    outputs = _of(transformers.ResNetForImageClassification(config))(
        {"image": torch.rand(2, 1, 32, 32)}
    )
    assert [stage.shape[1] for stage in outputs["features"]] == [4, 8]
    assert all(stage.ndim == 4 for stage in outputs["features"])
    assert outputs["embedding"].shape == (2, 8)


VIT = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 8,
    "patch_size": 4,
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Dinov2", VIT),
        ("ConvNext", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "patch_size": 2}),
        ("Swin", {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "patch_size": 2}),
        ("ResNet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
        ("ViT", VIT),
        ("ViTMSN", VIT),
    ],
)
def test_transformers_models_without_a_head_have_their_pooled_output(name, options):
    transformers = pytest.importorskip("transformers")
    if name == "Swin":
        options = options | {"image_size": 8, "window_size": 2}
    config = getattr(transformers, f"{name}Config")(**options)
    net = _of(getattr(transformers, f"{name}Model")(config))
    assert "head" not in net.taps or name == "ViT"
    image = torch.rand(2, 3, 32 if name == "ResNet" else 8, 32 if name == "ResNet" else 8)
    outputs, result = net({"image": image}), net.model(image)
    if name == "ViTMSN":
        assert "embedding" not in outputs
    elif name == "ViT":
        # The layer after it is new for weights that were trained without a pooler, such as DINO.
        torch.testing.assert_close(outputs["embedding"], result.last_hidden_state[:, 0])
    else:
        torch.testing.assert_close(outputs["embedding"], result.pooler_output.flatten(1))


def _of(model: nn.Module) -> Net:
    return Net(model.eval(), call, taps_for(model))


def test_an_unknown_model_has_no_taps():
    assert taps_for(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))) == {}


def test_a_subclass_belongs_to_the_family():
    models = pytest.importorskip("torchvision.models")

    class Mine(models.ResNet):
        pass

    assert taps_for(Mine(models.resnet.BasicBlock, [1, 1, 1, 1]))["embedding"] == "fc:in"
