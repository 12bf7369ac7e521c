"""AdaAD: the attack searches for images on which student and teacher disagree."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card
from instil.functional.attacks import AttackLoss
from instil.functional.robust_losses import soft_label_loss
from instil.schemes.bases.attack import student_logits
from instil.schemes.bases.robust import RobustScheme


class AdaAD(RobustScheme):
    """Adaptive adversarial distillation (Huang et al. 2023).

    The attack raises the KL divergence between student and teacher, with the gradients of both. The
    student then learns the teacher's output for the attacked image. The defaults are those
    published for CIFAR-10; with another ``weight`` the objective kd at temperature 1 has the weight
    1 - ``weight``. The scheme needs no labels.
    """

    card = Card(
        "Boosting accuracy and robustness of student models via adaptive adversarial distillation",
        "https://doi.org/10.1109/CVPR52729.2023.02362",
        "CVPR",
        2023,
        source="offline",
        algorithms=("adversarial", "adaptive"),
        labels=("single",),
        equation=r"\alpha \mathrm{KL}(p^t(x_{adv}) \Vert p^s(x_{adv})) + "
        r"(1 - \alpha) \mathrm{KL}(p^t(x) \Vert p^s(x)), \quad "
        r"x_{adv} = \arg\max_{\Vert x' - x \Vert_\infty \le \epsilon} "
        r"\mathrm{KL}(p^t(x') \Vert p^s(x'))",
        use="You have a robust teacher with its gradients, and images with or without labels.",
        pitfalls="Every step of the attack also passes through the teacher, so a large teacher is "
        "expensive. If the teacher is not robust, the attack finds images on which the teacher is "
        "wrong, and the student learns its errors. "
        "The passes on clean and on attacked images both update the running statistics of "
        "BatchNorm, as in the authors' code.",
        deviations="The KL divergence is summed over the classes for all data; the authors' code "
        "takes the mean over the classes for CIFAR-10. The attack starts at a random point of the "
        "box; the authors' code starts at normal noise of scale 0.001.",
        tags=("changed_inputs", "teacher_gradients"),
    )

    def attack_loss(self, batch: Batch) -> AttackLoss:
        # Both networks see the attacked image, so the gradient of the attack passes through both.
        return lambda image: soft_label_loss(
            student_logits(self.student, batch, image), self.teacher_logits(batch, image, grad=True)
        )

    def robust_losses(
        self,
        batch: Batch,
        attacked_logits: Tensor,
        student_logits: Tensor,
        teacher_logits: Tensor,
    ) -> Tensor:
        return soft_label_loss(attacked_logits, self.teacher_logits(batch, batch["attacked"]))
