"""Samples from columns of values by batch key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Doc

from instil.cards import suggestion
from instil.core import UNLABELLED
from instil.data.audio_columns import AUDIO_TASKS, checked_audio, with_blank
from instil.data.columns import Column, check_finite, is_missing_row, is_text
from instil.data.images import ArrayData, in_unit_range
from instil.data.label_kinds import BoxData, GradedData, SequenceData, UnlabelledData
from instil.data.picture_columns import picture_size, picture_tensor, plain_numbers
from instil.data.point_checks import check_points
from instil.data.samples import RealData, Samples, TensorData
from instil.data.sequence_pairs import column_pairs
from instil.data.video_checks import check_video, video_facts

LabelKind = Literal["single", "multi", "binary", "real", "sequence", "boxes", "graded"]
LabelsOption = Annotated[LabelKind | None, Doc("kind of the labels; null: found by their type")]
ClassesOption = Annotated[
    list[str] | None, Doc("names of the classes; null: those of the labels, or their indices")
]


def column_samples(
    columns: Mapping[str, Column],
    classes: Sequence[str] | None = None,
    kind: LabelKind | None = None,
    task_name: str = "",
) -> Samples:
    """Return samples whose batch keys are those of the columns; ``label`` holds the labels.

    Args:
        columns: values by batch key. Without ``label`` the samples have no labels.
        classes: names of the classes; None: the texts of the labels, or their indices.
        kind: kind of the labels; None: found by their type.
        task_name: task of the recipe; ``regression`` has real labels.

    Raises:
        ValueError: for texts as input, and labels that do not fit the kind.
    """
    inputs = _inputs(columns, task_name)
    facts = facts_of(inputs)
    if "label" not in columns:
        return UnlabelledData(inputs, facts)
    label = columns["label"]
    if task_name == "seq2seq":
        return column_pairs(inputs, label)
    kind = kind or _kind_of(columns, task_name)
    if kind == "sequence":
        sequences, names = _sequences(label, classes)
        if task_name == "speech_recognition":
            sequences, names = with_blank(sequences, names)
        return SequenceData(inputs, sequences, names, facts)
    if kind == "boxes":
        boxes, labels = _boxes(columns["box"], label)
        return BoxData(inputs, boxes, labels, classes or _index_names(label), facts)
    if kind == "graded":
        return GradedData(inputs, _array(label), facts)
    if kind == "real":
        target = _array(label).float()
        target = target[:, None] if target.ndim == 1 else target
        names = classes or [str(index) for index in range(target.shape[1])]
        return RealData(inputs, target, names, facts)
    target, names = _class_labels(label, classes, kind)
    if set(inputs) == {"image"} and inputs["image"].ndim == 4 and target.ndim <= 2:
        return ArrayData(inputs["image"], target, names)
    return TensorData(inputs, target, names, facts)


def _inputs(columns: Mapping[str, Column], task_name: str) -> dict[str, Tensor]:
    """Checked tensors of all inputs."""
    inputs: dict[str, Tensor] = {}
    size = picture_size(columns)
    for key, column in columns.items():
        if key not in ("label", "box"):
            inputs |= input_tensors(key, column, size)
    if "audio" in inputs and task_name in AUDIO_TASKS:
        inputs |= checked_audio(inputs["audio"], inputs.get("audio_length"))
    if not inputs:
        raise ValueError("columns: there is no input. Expected a key other than label and box")
    if "image" in inputs and inputs["image"].ndim == 4:
        inputs["image"] = in_unit_range(inputs["image"])
    if "points" in inputs:
        check_points(inputs["points"])
    if "video" in inputs and task_name == "video_classification":
        check_video(inputs["video"])
    for key, value in inputs.items():
        check_finite(key, value)
    return inputs


def input_tensors(key: str, column: Column, size: Sequence[int] = ()) -> dict[str, Tensor]:
    """Return the tensor of an input, with ``KEY_length`` for sequences of different lengths.

    Sequences of numbers (T,) and of frames (T, F) are padded with 0.

    Args:
        key: batch key.
        column: values of the input.
        size: height and width of pictures; arrays (N, height, width) are pictures of one channel.

    Raises:
        ValueError: for texts, and for values of different shapes with several dimensions.
    """
    if isinstance(column, np.ndarray):
        return {key: picture_tensor(key, column, size)}
    if is_text(column):
        example = next(value for value in column if isinstance(value, str))
        raise ValueError(
            f"columns.{key}: its values are texts, such as {example!r:.40}. Expected numbers, or "
            "the pictures themselves in Parquet. Use the source folder, coco or captions for files "
            "of pictures, and text for language models"
        )
    shapes = sorted({array.shape for array in column})
    if len({shape[1:] for shape in shapes}) > 1 or len(shapes[0]) > 2 or not shapes[0]:
        raise ValueError(
            f"columns.{key}: the values have the shapes {shapes[0]} and {shapes[-1]}. Expected one "
            "shape, or sequences that differ in length only. Set size for pictures"
        )
    lengths = torch.tensor([len(array) for array in column])
    whole = torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy(plain_numbers(array)) for array in column], batch_first=True
    )
    return {key: whole, f"{key}_length": lengths}


def facts_of(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the properties of the first input that builders of networks need.

    Args:
        inputs: inputs by batch key.
    """
    key, value = next(iter(inputs.items()))
    if key == "image" and value.ndim == 4:
        height, width = value.shape[2:]
        size = height if height == width else (height, width)
        return {"channels": value.shape[1], "size": size}
    if key == "video" and value.ndim == 5:
        return video_facts(value)
    if key == "points":
        return {"channels": value.shape[2]}
    if key == "views":
        height, width = value.shape[3:]
        return {"channels": value.shape[2], "size": height if height == width else (height, width)}
    if key == "audio" and value.ndim == 3:
        return {"features": value.shape[2]}
    return {"features": value.shape[1]} if value.ndim == 2 else {}


