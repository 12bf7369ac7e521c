import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from instil.catalogue.signatures import parameters, type_text
from instil.networks.factory import build, network_names, own_builder
from instil.networks.inputs import input_of
from instil.recipe import RecipeError
from instil.recipe.options import check_network
from instil.tasks.classification import call

DATA = {"classes": 5, "channels": 1, "size": 8}
MODULE = """
from torch import nn

from layers_of_mine import Layer

def build(classes, width=4, **_):
    return nn.Sequential(nn.Flatten(), Layer(64, width), nn.Linear(width, classes))

def narrow(classes, channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, classes))

def nothing():
    return None

def needy(classes, rate):
    return nn.Linear(1, classes)
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "my_module.py").write_text(MODULE)
    (tmp_path / "layers_of_mine.py").write_text(
        "from torch import nn\n\nclass Layer(nn.Linear):\n    pass\n"
    )
    yield tmp_path
    for name in ("my_module", "layers_of_mine"):
        sys.modules.pop(name, None)


def test_networks_of_the_package_by_name():
    assert {"causal_transformer", "cnn", "encoder", "gcn", "mlp", "vit"} <= set(network_names())
    assert network_names() == sorted(network_names())
    for spec in ("cnn", "networks:cnn"):
        assert build(spec, {"width": 4}, **DATA).head.out_features == 5
    assert build("mlp", **DATA).stages[0][0].in_features == 64


def test_own_code_from_the_recipes_folder(recipe, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    others = list(sys.path)
    model = build("my_module:build", {"width": 6}, base=recipe, **DATA)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 5)
    assert model[1].out_features == 6
    assert build("my_module:narrow", base=recipe, **DATA)[1].in_features == 64
    assert sys.path == [*others, str(recipe)], (
        "the folder is last, so it hides no installed package"
    )


def test_the_same_module_name_in_another_folder_is_another_module(recipe, tmp_path_factory):
    build("my_module:narrow", base=recipe, **DATA)
    other: Path = tmp_path_factory.mktemp("other")
    (other / "my_module.py").write_text(
        "from torch import nn\n\ndef narrow(classes):\n    return nn.Linear(1, classes)\n"
    )
    assert build("my_module:narrow", base=other, **DATA).in_features == 1
    assert build("my_module:narrow", base=recipe, **DATA)[1].in_features == 64


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("cnm", {}, "unknown network 'cnm'. .*Did you mean .*cnn"),
        ("networks:presets", {}, "unknown network 'presets'"),
        ("cnn", {"witdh": 3}, "^options.witdh: unknown option. .*Did you mean width"),
        ("cnn", {"norm": "layer"}, "norm must be"),
        ("cnn", {"width": -4}, "^options.width: Expected a number of at least 1, got -4$"),
        ("mlp", {"features": 0}, "^options.features: Expected a number of at least 1, got 0$"),
        ("vit", {"heads": 3}, "^options.width: Expected a multiple of heads .3., got 64$"),
        (
            "denoiser",
            {"network_options": {"width": 0}},
            "^options.network_options.width: Expected a number of at least 1, got 0$",
        ),
        ("my_modul:build", {}, "no module 'my_modul' in"),
        ("my_module:biuld", {}, "my_module has no function 'biuld'. Did you mean build"),
        (
            "my_module:narrow",
            {"width": 3},
            "^options.width: unknown option. my_module:narrow",
        ),
        ("my_module:nothing", {}, "returned a NoneType, not a torch.nn.Module"),
        ("my_module:needy", {}, "needs the option rate"),
    ],
)
def test_wrong_names_and_options_raise(recipe, spec, options, message):
    with pytest.raises(ValueError, match=message):
        build(spec, options, base=recipe, **DATA)


@pytest.mark.parametrize("name", network_names())
def test_each_size_of_a_network_has_a_lower_bound(name):
    for option, parameter in parameters(own_builder(name)).items():
        text = type_text(parameter.annotation)
        if text.startswith("int"):
            assert ">=" in text, f"{name}.{option}"
            with pytest.raises(RecipeError, match=rf"^student\.options\.{option}: a number of at "):
                check_network({"model": name, "options": {option: -1}}, "student")


def test_an_error_inside_the_users_module_is_not_hidden(recipe):
    (recipe / "my_module.py").write_text("import no_such_package_at_all\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_package_at_all"):
        build("my_module:build", base=recipe, **DATA)


def test_a_network_of_the_package_has_no_pretrained_weights():
    with pytest.raises(ValueError, match=r"pretrained: only models of .*timm:, .*not 'cnn'"):
        build("cnn", pretrained=True, **DATA)


def test_timm():
    pytest.importorskip("timm")
    model = build("timm:resnet18", {"block_args": {}}, **DATA)
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 5)
    assert input_of(model) == {}
    assert input_of(build("timm:vit_tiny_patch16_224", **DATA)) == {"size": (224, 224)}
    assert input_of(build("timm:vit_tiny_patch16_224", {"img_size": 32}, **DATA)) == {"size": 32}
    with pytest.raises(ValueError, match=r"timm has no model 'resnet81'\. Did you mean"):
        build("timm:resnet81", **DATA)
    with pytest.raises(ValueError, match=r"^options.drop_rat: .*Did you mean drop_rate"):
        build("timm:resnet18", {"drop_rat": 0.1}, **DATA)


def test_torchvision():
    pytest.importorskip("torchvision")
    model = build("torchvision:resnet18", **DATA)
    assert model.fc.out_features == 5
    assert input_of(model) == {"mean": (0, 0, 0), "std": (1, 1, 1)}
    with pytest.raises(
        ValueError,
        match=r"torchvision has no classification model 'resnet19' .*\. Did you mean resnet18",
    ):
        build("torchvision:resnet19", **DATA)
    with pytest.raises(ValueError, match=r"^options.group: .*Did you mean groups"):
        build("torchvision:resnet18", {"group": 1}, **DATA)
    # The builders of segmentation and detection models ignore unknown options.
    with pytest.raises(ValueError, match=r"^options.progres: .*Did you mean progress"):
        build("torchvision:lraspp_mobilenet_v3_large", {"progres": True}, **DATA)
    build("torchvision:ssdlite320_mobilenet_v3_large", {"score_thresh": 0.1}, **DATA)
    with pytest.raises(ValueError, match=r"^options.score_tresh: .*Did you mean score_thresh"):
        build("torchvision:ssdlite320_mobilenet_v3_large", {"score_tresh": 0.1}, **DATA)
    with pytest.raises(ValueError, match="not 5 channels"):
        build("torchvision:resnet18", classes=5, channels=5, size=32)


def test_pretrained_timm_loads_weights_and_expects_their_input(monkeypatch):
    timm = pytest.importorskip("timm")
    arguments = {}

    def create(name, pretrained, **options):
        arguments.update(name=name, pretrained=pretrained, **options)
        return original(name, pretrained=False, **options)

    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", create)
    model = build("timm:resnet18", pretrained=True, **DATA)
    assert arguments == {"name": "resnet18", "pretrained": True, "num_classes": 5, "in_chans": 1}
    expected = {"size": (224, 224), "mean": (pytest.approx(0.449),), "std": (pytest.approx(0.226),)}
    assert input_of(model) == expected
    grey = {"image": torch.rand(2, 1, 8, 8)}
    assert call(model, grey, **input_of(model) | {"size": 32})["logits"].shape == (2, 5)
    assert input_of(build("timm:resnet18", pretrained=True, classes=5, channels=3, size=8))[
        "mean"
    ] == (0.485, 0.456, 0.406)


def test_pretrained_torchvision_gets_a_head_for_the_data(monkeypatch):
    models = pytest.importorskip("torchvision.models")
    original = models.get_model
    monkeypatch.setattr(models, "get_model", lambda name, weights: original(name, weights=None))
    for classes in (5, 1000):
        model = build(
            "torchvision:mobilenet_v3_small", classes=classes, channels=3, size=8, pretrained=True
        )
        assert model.classifier[3].out_features == classes
        assert input_of(model) == {
            "size": 224,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        }


@pytest.mark.parametrize("spec", ["timm:resnet18", "torchvision:resnet18"])
def test_without_fetch_only_the_expected_input_is_set(spec):
    pytest.importorskip(spec.split(":")[0])
    model = build(spec, pretrained=True, fetch=False, classes=5, channels=3, size=8)
    assert model.fc.out_features == 5
    assert input_of(model)["mean"] == (0.485, 0.456, 0.406)


def test_expected_input_of_a_users_model():
    model = nn.Linear(1, 1)
    assert input_of(model) == {}
    model.expects = {"size": 32}
    assert input_of(model) == {"size": 32}
    model.expects = {"sise": 32}
    with pytest.raises(ValueError, match=r"unknown entry 'sise'\. Did you mean size"):
        input_of(model)
