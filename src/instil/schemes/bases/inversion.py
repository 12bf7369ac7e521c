"""Images recovered from a teacher: the pool, its options, and parts of the losses."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Scheme, item_weights, to_float32
from instil.functional.keyed_random import keyed_uniform
from instil.modules.synthetic_memory import SyntheticMemory

Count = Annotated[int, Ge(1)]
ImageMemory = Annotated[Count, Doc("number of last images to remember")]
Every = Annotated[Count, Doc("steps from one batch of new images to the next")]
Until = Annotated[
    float, Ge(0), Le(1), Doc("share of the training after which no new images are created")
]
Shift = Annotated[int, Ge(0), Doc("largest random shift of the images in an iteration, in pixels")]


def decision_adversarial_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Negative KL divergence where both networks predict the same class (Fang et al. 2021).

    An image that lowers the loss moves to where the student, despite the same prediction, differs
    from the teacher.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C). Gradients reach both.

    Returns:
        -KL(teacher || student) of each image (N,); 0 where the predictions differ.

    Example:
        >>> decision_adversarial_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]]))
        tensor([-0.0671])
    """
    student_log_probs = to_float32(student_logits).log_softmax(-1)
    teacher_log_probs = to_float32(teacher_logits).log_softmax(-1)
    # A comparison has no gradient: it acts as a constant weight of each image.
    agree = student_logits.argmax(-1) == teacher_logits.argmax(-1)
    values = F.kl_div(student_log_probs, teacher_log_probs, reduction="none", log_target=True)
    return -values.sum(-1) * agree


class ImagePool(SyntheticMemory):
    """Memory of images recovered from a teacher, and the plan of the steps that create them.

    Some steps create a batch of images, from which the student learns at once and which are
    remembered. In all other steps the student learns from remembered images. ``label`` is the class
    for which an image was created. Only the shape of the images in a batch is used.

    Args:
        size: number of last images to remember.
        every: steps from one batch of new images to the next.
        until: share of the training after which no new images are created.
    """

    def __init__(self, size: int, every: int, until: float):
        # Without buffers: only build knows the shape of an image.
        super().__init__(size)
        self.every = every
        self.until = until
        self.num_classes = 0

    def count_classes(self, scheme: Scheme, batch: Batch) -> None:
        """Count the teacher's classes.

        Args:
            scheme: the scheme that owns the pool.
            batch: dry batch.

        Raises:
            ValueError: if there are no images, no teacher or no classes.
        """
        name = type(scheme).__name__
        image: Tensor = batch.get("image", torch.empty(0))
        if not image.is_floating_point() or image.ndim != 4:
            raise ValueError(
                f"{name} creates images in the shape of 'image'. Expected 'image' "
                "(N, C, H, W) in the batch, floating point in [0, 1], got a batch with "
                f"{', '.join(batch)}"
            )
        if scheme.teacher is None:
            raise ValueError(f"{name} needs a teacher. Expected the network to invert, got None")
        logits = scheme.teacher_outputs(batch)["logits"]
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise ValueError(
                f"{name} creates images of a class. Expected teacher logits (N, C) "
                f"with two classes or more, got {tuple(logits.shape)}"
            )
        self.num_classes = logits.shape[1]

    def creates_images(self, batch: Batch) -> bool:
        """Whether this step creates images; equal on all ranks."""
        step = int(batch.get("step", 0))
        # The memory is empty at the first step, so that step must create images.
        return step == 0 or (
            step % self.every == 0 and float(batch.get("progress", 0.0)) < self.until
        )

    def sample_classes(self, batch: Batch) -> Tensor:
        """Sample a class (N,) for each image, from (seed, step, index)."""
        return (keyed_uniform(batch, 1, "scheme.targets").squeeze(1) * self.num_classes).long()

    def recall(self, batch: Batch) -> Batch:
        """Replace the images and labels of a batch by remembered ones."""
        drawn = self.draw(batch, "scheme.replay")
        return batch | {"image": drawn["image"], "label": drawn["label"]}

    def remember(self, gathered_rows: dict[str, Tensor]) -> bool:
        """Remember the rows of ``synthetic_rows``, if there are any.

        Returns:
            Whether the step created images.
        """
        has_images = "made.image" in gathered_rows
        if has_images:
            self.push(**{name: gathered_rows[f"made.{name}"] for name in self.names})
        return has_images


def synthetic_rows(batch: Batch, **rows: Tensor) -> dict[str, Tensor]:
    """Rows of new images under the names that ``ImagePool.remember`` reads.

    A process without data repeats the images of an earlier micro-batch, which do not count.

    Args:
        batch: batch of the images.
        **rows: rows (N, ...) of each name.

    Returns:
        Rows of the images that count.
    """
    counted = item_weights(batch) > 0
    return {f"made.{name}": value[counted].detach() for name, value in rows.items()}


def random_shift(image: Tensor, batch: Batch, pixels: int, turn: int) -> Tensor:
    """Roll all images by the same random number of pixels, vertically and horizontally (jitter).

    Args:
        image: (N, C, H, W).
        batch: the batch; the shift depends on its (seed, step).
        pixels: largest shift. 0: no shift.
        turn: index of the shift in the step.

    Returns:
        The rolled images.
    """
    if not pixels:
        return image
    # Keyed by seed, step and turn: every micro-batch and rank rolls its images by the same pixels.
    moment = (int(batch.get("seed", 0)) * 1_000_003 + int(batch.get("step", 0))) * 1_000_003 + turn
    generator = torch.Generator().manual_seed(moment % 2**63)
    down, across = torch.randint(-pixels, pixels + 1, (2,), generator=generator).tolist()
    return image.roll((down, across), (2, 3))
