"""Two towers: parts that carry nothing go without a trace, and sizes that do not fit are errors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs
from instil.networks.text_transformer import text_transformer
from instil.networks.two_towers import TwoTowers, two_towers
from instil.networks.vit import vit
from instil.students.tower_axes import Axis
from instil.students.tower_parts import Tower, image_tower, text_tower
from instil.students.towers import towers
from instil.tasks.image_text import call

LENGTH = 5


def own() -> nn.Module:
    image = vit(6, channels=3, size=8, patch=4, width=16, depth=4, heads=4)
    return TwoTowers(image, text_transformer(6, 9, LENGTH, 16, 4, 4))


def open_clip() -> nn.Module:
    library = pytest.importorskip("open_clip")
    from instil.networks.sources.open_clip import OpenClip

    vision = {"layers": 4, "width": 16, "head_width": 4, "patch_size": 4, "image_size": 8}
    text = {"context_length": LENGTH, "vocab_size": 9, "width": 16, "heads": 4, "layers": 4}
    return OpenClip(library.CLIP(6, vision, text))


def transformers() -> nn.Module:
    library = pytest.importorskip("transformers")
    shared = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    tokens = {"bos_token_id": 0, "eos_token_id": 8, "pad_token_id": 0}
    text = shared | tokens | {"vocab_size": 9, "max_position_embeddings": LENGTH}
    vision = shared | {"image_size": 8, "patch_size": 4, "num_channels": 3}
    config = library.CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
    model: nn.Module = library.CLIPModel(config)
    return model


BUILDERS: list[Callable[[], nn.Module]] = [own, open_clip, transformers]


def built(builder: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return builder().eval()


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 8, (3, LENGTH), generator=generator)
    ids[:, -1] = 8
    return {"image": torch.rand(3, 3, 8, 8, generator=generator), "input_ids": ids}


def outputs(model: nn.Module) -> Outputs:
    with torch.no_grad():
        return call(model, batch())


def both(model: nn.Module) -> list[Tower]:
    sides = [image_tower(model), text_tower(model)]
    assert None not in sides
    return [tower for tower in sides if tower is not None]


def halves(axis: Axis) -> Iterator[tuple[Tensor, Tensor]]:
    """First and second half of each stacked tensor along an axis."""
    for part in axis.tensor.detach().chunk(axis.copies, axis.dim):
        first, second = part.chunk(2, axis.dim)
        yield first, second


def reads_stream(axis: Axis) -> bool:
    """Whether the tensor multiplies the stream, rather than adds to it."""
    is_projection = axis.name in ("proj", "text_projection")
    is_input = axis.dim == 1 and axis.name in ("weight", "in_proj_weight")
    return is_projection or (is_input and not isinstance(axis.module, nn.Embedding))


def with_twins(model: nn.Module) -> nn.Module:
    """Make the second half of each tower a copy of the first that nothing reads."""
    for tower in both(model):
        for block in tower.blocks:
            for axis in (*block.heads, *block.neurons):
                for _, second in halves(axis) if axis.dim == 1 else ():
                    second.zero_()
        for axis in (*tower.outer, *(axis for block in tower.blocks for axis in block.stream)):
            for first, second in halves(axis):
                if reads_stream(axis):
                    second.zero_()
                else:
                    second.copy_(first)
    return model


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_half_that_nothing_reads_goes_without_a_trace(builder: Callable[[], nn.Module]) -> None:
    model = with_twins(built(builder))
    student = towers(copy.deepcopy(model), image_width=8, text_width=8, parts_by="first")
    for role, value in outputs(model).items():
        torch.testing.assert_close(outputs(student)[role], value)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in student.parameters()) < 0.4 * count
    for tower in both(student):
        assert (tower.width, tower.num_heads) == (8, 2)


@pytest.mark.parametrize("builder", BUILDERS)
def test_layers_of_one_tower(builder: Callable[[], nn.Module]) -> None:
    model = built(builder)
    layers = [tower.layers for tower in both(model)]
    student = towers(copy.deepcopy(model), text_layers=2)
    image, text = (tower.layers for tower in both(student))
    assert len(image) == 4
    for layer, index in zip(text, (0, 3), strict=True):
        for one, other in zip(layer.parameters(), layers[1][index].parameters(), strict=True):
            assert torch.equal(one, other)
    torch.testing.assert_close(
        outputs(student)["image_embedding"], outputs(model)["image_embedding"]
    )
    assert not torch.allclose(outputs(student)["text_embedding"], outputs(model)["text_embedding"])


@pytest.mark.parametrize("builder", BUILDERS)
def test_the_full_size_changes_nothing(builder: Callable[[], nn.Module]) -> None:
    model = built(builder)
    student = towers(copy.deepcopy(model), 4, 16, 4, 16)
    for role, value in outputs(model).items():
        assert torch.equal(outputs(student)[role], value)


@pytest.mark.parametrize("builder", BUILDERS)
def test_heads_and_channels_of_the_largest_norm_stay(builder: Callable[[], nn.Module]) -> None:
    model = built(builder)
    for tower in both(model):
        for block in tower.blocks:
            for axis in block.heads:
                # The heads 0 and 2 of four with four channels each.
                for part in axis.tensor.detach().chunk(axis.copies, axis.dim):
                    part.unflatten(axis.dim, (4, 4)).select(axis.dim, 0).zero_()
                    part.unflatten(axis.dim, (4, 4)).select(axis.dim, 2).zero_()
    student = towers(copy.deepcopy(model), image_width=8, text_width=8)
    for tower in both(student):
        for block in tower.blocks:
            for axis in (axis for axis in block.heads if "weight" in axis.name):
                rows = axis.tensor.detach().movedim(axis.dim, 0).flatten(1).abs().sum(1)
                assert (rows > 0).all()


def test_evenly_spaced_channels() -> None:
    model: Any = built(own)
    before = model.text.tokens.weight.detach().clone()
    towers(model, text_width=8, parts_by="even")
    assert torch.equal(model.text.tokens.weight, before[:, ::2])


def test_a_cnn_keeps_the_channels_that_are_used() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = two_towers(9, LENGTH, 3, 6, 8, 2, 8).eval()
    convolutions = [part for part in model.image.modules() if isinstance(part, nn.Conv2d)]
    for part in convolutions:
        # Without weights a channel is 0 after BatchNorm and ReLU.
        part.weight.data[::2] = 0
    student = towers(copy.deepcopy(model), image_width=4)
    torch.testing.assert_close(
        outputs(student)["image_embedding"], outputs(model)["image_embedding"]
    )
    assert student.image.head.weight.shape == (6, 8)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"image_width: wrong width\. Expected at most 8"):
        towers(model, image_width=9)


def test_the_configuration_describes_the_student() -> None:
    student: Any = towers(built(transformers), 2, 8, 3, 12)
    again = type(student)(student.config)
    again.load_state_dict(student.state_dict())
    for role, value in outputs(student).items():
        assert torch.equal(outputs(again.eval())[role], value)


def test_influence_is_measured_on_the_whole_model() -> None:
    model = built(own)
    for index in (0, 2):
        layer: Any = model.image.stages[index]  # type: ignore[union-attr, index]
        layer.projection.weight.data.zero_()
        layer.projection.bias.data.zero_()
        layer.mlp[2].weight.data.zero_()
        layer.mlp[2].bias.data.zero_()

    def observe(model: nn.Module) -> Iterator[Outputs]:
        yield call(model, batch())

    student = towers(copy.deepcopy(model), image_layers=2, layers_by="influence", observe=observe)
    torch.testing.assert_close(
        outputs(student)["image_embedding"], outputs(model)["image_embedding"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to cut. Expected image_layers"),
        (
            {"text_width": 6},
            "text_width: wrong width. Expected a multiple of 4, the size of a head",
        ),
        (
            {"image_width": 20},
            "image_width: wrong width. Expected a multiple of 4.* most 16, got 20",
        ),
        ({"text_layers": 5}, "has 4 layers; 5 cannot be kept"),
    ],
)
def test_wrong_sizes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        towers(built(own), **options)


def test_another_architecture() -> None:
    with pytest.raises(ValueError, match="image_width: Linear has no image tower that can be cut"):
        towers(nn.Linear(2, 2), image_width=1)
    with pytest.raises(ValueError, match="image_layers: TwoTowers has no image tower"):
        towers(two_towers(9, LENGTH, 3), image_layers=2)
