"""Dark experience replay: a memory of samples with the logits that the student had for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    Scheme,
    Update,
    item_weights,
    mean,
    to_float32,
)
from instil.functional.keyed_random import keyed_uniform
from instil.items import replace_invalid
from instil.modules.reservoir import Reservoir
from instil.objectives.labels.cross_entropy import cross_entropy_loss
from instil.roles.signals import SHARED_ROLES

NOT_STORED = ("label", "index", "view", "valid")
"""Entries of a batch that the student does not read."""


class DER(Scheme):
    """Replay of stored samples with their logits in stages of new classes or domains.

    A reservoir holds a uniform random choice of the samples of all stages so far (Buzzega et al.
    2020, Algorithms 1 and 2). Each has the student's logits of the step that stored it. Each step
    adds the losses ``replay_logits`` and, for DER++, ``replay_labels`` on stored samples.

    Raises:
        ValueError: without a loss on the memory, and for logits or labels that are not one class
            per sample.
    """

    card = Card(
        "Dark experience for general continual learning: a strong, simple baseline",
        "https://arxiv.org/abs/2004.07211",
        "NeurIPS",
        2020,
        source="offline",
        labels=("single",),
        deviations="The student of a stage has no outputs for later classes, so that stored logits "
        "are compared for the classes of their stage only. A sample is stored as the student saw "
        "it, augmented, and is not augmented again. Each sample of a batch draws one stored sample "
        "for each loss. New and stored samples share one forward pass, so that BatchNorm has the "
        "same statistics for them; the authors' code has a pass for each. As in that code, the "
        "squared error is a mean over the classes.",
        equation=r"\mathrm{CE}(z(x), y) + \alpha\, \mathbb{E}_{(x', z') \sim M} \Vert z(x') - z' "
        r"\Vert^2 + \beta\, \mathbb{E}_{(x'', y'') \sim M} \mathrm{CE}(z(x''), y'')",
        use="For stages with new classes or domains, where some samples of earlier stages may be "
        "kept. It needs no teacher network. With beta it is DER++; with alpha 0 it is experience "
        "replay.",
        pitfalls="The memory holds inputs of training samples, which may not be allowed for "
        "private data. A small memory is memorized when beta is large, and a small beta forgets: "
        "tune it first. Every loss on the memory adds a whole batch to the forward pass.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        size: Annotated[int, Ge(1), Doc("number of stored samples of all stages together")] = 200,
        alpha: Annotated[NonNegative, Doc("factor of the squared error of stored logits")] = 0.5,
        beta: Annotated[
            NonNegative, Doc("factor of the cross-entropy of stored labels; 0: DER")
        ] = 0.5,
    ):
        super().__init__(student, None, objectives)
        if not alpha and not beta:
            raise ValueError(
                "alpha, beta: both are 0, so that the memory is not used. Expected a positive "
                "alpha (DER) or alpha and beta (DER++)"
            )
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.reservoir = Reservoir(size)
        self._carried: Mapping[str, Tensor] = {}

    def memory(self) -> dict[str, Tensor]:
        """Return the stored samples, for the next stage."""
        return self.reservoir.content()

    def set_memory(self, memory: Mapping[str, Tensor]) -> None:
        """Begin with the stored samples of an earlier stage; called before ``prepare``.

        Args:
            memory: result of ``memory``.
        """
        self._carried = memory

    def build(self, batch: Batch) -> None:
        outputs = self.student(batch)
        logits, label = outputs["logits"], batch.get("label")
        if logits.ndim != 2 or label is None or label.ndim != 1 or label.is_floating_point():
            raise ValueError(
                "scheme: der stores one class and one vector of logits for each sample. Expected "
                "a classifier of whole samples and labels of one class"
            )
        self.objectives.build(outputs, {})
        self.reservoir.build(self._rows(batch, outputs))
        if self._carried:
            self.reservoir.fill(self._carried)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        counts = super().counts(batch)
        for name, draw in self._draws().items():
            counts[name] = self._replay_weight(name, batch, self._drawn(batch, draw)).sum()
        return counts

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Return the objectives' update with the losses on the memory and the rows to store."""
        stored = {name: self._drawn(batch, stream) for name, stream in self._draws().items()}
        # One pass: the statistics of BatchNorm are the same for new and stored samples.
        all_outputs = self.student(self._with_stored(batch, stored.values()))
        num = len(batch["label"])
        outputs = first_rows(all_outputs, num)
        update: Update = self.objectives(outputs, {}, batch)
        parts = all_outputs["logits"].split(num)[1:]
        for (name, drawn), part in zip(stored.items(), parts, strict=True):
            # While the memory is empty, samples that do not count are replayed as well.
            logits = to_float32(replace_invalid(part, batch))
            if name == "replay_logits":
                values = self.alpha * self._squared_error(logits, drawn)
            else:
                values = self.beta * cross_entropy_loss(logits, drawn["label"], "none")
            update.losses[name] = mean(values, self._replay_weight(name, batch, drawn))
        is_valid = item_weights(batch) > 0
        for key, rows in self._rows(batch, outputs).items():
            update.state_updates[f"reservoir.{key}"] = rows[is_valid].detach()
        return update

    def _with_stored(self, batch: Batch, stored: Iterable[Batch]) -> Batch:
        """Batch with stored samples after its own, in the entries that the student reads."""
        inputs = self._inputs(batch)
        rows = list(stored)
        return batch | {
            key: torch.cat([value, *(drawn[key] for drawn in rows)])
            for key, value in inputs.items()
        }

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Store samples of the step by reservoir sampling."""
        super().after_step(gathered_rows)
        prefix = "reservoir."
        self.reservoir.add(
            {
                key.removeprefix(prefix): rows
                for key, rows in gathered_rows.items()
                if key.startswith(prefix)
            }
        )

    def _draws(self) -> dict[str, str]:
        """Name of each loss on the memory -> name of its random stream."""
        factors = {"replay_logits": self.alpha, "replay_labels": self.beta}
        return {name: f"scheme.der.{name}" for name, factor in factors.items() if factor}

    def _drawn(self, batch: Batch, stream: str) -> Batch:
        """One stored sample for each sample of the batch; the sample itself for an empty memory."""
        position = keyed_uniform(batch, 1, stream)[:, 0]
        return self.reservoir.draw(position, self._inputs(batch) | {"label": batch["label"]})

    def _replay_weight(self, name: str, batch: Batch, stored: Batch) -> Tensor:
        """Weight of each drawn sample: 0 for an empty memory, or a label that is missing."""
        weight = item_weights(batch) * self.reservoir.is_filled()
        return weight if name == "replay_logits" else weight * (stored["label"] != UNLABELLED)

    @staticmethod
    def _squared_error(logits: Tensor, stored: Batch) -> Tensor:
        """Mean squared error over the classes whose logits were stored."""
        columns = torch.arange(logits.shape[1], device=logits.device)
        is_stored = columns < stored["width"][:, None]
        squares = (logits - stored["logits"]).square().masked_fill(~is_stored, 0.0)
        means: Tensor = squares.sum(1) / stored["width"].clamp_min(1)
        return means

    @staticmethod
    def _inputs(batch: Batch) -> Batch:
        """Entries of the batch that the student may read, one row per sample."""
        num = len(batch["label"])
        return {
            key: value
            for key, value in batch.items()
            if isinstance(value, Tensor)
            and value.ndim
            and len(value) == num
            and key not in NOT_STORED
        }

    def _rows(self, batch: Batch, outputs: Outputs) -> Batch:
        """Rows of the memory for the samples of a batch."""
        logits = to_float32(outputs["logits"])
        width = torch.full_like(batch["label"], logits.shape[1])
        return self._inputs(batch) | {"label": batch["label"], "logits": logits, "width": width}


def first_rows(outputs: Outputs, num: int) -> Outputs:
    """Outputs of the first samples; roles that belong to no sample stay as they are.

    Args:
        outputs: role -> tensor (N, ...) or tuple of such tensors.
        num: number of samples.
    """
    rows: Outputs = {}
    for role, value in outputs.items():
        if role in SHARED_ROLES:
            rows[role] = value
        elif isinstance(value, tuple):
            rows[role] = tuple(level[:num] for level in value)
        else:
            rows[role] = value[:num]
    return rows
