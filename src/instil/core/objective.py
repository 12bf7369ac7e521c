"""Base classes of losses and of sample weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from torch import Tensor, nn

from instil.cards import Card
from instil.cards.keywords import ClearKeywords
from instil.items.batch import UNLABELLED, Batch, Outputs, item_weights

Average = Literal["batch", "labelled"]
"""Items that a label loss is averaged over: all items of the batch, or those with a label."""


class RoleConsumer(ClearKeywords, nn.Module):
    """Base class of modules that read roles of student and teacher outputs.

    Attributes:
        needs: for each side, the needs; each need is a tuple of alternative roles, best first.
        unsupported_roles: role -> reason why it cannot satisfy a need, for the error message.
        reads: for each side, the roles that ``resolve`` chose.
        stream: prefix of the names of its random streams; ``Objectives`` sets it to its place in the
            scheme and its name in the recipe.
    """

    card: ClassVar[Card]
    unsupported_roles: ClassVar[dict[str, str]] = {}
    needs: ClassVar[dict[str, tuple[tuple[str, ...], ...]]] = {
        "student": (("logits",),),
        "teacher": (("logits",),),
    }

    def __init__(self) -> None:
        super().__init__()
        self.stream = type(self).__name__
        self.reads = {
            side: tuple(roles[0] for roles in needs) for side, needs in self.needs.items()
        }

    @property
    def couples(self) -> bool:
        """Whether the loss of an item depends on the other items; an option may override the card."""
        return self.card.couples

    @property
    def needs_input_grad(self) -> bool:
        """Whether it differentiates with respect to the batch's first tensor (role ``input``)."""
        return any("input" in roles for roles in self.reads.values())

    def resolve(
        self, student: Iterable[str], teacher: Iterable[str], missing_role_hint: str | None = None
    ) -> None:
        """Choose the roles to read.

        Args:
            student: roles of the student's outputs.
            teacher: roles of the teacher's outputs.
            missing_role_hint: end of the error for a role that the teacher does not return.

        Raises:
            ValueError: if no role of a need is present; the message lists both.
        """
        present = {"student": set(student), "teacher": set(teacher)}
        for side, needs in self.needs.items():
            for roles in needs:
                if not present[side] & set(roles):
                    hint = missing_role_hint if side == "teacher" else None
                    raise ValueError(self._missing(side, roles, present[side], hint))
            self.reads[side] = tuple(
                next(role for role in roles if role in present[side]) for roles in needs
            )

    def _missing(
        self, side: str, roles: tuple[str, ...], present: set[str], hint: str | None
    ) -> str:
        """Error message for a need that no role satisfies."""
        nothing = "nothing (there is no teacher)" if side == "teacher" else "nothing"
        unsupported = [
            f"{role} cannot stand in: {self.unsupported_roles[role]}"
            for role in sorted(present & set(self.unsupported_roles))
        ]
        advice = hint or f"name the module that gives it in the {side} taps"
        return (
            f"{type(self).__name__} needs {' or '.join(roles)} of the {side}, which gives "
            f"{', '.join(sorted(present)) or nothing}; {'; '.join(unsupported) or advice}"
        )


class Weighting(RoleConsumer):
    """Base class of sample weights; options are attributes of the same name."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Weight >= 0 of each item, in the shape of the logits without classes; has no gradient."""
        raise NotImplementedError


