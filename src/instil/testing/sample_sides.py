"""Sample outputs of one side for each task.

The order of the draws in a function decides the values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from instil.core import Outputs
from instil.testing.dense_detection import dense_detection

NUM_CLASSES = 7
WIDTHS = {"student": 12, "teacher": 16}
FEATURE_SHAPES = {
    "student": ((4, 8), (6, 4), (WIDTHS["student"], 2)),
    "teacher": ((6, 8), (8, 4), (WIDTHS["teacher"], 2)),
}
"""Channels and height (= width) of each feature level, shallow to deep.

The deepest level has the width of the embedding, which the head reads.
"""
NUM_LAYERS = {"student": 2, "teacher": 4}
HIDDEN_WIDTHS = {"student": 48, "teacher": 96}
"""Widths of a text model; both can be split into 48 relation heads."""
NUM_HEADS = 4
NUM_TOKENS = 6
IMAGE_SIZE = 8
NUM_DISTANCES = 5
MASK_SIZES = {"student": 4, "teacher": 6}
MASK_WIDTH = 8
"""Width of the embedding of an image, the same for both sides."""
NUM_PROMPTS = 2
NUM_CANDIDATES = 3
NUM_POINTS = {"student": 5, "teacher": 9}
NUM_FRAMES = 6
NUM_VIDEO_FRAMES = {"student": 4, "teacher": 6}
NUM_SYMBOLS = 2
"""Largest number of symbols of a text, which fits into the shortest recording."""

Draw = Callable[..., Tensor]
"""``draw(*shape)`` returns a normal tensor (N, *shape)."""
MakeOutputs = Callable[[Draw, str], Outputs]
"""``(draw, side)`` -> outputs of one side, ``student`` or ``teacher``."""


def classification(draw: Draw, side: str) -> Outputs:
    """Outputs of an image classifier."""
    logits = 2 * draw(NUM_CLASSES)
    return {
        "logits": logits,
        "embedding": draw(WIDTHS[side]),
        "features": tuple(draw(channels, size, size) for channels, size in FEATURE_SHAPES[side]),
        "head": (draw(NUM_CLASSES, WIDTHS[side])[0], draw(NUM_CLASSES)[0]),
        "input": _input(len(logits), logits.dtype),
    }


def _input(num_samples: int, dtype: torch.dtype) -> Tensor:
    """Return images (N, 1, 3, 3), the same for both sides and any number of samples."""
    return (3 * torch.arange(num_samples * 9)).sin().view(num_samples, 1, 3, 3).to(dtype)


def text_classification(draw: Draw, side: str) -> Outputs:
    """Outputs in the format of transformers.

    The embedding output is the first of ``hidden_states``; ``attentions`` are probabilities.
    """
    layers = range(NUM_LAYERS[side])
    width = HIDDEN_WIDTHS[side]
    outputs: Outputs = {
        "logits": 2 * draw(NUM_CLASSES),
        "embedding": draw(width),
        "hidden_states": tuple(draw(NUM_TOKENS, width) for _ in (-1, *layers)),
        "attentions": tuple(draw(NUM_HEADS, NUM_TOKENS, NUM_TOKENS).softmax(-1) for _ in layers),
    }
    for role in ("queries", "keys", "values"):
        outputs[role] = tuple(draw(NUM_TOKENS, width) for _ in layers)
    return outputs


def language(draw: Draw, side: str) -> Outputs:
    """Logits of the next token at each position, and the embedding and head that they come from."""
    width = WIDTHS[side]
    head = draw(NUM_CLASSES, width)[0], draw(NUM_CLASSES)[0]
    return {
        "logits": 2 * draw(NUM_TOKENS, NUM_CLASSES),
        "embedding": draw(NUM_TOKENS, width),
        "head": head,
        "token_embedding": draw(NUM_CLASSES, width)[0],
    }


def seq2seq(draw: Draw, side: str) -> Outputs:
    """Outputs of an encoder-decoder for two tokens more than the target has."""
    layers = range(NUM_LAYERS[side])
    width = HIDDEN_WIDTHS[side]
    num_keys = NUM_TOKENS + 2
    return {
        "logits": 2 * draw(NUM_TOKENS, NUM_CLASSES),
        "hidden_states": tuple(draw(NUM_TOKENS, width) for _ in (-1, *layers)),
        "encoder_attentions": _attentions(draw, side, num_keys, num_keys),
        "decoder_attentions": _attentions(draw, side, NUM_TOKENS, NUM_TOKENS),
        "cross_attentions": _attentions(draw, side, NUM_TOKENS, num_keys),
    }


def _attentions(draw: Draw, side: str, queries: int, keys: int) -> tuple[Tensor, ...]:
    """Return the attention probabilities of each layer."""
    layers = range(NUM_LAYERS[side])
    return tuple(draw(NUM_HEADS, queries, keys).softmax(-1) for _ in layers)


def segmentation(draw: Draw, side: str) -> Outputs:
    """Logits of each pixel, channel-last, and feature levels."""
    return {
        "logits": 2 * draw(IMAGE_SIZE, IMAGE_SIZE, NUM_CLASSES),
        "features": tuple(draw(channels, size, size) for channels, size in FEATURE_SHAPES[side]),
    }


def node_classification(draw: Draw, side: str) -> Outputs:
    """Outputs of each node of a graph."""
    widths = range(WIDTHS[side], WIDTHS[side] + NUM_LAYERS[side])
    return {
        "logits": 2 * draw(NUM_CLASSES),
        "embedding": draw(WIDTHS[side]),
        "features": tuple(draw(width) for width in widths),
    }


def detection(draw: Draw, side: str) -> Outputs:
    """Class logits of one location, a distribution over distances for each edge, all anchors."""
    logits = 2 * draw(NUM_CLASSES)
    return {
        "logits": logits,
        "box_logits": 2 * draw(4 * NUM_DISTANCES),
        "embedding": draw(WIDTHS[side]),
        **dense_detection(logits, side),
    }


def regression(draw: Draw, side: str) -> Outputs:
    """One real output of each sample."""
    return {"logits": draw(1), "embedding": draw(WIDTHS[side])}


def view_classification(draw: Draw, side: str) -> Outputs:
    """Outputs of a classifier for each sample and for three transformed views of it."""
    return {
        **classification(draw, side),
        "view_logits": 2 * draw(3, NUM_CLASSES),
        "view_embedding": draw(3, WIDTHS[side]),
    }


def point_classification(draw: Draw, side: str) -> Outputs:
    """Outputs of a classifier of point sets; the two sides see different points."""
    num_points = NUM_POINTS[side]
    outputs = classification(draw, side)
    outputs["positions"] = draw(num_points, 3)
    outputs["features"] = tuple(draw(num_points, channels) for channels, _ in FEATURE_SHAPES[side])
    return outputs


def image_to_points(draw: Draw, side: str) -> Outputs:
    """Outputs of a teacher of images and a student of point sets."""
    return classification(draw, side) if side == "teacher" else point_classification(draw, side)


def speech_recognition(draw: Draw, side: str) -> Outputs:
    """Outputs of a recogniser: frames, their number, hidden states and a lattice of two symbols."""
    logits = 2 * draw(NUM_FRAMES, NUM_CLASSES)
    width = WIDTHS[side]
    return {
        "logits": logits,
        "frame_length": NUM_FRAMES - torch.arange(len(logits)) % 3,
        "hidden_states": tuple(draw(NUM_FRAMES, width) for _ in range(NUM_LAYERS[side] + 1)),
        "joint_logits": 2 * draw(NUM_FRAMES, NUM_SYMBOLS + 1, NUM_CLASSES),
    }


def video_classification(draw: Draw, side: str) -> Outputs:
    """Outputs of a classifier of videos; the two sides see different numbers of frames."""
    frames = NUM_VIDEO_FRAMES[side]
    outputs = classification(draw, side)
    outputs["features"] = tuple(
        draw(channels, frames, size, size) for channels, size in FEATURE_SHAPES[side]
    )
    if side == "student":
        outputs["tube_mask"] = _tube_mask(outputs["logits"])
    return outputs


def _tube_mask(logits: Tensor) -> Tensor:
    """Masks of hidden pixels (N, H, W): a third of the squares is visible."""
    row = torch.arange(IMAGE_SIZE) // 2
    sample = torch.arange(len(logits))[:, None, None]
    return ((row[:, None] + 2 * row + sample) % 3 > 0).to(logits.dtype)


def ranking(draw: Draw, side: str) -> Outputs:
    """Scores of the candidates of N queries, and the embeddings of both."""
    return {
        "logits": 2 * draw(NUM_CLASSES),
        "query_embedding": draw(WIDTHS[side]),
        "candidate_embedding": draw(NUM_CLASSES, WIDTHS[side]),
    }


def diffusion(draw: Draw, side: str) -> Outputs:
    """Outputs of a diffusion model; both sides denoise the same images."""
    denoised = draw(1, 3, 3)
    num_samples = len(denoised)
    dtype = denoised.dtype
    clean = _input(num_samples, dtype)
    noise = _input(num_samples, dtype).flip(0)
    time = torch.linspace(0.2, 0.8, num_samples, dtype=dtype)
    alpha = (1 - time).view(-1, 1, 1, 1)
    sigma = time.view(-1, 1, 1, 1)
    return {
        "denoised": denoised,
        "prediction": draw(1, 3, 3),
        "target": noise - clean,
        "clean": clean,
        "noise": noise,
        "noisy": alpha * clean + sigma * noise,
        "alpha": 1 - time,
        "sigma": time,
        "features": tuple(draw(channels, size, size) for channels, size in FEATURE_SHAPES[side]),
    }


def link_prediction(draw: Draw, side: str) -> Outputs:
    """Scores of the candidates of N anchors, and the embeddings of both."""
    outputs = ranking(draw, side)
    return outputs | {"embedding": outputs["query_embedding"]}


def promptable_segmentation(draw: Draw, side: str) -> Outputs:
    """Embedding of an image, candidate masks for prompts, and their predicted overlap."""
    size = MASK_SIZES[side]
    return {
        "dense_embedding": draw(MASK_WIDTH, size, size),
        "mask_logits": 2 * draw(NUM_PROMPTS, NUM_CANDIDATES, size, size),
        "iou_scores": draw(NUM_PROMPTS, NUM_CANDIDATES),
    }
