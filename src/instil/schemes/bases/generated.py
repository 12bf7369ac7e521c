"""Base class of data-free schemes whose generator is trained together with the student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Net,
    Objective,
    Objectives,
    Outputs,
    Scheme,
    Teacher,
    Update,
    as_net,
    item_weights,
)
from instil.functional.keyed_random import keyed_normal, keyed_uniform
from instil.modules.batch_statistics import (
    BatchNormStatistics,
    bn_statistics_loss,
    record_statistics,
    require_batch_norm,
)
from instil.modules.eval_mode import eval_mode
from instil.modules.synthetic_memory import SyntheticMemory
from instil.schemes.bases.unlabelled_images import require_no_labels, without_labels

MemorySize = Annotated[
    int,
    Ge(0),
    Doc("number of last images to remember; half of the student's images are remembered ones"),
]
Steps = Annotated[int, Ge(1)]
REPLAYED = 0.5
"""Share of remembered images among those of the student, if there is a memory."""


class GeneratorScheme(Scheme):
    """Base class of schemes with a generator.

    There are two learners: ``generator``, trained by ``terms`` on the outputs of teacher and
    student for its images, and ``student``, trained by the objectives on such images. Subclasses
    define the order of the updates in ``step``. Only the shape of the images in a batch is used.
    Latent codes depend on seed, step, sample and turn only.

    Args:
        student: the student.
        teacher: the teacher.
        objectives: losses of the student.
        generator: network with the attribute ``latent``, the width of its codes, that maps codes
            (N, latent) to images of the size in the batch.
        terms: losses of the generator.
        memory: number of last images to remember; if > 0, half of the student's images are
            remembered ones.
    """

    statistics_option = "statistics"
    """Option with the weight of the BatchNorm statistics, for messages."""

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: nn.Module,
        terms: Objectives,
        memory: MemorySize = 0,
    ):
        super().__init__(student, teacher, objectives)
        self.generator = as_net(generator)
        self.terms = terms
        self.memory = memory
        self.replay: SyntheticMemory | None = None
        self.learners["generator"] = ("generator", "terms")

    def build(self, batch: Batch) -> None:
        if self.teacher is None:
            raise ValueError(
                f"teacher: {type(self).__name__} needs a teacher, its only source of knowledge"
            )
        if self.objectives.needs_input_grad:
            name = self.objectives.requires_double_backward()[0]
            raise ValueError(
                f"{name} takes gradients by the input, which {type(self).__name__} cannot give"
            )
        require_no_labels(self)
        if "statistics" in self.terms.reads("teacher"):
            require_batch_norm(self.teacher, self.statistics_option)
        image = self.generate(batch)
        require_images(image, batch)
        # Before super().build, which selects the roles of the teacher.
        student, teacher = self.forward_both(batch | {"image": image})
        self.terms.build(student, teacher | {"statistics": item_weights(batch)})
        super().build(batch | {"image": image})
        if self.memory:
            self.replay = SyntheticMemory(self.memory, image=image)

    def before_step(self, batch: Batch) -> Batch:
        """Remove the labels of the data, which do not belong to the generated images."""
        return without_labels(batch)

    def teacher_roles(self) -> set[str]:
        # The scheme computes the role statistics.
        return super().teacher_roles() | self.terms.reads("teacher") - {"statistics"} | {"logits"}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), **self.terms.counts(batch)}

    def generate(self, batch: Batch, turn: int = 0) -> Tensor:
        """Generate images (N, C, H, W) from random codes of a turn."""
        latents = keyed_normal(batch, latent_dim(self.generator), f"scheme.codes.{turn}")
        image: Tensor = generate_images(self.generator, latents)
        return image

    def generator_update(self, batch: Batch, turn: int = 0) -> Update:
        """Return the generator's update, with gradients through both networks."""
        synthetic = batch | {"image": self.generate(batch, turn)}
        # In evaluation mode BatchNorm neither normalises by these images nor adopts their
        # statistics.
        with eval_mode(self.student):
            student = self.student(synthetic)
        teacher = self._teacher_outputs_with_statistics(synthetic)
        update: Update = self.terms(student, teacher, synthetic, "generator")
        return update

    def _teacher_outputs_with_statistics(self, batch: Batch) -> Outputs:
        """Return the teacher's outputs, with the role ``statistics`` if a term reads it."""
        if "statistics" not in self.terms.reads("teacher"):
            return self.teacher_outputs(batch, grad=True)
        with record_statistics(self.teacher or self, item_weights(batch)) as statistics:
            teacher = self.teacher_outputs(batch, grad=True)
        loss = self.bn_statistics_loss(statistics)
        # One row per sample, as in every other role; the term takes the mean of equal rows.
        return teacher | {"statistics": loss.expand(len(batch["image"]))}

    def bn_statistics_loss(self, statistics: list[BatchNormStatistics]) -> Tensor:
        """Compute the distance (scalar) of the images from the teacher's running statistics."""
        return bn_statistics_loss(statistics)

    def student_updates(self, batch: Batch, turns: int, fresh: bool) -> Iterator[Update]:
        """Yield the student's updates on generated images.

        Args:
            batch: the batch; only the shape of its images is used.
            turns: number of updates.
            fresh: generate new images in each turn.

        Yields:
            One update per turn.
        """
        for turn in range(turns):
            if fresh or not turn:
                # The student's update must not reach the generator.
                with torch.no_grad():
                    image = self.generate(batch, turn)
            synthetic = batch | {"image": self._with_remembered(batch, image, turn if fresh else 0)}
            update = self.objectives(
                self.student(synthetic), self.teacher_outputs(synthetic), synthetic
            )
            # Only the images of the last turn are remembered: one batch per step enters the memory.
            if self.replay is not None and turn == turns - 1:
                update.state_updates["made"] = image[item_weights(batch) > 0]
            yield update
            # Frees the graph before the next forward pass.
            del update

    def after_step(self, rows: dict[str, Tensor]) -> None:
        image = rows.pop("made", None)
        super().after_step(rows)
        if self.replay is not None and image is not None:
            self.replay.push(image=image)

    def synthetic_images(self, batch: Batch) -> Tensor:
        """Generate the images of the first turn."""
        return self.generate(batch)

    def _with_remembered(self, batch: Batch, image: Tensor, turn: int) -> Tensor:
        if self.replay is None:
            return image
        is_replayed = keyed_uniform(batch, 1, f"scheme.replay.choice.{turn}").squeeze(1) < REPLAYED
        is_replayed = is_replayed & (self.replay.pushed > 0)
        # An empty memory returns zeros, which the mask above never selects.
        remembered = self.replay.draw(batch, f"scheme.replay.rows.{turn}")["image"]
        return torch.where(is_replayed[:, None, None, None], remembered, image)


