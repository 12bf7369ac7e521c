"""Sources of models: each builds one and names missing parts."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from instil import catalogue
from instil.catalogue import plugins
from instil.catalogue.user_code import UntrustedCode
from instil.networks import source_registry
from instil.networks.factory import build, code_of
from instil.networks.inputs import input_of
from instil.networks.model_source import ModelRequest, ModelSource
from instil.networks.sources.sklearn import SklearnSource
from instil.plan.doctor import doctor
from instil.recipe.errors import RecipeError
from instil.tasks import classification, segmentation, text_classification
from tests.experiment.small import recipe, run_of

IMAGES: dict[str, Any] = {"classes": 5, "channels": 3, "size": 32}
TEXTS: dict[str, Any] = {"classes": 3, "vocabulary": 66, "length": 16}
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


class LinearSource(ModelSource):
    """Model source of another package."""

    def build(self, request: ModelRequest) -> nn.Module:
        return nn.Linear(int(request.name), request.fact("classes"))


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> Any:
    entries = [
        EntryPoint("linear", f"{__name__}:LinearSource", source_registry.GROUP),
        EntryPoint("broken", f"{__name__}:TINY", source_registry.GROUP),
    ]
    monkeypatch.setattr(source_registry, "entry_points", lambda group: entries)
    source_registry._source.cache_clear()
    yield
    source_registry._source.cache_clear()


def test_a_package_declares_a_source(declared: Any) -> None:
    model = build("linear:7", classes=2)
    assert (model.in_features, model.out_features) == (7, 2)
    assert {"linear", "timm"} <= set(source_registry.source_names())
    with pytest.raises(ValueError, match=r"broken: .* is not a model source. Expected a subclass"):
        build("broken:x", classes=2)


SOURCE = '''
from torch import nn

from instil.networks.model_source import ModelSource

WIDTHS = {"small": 4, "large": 16}


class MySource(ModelSource):
    """Perceptrons by name."""

    prefix = "mylib"

    def build(self, request):
        width = WIDTHS[request.name] * request.options.get("factor", 1)
        pixels = request.fact("channels") * request.fact("size") ** 2
        hidden = [nn.Flatten(), nn.Linear(pixels, width), nn.ReLU()]
        return nn.Sequential(*hidden, nn.Linear(width, request.fact("classes")))
'''


def test_a_module_of_a_recipe_defines_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "imported", {})
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "my_models.py").write_text(SOURCE)
    sections: dict[str, Any] = {
        "folder": str(tmp_path),
        "imports": ["my_models"],
        "student": {"model": "mylib:small", "options": {"factor": 2}},
        "teacher": "mylib:large",
    }
    result = run_of(recipe("seeds=[0]", "baselines=[]", **sections), tmp_path / "run")
    assert result["cost"]["student"]["parameters"] == 8 * 65 + 10 * 9
    assert result["cost"]["teacher"]["parameters"] == 16 * 65 + 10 * 17
    with pytest.raises(RecipeError, match=r"student: no module 'mylb'.*mylib:.*Did you mean mylib"):
        doctor(recipe(**sections | {"student": "mylb:small"}))
    (tmp_path / "other_models.py").write_text(SOURCE.replace("mylib", "timm"))
    with pytest.raises(ValueError, match=r"the model source 'timm'.*rename the prefix"):
        catalogue.add(["other_models"], tmp_path)


@pytest.mark.parametrize(
    ("spec", "package", "extra"),
    [
        ("timm:resnet18", "timm", "vision"),
        ("torchvision:resnet18", "torchvision", "vision"),
        ("transformers:AutoModel", "transformers", "text"),
        ("diffusers:UNet2DModel", "diffusers", "diffusion"),
        ("open_clip:ViT-B-32", "open_clip", "clip"),
        ("onnx:teacher.onnx", "onnxruntime", "export"),
        ("sklearn:RandomForestClassifier", "sklearn", "sklearn"),
        ("sklearn:lightgbm.LGBMClassifier", "lightgbm", "trees"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    spec: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f'{spec} needs .*{package}: pip install "instil.{extra}'):
        build(spec, **IMAGES)


def test_timm_backbones_return_features_or_an_embedding() -> None:
    pytest.importorskip("timm")
    batch = {"image": torch.rand(2, 3, 32, 32)}
    features = build("timm:resnet18", {"features_only": True}, **IMAGES)
    levels = classification.call(features, batch)["features"]
    assert [level.shape[1] for level in levels] == [64, 64, 128, 256, 512]
    pooled = build("timm:resnet18", {"num_classes": 0}, **IMAGES)
    assert classification.call(pooled, batch)["embedding"].shape == (2, 512)


@pytest.mark.parametrize(
    "name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "fcn_resnet50"]
)
def test_segmenters_of_torchvision(name: str) -> None:
    pytest.importorskip("torchvision")
    model = build(f"torchvision:{name}", **IMAGES).eval()
    outputs = segmentation.call(model, {"image": torch.rand(1, 3, 32, 32)})
    assert outputs["logits"].shape == (1, 32, 32, 5)


def test_torchvision_video_and_detection() -> None:
    pytest.importorskip("torchvision")
    video = build("torchvision:r3d_18", **IMAGES).eval()
    assert video(torch.rand(1, 3, 4, 16, 16)).shape == (1, 5)
    detector = build("torchvision:ssdlite320_mobilenet_v3_large", **IMAGES).eval()
    (detected,) = detector([torch.rand(3, 64, 64)])
    assert set(detected) == {"boxes", "scores", "labels"}
    assert detector.head.classification_head.num_columns == 6


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", {"size": 224}), ("lraspp_mobilenet_v3_large", {}), ("r3d_18", {})],
)
def test_weights_of_torchvision_have_their_normalisation(
    name: str, size: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = pytest.importorskip("torchvision.models")
    weights = models.get_model_weights(name).DEFAULT
    model = build(f"torchvision:{name}", classes=len(weights.meta["categories"]), channels=3)
    monkeypatch.setattr(models, "get_model", lambda name, **options: model)
    loaded = build(f"torchvision:{name}", pretrained=True, **IMAGES)
    transforms = weights.transforms()
    statistics = {"mean": tuple(transforms.mean), "std": tuple(transforms.std)}
    assert input_of(loaded) == size | statistics


@pytest.mark.parametrize(
    ("options", "is_normalised"),
    [({}, True), ({"do_normalize": False}, False), ({"rescale_factor": 1 / 127.5}, True)],
)
def test_weights_of_transformers_have_the_normalisation_of_their_processor(
    options: dict[str, Any], is_normalised: bool, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    config = {"model_type": "vit", "intermediate_size": 16, "patch_size": 8, "num_labels": 5}
    spec = "transformers:AutoModelForImageClassification"
    saved = build(spec, {"config": config | TINY}, **IMAGES).eval()
    saved.save_pretrained(tmp_path / "vit")
    processor = transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.5, 0.4, 0.3], image_std=[0.2] * 3, **options
    )
    processor.save_pretrained(tmp_path / "vit")
    model = build(spec, {"path": "vit"}, base=tmp_path, pretrained=True, **IMAGES).eval()
    assert ("mean" in input_of(model)) == is_normalised
    pixels = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = saved(processor(list(pixels), return_tensors="pt")["pixel_values"]).logits
    outputs = classification.call(model, {"image": pixels / 255}, **input_of(model))
    torch.testing.assert_close(outputs["logits"], expected, rtol=1e-4, atol=1e-5)
    fresh = build(spec, {"path": "vit"}, base=tmp_path, **IMAGES)
    assert input_of(fresh) == {"size": 32}


def test_transformers_from_a_configuration_takes_the_facts_of_the_data() -> None:
    pytest.importorskip("transformers")
    config = {"model_type": "bert", "intermediate_size": 16, **TINY}
    spec = "transformers:AutoModelForSequenceClassification"
    model = build(spec, {"config": config}, **TEXTS).eval()
    assert model.config.vocab_size == 66
    batch = {"input_ids": torch.ones(2, 4, dtype=torch.int64)}
    outputs = text_classification.call(model, batch)
    assert outputs["logits"].shape == (2, 3)
    assert len(outputs["hidden_states"]) == 3
    config = {"model_type": "vit", "intermediate_size": 16, "patch_size": 8, **TINY}
    vit = build("transformers:AutoModelForImageClassification", {"config": config}, **IMAGES)
    images = {"image": torch.rand(2, 3, 20, 20)}
    outputs = classification.call(vit.eval(), images, **input_of(vit))
    assert outputs["logits"].shape == (2, 5)


def test_transformers_loads_a_local_folder(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    spec = "transformers:AutoModelForSequenceClassification"
    config = {"model_type": "bert", "intermediate_size": 16, **TINY}
    saved = build(spec, {"config": config}, **TEXTS)
    saved.save_pretrained(tmp_path / "model")
    loaded = build(spec, {"path": "model"}, base=tmp_path, pretrained=True, **TEXTS)
    fresh = build(spec, {"path": "model"}, base=tmp_path, **TEXTS)
    weight = "classifier.weight"
    assert torch.equal(loaded.state_dict()[weight], saved.state_dict()[weight])
    assert not torch.equal(fresh.state_dict()[weight], saved.state_dict()[weight])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("AutoModelForClassification", {}, "no Auto class .*Did you mean AutoModelFor"),
        ("AutoModel", {}, "expected the option path, or config with a model_type"),
        ("AutoModel", {"config": {"model_type": "brt"}}, "cannot be built: .*brt"),
        ("AutoModel", {"trust_remote_code": True}, "would execute code"),
        (
            "AutoModel",
            {"config": {"model_type": "bert", "num_hiden_layers": 1}},
            r"options.config.num_hiden_layers: unknown entry of BertConfig\. "
            "Did you mean num_hidden_layers",
        ),
    ],
)
def test_wrong_transformers_models(name: str, options: dict[str, Any], message: str) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match=message):
        build(f"transformers:{name}", options, **TEXTS)


def test_entries_of_a_configuration(tmp_path: Path) -> None:
    """A name of another form counts if the configuration reads it."""
    pytest.importorskip("transformers")
    spec = "transformers:AutoModelForCausalLM"
    config = {"model_type": "llama", "intermediate_size": 16, "rope_theta": 123.0, **TINY}
    model: Any = build(spec, {"config": config}, **TEXTS)
    assert model.config.rope_parameters["rope_theta"] == 123
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"^options.config.n_layers: unknown entry of LlamaConf"):
        build(spec, {"path": "model", "config": {"n_layers": 1}}, base=tmp_path, **TEXTS)
    with pytest.raises(ValueError, match=r"^options.hidden_size: .*mean config.hidden_size"):
        build(spec, {"config": config, "hidden_size": 8}, **TEXTS)


def test_a_message_of_a_library_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    options = {"path": "no/such_model"}
    with pytest.raises(ValueError, match=r"cannot be built: .*huggingface") as caught:
        build("transformers:AutoModel", options, base=tmp_path, pretrained=True, **TEXTS)
    assert "\n" not in str(caught.value)


def test_diffusers() -> None:
    pytest.importorskip("diffusers")
    options = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
    }
    model = build("diffusers:UNet2DModel", options)
    noisy = torch.rand(2, 1, 8, 8)
    assert model(noisy, torch.tensor([1, 5])).sample.shape == noisy.shape
    with pytest.raises(ValueError, match=r"diffusers has no network 'UNet2dModel'\. Did you mean"):
        build("diffusers:UNet2dModel")
    with pytest.raises(ValueError, match=r"^options.sample_siz: .*Did you mean sample_size"):
        build("diffusers:UNet2DModel", {"sample_siz": 3})


def test_options_of_a_class_of_diffusers_with_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    sizes = {"block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
    model: Any = build("diffusers:UNet2DModel", {**blocks, **sizes})
    model.save_pretrained(tmp_path / "unet")
    options = {"path": "unet", "dropout": 0.5}
    for pretrained in (False, True):
        loaded: Any = build("diffusers:UNet2DModel", options, base=tmp_path, pretrained=pretrained)
        assert loaded.config.dropout == 0.5
    with pytest.raises(ValueError, match=r"^options.dropuot: .*Did you mean dropout"):
        build("diffusers:UNet2DModel", {"path": "unet", "dropuot": 0.5}, base=tmp_path)


def test_mistyped_options_of_a_configuration_in_parts() -> None:
    pytest.importorskip("open_clip")
    sizes = {"embed_dim": 8, "text_cfg": {"width": 16, "heads": 2, "layers": 1}}
    vision = {"image_size": 8, "patch_size": 4, "layers": 1, "head_width": 8}
    with pytest.raises(ValueError, match=r"^options.vision_cfg.widht: .*Did you mean width"):
        build("open_clip:CLIP", {**sizes, "vision_cfg": {**vision, "widht": 8}})
    with pytest.raises(ValueError, match=r"^options.embed_dims: .*Did you mean embed_dim"):
        build("open_clip:CLIP", {**sizes, "vision_cfg": vision, "embed_dims": 8})


def test_open_clip_is_called_like_clip() -> None:
    pytest.importorskip("open_clip")
    vision = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
    text = {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}
    options = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}
    model = build("open_clip:CLIP", options).eval()
    assert input_of(model)["size"] == (16, 16)
    tokens = torch.tensor([[1, 4, 19], [1, 19, 0]])
    outputs = model(tokens, torch.rand(2, 3, 16, 16))
    assert outputs["image_embedding"].shape == outputs["text_embedding"].shape == (2, 12)
    assert outputs["image_embedding"].norm(dim=1).detach() == pytest.approx([1, 1], abs=1e-5)
    with pytest.raises(
        ValueError, match=r"open_clip has no model 'ViT-B-33'\. .*Did you mean ViT-B-32"
    ):
        build("open_clip:ViT-B-33")
    with pytest.raises(ValueError, match="longer than the 8"):
        model(torch.ones(1, 9, dtype=torch.int64), torch.rand(1, 3, 16, 16))


def test_hub_runs_a_local_repository_only_if_it_is_trusted(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "hubconf.py").write_text(
        "from torch import nn\n\ndef small(width=2):\n    return nn.Linear(width, 3)\n"
    )
    spec = "hub:repository:small"
    assert build(spec, {"width": 4}, base=tmp_path).in_features == 4
    with pytest.raises(UntrustedCode, match="hub:repository:small"):
        build(spec, base=tmp_path, trust_code=False)
    with pytest.raises(ValueError, match=r"cannot be built: .*large"):
        build("hub:repository:large", base=tmp_path)
    with pytest.raises(ValueError, match=r"there is no hubconf.py in .*Clone it first"):
        build("hub:elsewhere:small", base=tmp_path)
    before = code_of(spec, tmp_path)
    (repository / "hubconf.py").write_text("def small():\n    return None\n")
    assert code_of(spec, tmp_path) != before
    with pytest.raises(ValueError, match=r"returned a NoneType, not a torch.nn.Module"):
        build(spec, base=tmp_path)


def onnx_file(folder: Path, **options: Any) -> nn.Module:
    """Write ``teacher.onnx``, a linear classifier of images, and return the model."""
    pytest.importorskip("onnxscript")
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5)).eval()
    torch.onnx.export(
        model,
        (torch.rand(2, 3, 8, 8),),
        str(folder / "teacher.onnx"),
        input_names=["image"],
        output_names=["logits"],
        dynamo=True,
        verbose=False,
        **options,
    )
    return model


@pytest.mark.filterwarnings("ignore")
def test_onnx_equals_the_exported_model(tmp_path: Path) -> None:
    dynamic = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    for options in ({}, dynamic):
        model = onnx_file(tmp_path, **options)
        loaded = build("onnx:teacher.onnx", base=tmp_path, **IMAGES)
        # Five images are not a multiple of the fixed batch size.
        batch = {"image": torch.rand(5, 3, 8, 8)}
        outputs = classification.call(loaded, batch, **input_of(loaded))
        assert torch.allclose(outputs["logits"], model(batch["image"]), atol=1e-5)
    assert input_of(loaded) == {"size": (8, 8)}
    with pytest.raises(ValueError, match=r"outputs logits. Expected the option output"):
        build("onnx:teacher.onnx", {"output": "scores"}, base=tmp_path, **IMAGES)
    with pytest.raises(ValueError, match=r"^options.outputs: .*Did you mean output"):
        build("onnx:teacher.onnx", {"outputs": "scores"}, base=tmp_path, **IMAGES)
    with pytest.raises(
        ValueError, match=r"no such file: .*teachr.onnx\. Did you mean teacher.onnx"
    ):
        build("onnx:teachr.onnx", base=tmp_path, **IMAGES)
    (tmp_path / "teacher.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match="cannot be read as an ONNX model"):
        build("onnx:teacher.onnx", base=tmp_path, **IMAGES)


def test_onnx_files_of_whole_numbers_get_pixels_up_to_255(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=types.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["logits"], axes=[2, 3], keepdims=0),
    ]
    for name, kind in (("bytes", types.UINT8), ("integers", types.INT64)):
        inputs = [helper.make_tensor_value_info("image", kind, ["n", 3, 4, 4])]
        outputs = [helper.make_tensor_value_info("logits", types.FLOAT, ["n", 3])]
        graph = helper.make_graph(nodes, "mean", inputs, outputs)
        opset = [helper.make_opsetid("", 13)]
        onnx.save(
            helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / f"{name}.onnx"
        )
    image = torch.full((2, 3, 4, 4), 0.4)
    assert build("onnx:bytes.onnx", base=tmp_path, **IMAGES)(image).eq(102).all()
    with pytest.raises(ValueError, match="reads uint8 numbers as 'image'"):
        build("onnx:bytes.onnx", base=tmp_path, **IMAGES)(image - 1)
    with pytest.raises(ValueError, match=r"reads int64 numbers.*Expected whole numbers"):
        build("onnx:integers.onnx", base=tmp_path, **IMAGES)(image)


def test_the_identity_of_an_estimator_names_a_missing_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "xgboost", None)
    request = ModelRequest("sklearn:xgboost.XGBClassifier", "xgboost.XGBClassifier")
    with pytest.raises(ValueError, match=r"needs the package xgboost: pip .*instil\[trees\]"):
        SklearnSource().identity(request)
