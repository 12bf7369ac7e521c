"""What schemes share that recover images from what a teacher knows, remember them, and let the student learn from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from instil.core import Batch, Objective, Objectives, Scheme, Teacher, keyed_uniform, to_float32
from instil.modules.synthetic_memory import SyntheticMemory

Number = Annotated[int, Ge(1)]
Share = Annotated[float, Ge(0), Le(1)]
TARGETS, IMAGES, REPLAY = 11, 12, 13
"""Salts of the draws for each sample: the class to recover, where its image begins, which remembered image it is in a step that makes none."""


def decision_adversarial_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """-KL(teacher || student) where both name the same class, 0 elsewhere: logits (N, C) give (N,) (Fang et al. 2021).

    Minimised by the image: it seeks the teacher's decision boundary as the student does not see it. Gradients reach both.
    """
    mine, theirs = to_float32(student).log_softmax(-1), to_float32(teacher).log_softmax(-1)
    agree = student.argmax(-1) == teacher.argmax(-1)
    return -F.kl_div(mine, theirs, reduction="none", log_target=True).sum(-1) * agree


class InversionScheme(Scheme):
    """A scheme without a real image: of the loader's batches it takes the shape alone.

    In some steps it recovers a batch of images for drawn classes, from which the student learns at once and which it remembers; in all others the
    student learns from remembered ones. ``label`` is the class that an image was made for.

    ``memory``: how many of the last images are remembered.
    ``every``: one step in so many makes images.
    ``until``: the share of the training after which no more are made.
    """

    synthetic_inputs: ClassVar[bool] = True
    synthetic_labels: ClassVar[bool] = True

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        memory: Number = 1024,
        every: Number = 1,
        until: Share = 1.0,
    ):
        super().__init__(student, teacher, objectives)
        self.size, self.every, self.until = memory, every, until
        self.memory = nn.Module()
        self.classes = 0

    def build(self, batch: Batch) -> None:
        image: Tensor = batch.get("image", torch.empty(0))
        if not image.is_floating_point() or image.ndim != 4:
            raise ValueError(
                f"images (N, C, H, W) are to be made, floating point in [0, 1], in the shape of 'image'; the batch has {', '.join(batch)}"
            )
        if self.teacher is None:
            raise ValueError(f"{type(self).__name__} needs a teacher")
        logits = self.teacher_outputs(batch)["logits"]
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise ValueError(
                f"images are recovered by class; the teacher's logits are {tuple(logits.shape)}, not (N, C) with two classes or more"
            )
        self.classes = logits.shape[1]
        self.memory = SyntheticMemory(self.size, **self.memory_rows(batch))
        super().build(batch)
        self.teacher.select_roles(self.objectives.reads("teacher") | {"logits"}, batch)

    def memory_rows(self, batch: Batch) -> dict[str, Tensor]:
        """Of each name what is remembered of an image, as rows of this batch."""
        return {"image": batch["image"], "label": self.targets(batch)}

    def creates_images(self, batch: Batch) -> bool:
        """Whether images are made in this step: the same on all ranks."""
        step = int(batch.get("step", 0))
        return step == 0 or (
            step % self.every == 0 and float(batch.get("progress", 0.0)) < self.until
        )

    def targets(self, batch: Batch) -> Tensor:
        """A class for each sample, drawn by (seed, step, index)."""
        return (keyed_uniform(batch, 1, TARGETS).squeeze(1) * self.classes).long()

    def recall(self, batch: Batch) -> Batch:
        """The batch with remembered images."""
        assert isinstance(self.memory, SyntheticMemory)
        drawn = self.memory.draw(batch, REPLAY)
        return batch | {"image": drawn["image"], "label": drawn["label"]}

    def pictures(self, batch: Batch) -> Tensor:
        """Some of the images that the student learnt from."""
        image: Tensor = self.recall(batch)["image"]
        return image

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        assert isinstance(self.memory, SyntheticMemory)
        if "made.image" in gathered_rows:
            self.memory.push(**{name: gathered_rows[f"made.{name}"] for name in self.memory.names})


def synthetic_rows(**rows: Tensor) -> dict[str, Tensor]:
    """What is kept of a step's images, under the names that ``after_step`` knows."""
    return {f"made.{name}": value.detach() for name, value in rows.items()}


def random_shift(image: Tensor, batch: Batch, pixels: int, turn: int) -> Tensor:
    """The images rolled by up to ``pixels`` down and across, by as much for all, drawn anew at every turn of a step (jitter)."""
    if not pixels:
        return image
    moment = (int(batch.get("seed", 0)) * 1_000_003 + int(batch.get("step", 0))) * 1_000_003 + turn
    down, across = torch.randint(
        -pixels, pixels + 1, (2,), generator=torch.Generator().manual_seed(moment % 2**63)
    ).tolist()
    return image.roll((down, across), (2, 3))
