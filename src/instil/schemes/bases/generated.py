"""What schemes without data share whose images come from a generator that learns beside the student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

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
    keyed_normal,
    keyed_uniform,
)
from instil.modules.batch_statistics import (
    BatchNormStatistics,
    bn_statistics_loss,
    record_statistics,
)
from instil.modules.eval_mode import eval_mode
from instil.modules.synthetic_memory import SyntheticMemory

Images = Annotated[int, Ge(0)]
REPLAYED = 0.5
"""Of the images that the student learns from, where there is a memory."""
CODES, REPLAY = 21, 1021
"""Salts: of the codes of turn t of a step, CODES + t."""


class GeneratorScheme(Scheme):
    """Two learners: ``generator``, by ``terms`` that teacher and student give its images, and ``student``, by the objectives on such images.

    Subclasses say in ``step`` who learns when. ``generator``: a net that has a width ``latent`` and makes of codes (N, latent) images of the size of
    the batch's, of which only their shape counts. Random codes depend on seed, step, sample and turn alone.

    ``memory``: how many of the images made last are kept; if any, half of those that the student learns from come from there.
    """

    synthetic_inputs: ClassVar[bool] = True

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        generator: nn.Module,
        terms: Objectives,
        memory: Images = 0,
    ):
        super().__init__(student, teacher, objectives)
        self.generator, self.terms, self.memory = as_net(generator), terms, memory
        self.replay: SyntheticMemory | None = None
        self.learners["generator"] = ("generator", "terms")

    def build(self, batch: Batch) -> None:
        if self.teacher is None:
            raise ValueError(
                f"{type(self).__name__} needs a teacher: nothing else is known of the data"
            )
        if self.objectives.needs_input_grad:
            raise ValueError(
                f"{self.objectives.requires_double_backward()[0]} takes gradients by the input, which {type(self).__name__} cannot give"
            )
        image, wanted = self.generate(batch), tuple(batch["image"].shape)
        if tuple(image.shape) != wanted:
            raise ValueError(
                f"scheme.generator: it makes images of shape {tuple(image.shape)}; the data's have {wanted}"
            )
        student, teacher = self.forward_both(
            batch | {"image": image}
        )  # asked first: the objectives may want less of the teacher than the terms
        super().build(batch | {"image": image})
        self.terms.build(student, teacher | {"statistics": item_weights(batch)})
        self.teacher.select_roles(
            (self.objectives.reads("teacher") | self.terms.reads("teacher") | {"logits"})
            - {"statistics"},
            batch,
        )
        if self.memory:
            self.replay = SyntheticMemory(self.memory, image=image)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), **self.terms.counts(batch)}

    def generate(self, batch: Batch, turn: int = 0) -> Tensor:
        """Images (N, C, H, W) of new codes."""
        image: Tensor = generate_images(
            self.generator, keyed_normal(batch, latent_dim(self.generator), CODES + turn)
        )
        return image

    def generator_update(self, batch: Batch, turn: int = 0) -> Update:
        """The generator's update, through both nets, the student as it is at evaluation, so that its BatchNorm neither scales these images by
        themselves nor remembers them.
        """
        seen = batch | {"image": self.generate(batch, turn)}
        with eval_mode(self.student):
            student = self.student(seen)
        update: Update = self.terms(student, self._judgement(seen), seen, "generator")
        return update

    def _judgement(self, seen: Batch) -> Outputs:
        """The teacher's outputs, with the role ``statistics`` where a term reads it."""
        if "statistics" not in self.terms.reads("teacher"):
            return self.teacher_outputs(seen, grad=True)
        with record_statistics(self.teacher or self, item_weights(seen)) as read:
            teacher = self.teacher_outputs(seen, grad=True)
        return teacher | {"statistics": self.bn_statistics_loss(read).expand(len(seen["image"]))}

    def bn_statistics_loss(self, read: list[BatchNormStatistics]) -> Tensor:
        """How far the images are from what the teacher's BatchNorms remember, a scalar."""
        return bn_statistics_loss(read)

    def student_updates(self, batch: Batch, turns: int, fresh: bool) -> Iterator[Update]:
        """The student's updates on images that the generator makes: ``fresh`` ones in each turn, or the same ones."""
        for turn in range(turns):
            if fresh or not turn:
                with torch.no_grad():
                    image = self.generate(batch, turn)
            seen = batch | {"image": self._mixed(batch, image)}
            update = self.objectives(self.student(seen), self.teacher_outputs(seen), seen)
            if self.replay is not None and turn == turns - 1:
                update.state_updates["made"] = image
            yield update
            del update

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        made = gathered_rows.pop("made", None)
        super().after_step(gathered_rows)
        if self.replay is not None and made is not None:
            self.replay.push(image=made)

    def pictures(self, batch: Batch) -> Tensor:
        return self.generate(batch)

    def _mixed(self, batch: Batch, image: Tensor) -> Tensor:
        if self.replay is None:
            return image
        old = (keyed_uniform(batch, 1, REPLAY).squeeze(1) < REPLAYED) & (self.replay.pushed > 0)
        return torch.where(
            old[:, None, None, None], self.replay.draw(batch, REPLAY + 1)["image"], image
        )


def weighted_objectives(terms: Mapping[str, tuple[Objective, float]]) -> Objectives:
    """The generator's terms with their weights, without those of weight 0."""
    used = {name: (term, weight) for name, (term, weight) in terms.items() if weight}
    return Objectives(
        {name: term for name, (term, _) in used.items()},
        {name: weight for name, (_, weight) in used.items()},
    )


def latent_dim(generator: Net) -> int:
    """What the generator's model says in ``latent``; ValueError where it does not."""
    latent = getattr(generator.model, "latent", None)
    if not isinstance(latent, int):
        raise ValueError(
            f"scheme.generator: {type(generator.model).__name__} does not say in 'latent' how wide its codes are"
        )
    return latent


def generate_images(generator: Net, codes: Tensor) -> Tensor:
    """The images (N, C, H, W) that a generator makes of codes (N, L)."""
    image: Tensor = generator({"latent": codes}, call=_generate)["image"]
    return image


def _generate(model: nn.Module, batch: Batch) -> Outputs:
    return {"image": model(batch["latent"])}
