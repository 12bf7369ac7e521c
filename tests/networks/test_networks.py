import pytest
import torch

from instil.networks.causal_transformer import causal_transformer
from instil.networks.cnn import cnn
from instil.networks.detector import detector
from instil.networks.gcn import gcn
from instil.networks.mlp import mlp
from instil.networks.resnet import resnet
from instil.networks.segmenter import segmenter
from instil.networks.slimmable_cnn import slimmable_cnn
from instil.networks.text_transformer import text_transformer
from instil.networks.two_towers import two_towers
from instil.networks.vit import vit

NETWORKS = [
    (cnn, 94_186, (1, 8, 8)),
    (mlp, 2_410, (1, 8, 8)),
    (slimmable_cnn, 72_666, (1, 8, 8)),
    (resnet, 272_474, (3, 32, 32)),
    (vit, 202_186, (1, 8, 8)),
]


@pytest.mark.parametrize(("builder", "parameters", "shape"), NETWORKS)
def test_sizes_are_those_of_the_docstring(builder, parameters, shape):
    model = builder(10)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert f"{parameters:,}" in builder.__doc__
    assert model(torch.rand(3, *shape)).shape == (3, 10)


@pytest.mark.parametrize(("builder", "parameters", "shape"), NETWORKS)
def test_every_parameter_learns(builder, parameters, shape):
    torch.manual_seed(0)
    model = builder(10)
    model(torch.rand(4, *shape)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


OTHERS = [
    (
        lambda: segmenter(11),
        58_251,
        segmenter,
        lambda: (torch.rand(3, 1, 17, 10),),
        (3, 11, 17, 10),
    ),
    (lambda: detector(10, 17), 93_758, detector, lambda: (torch.rand(3, 1, 16, 16),), (3, 10)),
    (
        lambda: text_transformer(10, 66),
        29_962,
        text_transformer,
        lambda: (torch.randint(66, (3, 20)),),
        (3, 10),
    ),
    (
        lambda: causal_transformer(257),
        37_792,
        causal_transformer,
        lambda: (torch.randint(257, (3, 20)),),
        (3, 20, 257),
    ),
    (
        lambda: gcn(10, 64),
        8_970,
        gcn,
        lambda: (torch.rand(5, 64), torch.tensor([[0, 1, 2], [1, 2, 4]])),
        (5, 10),
    ),
    (
        lambda: two_towers(25),
        40_913,
        two_towers,
        lambda: (torch.randint(25, (3, 5)), torch.rand(3, 3, 8, 8)),
        (3, 32),
    ),
]


@pytest.mark.parametrize(
    ("make", "parameters", "builder", "inputs", "shape"),
    OTHERS,
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_networks_of_other_tasks(make, parameters, builder, inputs, shape):
    torch.manual_seed(0)
    model = make()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert f"{parameters:,}" in builder.__doc__
    answer = model(*inputs())
    answers = (
        [answer]
        if isinstance(answer, torch.Tensor)
        else [value for value in answer.values() if isinstance(value, torch.Tensor)]
    )
    assert answers[0].shape == shape
    torch.stack([(value * torch.randn_like(value)).sum() for value in answers]).sum().backward()
    seen = {
        name
        for name, p in model.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert {name for name, _ in model.named_parameters()} - seen <= {"logit_scale"}


def test_options():
    assert segmenter(3, channels=2, width=2, levels=2, depth=2, norm="none")(
        torch.rand(2, 2, 5, 9)
    ).shape == (2, 3, 5, 9)
    assert detector(3, 5, channels=2, width=2, stages=2, depth=2, norm="none")(
        torch.rand(2, 2, 7, 9)
    )["box_logits"].shape == (2, 20)
    assert mlp(3, features=7)(torch.rand(4, 7)).shape == (4, 3)
    assert gcn(3, 2, width=4, depth=3)(
        torch.rand(4, 2), torch.zeros(2, 0, dtype=torch.int64)
    ).shape == (4, 3)
    assert cnn(3, channels=2, width=4, stages=2, depth=2)(torch.rand(2, 2, 7, 9)).shape == (2, 3)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in cnn(3, norm="none").modules())
    assert mlp(3, 2, (4, 6), width=5, depth=3)(torch.rand(2, 2, 4, 6)).shape == (2, 3)
    assert mlp(3, depth=0)(torch.rand(2, 1, 8, 8)).shape == (2, 3)
    assert vit(3, 2, (4, 6), patch=2, width=8, depth=1, heads=2)(torch.rand(2, 2, 4, 6)).shape == (
        2,
        3,
    )


def test_the_default_resnet_has_20_layers():
    layers = [
        m
        for m in resnet(10).modules()
        if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))
        and getattr(m, "kernel_size", 0) != (1, 1)
    ]
    assert len(layers) == 20


def test_attention_reads_all_patches():
    model = vit(3, depth=1).eval()
    image = torch.rand(1, 1, 8, 8, requires_grad=True)
    model(image)[0, 0].backward()
    assert (image.grad != 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cnn(3, norm="layer"), "batch or none, not 'layer'"),
        (lambda: detector(3, 5, norm="layer"), "batch or none, not 'layer'"),
        (lambda: segmenter(3, norm="layer"), "batch or none, not 'layer'"),
        (lambda: vit(3, size=9), "9 x 9 pixels cannot be cut"),
        (lambda: vit(3, width=10), r"^width: Expected a multiple of heads \(4\), got 10"),
    ],
)
def test_invalid_options_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()
