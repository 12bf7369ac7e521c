"""Define a loss of your own: function, class and card. Check its contracts, then train with it.

python examples/own_method.py

A recipe uses it by the name of the class:
``imports: [own_method]`` and ``objectives: {jensen_shannon: {temperature: 2}}``.
"""

import torch
from torch import Tensor

from instil import Card, CrossEntropy, Objective, Offline, Optimization, Training, distil, fit
from instil.core import Batch, Outputs, Positive, to_float32


def jensen_shannon_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 2.0,
    reduction: str = "mean",
) -> Tensor:
    """T² times the Jensen-Shannon divergence of the softened distributions.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        temperature: softmax temperature, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.
    """
    # A finite lower bound: a class of probability 0 on both sides adds 0, where -inf gives NaN.
    student_log, teacher_log = (
        (to_float32(logits) / temperature).log_softmax(-1).clamp_min(-1e30)
        for logits in (student_logits, teacher_logits)
    )
    mixture_log = torch.logaddexp(student_log, teacher_log) - torch.tensor(2.0).log()
    divergences = (
        0.5 * (side.exp() * (side - mixture_log)).sum(-1) for side in (student_log, teacher_log)
    )
    values = sum(divergences) * temperature**2
    return values.mean() if reduction == "mean" else values


class JensenShannon(Objective):
    """Jensen-Shannon divergence: bounded, so that one confident sample cannot dominate a batch."""

    card = Card(
        "Divergence measures based on the Shannon entropy",
        "https://doi.org/10.1109/18.61115",
        "IEEE TIT",
        1991,
        source="logits",
    )

    def __init__(self, temperature: Positive = 2.0):
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return jensen_shannon_loss(student["logits"], teacher["logits"], self.temperature, "none")


if __name__ == "__main__":
    from instil.data.labels import few_labels, labelled
    from instil.data.loader import Loader
    from instil.data.sources.digits import digits
    from instil.networks.mlp import mlp
    from instil.testing import check_objective

    check_objective(JensenShannon)
    print("check_objective: all contracts hold")

    data = digits()
    few = few_labels(data.train, 100)
    wide, alone, distilled = (
        mlp(classes=10, width=256),
        mlp(classes=10, width=16),
        mlp(classes=10, width=16),
    )
    alone.load_state_dict(distilled.state_dict())  # the same initial weights
    training = Training(steps=900, optimizer=Optimization(options={"lr": 3e-3}))
    fit(
        Offline(wide, None, {"cross_entropy": CrossEntropy()}),
        Loader(data.train, 64),
        Training(epochs=30),
    )
    fit(
        Offline(alone, None, {"cross_entropy": CrossEntropy()}), Loader(labelled(few), 64), training
    )
    distil(
        wide,
        distilled,
        Loader(few, 64),
        {"cross_entropy": 1.0, "js": (JensenShannon(temperature=4), 1.0)},
        training=training,
    )
    for name, net in (("student alone", alone), ("distilled", distilled)):
        is_correct = net(data.test.image).argmax(-1) == data.test.label
        print(f"{name:15} {100 * is_correct.float().mean():.1f} %")
