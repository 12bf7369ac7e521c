"""Compression of a model into a student, as a recipe describes it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from instil import catalogue, students
from instil.core import Batch, Net, Objectives, Outputs, side_effect_free
from instil.data.samples import Samples, labelled_rows
from instil.data.streams import Stream
from instil.experiment.observed_tokens import token_masks
from instil.networks.presets import taps_for
from instil.recipe import RecipeError
from instil.recipe.options import check
from instil.recipe.sections import ModelConfig, TeacherConfig
from instil.students.fresh_parts import reset_parts
from instil.students.head_growth import grow_head

NUM_OBSERVED = 16
"""Number of samples whose outputs decide which layers or parts a student keeps."""

OBSERVED_BATCH_SIZE = 4
"""Number of these samples in memory at the same time."""

NUM_SCORED = 128
"""Number of samples on whose label loss the importance of parts is computed."""

SCORED_BATCH_SIZE = 8
"""Number of these samples in one gradient."""


def check_copied(config: TeacherConfig) -> None:
    """Check that a student may start as a copy of a teacher.

    Args:
        config: section of the teacher.

    Raises:
        ValueError: for a teacher without weights to train, or with a tokenizer of its own.
    """
    if not config.is_differentiable:
        raise ValueError(
            f"model: 'teacher' copies the teacher, and {config.model} has no weights that a "
            "student could train. Expected a teacher that is a network. Use a network as the "
            "student, such as student=mlp"
        )
    if config.tokenizer is not None:
        raise ValueError(
            "model: 'teacher' needs a student with the tokens of its teacher. Set "
            "data.tokenizer, and leave teacher.tokenizer out"
        )


def compress(model: nn.Module, config: ModelConfig, observe: students.Observe) -> nn.Module:
    """Apply the compressions of a recipe to a model.

    Args:
        model: the model, which may be changed.
        config: section of the network; ``changes`` has the compressions with their options.
        observe: outputs of a model on some samples; None if only the architecture is needed.

    Raises:
        ValueError: for an unknown compression, or options that do not fit.
    """
    for name, options in config.changes.items():
        try:
            change = students.find(name)
            arguments = check(change, options, schedules=False)
            if "observe" in inspect.signature(change).parameters:
                arguments["observe"] = observe
            model = change(model, **arguments)
        except ValueError as error:
            separator = "." if isinstance(error, RecipeError) else ": "
            message = "; ".join(str(error).splitlines())
            raise ValueError(f"changes.{name}{separator}{message}") from error
    return model


def copy_of_stage(
    net: Net,
    config: ModelConfig,
    samples: Samples | None,
    seed: int = 0,
    stage_index: int = 0,
    labelled: LabelledSamples | None = None,
) -> Net:
    """Return a copy of the student of an earlier stage, as a stage changes or freezes it.

    Args:
        net: student of the earlier stage.
        config: section of the network, which names that stage.
        samples: samples on which parts are chosen, with the classes of the stage; None if only the
            architecture is needed.
        seed: seed of the weights of new outputs and of reset parts.
        stage_index: index of the stage, which names their random stream.
        labelled: samples with labels, for compressions that need gradients.

    Raises:
        ValueError: for compressions that do not fit, taps that the compressed model lacks, a head
            that cannot grow, or parts that cannot be reset.
    """
    net = copy.deepcopy(net)
    # First: a compression may replace the head by a layer that cannot grow.
    if config.grow_head and samples is not None:
        # Two samples: some models squeeze a batch of one.
        batch = samples.__getitems__([0, min(1, len(samples) - 1)])
        stream = f"student.grow_head.stage-{stage_index}"
        grow_head(net, len(samples.classes), batch, seed, stream)
    if config.reset:
        reset_parts(net.cpu().model, config.reset, seed, f"student.reset.stage-{stage_index}")
    if config.changes:
        # The observed samples are on the CPU.
        net.cpu()
        observe = None
        if samples is not None:
            observe = Observer(net.call, samples, labelled)
        model = compress(net.model, config, observe)
        # Taps of a library model follow its new layers; others stay those of the recipe.
        net = Net(model, net.call, {**net.taps, **taps_for(model)})
    net.freeze(config.freeze)
    return net


@dataclass(frozen=True)
class LabelledSamples:
    """Samples with the labels that a student may see.

    Args:
        samples: training samples.
        objectives: names of the objectives on labels of the task.
    """

    samples: Samples
    objectives: Sequence[str]

    def batches(self) -> Iterator[Batch]:
        """Yield labelled samples, evenly spaced: the data may be sorted by class."""
        first = self.samples.head if isinstance(self.samples, Stream) else self.samples
        rows = labelled_rows(first)
        count = min(NUM_SCORED, len(rows))
        spaced = rows[torch.arange(count) * len(rows) // max(count, 1)].tolist()
        for start in range(0, count, SCORED_BATCH_SIZE):
            yield first.__getitems__(spaced[start : start + SCORED_BATCH_SIZE])


class Observer:
    """Outputs of a model for the first samples, and its losses on labels, in batches.

    Args:
        call: call of the task.
        samples: the samples.
        labelled: samples with labels; None if no compression needs losses.

    Attributes:
        token_masks: masks (N, T) of the batch that runs, one per input; False for padding.
    """

    def __init__(
        self,
        call: Callable[[nn.Module, Batch], Outputs],
        samples: Samples,
        labelled: LabelledSamples | None = None,
    ) -> None:
        self._call = call
        self._samples = samples
        self._labelled = labelled
        self.token_masks: Sequence[Tensor] = ()

    def __call__(self, model: nn.Module) -> Iterator[Outputs]:
        """Yield the outputs of a model, without gradients."""
        first = self._samples.head if isinstance(self._samples, Stream) else self._samples
        rows = range(min(NUM_OBSERVED, len(first)))
        with side_effect_free(model):
            for start in range(0, len(rows), OBSERVED_BATCH_SIZE):
                batch = first.__getitems__(rows[start : start + OBSERVED_BATCH_SIZE])
                self.token_masks = token_masks(model, batch)
                yield self._call(model, batch)

    def losses(self, model: nn.Module) -> Iterator[Tensor]:
        """Yield the sum of the label losses of each batch, with gradients.

        Raises:
            ValueError: if no sample has a label.
        """
        assert self._labelled is not None
        names = self._labelled.objectives
        objectives = Objectives({name: catalogue.find("objective", name)() for name in names})
        is_built = False
        with side_effect_free(model):
            for batch in self._labelled.batches():
                if not is_built:
                    objectives.build(self._call(model, batch), {})
                    is_built = True
                with torch.enable_grad():
                    update = objectives(self._call(model, batch), {}, batch)
                    yield torch.stack(list(update.losses.values())).sum()
        if not is_built:
            raise ValueError(
                "by: taylor reads the loss on labels, and no sample has one. Expected magnitude"
            )
