"""Outputs to try a method on, and what the contracts do with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from instil.cards import closest
from instil.core import UNLABELLED, Batch, Objective, Outputs, batch_size, to_float32
from instil.roles import SHARED_ROLES

NUM_CLASSES = 7
WIDTHS = {"student": 12, "teacher": 16}
FEATURE_SHAPES = {
    "student": ((4, 8), (6, 4), (WIDTHS["student"], 2)),
    "teacher": ((6, 8), (8, 4), (WIDTHS["teacher"], 2)),
}
"""Channels and height = width of the stages, shallow to deep; the last are as wide as the embedding, which the head reads."""
NUM_LAYERS = {"student": 2, "teacher": 4}
HIDDEN_WIDTHS = {
    "student": 48,
    "teacher": 96,
}  # of a text model: both can be cut into 48 relation heads
NUM_HEADS, NUM_TOKENS = 4, 6
IMAGE_SIZE = 8
NUM_MEMBERS = 3  # of a teacher that is several
LOGIT_SCALES = {"student": 12.0, "teacher": 16.0}  # of image-text similarities

Draw = Callable[..., Tensor]
"""``draw(*shape)`` gives a normal tensor (number, *shape)."""
MakeOutputs = Callable[[Draw, str], Outputs]
"""The outputs of one side, student or teacher."""


def sample_outputs(
    number: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32, task: str = "classification"
) -> tuple[Outputs, Outputs, Batch]:
    """Student and teacher outputs with all standard roles of a task, and a batch of which every third sample has no label.

    Raises ValueError for a task of which there are no samples.
    """
    if task not in TASKS:
        raise ValueError(f"there are no sample outputs of task '{task}'; {closest(task, TASKS)}")
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(number, *shape, generator=generator).to(dtype)

    make, more = TASKS[task]
    student, teacher = make(draw, "student"), make(draw, "teacher")
    label = torch.randint(0, NUM_CLASSES, (number,), generator=generator)
    label[::3] = UNLABELLED
    if task == "classification":  # as an ensemble gives them
        teacher["members"] = tuple(make(draw, "teacher") for _ in range(NUM_MEMBERS))
    clock = {"step": torch.tensor(3), "progress": torch.tensor(0.5), "seed": torch.tensor(0)}
    return (
        student,
        teacher,
        {"label": label, "index": torch.arange(number), **more(number), **clock},
    )


def _classification(draw: Draw, side: str) -> Outputs:
    logits = 2 * draw(NUM_CLASSES)
    return {
        "logits": logits,
        "embedding": draw(WIDTHS[side]),
        "features": tuple(
            draw(channels, height, height) for channels, height in FEATURE_SHAPES[side]
        ),
        "head": (draw(NUM_CLASSES, WIDTHS[side])[0], draw(NUM_CLASSES)[0]),
        "input": _input(len(logits), logits.dtype),
    }


def _input(number: int, dtype: torch.dtype) -> Tensor:
    """What both sides were asked about, pictures of nine pixels; alike for both, and in any number of samples."""
    return (3 * torch.arange(number * 9)).sin().view(number, 1, 3, 3).to(dtype)


def link_to_input(outputs: Outputs) -> Outputs:
    """The outputs as a net gives them that was asked about ``input``: stages depend on it and logits on it and the deepest stage.

    For objectives that take gradients: the dependence is smooth, bounded, of each sample alone and the same for equal outputs.
    """
    given = to_float32(outputs["input"]).flatten(1)

    def waves(values: Tensor, width: int) -> Tensor:
        weight = (7 * torch.arange(values.shape[1] * width, dtype=values.dtype)).cos().view(
            -1, width
        ) / values.shape[1] ** 0.5
        waved: Tensor = (values @ weight).sin()
        return waved

    features = tuple(
        (to_float32(stage) * (1 + waves(given, stage[0].numel()).view(stage.shape) / 2)).to(
            stage.dtype
        )
        for stage in outputs["features"]
    )
    deepest = waves(to_float32(features[-1]).flatten(1), outputs["logits"].shape[1])
    logits = to_float32(outputs["logits"]) * (1 + waves(given, deepest.shape[1]) / 2) + deepest
    return outputs | {"features": features, "logits": logits.to(outputs["logits"].dtype)}


def link_if_needed(
    objective: Objective, student: Outputs, teacher: Outputs
) -> tuple[Outputs, Outputs]:
    """The outputs; for an objective that takes gradients by the input, as nets give them that were asked about one leaf."""
    if not objective.needs_input_grad:
        return student, teacher
    return link_to_input(student), link_to_input(teacher | {"input": student["input"]})


def _text(draw: Draw, side: str) -> Outputs:
    """As transformers returns it: the embedding output leads ``hidden_states``, ``attentions`` are probabilities."""
    layers, width = range(NUM_LAYERS[side]), HIDDEN_WIDTHS[side]
    return {
        "logits": 2 * draw(NUM_CLASSES),
        "embedding": draw(width),
        "hidden_states": tuple(draw(NUM_TOKENS, width) for _ in (-1, *layers)),
        "attentions": tuple(draw(NUM_HEADS, NUM_TOKENS, NUM_TOKENS).softmax(-1) for _ in layers),
        **{
            role: tuple(draw(NUM_TOKENS, width) for _ in layers)
            for role in ("queries", "keys", "values")
        },
    }


def _padding(number: int) -> Batch:
    """From three tokens to all."""
    lengths = NUM_TOKENS - torch.arange(number) % (NUM_TOKENS - 2)
    return {"attention_mask": (torch.arange(NUM_TOKENS) < lengths[:, None]).long()}


def _language(draw: Draw, side: str) -> Outputs:
    """Of each token what follows it, and what that is made from."""
    width = WIDTHS[side]
    head = draw(NUM_CLASSES, width)[0], draw(NUM_CLASSES)[0]
    return {
        "logits": 2 * draw(NUM_TOKENS, NUM_CLASSES),
        "embedding": draw(NUM_TOKENS, width),
        "head": head,
        "token_embedding": draw(NUM_CLASSES, width)[0],
    }


def _tokens(number: int) -> Batch:
    """Every third row has no label, the others have none at some of their tokens."""
    row, place = torch.meshgrid(torch.arange(number), torch.arange(NUM_TOKENS), indexing="ij")
    label = (row + place * place) % NUM_CLASSES
    return {
        "input_ids": (row * 3 + place) % NUM_CLASSES,
        "label": label.masked_fill((row % 3 == 0) | ((row + place) % 5 == 0), UNLABELLED),
    }


def _segmentation(draw: Draw, side: str) -> Outputs:
    """Logits of each pixel, channel-last, and the stages that they were made from."""
    return {
        "logits": 2 * draw(IMAGE_SIZE, IMAGE_SIZE, NUM_CLASSES),
        "features": tuple(
            draw(channels, height, height) for channels, height in FEATURE_SHAPES[side]
        ),
    }


def _pixel_labels(number: int) -> Batch:
    """Regions of a few classes; every third image has no label, the others lack some of their pixels."""
    image, row, column = torch.meshgrid(
        torch.arange(number), torch.arange(IMAGE_SIZE), torch.arange(IMAGE_SIZE), indexing="ij"
    )
    label = (image + (row + column) // 5) % NUM_CLASSES
    return {
        "label": label.masked_fill((image % 3 == 0) | ((image + row * column) % 5 == 0), UNLABELLED)
    }


def _nodes(draw: Draw, side: str) -> Outputs:
    widths = range(WIDTHS[side], WIDTHS[side] + NUM_LAYERS[side])
    return {
        "logits": 2 * draw(NUM_CLASSES),
        "embedding": draw(WIDTHS[side]),
        "features": tuple(draw(width) for width in widths),
    }


def _graph(number: int) -> Batch:
    """``edge_index`` (2, E): a node without neighbours, then groups of six and of the rest, with most edges and self loops inside a group."""
    group = torch.bucketize(torch.arange(number), torch.tensor([1, 7]), right=True)
    joined = (group[:, None] == group) & (group > 0)
    sparse = (2 * torch.arange(number)[:, None] + torch.arange(number)) % 5 != 1
    return {"edge_index": (joined & sparse).nonzero().T}


def _image_text(draw: Draw, side: str) -> Outputs:
    """Row n of the one embedding belongs to row n of the other; all rows share the scale of the similarities."""
    image, text = draw(WIDTHS[side]), draw(WIDTHS[side])
    return {
        "image_embedding": image,
        "text_embedding": text + image / 2,
        "logit_scale": torch.full((1,), LOGIT_SCALES[side], dtype=image.dtype),
    }


def _sentences(draw: Draw, side: str) -> Outputs:
    first, partner = draw(WIDTHS[side]), draw(WIDTHS[side])
    return {
        "sentence_embedding": first,
        "partner_embedding": partner + first / 2,
        "logit_scale": torch.full((1,), LOGIT_SCALES[side], dtype=first.dtype),
    }


def _detection(draw: Draw, side: str) -> Outputs:
    """One location of an image: its class, and of each of the box's four edges a distribution over five distances."""
    return {
        "logits": 2 * draw(NUM_CLASSES),
        "box_logits": 2 * draw(4 * 5),
        "embedding": draw(WIDTHS[side]),
    }


