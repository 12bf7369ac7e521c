"""The attack looks for the image on which student and teacher differ most, and the teacher answers it anew."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card
from instil.functional.attacks import AttackLoss
from instil.schemes.bases.robust import RobustScheme, soft_label_loss


class AdaAD(RobustScheme):
    """The attack drives student and teacher apart, by the gradients of both; the teacher's answer to the attacked image is then learnt from it
    (Huang et al. 2023). Defaults as published for CIFAR-10; other weights leave 1 - ``weight`` to the objective kd at temperature 1.
    It reads no label.
    """

    card = Card(
        "Boosting accuracy and robustness of student models via adaptive adversarial distillation",
        "https://doi.org/10.1109/CVPR52729.2023.02362",
        "CVPR",
        2023,
        source="offline",
        algorithms=("adversarial", "adaptive"),
        labels=("single",),
        equation=r"\alpha \mathrm{KL}(p^t(x_{adv}) \Vert p^s(x_{adv})) + (1 - \alpha) \mathrm{KL}(p^t(x) \Vert p^s(x)), \quad "
        r"x_{adv} = \arg\max_{\Vert x' - x \Vert_\infty \le \epsilon} \mathrm{KL}(p^t(x') \Vert p^s(x'))",
        use="A robust teacher that is at hand with its gradients, and images with labels or without.",
        pitfalls="The attack passes through the teacher too, in every one of its steps, so that a large teacher costs much. With a teacher "
        "that is not robust, the attack finds images on which the teacher is wrong, and they are learnt.",
        deviations="The KL is summed over the classes for any data, where the authors' code takes the mean over them for CIFAR-10; the attack starts "
        "anywhere in the box, theirs at normal noise of 0.001.",
    )

    def attack_loss(self, batch: Batch) -> AttackLoss:
        return lambda image: soft_label_loss(
            self.student_logits(batch, image), self.teacher_logits(batch, image, grad=True)
        )

    def robust_losses(
        self, batch: Batch, attacked: Tensor, student: Tensor, teacher: Tensor
    ) -> Tensor:
        return soft_label_loss(attacked, self.teacher_logits(batch, batch["attacked"]))
