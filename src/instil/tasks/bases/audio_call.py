"""Call of models of audio: frames, waveforms and models of transformers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Outputs
from instil.tasks.bases.main_output import main_output
from instil.tasks.bases.padding_in_norms import without_padding_in_norms
from instil.tasks.classification import forward_kwargs

FRAME_ROLES = ("logits", "hidden_states", "joint_logits")
"""Outputs with one entry per frame that are used."""
RECORDING_ROLES = ("logits", "embedding")
"""Outputs with one entry per recording that are used."""
INPUT_NAMES = ("input_values", "input_features")
"""Names of the audio in transformers: a waveform, or log-mel frames."""


def call_frames(model: nn.Module, batch: Batch) -> Outputs:
    """Compute the outputs of a model with one output per frame.

    The padding at the end of the batch is cut off before the model, and outputs of padded frames
    are 0.

    Args:
        model: reads ``audio`` and ``audio_length``, or the audio only, and returns logits as a
            tensor or by name. A parameter ``label`` gets the labels. Models of transformers, such
            as Wav2Vec2, are called with an attention mask.
        batch: ``audio`` (N, T, F) or a waveform (N, T), and ``audio_length`` (N,).

    Returns:
        ``logits`` (N, T', C) and ``frame_length`` (N,), the number of frames of each recording. A
        model that returns them has ``hidden_states`` and ``joint_logits``, too.
    """
    audio = batch["audio"]
    length = batch["audio_length"]
    result = _result(model, _trimmed(audio, length), length, batch)
    outputs = {role: result[role] for role in FRAME_ROLES if result.get(role) is not None}
    num_frames = _first(outputs).shape[1]
    frame_length = result.get("frame_length")
    width = _width(audio, length)
    if frame_length is None:
        # Without padding a model has fewer frames than its stride suggests.
        frame_length = output_lengths(model, length, width, num_frames).clamp_max(num_frames)
    total = num_frames
    if width < audio.shape[1]:
        # Tables of outputs need one number of frames: that of the longest recording of the data.
        total = int(output_lengths(model, torch.tensor(audio.shape[1]), width, num_frames))
    is_valid = torch.arange(max(total, num_frames), device=audio.device) < frame_length[:, None]
    framed: Outputs = {}
    for role, value in outputs.items():
        if isinstance(value, Tensor):
            framed[role] = _framed(value, is_valid)
        else:
            framed[role] = tuple(_framed(layer, is_valid) for layer in value)
    return framed | {"frame_length": frame_length}


def call_recordings(model: nn.Module, batch: Batch) -> Outputs:
    """Compute the outputs of a model with one output per recording.

    Args:
        model: reads ``audio`` and ``audio_length``, or the audio only, and returns logits as a
            tensor, or ``logits`` and ``embedding`` by name.
        batch: ``audio`` (N, T, F) or a waveform (N, T), and ``audio_length`` (N,).

    Returns:
        ``logits`` (N, C) and ``embedding`` (N, D), as far as the model returns them.
    """
    audio = batch["audio"]
    length = batch["audio_length"]
    result = _result(model, _trimmed(audio, length), length, batch)
    return {role: result[role] for role in RECORDING_ROLES if result.get(role) is not None}


def output_lengths(model: nn.Module, length: Tensor, num_inputs: int, num_frames: int) -> Tensor:
    """Return the number of output frames of recordings of some lengths.

    Args:
        model: network; models of transformers and ``speech_recognizer`` compute the number
            themselves.
        length: number of input frames, or samples of a waveform, of each recording.
        num_inputs: number of input frames of the batch.
        num_frames: number of output frames of the batch, from which the stride follows.
    """
    own = getattr(model, "_get_feat_extract_output_lengths", None)
    if own is not None:
        lengths: Tensor = own(length)
        return lengths
    stride = _stride(num_inputs, num_frames)
    return (length + stride - 1).div(stride, rounding_mode="floor")


def _stride(num_inputs: int, num_frames: int) -> int:
    """Stride of a network by the numbers of its input and output frames."""
    ratio = num_inputs / max(1, num_frames)
    # With padding at both ends a network has ceil(inputs / stride) frames: 13 of 97 with stride 8.
    padded = max(1, ceil(ratio))
    return padded if ceil(num_inputs / padded) == num_frames else max(1, round(ratio))


def _result(model: nn.Module, audio: Tensor, length: Tensor, batch: Batch) -> Mapping[str, Any]:
    parameters = inspect.signature(model.forward).parameters
    named = [name for name in INPUT_NAMES if name in parameters]
    if named:
        mask = torch.arange(audio.shape[1], device=audio.device) < length[:, None]
        inputs = {named[0]: audio, "attention_mask": mask.long()}
        with without_padding_in_norms(model, length, audio.shape[1]):
            result = model(**inputs, **forward_kwargs(model))
    else:
        arguments = [audio, length] if len(parameters) > 1 else [audio]
        label = {"label": batch["label"]} if "label" in parameters else {}
        result = model(*arguments, **label)
    if isinstance(result, Mapping):
        return result
    return {"logits": main_output(result)}


def _width(audio: Tensor, length: Tensor) -> int:
    """Number of frames of the longest recording; those of the batch in a graph."""
    if torch.compiler.is_compiling() or length.device.type != "cpu":
        return audio.shape[1]
    return min(audio.shape[1], max(1, int(length.max())))


def _trimmed(audio: Tensor, length: Tensor) -> Tensor:
    """Audio without the frames that are padding in every recording."""
    return audio[:, : _width(audio, length)]


def _first(outputs: Outputs) -> Tensor:
    value = next(iter(outputs.values()))
    tensor: Tensor = value if isinstance(value, Tensor) else value[0]
    return tensor


def _framed(value: Tensor, is_valid: Tensor) -> Tensor:
    """Values (N, T', ...) padded with 0 to the number of frames of the mask."""
    missing = is_valid.shape[1] - value.shape[1]
    if missing:
        value = F.pad(value, (0, 0) * (value.ndim - 2) + (0, missing))
    mask = is_valid.view(*is_valid.shape, *[1] * (value.ndim - 2))
    return value.masked_fill(~mask, 0.0)
