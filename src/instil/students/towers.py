"""Weight inheritance for two towers: some layers and channels of an image and a text tower.

Wu et al., ICCV 2023 (TinyCLIP, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Outputs
from instil.students import Observe, ObservesTokens
from instil.students.depth import By, depth
from instil.students.kept_indices import expand, largest
from instil.students.tower_axes import Axis, axes, inputs
from instil.students.tower_parts import Tower, image_tower, text_tower

Size = Annotated[int, Ge(1)] | None
LayersOption = int | list[int] | None
PartsBy = Literal["norm", "even", "first"]


def towers(
    model: nn.Module,
    image_layers: Annotated[
        LayersOption, Doc("layers of the image tower that stay, or their indices. null: all")
    ] = None,
    image_width: Annotated[
        Size,
        Doc("channels of the image tower, for a cnn those of its first stage. null: all"),
    ] = None,
    text_layers: Annotated[
        LayersOption, Doc("layers of the text tower that stay, or their indices. null: all")
    ] = None,
    text_width: Annotated[Size, Doc("channels of the text tower. null: all")] = None,
    layers_by: Annotated[
        By, Doc("choice of the layers, as in depth: even, first, last, influence or block")
    ] = "even",
    parts_by: Annotated[
        PartsBy,
        Doc(
            "choice of channels, heads and neurons: those whose weights have the largest L2 norm, "
            "evenly spaced ones, or the first"
        ),
    ] = "norm",
    observe: Observe = None,
) -> nn.Module:
    """Keep some layers and channels of both towers of an image-text model, in place.

    Heads keep their size, so a width is a multiple of it, and the number of heads and neurons
    shrinks in proportion. Embeddings keep their width: student and teacher have one space.

    Raises:
        ValueError: without a size, for sizes that do not fit, and for a tower of another
            architecture.
    """
    sizes = {"image": (image_layers, image_width), "text": (text_layers, text_width)}
    if all(size is None for size in chain.from_iterable(sizes.values())):
        raise ValueError(
            "nothing to cut. Expected image_layers, image_width, text_layers or text_width"
        )
    for name, (layers, width) in sizes.items():
        if layers is not None:
            tower = _find(model, name, f"{name}_layers")
            _keep_layers(model, tower, layers, layers_by, observe)
        if width is None:
            continue
        image: Any = getattr(model, "image", None)
        if name == "image" and _is_cnn(image):
            _narrow_cnn(image, width, parts_by)
        else:
            _narrow(_find(model, name, f"{name}_width"), width, parts_by, f"{name}_width")
    return model


class _WholeModel:
    """Runs a whole model where a tower of it is observed."""

    def __init__(self, observe: Callable[[nn.Module], Iterable[Outputs]], model: nn.Module) -> None:
        self._observe = observe
        self._model = model

    @property
    def token_masks(self) -> Sequence[Tensor]:
        return self._observe.token_masks if isinstance(self._observe, ObservesTokens) else ()

    def __call__(self, _tower: nn.Module) -> Iterable[Outputs]:
        return self._observe(self._model)


def _find(model: nn.Module, name: str, option: str) -> Tower:
    tower = image_tower(model) if name == "image" else text_tower(model)
    if tower is None:
        raise ValueError(
            f"{option}: {type(model).__name__} has no {name} tower that can be cut. Expected "
            "two_towers, or a transformer tower of CLIP of open_clip or transformers. Leave "
            f"{option} out"
        )
    return tower


def _keep_layers(
    model: nn.Module, tower: Tower, layers: int | list[int], by: By, observe: Observe
) -> None:
    # Influence is measured on the outputs of the whole model, which calls both towers.
    depth(tower.stack, layers, by, None if observe is None else _WholeModel(observe, model))
    stack: Any = tower.stack
    if isinstance(getattr(stack, "layers", None), int):
        stack.layers = layers if isinstance(layers, int) else len(layers)


def _narrow(tower: Tower, width: int, by: PartsBy, option: str) -> None:
    """Keep some channels of the residual stream, heads and neurons of a tower."""
    head_dim = tower.width // tower.num_heads
    if width > tower.width or width % head_dim:
        raise ValueError(
            f"{option}: wrong width. Expected a multiple of {head_dim}, the size of a head, of at "
            f"most {tower.width}, got {width}"
        )
    blocks = tower.blocks
    num_heads = width // head_dim
    for block in blocks:
        heads = _choose(block.heads, num_heads, by, head_dim)
        num_neurons = _length(block.neurons[0]) * width // tower.width
        _keep(block.neurons, _choose(block.neurons, num_neurons, by))
        _keep(block.heads, expand(heads, head_dim))
        _set_heads(block.attention, num_heads, width)
    stream = [*tower.outer, *chain.from_iterable(block.stream for block in blocks)]
    # The stream is one space: all layers keep the same channels.
    _keep(stream, _choose(stream, width, by))
    for part in tower.sized:
        for name in ("embed_dim", "width"):
            if hasattr(part, name):
                setattr(part, name, width)
    if tower.config is not None:
        config = tower.config
        config.intermediate_size = config.intermediate_size * width // config.hidden_size
        config.hidden_size = width
        config.num_attention_heads = num_heads


def _set_heads(attention: Any, num_heads: int, width: int) -> None:
    """Set number of heads and width in a module of attention."""
    for name in ("heads", "num_heads"):
        if hasattr(attention, name):
            setattr(attention, name, num_heads)
    for name in ("embed_dim", "kdim", "vdim"):
        if hasattr(attention, name):
            setattr(attention, name, width)


def _is_cnn(tower: Any) -> bool:
    stages = getattr(tower, "stages", None)
    return isinstance(stages, nn.ModuleList) and isinstance(stages[0], nn.Sequential)


def _narrow_cnn(tower: Any, width: int, by: PartsBy) -> None:
    """Keep some channels of each convolution of a ``cnn``; the stages keep their ratio."""
    first = next(part for part in tower.stages.modules() if isinstance(part, nn.Conv2d))
    full_width = first.out_channels
    if width > full_width:
        raise ValueError(
            f"image_width: wrong width. Expected at most {full_width}, the channels of the first "
            f"stage, got {width}"
        )
    indices: Tensor | None = None
    parts = list(chain.from_iterable(tower.stages))
    for position, part in enumerate(parts):
        if not isinstance(part, nn.Conv2d):
            continue
        if indices is not None:
            _keep(inputs([part]), indices)
        outputs = axes(part)
        norm = parts[position + 1]
        if isinstance(norm, nn.BatchNorm2d):
            outputs += [*axes(norm), Axis(norm, "running_mean"), Axis(norm, "running_var")]
        # By the convolution alone: running statistics are no weights.
        indices = _choose(outputs[:1], part.out_channels * width // full_width, by)
        _keep(outputs, indices)
    assert indices is not None
    _keep(inputs([tower.head]), indices)


def _length(axis: Axis) -> int:
    return axis.tensor.shape[axis.dim] // axis.copies


def _choose(group: list[Axis], count: int, by: PartsBy, size: int = 1) -> Tensor:
    """Return the indices, in order, of the blocks of ``size`` neighbours that stay."""
    total = _length(group[0]) // size
    if by == "first" or count == total:
        return torch.arange(count)
    if by == "even":
        return (torch.arange(count) * total) // count
    energy = torch.stack([axis.energy().cpu() for axis in group]).sum(0)
    return largest(energy.view(total, size).sum(1), count, total)


def _keep(group: Iterable[Axis], indices: Tensor) -> None:
    for axis in group:
        axis.keep(indices)