def _kind_of(columns: Mapping[str, Column], task_name: str) -> LabelKind:
    label = columns["label"]
    if task_name == "speech_recognition":
        return "sequence"
    if "box" in columns:
        return "boxes"
    if isinstance(label, list):
        return "single" if is_text(label) else "sequence"
    if label.dtype.kind != "f":
        return "single" if label.ndim != 2 else "sequence"
    values = label[(label != UNLABELLED) & ~np.isnan(label)]
    is_multi = label.ndim == 2 and bool(((values >= 0) & (values <= 1)).all())
    return "multi" if is_multi and task_name != "regression" else "real"


def _array(label: Column) -> Tensor:
    """Labels of one shape as a tensor."""
    if not isinstance(label, np.ndarray):
        raise ValueError("columns.label: lists of different lengths. Expected numbers of one shape")
    return torch.from_numpy(plain_numbers(label))


def _sequences(label: Column, classes: Sequence[str] | None) -> tuple[list[Any], Sequence[str]]:
    """Symbol indices of each sample, and the names of the symbols; texts are characters."""
    if not is_text(label):
        rows = [[] if row is None else row for row in label]
        return rows, classes or _index_names(label)
    names = classes or sorted(set("".join(label)))
    indices = {name: index for index, name in enumerate(names)}
    for row, text in enumerate(label):
        for symbol in text:
            if symbol not in indices:
                raise ValueError(f"columns.label: row {row} has {symbol!r}, which is not a class")
    return [[indices[symbol] for symbol in text] for text in label], names


def _boxes(box: Column, label: Column) -> tuple[list[Any], list[Any]]:
    """Boxes and class indices of each sample; None for both without a label."""
    boxes: list[Any] = []
    labels: list[Any] = []
    for row_boxes, row in zip(box, label, strict=True):
        is_missing = is_missing_row(row)
        boxes.append(None if is_missing else row_boxes)
        labels.append(None if is_missing else row)
    return boxes, labels


def _class_labels(
    label: Column, classes: Sequence[str] | None, kind: LabelKind
) -> tuple[Tensor, Sequence[str]]:
    """Labels of the kinds single, multi and binary, with class names."""
    if is_text(label):
        names = classes or sorted({name for name in label if name})
        indices = {name: index for index, name in enumerate(names)} | {"": UNLABELLED}
        for name in label:
            if name not in indices:
                raise ValueError(f"columns.label: no class '{name}'.{suggestion(name, names)}")
        return torch.tensor([indices[name] for name in label]), names
    if kind == "multi" and (isinstance(label, list) or label.dtype.kind != "f"):
        names = classes or _index_names(label)
        return _yes_or_no(label, len(names)), names
    target = _array(label)
    if kind == "binary":
        return target.reshape(-1, 1).float(), classes or ("yes",)
    return target, classes or _index_names(label, target)


def _yes_or_no(label: Column, num_classes: int) -> Tensor:
    """1 for each class of a sample and 0 for the others (N, C), from lists of class indices."""
    target = torch.zeros(len(label), num_classes)
    for row, present in enumerate(label):
        if is_missing_row(present):
            target[row] = UNLABELLED
            continue
        columns = torch.as_tensor(np.asarray(present, np.int64))
        target[row, columns[columns != UNLABELLED]] = 1
    return target


def _index_names(label: Column, target: Tensor | None = None) -> list[str]:
    """Class indices as names."""
    if target is not None and target.is_floating_point():
        return [str(index) for index in range(target.shape[-1])]
    rows = [row for row in label if row is not None and np.size(row)]
    largest = max((int(np.max(row)) for row in rows), default=0)
    return [str(index) for index in range(largest + 1)]
