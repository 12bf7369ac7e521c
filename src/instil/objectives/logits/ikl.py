"""KL taken apart into a weighted squared error and a cross-entropy, both of which teach the student (improved KL)."""

from __future__ import annotations

from typing import Literal

from instil.core import Card, NonNegative, Positive
from instil.objectives.logits.gkl import GKL


class IKL(GKL):
    """GKL whose weights are the probabilities themselves: the squared error is half the variance of the logits' difference; logits (..., C).

    ``temperature``: divides the logits of the divergence.
    ``weight_temperature``: divides the teacher's logits of the weights of the squared error: 100 on CIFAR-100, 1 on ImageNet.
    ``beta``: weight of the squared error.
    ``prior``: the weights are those of the item itself, or the mean of all items of its class so far; an item without a label keeps its own.

    Raises ValueError where ``prior`` is class and the batch has no label.
    """

    card = Card(
        "Decoupled Kullback-Leibler Divergence Loss",
        "https://arxiv.org/abs/2305.13948",
        "NeurIPS",
        2024,
        source="logits",
        labels=("single",),
        deviations="As for GKL. The paper's DKL without the improvements is KL: under a frozen teacher its squared error has no gradient.",
        equation=r"\mathrm{KL}(p^t_T \Vert p^s_T) + \frac{\beta}{4} \sum_{i,j} a_i a_j (\Delta^t_{ij} - \Delta^s_{ij})^2, \quad \Delta_{ij} = z_i "
        r"- z_j, \quad a = \mathrm{softmax}(z^t / T_w)",
        use="The simpler form of gkl, without a table of classes and without labels while prior is sample. At the default weight_temperature of "
        "100 the weights are almost even, and the second term is half the variance of the logits' difference over the classes: kd together with "
        "logit regression that ignores the level.",
        pitfalls="There is no factor T². beta belongs to one setting: 8 for ResNet-32x4 to ResNet-8x4 and 4 for ResNet-56 to ResNet-20 on "
        "CIFAR-100; on ImageNet 0.5 with T = 1, weight_temperature 1 and prior class. The authors raise the loss over the first 20 epochs on "
        "CIFAR-100.",
    )

    def __init__(
        self,
        temperature: Positive = 4.0,
        weight_temperature: Positive = 100.0,
        beta: NonNegative = 8.0,
        prior: Literal["sample", "class"] = "sample",
    ):
        super().__init__(temperature, weight_temperature, beta, gamma=1.0, prior=prior)
