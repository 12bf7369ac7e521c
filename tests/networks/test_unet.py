from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from instil.modules.denoiser import Denoiser
from instil.networks import factory
from instil.networks.presets import taps_for


def build(name: str = "denoiser", **options: Any) -> Any:
    return factory.build(name, options, channels=1, size=8, classes=3)


@pytest.mark.parametrize("size", [7, 8, 28])
def test_the_output_has_the_size_of_the_image(size: int) -> None:
    model = build("unet", classes=3, width=8, levels=3, scalars=["guidance"])
    nn.init.ones_(model.last.weight)
    image, time, label = torch.randn(2, 1, size, size), torch.tensor([10.0, 500.0]), torch.arange(2)
    result = model(image, time, label)
    assert result.shape == image.shape
    assert not torch.allclose(result, model(image, time.flip(0), label))
    assert not torch.allclose(result, model(image, time, label + 1))
    # The embedding of a number is 0 at the start.
    assert torch.equal(result, model(image, time, label, guidance=torch.ones(2)))
    nn.init.ones_(model.numbers["guidance"][-1].weight)
    assert not torch.allclose(result, model(image, time, label, guidance=torch.ones(2)))


# torch registers its forward-mode formulas with a deprecated function of its own.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_the_tangent_in_time_is_finite_and_smooth() -> None:
    model = build("unet", width=8)
    nn.init.normal_(model.last.weight)
    image = torch.randn(2, 1, 8, 8)
    time = torch.tensor([200.0, 700.0])
    value, tangent = torch.func.jvp(lambda t: model(image, t), (time,), (torch.ones(2),))
    difference = (model(image, time + 0.5) - model(image, time - 0.5)) / 1
    assert torch.allclose(tangent, difference, atol=1e-2 * float(value.detach().abs().max()))


def test_levels_are_taps() -> None:
    denoiser = build(network_options={"width": 8, "levels": 2})
    features = taps_for(denoiser)["features"]
    assert features == [f"network.model.stages.{i}" for i in range(3)]
    for path in features:
        denoiser.get_submodule(path)


def test_a_denoiser_is_built_around_networks() -> None:
    denoiser = build(
        conditional=True, parameterisation="edm", schedule="karras", steps=5, guidance=1.0
    )
    assert isinstance(denoiser, Denoiser)
    assert (denoiser.num_classes, denoiser.steps, denoiser.guidance) == (3, 5, 1.0)
    result = denoiser.denoise(torch.randn(2, 1, 8, 8), torch.tensor(3.0), torch.tensor([0, 2]))
    assert result.shape == (2, 1, 8, 8)


UNET_2D = {
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "add_attention": False,
}
DIT = {"num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 1, "patch_size": 2}


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("diffusers:UNet2DModel", UNET_2D),
        ("diffusers:DiTTransformer2DModel", DIT | {"norm_num_groups": 1}),
    ],
)
def test_models_of_diffusers_are_called_untouched(network: str, options: dict[str, Any]) -> None:
    pytest.importorskip("diffusers")
    denoiser = build(network=network, network_options=options, conditional=True).eval()
    image, time, label = torch.randn(2, 1, 8, 8), torch.tensor([0.2, 0.7]), torch.tensor([1, -100])
    outputs = denoiser(image, time, label)
    model = denoiser.network.model
    expected = model(image, 1000 * time, class_labels=torch.tensor([1, 3])).sample[:, :1]
    assert torch.allclose(outputs["prediction"], expected)
    assert outputs["denoised"].shape == image.shape
    assert denoiser.denoise(image, time, label, guidance=0.5).isfinite().all()


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="conditional: the data have no classes"):
        factory.build("denoiser", {"conditional": True}, channels=1, size=8)
    inner = r"^options.network_options"
    with pytest.raises(ValueError, match=rf"{inner}.width: Expected an even number of at least 2"):
        build(network_options={"width": 3})
    with pytest.raises(ValueError, match=r"scalars: unknown number 'noise'"):
        build(network_options={"scalars": ["noise"]})
    with pytest.raises(ValueError, match=rf"{inner}.widht: unknown option.*Did you mean width"):
        build(network_options={"widht": 4})
    with pytest.raises(ValueError, match=r"^options.network: unknown network 'unit'"):
        build(network="unit")
    with pytest.raises(ValueError, match=r"options.schedul: unknown option.*Did you mean schedule"):
        build(schedul="flow")


def test_untrusted_code_is_not_executed_inside_a_denoiser() -> None:
    with pytest.raises(factory.UntrustedCode):
        factory.build(
            "denoiser", {"network": "somewhere:build"}, trust_code=False, channels=1, size=8
        )
