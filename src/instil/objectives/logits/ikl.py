"""Improved KL: KL divergence plus a weighted squared error, with the probabilities as weights."""

from __future__ import annotations

from typing import Annotated, Literal

from typing_extensions import Doc

from instil.core import Card, NonNegative, Positive
from instil.objectives.logits.gkl import GKL


class IKL(GKL):
    """GKL with plain probabilities as weights: half the variance of the logit differences.

    Logits are (..., C).

    Raises:
        ValueError: if ``prior`` is ``"class"`` and the batch has no label.
    """

    card = Card(
        "Decoupled Kullback-Leibler Divergence Loss",
        "https://arxiv.org/abs/2305.13948",
        "NeurIPS",
        2024,
        source="logits",
        labels=("single",),
        published_weight=1.0,
        weight_setting="the authors' code, CIFAR-100, ResNet8x4 <- ResNet32x4, raised over 20 "
        "epochs",
        deviations="As for GKL. The paper's DKL without the improvements is KL: with a frozen "
        "teacher its squared error has no gradient.",
        equation=r"\mathrm{KL}(p^t_T \Vert p^s_T) + \frac{\beta}{4} \sum_{i,j} a_i a_j "
        r"(\Delta^t_{ij} - \Delta^s_{ij})^2, \quad \Delta_{ij} = z_i - z_j, \quad a = "
        r"\mathrm{softmax}(z^t / T_w)",
        use="The simpler form of gkl, without a table of classes, and without labels if prior is "
        "sample. At the default weight_temperature of 100 the weights are almost even. The second "
        "term is then half the variance of the logit differences over the classes: kd plus a logit "
        "regression that ignores the level.",
        pitfalls="There is no factor T². The weight beta belongs to one setting. On CIFAR-100 it "
        "is 8 for ResNet-32x4 to ResNet-8x4 and 4 for ResNet-56 to ResNet-20. On ImageNet it is "
        "0.5 with T = 1, weight_temperature 1 and prior class. The authors increase the loss over "
        "the first 20 epochs on CIFAR-100.",
    )

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of the divergence")] = 4.0,
        weight_temperature: Annotated[
            Positive,
            Doc(
                "softmax temperature of the teacher in the weights of the squared error "
                "(100 on CIFAR-100, 1 on ImageNet)"
            ),
        ] = 100.0,
        beta: Annotated[NonNegative, Doc("weight of the squared error")] = 8.0,
        prior: Annotated[
            Literal["sample", "class"],
            Doc(
                "weights of the item itself, or the mean over all items of its class so far; "
                "unlabelled items use their own"
            ),
        ] = "sample",
    ):
        super().__init__(temperature, weight_temperature, beta, gamma=1.0, prior=prior)
