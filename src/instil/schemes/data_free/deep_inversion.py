"""DeepInversion: images optimised pixel by pixel to match a class and BatchNorm statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Positive,
    Scheme,
    Teacher,
    Update,
    item_weights,
    to_float32,
)
from instil.functional.image_priors import image_norm, total_variation
from instil.functional.keyed_random import keyed_uniform
from instil.modules.batch_statistics import (
    bn_statistics_loss,
    record_statistics,
    require_batch_norm,
)
from instil.modules.eval_mode import eval_mode
from instil.schemes.bases.inversion import (
    Count,
    Every,
    ImageMemory,
    ImagePool,
    Shift,
    Until,
    random_shift,
    synthetic_rows,
)

LEAST, MOST = 0.01, 0.99
"""Between these the authors' code keeps the probabilities of the competition."""


def competition(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 3.0,
    form: Literal["paper", "code"] = "paper",
) -> Tensor:
    """One minus the Jensen-Shannon divergence of student and teacher (Yin et al. 2020).

    Args:
        student: student logits (N, C).
        teacher: teacher logits (N, C).
        temperature: softmax temperature, > 0.
        form: ``"paper"``: (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2. ``"code"``: the mean
            of KL(m || p) and KL(m || q) over the batch, clamped to [0, 1]; the probabilities are
            clamped to [0.01, 0.99] first.

    Returns:
        (N,) for ``"paper"``, a scalar for ``"code"``.
    """
    log_p = (to_float32(student) / temperature).log_softmax(-1)
    log_q = (to_float32(teacher) / temperature).log_softmax(-1)
    if form == "paper":
        log_m = torch.logaddexp(log_p, log_q) - math.log(2)
        to_p = F.kl_div(log_m, log_p, reduction="none", log_target=True).sum(-1)
        to_q = F.kl_div(log_m, log_q, reduction="none", log_target=True).sum(-1)
        return 1 - torch.stack([to_p, to_q]).mean(0)
    # The form of the code has one value for the whole batch, so it couples the images.
    p, q = log_p.exp(), log_q.exp()
    m = ((p + q) / 2).clamp(LEAST, MOST)
    from_p = F.kl_div(p.clamp(LEAST, MOST).log(), m, reduction="none").sum(-1).mean()
    from_q = F.kl_div(q.clamp(LEAST, MOST).log(), m, reduction="none").sum(-1).mean()
    return 1 - (torch.stack([from_p, from_q]).sum() / 2).clamp(0, 1)


