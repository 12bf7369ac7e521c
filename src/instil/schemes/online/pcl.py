"""Peers on one trunk learn from the classifier of all their features and from each other's averages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
    Average,
    Batch,
    Card,
    Objective,
    Objectives,
    Outputs,
    item_weights,
    mean,
    replace_invalid_outputs,
    to_float32,
)
from instil.functional.crops import random_crops
from instil.functional.pooling import global_average_pool
from instil.schemes.bases.branches import TRUNK_ROLES, BranchedScheme, stage_features
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
        >>> ramped_decay(torch.tensor(4.0), 0.999)
        tensor(0.7500)
    """
    return (1 - 1 / num_updates).clamp_max(decay)


class PCL(BranchedScheme):
    """Peers on the student's trunk; their ensemble and their moving averages teach them (Wu & Gong 2021).

    The student and ``peers`` - 1 branches share all stages but the last. A linear classifier of the
    peers' concatenated embeddings is the ensemble teacher of all. The moving average of each peer,
    with the trunk's, is a teacher of the other peers. The student is exported as it is.

    The loss of a peer is the one against the ensemble plus the mean of those against the averages
    of the others. Objectives that read no teacher count once. The objectives are cross_entropy and
    kd (T = 3). The loss ``ensemble`` is the cross-entropy of the ensemble; its gradient reaches the
    ensemble's classifier, the branches and the trunk.

    ``peers``: number of peers, the student included (3 in the paper).
    ``decay``: upper limit of the decay of the moving averages; it is 1 - 1 / g at step g before.
    ``crop_scale``: each peer sees a crop of its own with at least this share of the image, as in the
    paper; null: all peers see the image of the batch.
    ``flip``: mirror half of the crops.

    Raises ValueError for ``crop_scale`` where the batch has no ``image`` (N, C, H, W).
    """

    card = Card(
        "Peer Collaborative Learning for Online Knowledge Distillation",
        "https://arxiv.org/abs/2006.04147",
        "AAAI",
        2021,
        source="online",
        algorithms=("multi-teacher", "adaptive"),
        labels=("single",),
        deviations="All peers see the same view of an image unless crop_scale is set; the paper augments it anew for each peer. "
        "A branch is two convolutions without BatchNorm and a linear layer; the paper repeats the last stage. The ramp-up of "
        "the distillation weight is a schedule in the recipe. The averages are evaluated with the running statistics of "
        "BatchNorm. Losses, temperature, decay and the start of the decay agree with a public reproduction (shaoeric). It runs the averages in "
        "training mode, and it validates them instead of the student. Of the paper only the abstract was available.",
        equation=r"\sum_j \mathrm{CE}(z^j, y) + \mathrm{CE}(z^e, y) + T^2 \sum_j \left( \mathrm{KL}(p^e_T \Vert p^j_T) + "
        r"\frac{1}{m-1} \sum_{l \ne j} \mathrm{KL}(\bar p^l_T \Vert p^j_T) \right), \quad z^e = W [f^1, \ldots, f^m]",
        use="One network, no teacher, one run, where the ensemble of `one` stops improving: the ensemble has a classifier of its own.",
        pitfalls="Each step has a second forward pass, of the averages, without gradients; crop_scale multiplies both passes by "
        "the number of peers. Untrained peers teach noise: raise the weight of kd from 0 by a schedule. The ensemble needs labels.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        peers: Annotated[int, Ge(2)] = 3,
        decay: Annotated[float, Ge(0), Lt(1)] = 0.999,
        crop_scale: Annotated[float, Gt(0), Le(1)] | None = None,
        flip: bool = False,
        average: Annotated[
            Average, Doc("items that the ensemble's label loss is divided by: all, or the labelled")
        ] = "batch",
    ):
        super().__init__(student, objectives)
        if flip and crop_scale is None:
            raise ValueError(
                "scheme.flip: only crops are mirrored. Expected crop_scale in (0, 1], got null. Set "
                "crop_scale, or flip: false"
            )
        self.peers, self.decay = peers, decay
        self.crop_scale, self.flip = crop_scale, flip
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
        embedding, logits = to_float32(ends[0]["embedding"]), ends[0]["logits"]
        head = nn.Linear(self.peers * embedding.shape[1], logits.shape[1])
        self.ensemble_head = head.to(embedding.device, embedding.dtype)
        self.mean_student = Ema(self.student, self.decay)
        self.mean_branches.extend(Ema(branch, self.decay) for branch in self.branches)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "ensemble": self._num_items(batch)}

    def before_step(self, batch: Batch) -> Batch:
        """Add one crop per peer as ``views`` (N, peers, C, H, W) where ``crop_scale`` is set."""
        if self.crop_scale is None:
            return batch
        if "image" not in batch or batch["image"].ndim != 4:
            raise ValueError(
                f"scheme.crop_scale: crops need images. Expected 'image' (N, C, H, W) in the batch, got "
                f"{', '.join(batch)}. Set crop_scale: null"
            )
        crops = random_crops(batch, self.peers, (self.crop_scale, 1.0), flip=self.flip, salt=21)
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
        """Compute the logits (N, C) of the moving average of each peer.

        Args:
            batch: the batch of this step.

        Returns:
            One tensor a peer, the student's first.
        """
        assert self.mean_student is not None
        outputs = self._outputs_per_peer(self.mean_student, batch)
        origins = self.branch_stages(len(stage_features(outputs[0])))
        branches = [
            branch({"stage": own["features"][origin]})["logits"]
            for branch, own, origin in zip(self.mean_branches, outputs[1:], origins, strict=True)
        ]
        return [outputs[0]["logits"], *branches]

    def _num_items(self, batch: Batch) -> Tensor:
        """Number of items that the label loss of the ensemble is divided by."""
        labelled = _labelled_items(batch)
        return (item_weights(batch) if self.average == "batch" else labelled).sum()

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
        weight = _labelled_items(batch)
        values = F.cross_entropy(ensemble, batch["label"], reduction="none")
        return teachers, {"ensemble": mean(values, weight, self._num_items(batch))}

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
        self.num_updates += 1
        decay = ramped_decay(self.num_updates, self.decay)
        self.mean_student.follow(self.student, decay)
        for average, branch in zip(self.mean_branches, self.branches, strict=True):
            assert isinstance(average, Ema)
            average.follow(branch, decay)


def _labelled_items(batch: Batch) -> Tensor:
    """Weight of each sample in the loss of the ensemble: 0 without a label."""
    if "label" not in batch:
        raise ValueError(
            f"scheme: the ensemble of pcl is trained on labels. Expected 'label' in the batch, got "
            f"{', '.join(batch)}. Add labels, or use scheme mutual"
        )
    weight: Tensor = item_weights(batch) * (batch["label"] != UNLABELLED)
    return weight
