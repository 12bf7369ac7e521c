"""Exemplars: samples of earlier stages that a stage learns from again."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from instil.core import Net
from instil.data.class_subset import of_classes
from instil.data.joined import JoinedSamples
from instil.data.samples import Samples
from instil.data.streams import Stream
from instil.experiment.experiment import Experiment
from instil.functional.herding import herding_order
from instil.functional.keyed_random import stream_key
from instil.recipe import RecipeError, error_context, student_stages
from instil.students.nearest_mean import head_inputs, linear_head, set_class_means

KEY = "data.exemplars"
HERDING = f"{KEY}.selection: herding"
NEAREST_MEAN = f"{KEY}.classifier: nearest_mean"


class Exemplars:
    """Exemplars of one training of a student through all stages.

    They are a function of the recipe, the seed and the students of earlier stages, so that a
    resumed run has the same ones. Each class of the earlier stages has the same number, divided
    among the stages that learn it. In each stage they are the first ones of an order: by herding,
    or at random.

    Args:
        stages: experiment of each stage.
        seed: seed of the training.
        net_of: function that returns the student of a finished stage by its index.
    """

    def __init__(
        self, stages: Sequence[Experiment], seed: int, net_of: Callable[[int], Net]
    ) -> None:
        self.stages = stages
        self.recipes = [stage.recipe for stage in stages]
        self.seed = seed
        self.net_of = net_of
        self._ordered: dict[int, dict[str, Samples]] = {}

    def stage(self, index: int) -> Experiment:
        """Return the experiment of a stage, with exemplars of earlier stages in its training data.

        Args:
            index: index of the stage.
        """
        stage = self.stages[index]
        config = stage.recipe.data.exemplars
        earlier = student_stages(self.recipes, index)[:-1]
        if config is None or not earlier:
            return stage
        parts = self._chosen(earlier, config.size, stage.splits.classes)
        own = stage.train_data(self.seed)
        with error_context("data.exemplars"):
            train = JoinedSamples([own, *(samples for _, samples in parts)])
        # The labels are already chosen: a choice among all samples would hide those of exemplars.
        data = stage.recipe.data.model_copy(update={"num_labeled": None})
        return dataclasses.replace(
            stage,
            recipe=stage.recipe.model_copy(update={"data": data}),
            splits=dataclasses.replace(stage.splits, train=train),
        )

    def classifier(self, index: int, net: Net) -> Net:
        """Return the student of a stage as it is evaluated and exported.

        Args:
            index: index of the stage.
            net: student of the stage.

        Returns:
            ``net``, or a copy whose head has the means of the exemplars as its weights.
        """
        config = self.recipes[index].data.exemplars
        if config is None or config.classifier == "head":
            return net
        stage = self.stages[index]
        indices = student_stages(self.recipes, index)
        features: dict[int, list[Tensor]] = {}
        for name, samples in self._chosen(indices, config.size, stage.splits.classes):
            rows = head_inputs(net, stage.loader(samples, shuffle=False), NEAREST_MEAN)
            features.setdefault(stage.splits.classes.index(name), []).append(rows)
        net = copy.deepcopy(net)
        joined = {label: torch.cat(rows) for label, rows in features.items()}
        set_class_means(net, joined, stage.splits.test.__getitems__([0]), NEAREST_MEAN)
        return net

    def _chosen(
        self, indices: Sequence[int], size: int, classes: Sequence[str]
    ) -> list[tuple[str, Samples]]:
        """Exemplars of each class of each stage, with labels in ``classes``."""
        parts: dict[str, list[Samples]] = {}
        for index in indices:
            for name, samples in self._order(index).items():
                parts.setdefault(name, []).append(samples)
        count = max(1, size // len(parts))
        chosen = []
        for name, ordered in parts.items():
            # A class of several stages has as many exemplars as the others, from all its stages.
            for position, samples in enumerate(ordered):
                share = len(range(position, count, len(ordered)))
                first = samples.subset(torch.arange(min(share, len(samples))))
                if len(first):
                    chosen.append((name, of_classes(first, [name], classes)))
        return chosen

    def _order(self, index: int) -> dict[str, Samples]:
        """Samples of each class that a stage learns, in the order of their choice."""
        if index not in self._ordered:
            stage = self.stages[index]
            samples = stage.train_data(self.seed)
            groups: dict[str, Samples] = {}
            for name in _learned(stage):
                label = stage.splits.classes.index(name)
                rows = (samples.label == label).nonzero().flatten()
                # A class may have no visible label, with data.num_labeled.
                if len(rows):
                    group = samples.subset(rows)
                    groups[name] = group.subset(self._ranking(index, name, group))
            self._ordered[index] = groups
        return self._ordered[index]

    def _ranking(self, index: int, name: str, samples: Samples) -> Tensor:
        """Order of the samples of one class."""
        stage = self.stages[index]
        # The options of the last stage are those of all: the first stage may have no section.
        config = self.recipes[-1].data.exemplars
        assert config is not None
        if config.selection == "herding":
            loader = stage.loader(samples, shuffle=False)
            features = head_inputs(self.net_of(index), loader, HERDING)
            return herding_order(features, config.size)
        key = stream_key(f"data.exemplars.stage-{index}.{name}") + self.seed
        generator = torch.Generator().manual_seed(key % 2**63)
        return torch.randperm(len(samples), generator=generator)


def check_exemplars(experiment: Experiment) -> None:
    """Check that the stages of a recipe can keep exemplars.

    Args:
        experiment: experiment of the whole recipe.

    Raises:
        RecipeError: without earlier stages, and for samples or numbers that do not fit.
    """
    stages = experiment.stages
    configs = [stage.recipe.data.exemplars for stage in stages]
    if not any(configs):
        return
    if len(stages) < 2:
        raise RecipeError(
            f"{KEY}: there is no earlier stage. Expected a recipe with several stages. Add stages, "
            "or remove data.exemplars"
        )
    if len({repr(config) for config in configs}) > 1:
        raise RecipeError(
            f"{KEY}: the stages have different options. Expected the same for all of them. Set "
            "exemplars in the section data of the recipe, and in no stage"
        )
    for index, stage in enumerate(stages):
        with error_context(f"stages.{index}"):
            _check_samples(stage)
    names: set[str] = set()
    for index in student_stages(_recipes(stages)):
        names.update(_learned(stages[index]))
    config = configs[-1]
    assert config is not None
    if config.size < len(names):
        raise RecipeError(
            f"{KEY}.size: {config.size} exemplars are fewer than the {len(names)} classes of all "
            f"stages. Expected at least {len(names)}, one for each"
        )


def check_exemplar_head(experiment: Experiment, net: Net, batch: Any) -> None:
    """Check that the student of a stage has the head that exemplars need.

    Args:
        experiment: experiment of the stage.
        net: student of the stage.
        batch: batch that the student reads.

    Raises:
        RecipeError: if herding or the nearest mean is set and the head is not a linear layer.
    """
    config = experiment.recipe.data.exemplars
    if config is None:
        return
    needs = {HERDING: config.selection == "herding"}
    needs[NEAREST_MEAN] = config.classifier == "nearest_mean"
    for key, is_set in needs.items():
        if is_set:
            with error_context(""):
                linear_head(net, batch, key)


def _check_samples(stage: Experiment) -> None:
    data = stage.recipe.data
    train = stage.splits.train
    if isinstance(train, Stream) or stage.splits.kind != "single" or train.label.ndim > 1:
        raise RecipeError(
            f"{KEY}: the samples of '{data.name}' are streamed or have several labels each. "
            "Expected data with a length and one class per sample. Remove data.exemplars"
        )
    if data.surrogate is not None or data.augment.mixup or data.augment.partner:
        raise RecipeError(
            f"{KEY}: does not work with data.surrogate, and with mixup and partner of data.augment."
            " Remove one of them"
        )


def _learned(stage: Experiment) -> tuple[str, ...]:
    """Classes of the training samples of a stage."""
    assert stage.stage_data is not None
    return stage.stage_data.learned


def _recipes(stages: Sequence[Experiment]) -> list[Any]:
    return [stage.recipe for stage in stages]