class DeepInversion(Scheme):
    """DeepInversion and Adaptive DeepInversion (Yin et al. 2020).

    Every image starts as noise. It is optimised for the cross-entropy with a sampled class, the
    statistics of the teacher's BatchNorms and image priors. With ``competition_weight`` it is also
    optimised for disagreement of student and teacher. The learning rate and the weights are those
    of the authors' code for CIFAR-10.
    """

    card = Card(
        "Dreaming to distill: data-free knowledge transfer via DeepInversion",
        "https://arxiv.org/abs/1912.08795",
        "CVPR",
        2020,
        source="offline",
        algorithms=("data-free",),
        labels=("single",),
        equation=r"\min_{\hat x} \mathrm{CE}(p^t(\hat x), y) + \alpha_{f} \sum_l "
        r"(\Vert \mu_l(\hat x) - \mu_l \Vert_2 + \Vert \sigma_l^2(\hat x) - \sigma_l^2 \Vert_2) + "
        r"\alpha_{tv} R_{TV}(\hat x) + \alpha_2 \Vert \hat x \Vert_2 + "
        r"\alpha_c (1 - \mathrm{JS}(p^t(\hat x), p^s(\hat x)))",
        use="There are no data, and the teacher has BatchNorm. There is no generator to balance.",
        pitfalls="A batch of images needs one forward and one backward pass through the teacher "
        "per iteration. The statistics are those of a micro-batch: with a small one, or "
        "with accumulation, they are noisier than the running ones that they must match.",
        tags=(
            "teacher_gradients",
            "synthetic_labels",
        ),
        deviations="Total variation and norm are computed per image; the authors' code for "
        "CIFAR-10 computes both over the whole batch of 256, so that their weights count 16 times "
        "as much. It takes 2,000 steps and shifts by up to 2 pixels. The competition is the "
        "paper's Jensen-Shannon divergence, whose two arguments the code swaps. Images "
        "start as uniform noise, are kept in [0, 1] and are not mirrored.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        memory: ImageMemory = 1024,
        every: Every = 1,
        until: Until = 0.25,
        iterations: Annotated[Count, Doc("steps of Adam on a batch of images")] = 200,
        learning_rate: Annotated[Positive, Doc("learning rate of these steps")] = 0.1,
        statistics_weight: Annotated[
            NonNegative,
            Doc("weight of the distance from the BatchNorm statistics; 0 without BatchNorm"),
        ] = 10.0,
        variation_weight: Annotated[NonNegative, Doc("weight of the total variation")] = 2.5e-5,
        size_weight: Annotated[NonNegative, Doc("weight of the norm of the images")] = 0.0,
        competition_weight: Annotated[
            NonNegative, Doc("weight of 1 - JS(teacher, student), with the current student")
        ] = 0.0,
        shift: Shift = 0,
    ):
        super().__init__(student, teacher, objectives)
        self.memory = ImagePool(memory, every, until)
        self.iterations = iterations
        self.learning_rate = learning_rate
        self.shift = shift
        self.statistics_weight = statistics_weight
        self.variation_weight = variation_weight
        self.size_weight = size_weight
        self.competition_weight = competition_weight

    def build(self, batch: Batch) -> None:
        self.memory.count_classes(self, batch)
        assert self.teacher is not None
        if self.statistics_weight:
            require_batch_norm(self.teacher, "statistics_weight")
        self.memory.allocate(image=batch["image"], label=self.memory.sample_classes(batch))
        super().build(batch)

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() | {"logits"}

    def before_step(self, batch: Batch) -> Batch:
        """Replace the images by recovered ones of sampled classes, or by remembered ones."""
        if not self.memory.creates_images(batch):
            return self.memory.recall(batch)
        batch = batch | {"label": self.memory.sample_classes(batch)}
        return batch | {"image": self.invert(batch)}

    def invert(self, batch: Batch) -> Tensor:
        """Optimise noise to images (N, C, H, W) of the classes ``label``."""
        like: Tensor = batch["image"]
        image = (
            keyed_uniform(batch, like[0].numel(), "scheme.noise")
            .view_as(like)
            .to(like.dtype)
            .requires_grad_()
        )
        optimizer = torch.optim.Adam([image], self.learning_rate)
        with eval_mode(self.student), torch.enable_grad():
            for turn in range(self.iterations):
                loss = self.energy(random_shift(image, batch, self.shift, turn), batch)
                # grad instead of backward: no gradient may accumulate in a parameter before the
                # step.
                (image.grad,) = torch.autograd.grad(loss, image)
                optimizer.step()
                # Through .data, because autograd forbids in-place changes of a leaf.
                image.data.clamp_(0, 1)
        return image.detach()

    def energy(self, image: Tensor, batch: Batch) -> Tensor:
        """Compute the loss of images (N, C, H, W) of the classes ``label``, summed over them."""
        with record_statistics(self.teacher or self, item_weights(batch)) as read:
            teacher = to_float32(
                self.teacher_outputs(batch | {"image": image}, grad=True)["logits"]
            )
        values = F.cross_entropy(teacher, batch["label"], reduction="none")
        values = (
            values
            + self.variation_weight * total_variation(image)
            + self.size_weight * image_norm(image)
        )
        if self.competition_weight:
            student = self.student(batch | {"image": image})["logits"]
            values = values + self.competition_weight * competition(student, teacher)
        if self.statistics_weight:
            values = values + self.statistics_weight * bn_statistics_loss(read)
        # A sum over the images: the gradient of an image does not shrink with the size of the
        # batch.
        return values.sum()

    def step(self, batch: Batch) -> Iterator[Update]:
        update = self.compute_losses(batch)
        if self.memory.creates_images(batch):
            update.state_updates |= synthetic_rows(
                batch, image=batch["image"], label=batch["label"]
            )
        yield update

    def synthetic_images(self, batch: Batch) -> Tensor:
        """Return some of the images on which the student was trained."""
        image: Tensor = self.memory.recall(batch)["image"]
        return image

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        self.memory.remember(gathered_rows)