def _boxes(number: int) -> Batch:
    """Edges between the bins and on them; every fourth sample has none."""
    box = 2 + 2 * torch.arange(4 * number).sin().view(number, 4)
    box[1] = box[1].round()
    return {"box": box.masked_fill(torch.arange(number)[:, None] % 4 == 3, UNLABELLED)}


def _regression(draw: Draw, side: str) -> Outputs:
    return {"logits": draw(1), "embedding": draw(WIDTHS[side])}


def _real_labels(number: int) -> Batch:
    """Every third sample has none."""
    return {"label": torch.arange(number).sin().where(torch.arange(number) % 3 > 0, UNLABELLED)}


def _views(draw: Draw, side: str) -> Outputs:
    """A classifier's outputs, and those of three transformed views of each sample."""
    return {
        **_classification(draw, side),
        "view_logits": 2 * draw(3, NUM_CLASSES),
        "view_embedding": draw(3, WIDTHS[side]),
    }


def _nothing(number: int) -> Batch:
    return {}


TASKS: dict[str, tuple[MakeOutputs, Callable[[int], Batch]]] = {
    "classification": (_classification, _nothing),
    "view_classification": (_views, _nothing),
    "text_classification": (_text, _padding),
    "segmentation": (_segmentation, _pixel_labels),
    "node_classification": (_nodes, _graph),
    "image_text": (_image_text, _nothing),
    "detection": (_detection, _boxes),
    "regression": (_regression, _real_labels),
    "language": (_language, _tokens),
    "sentence_embedding": (_sentences, _nothing),
}
"""Of each task: the outputs of a side, and what its batch has more than ``label`` and ``index``."""


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors inside tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors(part)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def named_tensors(outputs: Outputs) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of everything in outputs."""
    for role, value in outputs.items():
        for number, tensor in enumerate(tensors(value)):
            yield f"{role}.{number}", tensor


def leaves(outputs: Outputs) -> Outputs:
    """Copies that ask for gradients."""
    return map_structure(outputs, lambda tensor: tensor.detach().clone().requires_grad_())


def map_structure(outputs: dict[str, Any], change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """The same structure with every tensor changed."""

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return map_structure(value, change)
        return tuple(map(changed, value)) if isinstance(value, tuple) else change(value)

    return {role: changed(value) for role, value in outputs.items()}


def select_rows(outputs: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """These rows of everything that has rows; of a graph the edges among these nodes, which are numbered anew."""
    chosen = outputs | map_structure(
        _with_rows(outputs), lambda tensor: tensor[rows] if tensor.ndim else tensor
    )
    if "members" in outputs:
        chosen["members"] = tuple(select_rows(member, rows) for member in outputs["members"])
    if "edge_index" in outputs:
        number = torch.full((batch_size(outputs),), -1)
        number[rows] = torch.arange(batch_size(chosen))
        edges = number[outputs["edge_index"]]
        chosen["edge_index"] = edges[:, (edges >= 0).all(0)]
    return chosen


def _with_rows(outputs: dict[str, Any]) -> dict[str, Any]:
    return {
        role: value
        for role, value in outputs.items()
        if role not in (*SHARED_ROLES, "edge_index", "members")
    }


def scale_tensors(outputs: Outputs, factor: float) -> Outputs:
    """Everything times a factor."""
    return map_structure(outputs, lambda tensor: tensor * factor)


def make_strided(outputs: Outputs) -> Outputs:
    """The same values, not contiguous, in a layout that a clone keeps."""
    return map_structure(
        outputs,
        lambda tensor: (
            tensor.transpose(0, -1).contiguous().transpose(0, -1) if tensor.ndim > 1 else tensor
        ),
    )


def with_noise(outputs: Outputs, rows: Tensor) -> Outputs:
    """Outputs with noise in these rows of everything that has rows."""
    return outputs | {
        role: replace_with_noise(value, rows) for role, value in _with_rows(outputs).items()
    }


def replace_with_noise(value: Any, rows: Tensor) -> Any:
    """The same values with noise in these rows."""
    if isinstance(value, tuple):
        return tuple(replace_with_noise(part, rows) for part in value)
    noise = 100 * torch.randn(value.shape, generator=torch.Generator().manual_seed(5)).to(
        value.dtype
    )
    return torch.where(rows.view(-1, *[1] * (value.ndim - 1)), noise, value)


def assert_close(a: Tensor, b: Tensor, message: str) -> None:
    """AssertionError where two tensors differ by more than float32 rounding."""
    if not a.numel():
        return
    scale = max(1e-3, float(a.abs().max()))
    off = torch.where(a == b, 0.0, (a - b).abs()).max()  # where both are infinite they agree
    assert off <= 2e-4 * scale, f"{message} (off by {float(off):.2g} of {scale:.2g})"