class Objective(RoleConsumer):
    """Base class of losses with one value per item.

    An objective may have trainable adapters and buffers. Its options are attributes of the same
    name.

    Attributes:
        per_sample: items are samples, even if ``valid`` has one entry per position.
        views_per_sample: number of views of each sample that a batch must contain.
        calibration_samples: number of samples for ``collect_statistics``.
        handles_token_alignment: accepts a teacher with another tokenizer than the student.
        supports_sharding: reads no parameter after the forward pass of a sharded net.
        handles_uncounted: ``forward`` and ``state_updates`` ignore uncounted items whatever they
            hold, NaN included, so that the outputs need no replacement first (``item_mask``).
        relates_positions: the value of a position depends on other positions of its sample.
        sample_weight: factor of each item's loss before the mean.
    """

    per_sample: ClassVar[bool] = False
    views_per_sample: ClassVar[int] = 1
    calibration_samples: int = 0
    handles_token_alignment: ClassVar[bool] = False
    supports_sharding: ClassVar[bool] = True
    handles_uncounted: ClassVar[bool] = False
    relates_positions: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.sample_weight: Weighting | None = None

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Make adapters; called once, on a dry batch, before the optimizer exists."""

    def collect_statistics(self, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Rows of teacher statistics of an unlabelled batch, for ``load_statistics``."""
        return {}

    def load_statistics(self, rows: dict[str, Tensor]) -> None:
        """Receive the rows of all calibration samples, before the first step."""

    def weight(self, batch: Batch) -> Tensor:
        """Weight of each item, 0 for excluded ones.

        Items are positions if ``valid`` has their shape, else samples.
        """
        weight = item_weights(batch)
        return weight.flatten(1).amax(1) if self.per_sample and weight.ndim > 1 else weight

    def item_mask(self, batch: Batch) -> Tensor | None:
        """Mask of the items whose outputs may be read, or None if all may be.

        ``Objectives`` replaces the outputs of the other items before ``forward`` and
        ``state_updates`` read them, so that NaN or inf in them cannot reach the loss, a gradient or
        a memory.

        Args:
            batch: the batch of this step.

        Returns:
            Boolean mask in the shape of the items: positions if ``valid`` has them, else samples.
        """
        if "valid" not in batch:
            return None
        valid = item_weights(batch) > 0
        return valid.flatten(1).any(1) if self.per_sample and valid.ndim > 1 else valid

    def num_items(self, batch: Batch) -> Tensor:
        """Number of items (scalar) that the loss of the batch is divided by."""
        return self.weight(batch).sum()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Loss of each item, in the shape of ``weight``; a scalar if it ``couples`` the items."""
        raise NotImplementedError

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Rows for memory banks, queues and centres.

        ``after_step`` receives the rows of all micro-batches and processes.
        """
        return {}

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Update buffers; no other method changes them."""


class LabelObjective(Objective):
    """Base class of losses that need the label; items without one (-100) have no loss.

    Attributes:
        average: ``"batch"`` divides the sum over the labelled items by the number of all items,
            so that the labelled share of the batch is the weight of the loss; ``"labelled"``
            divides it by the number of labelled items, so that a few labels weigh as much as a
            batch of them.
    """

    average: Average = "labelled"

    @property
    def handles_unlabelled(self) -> bool:
        """Whether ``forward`` ignores items without a label whatever their outputs hold.

        Only invalid items need a replacement then. The losses of this package with a ``target``
        ignore unlabelled items (``drop_unlabelled_gradient``).
        """
        return False

    def counted_label(self, batch: Batch) -> Tensor:
        """Label with -100 for every item that is not valid."""
        label: Tensor = batch["label"]
        valid = item_weights(batch) > 0 if "valid" in batch else None
        if valid is None or valid.ndim > label.ndim:
            return label
        valid = valid.view(*valid.shape, *[1] * (label.ndim - valid.ndim))
        return label.masked_fill(~valid, UNLABELLED)

    def item_mask(self, batch: Batch) -> Tensor | None:
        """Mask of the items that have a label and are valid."""
        if self.handles_unlabelled:
            return super().item_mask(batch)
        return self.weight(batch) > 0

    def weight(self, batch: Batch) -> Tensor:
        if "label" not in batch:
            raise ValueError(
                f"{type(self).__name__} needs 'label' in the batch, which has {', '.join(batch)}"
            )
        labelled = batch["label"] != UNLABELLED
        weight = super().weight(batch)
        if labelled.ndim > weight.ndim:
            labelled = labelled.flatten(weight.ndim).any(-1)
        counted: Tensor = weight * labelled
        return counted

    def num_items(self, batch: Batch) -> Tensor:
        if self.average == "batch":
            return super().weight(batch).sum()
        return self.weight(batch).sum()