def require_images(image: Tensor, batch: Batch) -> None:
    """Check that generated images have the shape of those in the batch, and lie in [0, 1].

    Raises:
        ValueError: otherwise.
    """
    expected = tuple(batch.get("image", torch.empty(0)).shape)
    if tuple(image.shape) != expected:
        raise ValueError(
            f"scheme.generator: wrong shape of the images. Expected {expected}, the shape of the"
            f" data, got {tuple(image.shape)}"
        )
    low, high = (float(bound) for bound in image.detach().aminmax())
    if low < 0 or high > 1:
        raise ValueError(
            "scheme.generator: wrong values of the images. Expected values in [0, 1], those of the"
            f" data, got {low:.3g} to {high:.3g}. End the generator with a sigmoid"
        )


def weighted_objectives(terms: Mapping[str, tuple[Objective, float]]) -> Objectives:
    """Return the generator's losses with their weights, without those of weight 0."""
    used = {name: (term, weight) for name, (term, weight) in terms.items() if weight}
    return Objectives(
        {name: term for name, (term, _) in used.items()},
        {name: weight for name, (_, weight) in used.items()},
    )


def latent_dim(generator: Net) -> int:
    """Return the width of a generator's codes, from the attribute ``latent`` of its model.

    Raises:
        ValueError: if the model has no such attribute.
    """
    latent = getattr(generator.model, "latent", None)
    if not isinstance(latent, int):
        raise ValueError(
            f"scheme.generator: {type(generator.model).__name__} has no attribute 'latent'."
            " Expected an int, the width of its codes"
        )
    return latent


def generate_images(generator: Net, latents: Tensor) -> Tensor:
    """Generate images (N, C, H, W) from codes (N, L)."""
    image: Tensor = generator({"latent": latents}, call=_generate)["image"]
    return image


def _generate(model: nn.Module, batch: Batch) -> Outputs:
    return {"image": model(batch["latent"])}
