"""PCL: peers on one trunk learn from their ensemble and from each other's moving averages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs, mean, to_float32
from instil.functional.crops import random_crops
from instil.functional.pooling import global_average_pool
from instil.items import replace_invalid_outputs
from instil.schemes.bases.branches import TRUNK_ROLES, BranchedScheme, stage_features
from instil.schemes.bases.ensemble_labels import EnsembleAverage, labelled_weights, num_items
from instil.teachers.ema import Ema


def ramped_decay(num_updates: Tensor, decay: float) -> Tensor:
    """Decay of a moving average whose memory grows with the number of updates.

    ``min(1 - 1 / g, decay)`` at update ``g`` (Wu & Gong 2021): the average of the first steps is
    the plain mean of the weights, so that the initial weights do not stay in it.

    Args:
        num_updates: number of updates ``g`` (scalar), the current one included, >= 1.
        decay: upper limit of the decay, in [0, 1).

    Returns:
        The decay (scalar).

    Example:
        >>> import torch
        >>> ramped_decay(torch.tensor(4.0), 0.999)
        tensor(0.7500)
    """
    return (1 - 1 / num_updates).clamp_max(decay)


class PCL(BranchedScheme):
    """Peers that learn from their ensemble and their moving averages (Wu & Gong 2021).

    The student and ``peers`` - 1 branches share all stages but the last. A linear classifier of the
    peers' concatenated embeddings is the ensemble teacher of all. The moving average of each peer,
    with the trunk's, is a teacher of the other peers. The student is exported unchanged.

    The objectives are cross_entropy and kd (T = 3). The loss of a peer is the loss against the
    ensemble plus the mean loss against the averages of the others. Objectives without a teacher
    count once. The loss ``ensemble`` is the cross-entropy of the ensemble; its gradient reaches
    the ensemble's classifier, the branches and the trunk.
    """

    card = Card(
        "Peer Collaborative Learning for Online Knowledge Distillation",
        "https://arxiv.org/abs/2006.04147",
        "AAAI",
        2021,
        source="online",
        algorithms=("multi-teacher", "adaptive"),
        labels=("single",),
        deviations="All peers see the same view of an image unless crop_scale is set; the paper "
        "augments it separately for each peer. A branch is two convolutions without BatchNorm and "
        "a linear layer; the paper repeats the last stage. The ramp-up of the distillation weight "
        "is a schedule in the recipe. The averages are evaluated with the running statistics of "
        "BatchNorm. Losses, temperature, decay and the start of the decay agree with a public "
        "reproduction (shaoeric). It runs the averages in training mode, and it validates them "
        "instead of the student. Only the abstract of the paper was available.",
        equation=r"\sum_j \mathrm{CE}(z^j, y) + \mathrm{CE}(z^e, y) + T^2 \sum_j \left( "
        r"\mathrm{KL}(p^e_T \Vert p^j_T) + \frac{1}{m-1} \sum_{l \ne j} "
        r"\mathrm{KL}(\bar p^l_T \Vert p^j_T) \right), \quad z^e = W [f^1, \ldots, f^m]",
        use="For training without a teacher, in one run, where the ensemble of `one` stops "
        "improving: here the ensemble has a separate classifier.",
        pitfalls="Each step has a second forward pass, of the averages, without gradients; "
        "crop_scale multiplies both passes by the number of peers. Untrained peers give random "
        "targets: raise the weight of kd from 0 by a schedule. The ensemble needs labels.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        peers: Annotated[
            int, Ge(2), Doc("number of peers, the student included (3 in the paper)")
        ] = 3,
        decay: Annotated[
            float,
            Ge(0),
            Lt(1),
            Doc("upper limit of the decay of the moving averages, which is 1 - 1 / g at step g"),
        ] = 0.999,
        crop_scale: Annotated[
            float,
            Gt(0),
            Le(1),
            Doc(
                "smallest share of the image in the separate crop that each peer sees, as in the "
                "paper; null: all peers see the image of the batch"
            ),
        ]
        | None = None,
        flip: Annotated[bool, Doc("mirror half of the crops")] = False,
        average: EnsembleAverage = "batch",
    ):
        super().__init__(student, objectives)
        if flip and crop_scale is None:
            raise ValueError(
                "scheme.flip: only crops are mirrored. Expected crop_scale in (0, 1], got null. "
                "Set crop_scale, or flip: false"
            )
        self.peers = peers
        self.decay = decay
        self.crop_scale = crop_scale
        self.flip = flip
        self.average = average
        self.ensemble_head: nn.Linear | None = None
        self.mean_student: Ema | None = None
        self.mean_branches = nn.ModuleList()
        self.num_updates: Tensor
        self.register_buffer("num_updates", torch.zeros(()))
        self.learners["student"] += ("ensemble_head",)

    def branch_stages(self, stages: int) -> list[int]:
        return [stages - 2] * (self.peers - 1)

    def build_extra(self, ends: list[Outputs], stages: tuple[Tensor, ...]) -> None:
        embedding = to_float32(ends[0]["embedding"])
        logits = ends[0]["logits"]
        head = nn.Linear(self.peers * embedding.shape[1], logits.shape[1])
        self.ensemble_head = head.to(embedding.device, embedding.dtype)
        self.mean_student = Ema(self.student, self.decay)
        self.mean_branches.extend(Ema(branch, self.decay) for branch in self.branches)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        labelled = labelled_weights(batch, "pcl")
        return {**super().counts(batch), "ensemble": num_items(batch, labelled, self.average)}

    def before_step(self, batch: Batch) -> Batch:
        """Add one crop per peer as ``views`` (N, peers, C, H, W) where ``crop_scale`` is set."""
        if self.crop_scale is None:
            return batch
        if "image" not in batch or batch["image"].ndim != 4:
            raise ValueError(
                f"scheme.crop_scale: crops need images. Expected 'image' (N, C, H, W) in the "
                f"batch, got {', '.join(batch)}. Set crop_scale: null"
            )
        crops = random_crops(
            batch, self.peers, (self.crop_scale, 1.0), flip=self.flip, stream="scheme.crops"
        )
        return batch | {"views": crops}

    def observe(self, batch: Batch) -> tuple[list[Outputs], tuple[Tensor, ...]]:
        outputs = self._outputs_per_peer(self.student, batch)
        stages = stage_features(outputs[0])
        student_end: Outputs = {
            "logits": outputs[0]["logits"],
            "embedding": global_average_pool(to_float32(stages[-1])),
        }
        origins = self.branch_stages(len(stages))
        branches = [
            branch(own["features"][origin])
            for branch, own, origin in zip(self.branches, outputs[1:], origins, strict=True)
        ]
        return [student_end, *branches], stages

    def _outputs_per_peer(self, net: nn.Module, batch: Batch) -> list[Outputs]:
        """Outputs of ``net`` for the image that each peer sees."""
        views: Tensor | None = batch.get("views")
        if views is None:
            return [replace_invalid_outputs(net(batch), batch, TRUNK_ROLES)] * self.peers
        # Ordered by peer, so that each chunk of the outputs belongs to one peer.
        outputs = net({"image": views.transpose(0, 1).flatten(0, 1)})
        logits = outputs["logits"].chunk(self.peers)
        stages = [stage.chunk(self.peers) for stage in stage_features(outputs)]
        per_peer: list[Outputs] = [
            {"logits": logits[peer], "features": tuple(stage[peer] for stage in stages)}
            for peer in range(self.peers)
        ]
        return [replace_invalid_outputs(own, batch, TRUNK_ROLES) for own in per_peer]

    def ensemble_logits(self, ends: list[Outputs]) -> Tensor:
        """Compute the logits (N, C) of the ensemble from the embeddings of all peers.

        Args:
            ends: outputs of the peers, the student first.

        Returns:
            Logits of the classifier of the concatenated embeddings.
        """
        assert self.ensemble_head is not None
        embeddings = [to_float32(end["embedding"]) for end in ends]
        return to_float32(self.ensemble_head(torch.cat(embeddings, 1)))

    @torch.no_grad()
    def mean_logits(self, batch: Batch) -> list[Tensor]:
        """Compute the logits (N, C) of the moving average of each peer, the student's first."""
        assert self.mean_student is not None
        outputs = self._outputs_per_peer(self.mean_student, batch)
        origins = self.branch_stages(len(stage_features(outputs[0])))
        branches = [
            branch({"stage": own["features"][origin]})["logits"]
            for branch, own, origin in zip(self.mean_branches, outputs[1:], origins, strict=True)
        ]
        return [outputs[0]["logits"], *branches]

    def teachers_for(
        self, ends: list[Outputs], stages: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[list[Outputs]], dict[str, Tensor]]:
        ensemble = self.ensemble_logits(ends)
        means = self.mean_logits(batch)
        teachers: list[list[Outputs]] = []
        for peer in range(self.peers):
            others = means[:peer] + means[peer + 1 :]
            logits = [ensemble.detach(), *others]
            teachers.append([{"logits": values} for values in logits])
        labelled = labelled_weights(batch, "pcl")
        values = F.cross_entropy(ensemble, batch["label"], reduction="none")
        loss = mean(values, labelled, num_items(batch, labelled, self.average))
        return teachers, {"ensemble": loss}

    def combine(self, name: str, losses: Tensor) -> Tensor:
        objective = self.objectives[name]
        assert isinstance(objective, Objective)
        if not objective.reads["teacher"]:
            return losses.mean()
        # The first teacher is the ensemble, the others are the averages.
        return losses[0] + losses[1:].mean()

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        assert self.mean_student is not None
        # Counted before the decay is computed: it is 0 at the first update, which copies the peers.
        self.num_updates += 1
        decay = ramped_decay(self.num_updates, self.decay)
        self.mean_student.follow(self.student, decay)
        for average, branch in zip(self.mean_branches, self.branches, strict=True):
            assert isinstance(average, Ema)
            average.follow(branch, decay)
