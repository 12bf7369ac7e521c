"""Cold Brew: a perceptron with latent neighbours, for nodes with few or no edges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Protocol, runtime_checkable

from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    Objective,
    Objectives,
    Outputs,
    Positive,
    Scheme,
    Teacher,
    Update,
    item_weights,
    mean,
    to_float32,
)
from instil.items import replace_invalid


@runtime_checkable
class HasBank(Protocol):
    """Network that estimates the teacher's embedding and reads those of other nodes."""

    def remember(self, index: Tensor, embedding: Tensor) -> None:
        """Store the teacher's embeddings (n, D) of the nodes ``index`` (n,)."""


class ColdBrew(Scheme):
    """Distillation for cold-start nodes (Zheng et al. 2022).

    The loss ``structure`` trains the student's estimate of the teacher's embedding of a node. The
    teacher's embeddings of all training nodes fill the bank of the student, in which it finds
    latent neighbours of a node without edges. The objectives train its logits.
    """

    card = Card(
        "Cold Brew: distilling graph node representations with incomplete or missing neighborhoods",
        "https://arxiv.org/abs/2111.04840",
        "ICLR",
        2022,
        source="offline",
        algorithms=("graph",),
        tasks=("node_classification",),
        equation=r"\mathcal{L}_{obj}\big( \xi_2(x_i, \tilde{e}_i) \big) + w \frac{1}{D} \Vert "
        r"\xi_1(x_i) - e^t_i \Vert^2, \quad \tilde{e}_i = \sum_{j \in \mathrm{top}_K} "
        r"\mathrm{softmax}_j\left( \xi_1(x_i)^{\top} e^t_j \right) e^t_j",
        use="For nodes that have no edges when they are classified. The student is "
        "`latent_neighbours`; the teacher of the paper is `structural_gcn`.",
        pitfalls="The bank makes the student as large as the embeddings of all nodes, and a "
        "prediction compares a node with each of them. A node is its own latent neighbour in "
        "training but not as a new node.",
        deviations="The embedding of a node is the teacher's last one; the authors' code joins "
        "those of all layers. Both perceptrons are trained at the same time.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: Annotated[Positive, Doc("factor w of the loss structure")] = 1.0,
    ):
        super().__init__(student, teacher, objectives)
        self.weight = weight

    def sharding_obstacle(self) -> str | None:
        """Reason why the nets cannot be sharded."""
        return "fills the bank of the student outside its forward pass"

    def build(self, batch: Batch) -> None:
        if self.teacher is None:
            raise ValueError("teacher: cold_brew needs a teacher")
        if not isinstance(self.student.model, HasBank):
            raise ValueError(
                f"student: {type(self.student.model).__name__} has no bank of embeddings. "
                "Expected a network with the method remember. Use the model latent_neighbours"
            )
        # Before the objectives choose the roles that the teacher computes.
        teacher = self.teacher_outputs(batch)
        if "embedding" not in teacher:
            raise ValueError(
                "teacher.taps: cold_brew reads the embedding of a node. Expected 'embedding' in "
                f"the teacher's outputs, got {', '.join(teacher)}. Name 'embedding' in taps"
            )
        widths = [side.shape[-1] for side in (self._estimate(batch), teacher["embedding"])]
        if widths[0] != widths[1]:
            raise ValueError(
                f"student.options.embedding: {widths[0]} is not the width of the teacher's "
                f"embedding. Expected {widths[1]}"
            )
        super().build(batch)

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() | {"embedding"}

    def _estimate(self, batch: Batch) -> Tensor:
        estimate: Tensor = self.student(batch)["structure"]
        return estimate

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "structure": item_weights(batch).sum()}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Return the objectives' update with the loss ``structure`` and rows for the bank."""
        student: Outputs
        student, teacher = self.forward_both(batch)
        update: Update = self.objectives(student, teacher, batch)
        embedding = to_float32(replace_invalid(teacher["embedding"], batch))
        estimate = to_float32(replace_invalid(student["structure"], batch))
        values = (estimate - embedding).square().mean(1)
        is_valid = item_weights(batch) > 0
        update.losses["structure"] = self.weight * mean(values, item_weights(batch))
        update.state_updates["bank.index"] = batch["index"][is_valid]
        update.state_updates["bank.embedding"] = embedding[is_valid].detach()
        return update

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Store the teacher's embeddings of the nodes of the step in the student's bank."""
        super().after_step(gathered_rows)
        assert isinstance(self.student.model, HasBank)
        self.student.model.remember(gathered_rows["bank.index"], gathered_rows["bank.embedding"])
