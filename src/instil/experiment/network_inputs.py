"""Inputs of the networks of a recipe: keys of the batch, shapes and facts for builders."""

from __future__ import annotations

import inspect
from collections.abc import Set
from typing import Any

import torch
from torch import Tensor

from instil.cards.closest import suggestion
from instil.core import Batch, first_tensor
from instil.data.samples import Facts, Samples, TensorData
from instil.data.splits import Splits
from instil.data.video_checks import video_facts
from instil.experiment.recipe_checks import check_label_kind
from instil.networks.factory import find_builder
from instil.networks.network_call import read_keys
from instil.recipe import error_context, origin_stage, stages
from instil.recipe.sections import ModelConfig, Recipe


def exported_student(recipe: Recipe) -> ModelConfig:
    """Return the section in which the student of the last stage is built."""
    if not recipe.has_stages:
        return recipe.student
    all_stages = stages(recipe)
    return all_stages[origin_stage(all_stages)].student


def sample_batch(samples: Samples, config: ModelConfig) -> Batch:
    """Return the first sample as a batch with the keys that a network reads."""
    return read_keys(samples.__getitems__([0]), config.reads)


def check_reads(task: Any, samples: Samples, config: ModelConfig) -> None:
    """Check that the task and the data have the keys of ``reads`` of a network.

    Args:
        task: task of the recipe.
        samples: samples that the network reads.
        config: section of the network.

    Raises:
        ValueError: for a key that does not exist.
    """
    if not config.reads:
        return
    batch = samples.__getitems__([0])
    keys = {*task.inputs, *task.names, *batch}
    for key in config.reads:
        if key not in keys:
            raise ValueError(
                f"reads.{key}: unknown key of {task.title}. Expected one of "
                f"{', '.join(task.inputs)}.{suggestion(key, task.inputs, is_listed=True)}"
            )
    read_keys(batch, config.reads)


def check_channel_statistics(config: ModelConfig, facts: Facts) -> None:
    """Check that ``input.mean`` and ``input.std`` fit the channels of the data and the network.

    Args:
        config: section of the network.
        facts: arguments for its builder.

    Raises:
        ValueError: for another number of values.
    """
    channels = facts.get("channels")
    if not isinstance(channels, int):
        return
    lengths = {key: len(getattr(config.input, key) or ()) for key in ("mean", "std")}
    several = {key: length for key, length in lengths.items() if length > 1}
    for key, length in several.items():
        if channels > 1 and length != channels:
            raise ValueError(
                f"input.{key}: Expected 1 value or {channels}, one for each channel of the data, "
                f"got {length}"
            )
        # Grey images get one channel per value, for networks that read colour images.
        if channels == 1 and _own_channels(config, channels) not in (None, length):
            raise ValueError(
                f"input.{key}: Expected 1 value, because the data have one channel, got {length}. "
                f"Set options.channels: {length} for a network that reads {length} channels"
            )
    if len(set(several.values())) > 1:
        raise ValueError(
            f"input.std: Expected {lengths['mean']} values, as in input.mean, got {lengths['std']}"
        )


def _own_channels(config: ModelConfig, channels: int) -> int | None:
    """Return the channels that a network of this package reads; None for any other model."""
    builder = find_builder(config.model)
    if builder is None or "channels" not in inspect.signature(builder).parameters:
        return None
    return int(config.options.get("channels", channels))


def check_samples(
    task: Any, splits: Splits, samples: Samples, recipe: Recipe, student: ModelConfig
) -> None:
    """Check that the task and the student can read the samples of a stage.

    Args:
        task: task of the recipe.
        splits: data of the stage.
        samples: samples that may be inspected.
        recipe: recipe of the stage, for messages.
        student: section of the student.

    Raises:
        RecipeError: for labels of another kind, missing inputs, NaN in inputs in memory, and data
            that cannot be evaluated.
    """
    with error_context("data"):
        keys = set(task.inputs).union(
            *(config.reads.values() for config in (student, *recipe.teachers))
        )
        _check_finite(splits, keys)
    with error_context("task"):
        check_label_kind(task, splits, recipe)
    with error_context("student"):
        check_reads(task, samples, student)
    with error_context("data"):
        batch = sample_batch(samples, student)
        task.check_evaluated(splits.validation, "validation")
        task.check_evaluated(splits.test, "test")
    with error_context("task"):
        task.check_data(batch)


def _check_finite(splits: Splits, keys: Set[str]) -> None:
    """Check all samples in memory. Sources check what they read; a user's function may not."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    for name, samples in parts.items():
        if not isinstance(samples, TensorData) or not len(samples):
            continue
        for key in sorted(keys & samples.tensors.keys()):
            value = samples.tensors[key]
            if not value.is_floating_point() or not value.numel():
                continue
            # A minimum needs no mask of the size of the data, and is NaN if one value is.
            if bool(value.amin().isfinite() & value.amax().isfinite()):
                continue
            row = int((~value.isfinite().flatten(1).all(1)).nonzero()[0])
            raise ValueError(
                f"{key}: sample {row} of {name} has NaN or infinite values. Expected finite "
                "numbers. Remove the sample, or replace these values"
            )


def input_shape(task: Any, samples: Samples, config: ModelConfig) -> tuple[int, ...]:
    """Return the shape of the first input of one sample: channels, height and width of an image.

    Args:
        task: task of the recipe.
        samples: samples with the inputs.
        config: section of the network, which may read other keys.
    """
    inputs = samples.inputs(torch.zeros(1, dtype=torch.int64))
    key = task.inputs[0]
    first = inputs[config.reads[key]] if key in config.reads else first_tensor(inputs)
    return tuple(first.shape[1:])


def input_size(config: ModelConfig) -> Facts:
    """Height and width of the images after resizing, if the section ``input`` has a size."""
    size = config.input.size
    if not size:
        return {}
    return {"size": (size[0], size[-1]) if isinstance(size, list) else size}


def network_facts(samples: Samples, config: ModelConfig) -> Facts:
    """Return the arguments for the builder of a network.

    An image that is read from another key replaces the number of channels and the size, points
    replace the number of channels, nodes the number of features.
    """
    facts = samples.facts
    for key in ("image", "points", "video", "x"):
        value = sample_batch(samples, config).get(key) if key in config.reads else None
        if isinstance(value, Tensor):
            facts = facts | _facts_of(key, value)
    return facts


def _facts_of(key: str, value: Tensor) -> Facts:
    """Arguments for the builder of a network that reads ``value`` in the place of ``key``."""
    if value.ndim == 4:
        channels, height, width = value.shape[1:]
        return {"channels": channels, "size": height if height == width else (height, width)}
    if key == "video" and value.ndim == 5:
        return video_facts(value)
    if key == "x":
        return {"features": value.shape[1]}
    is_points = key == "points" and value.ndim == 3
    return {"channels": value.shape[2]} if is_points else {}
