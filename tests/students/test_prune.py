"""Structured pruning: removed units, importance against loops, and models that cannot be cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Outputs
from instil.networks.causal_transformer import causal_transformer
from instil.networks.cnn import cnn
from instil.networks.resnet import resnet
from instil.networks.slimmable_cnn import slimmable_cnn
from instil.networks.text_transformer import text_transformer
from instil.networks.vit import vit
from instil.students.prune import prune
from instil.students.quantized import quantized
from instil.taps.net import Net
from instil.tasks import classification
from tests.students.nets import llama, logits, observe

IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Samples:
    """Two batches of images and their cross-entropy."""

    def __call__(self, model: nn.Module) -> Iterator[Outputs]:
        for part in IMAGES.split(3):
            yield {"logits": model(part)}

    def losses(self, model: nn.Module) -> Iterator[Tensor]:
        for outputs in self(model):
            value: Any = outputs["logits"]
            yield nn.functional.cross_entropy(value, torch.arange(len(value)) % 3)


def small_cnn() -> Any:
    torch.manual_seed(0)
    return cnn(3, width=4, stages=2, depth=2).eval()


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_a_cnn_computes_what_it_computes_without_the_removed_channels() -> None:
    model = small_cnn()
    # The norms of the channels of the first layer, over all weights that write or read them.
    first, norm, second = model.stages[0][0], model.stages[0][1], model.stages[0][3]
    parts = [
        first.weight.flatten(1),
        norm.weight[:, None],
        second.weight.transpose(0, 1).flatten(1),
    ]
    expected = torch.cat(parts, 1).norm(dim=1).topk(2).indices.sort().values
    rows = first.weight[expected].clone()
    masked = small_cnn()
    pruned = prune(model, 0.5, observe=Samples())
    assert torch.equal(pruned.stages[0][0].weight, rows)
    widths = [part.out_channels for part in pruned.modules() if isinstance(part, nn.Conv2d)]
    assert widths == [2, 2, 4, 4]
    assert pruned.head.in_features == 4
    assert num_parameters(pruned) < 0.35 * num_parameters(masked)
    # Zeros in place of the removed rows give the same logits, layer by layer.
    convs = [part for part in masked.modules() if isinstance(part, nn.Conv2d)]
    cut = [part for part in pruned.modules() if isinstance(part, nn.Conv2d)]
    columns = torch.arange(1)
    for conv, small in zip(convs, cut, strict=True):
        indices = [
            int((conv.weight[:, columns] - row).flatten(1).norm(dim=1).argmin())
            for row in small.weight
        ]
        mask = torch.zeros(len(conv.weight))
        mask[indices] = 1
        conv.register_forward_hook(lambda _m, _i, out, mask=mask: out * mask[None, :, None, None])
        columns = torch.tensor(indices)
    # The shift of BatchNorm is 0, so a channel of zeros stays zero.
    torch.testing.assert_close(pruned(IMAGES), masked(IMAGES))


class Tokens(nn.Module):
    """Perceptron of each token, whose neurons are joined to one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.second = nn.Linear(8, 6)
        self.head = nn.Linear(5 * 6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.second(self.first(tokens).relu()).relu()
        logits: Tensor = self.head(hidden.flatten(1))
        return logits


def test_neurons_of_joined_tokens_stay() -> None:
    torch.manual_seed(0)
    model = Tokens()
    with torch.no_grad():
        # Half of the neurons of both layers have no effect.
        model.first.bias[::2] = model.first.weight[::2] = 0
        model.second.weight[:, ::2] = 0
        model.second.bias[::2] = model.second.weight[::2] = 0
    tokens = torch.rand(3, 5, 4)
    expected = model(tokens)
    prune(model, 0.5, observe=lambda _: [])
    torch.testing.assert_close(model(tokens), expected)
    assert (model.second.in_features, model.head.in_features) == (4, 30)


def test_taylor_removes_the_channels_without_effect() -> None:
    model = small_cnn()
    with torch.no_grad():
        model.stages[0][0].weight[:2] *= 100
        model.stages[0][3].weight[:, :2] *= 1e-6
    rows = model.stages[0][0].weight[2:].clone()
    assert not torch.equal(prune(small_cnn(), 0.5, by="taylor").stages[0][0].weight, rows)
    assert torch.equal(prune(model, 0.5, by="taylor", observe=Samples()).stages[0][0].weight, rows)


def test_taylor_scores_match_a_factor_of_each_unit() -> None:
    from instil.students.prune import _taylor_scores
    from instil.students.traced_groups import traced_groups

    model = small_cnn()
    groups = traced_groups(model)
    scores = _taylor_scores(model, groups, Samples())
    for group, path, score in zip(groups, ["0.2", "0.5", "1.3", "1.6"], scores, strict=True):
        factor = torch.ones(group.count, requires_grad=True)
        relu = model.stages.get_submodule(path)
        hook = relu.register_forward_hook(
            lambda _m, _i, out, factor=factor: out * factor[None, :, None, None]
        )
        changes = [
            torch.autograd.grad(loss, factor)[0].square() for loss in Samples().losses(model)
        ]
        hook.remove()
        torch.testing.assert_close(score, torch.stack(changes).mean(0), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("by", ["magnitude", "taylor"])
def test_a_vit_loses_heads_neurons_and_layers(by: Any) -> None:
    torch.manual_seed(0)
    model: Any = vit(3, width=16, depth=4, heads=4)
    parts: Any = ["heads", "neurons", "layers"]
    prune(model, 0.5, parts, by, observe=Samples())
    assert len(model.stages) == 2
    for block in model.stages:
        assert block.heads == 2
        assert block.qkv.weight.shape == (24, 16)
        assert block.projection.weight.shape == (16, 8)
        assert block.mlp[0].weight.shape == (32, 16)
    assert model(IMAGES).shape == (6, 3)


def test_the_removed_heads_are_those_with_small_weights() -> None:
    torch.manual_seed(0)
    model: Any = vit(3, width=16, depth=1, heads=4)
    with torch.no_grad():
        model.stages[0].projection.weight.view(16, 4, 4)[:, [0, 2]] = 0
    pruned = prune(vit_copy := model, 0.5, ["heads"], observe=Samples())
    assert pruned is vit_copy
    reference: Any = vit(3, width=16, depth=1, heads=4)
    torch.manual_seed(0)
    reference = vit(3, width=16, depth=1, heads=4)
    with torch.no_grad():
        reference.stages[0].projection.weight.view(16, 4, 4)[:, [0, 2]] = 0
    torch.testing.assert_close(pruned(IMAGES), reference(IMAGES))


@pytest.mark.parametrize("build", [text_transformer, causal_transformer])
def test_text_models_of_the_package(build: Any) -> None:
    sizes = {"classes": 2} if build is text_transformer else {}
    model = build(vocabulary=11, width=8, heads=2, **sizes)
    before = num_parameters(model)
    prune(model, 0.5, observe=lambda _: iter(()))
    assert num_parameters(model) < 0.75 * before
    assert len(model(torch.zeros(2, 5, dtype=torch.int64))["logits"]) == 2


def test_llama_loses_groups_of_heads_and_its_configuration_says_so() -> None:
    model = prune(llama(), 0.5, ["heads", "neurons", "layers"], observe=observe)
    config: Any = model.config
    assert (config.num_attention_heads, config.num_key_value_heads) == (2, 1)
    assert (config.intermediate_size, config.num_hidden_layers) == (12, 2)
    rebuilt = type(model)(config).eval()
    rebuilt.load_state_dict(model.state_dict())
    torch.testing.assert_close(logits(rebuilt), logits(model))


SIZES = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
ENCODERS = {
    "Bert": (SIZES | {"vocab_size": 20}, "SequenceClassification", "intermediate_size"),
    "DistilBert": (
        {"vocab_size": 20, "dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 16},
        "SequenceClassification",
        "hidden_dim",
    ),
    "ViT": (SIZES | {"image_size": 8, "patch_size": 4}, "ImageClassification", "intermediate_size"),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_of_transformers_lose_neurons_and_keep_heads(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    sizes, task, field = ENCODERS[name]
    cls = getattr(transformers, f"{name}For{task}")
    model = prune(cls(getattr(transformers, f"{name}Config")(**sizes)), 0.25, observe=observe)
    assert getattr(model.config, field) == 12
    rebuilt = cls(model.config)
    rebuilt.load_state_dict(model.state_dict())
    # The configuration has no field for the width of a head.
    with pytest.raises(ValueError, match=r"parts: \w+ has no heads .* neurons"):
        prune(rebuilt, 0.5, ["heads"])


def test_depthwise_convolutions_lose_the_channels_of_the_layer_before() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        nn.Conv2d(1, 8, 1),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).eval()
    with torch.no_grad():
        # The units that go have no effect and the smallest weights.
        for layer in (model[0], model[3], model[4]):
            layer.bias.zero_()
        model[4].weight[:, 4:] = 0
        model[0].weight[4:] = 0
        model[3].weight[4:] = 0
        model[7].weight.view(3, 4, 4)[:, 2:] = 0
        model[4].weight[2:] = 0
        expected = model(IMAGES)
    prune(model, 0.5, observe=Samples())
    assert (model[3].groups, model[3].in_channels, model[7].in_features) == (4, 4, 8)
    torch.testing.assert_close(model(IMAGES), expected)


def test_only_the_inner_channels_of_a_residual_block_go() -> None:
    model: Any = prune(resnet(3, 1, width=4, depth=1), 0.5, observe=Samples())
    block = model.stages[0][0].body
    assert (block[0].out_channels, block[3].in_channels, block[3].out_channels) == (2, 2, 4)
    assert model(IMAGES).shape == (6, 3)


def test_a_network_whose_head_is_recorded_can_be_pruned() -> None:
    model: Any = small_cnn()
    # torch.fx enters a module of another library, such as the linear layer of timm.
    own_linear = type("Linear", (nn.Linear,), {"__module__": "my_layers"})
    model.head = own_linear(8, 3)
    net = Net(model, classification.call, {"head": "head:weight"})
    prune(model, 0.5, observe=Samples())
    weight, _ = net({"image": IMAGES})["head"]
    assert weight.shape == model.head.weight.shape


def test_what_cannot_be_pruned_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"SlimmableCNN has no units"):
        prune(slimmable_cnn(3), 0.5)
    with pytest.raises(ValueError, match=r"parts: CNN has no heads .* Expected channels"):
        prune(small_cnn(), 0.5, ["heads"])
    with pytest.raises(ValueError, match=r"share: 0\.05 of the units .* fewer rounds"):
        prune(small_cnn(), 0.05)
    with pytest.raises(ValueError, match=r"Name prune before them"):
        prune(quantized(small_cnn()), 0.5)
    normed = small_cnn()
    nn.utils.parametrizations.weight_norm(normed.head)
    with pytest.raises(ValueError, match=r"'head' computes its weight by WeightNorm"):
        prune(normed, 0.5)
    with pytest.raises(ValueError, match=r"by: taylor needs the losses"):
        prune(small_cnn(), 0.5, by="taylor", observe=observe)
