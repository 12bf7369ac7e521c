"""A loss of the student given the teacher, one value an item."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from torch import Tensor, nn

from instil.core.batch import UNLABELLED, Batch, Outputs, item_weights
from instil.core.card import Card
from instil.core.keywords import ClearKeywords

Average = Literal["batch", "labelled"]
"""Items that a label loss is averaged over: all items of the batch, or those with a label."""


class RoleConsumer(ClearKeywords, nn.Module):
    """What reads roles of student and teacher.

    ``needs`` lists, for each side, what it reads; each need is a tuple of roles, best first, of which one must be there.
    ``reads`` holds the roles chosen. ``unsupported_roles``: role -> why it cannot stand in for what is needed, which the error says where
    it is there.
    """

    card: ClassVar[Card]
    unsupported_roles: ClassVar[dict[str, str]] = {}
    needs: ClassVar[dict[str, tuple[tuple[str, ...], ...]]] = {
        "student": (("logits",),),
        "teacher": (("logits",),),
    }

    def __init__(self) -> None:
        super().__init__()
        self.reads = {
            side: tuple(roles[0] for roles in needs) for side, needs in self.needs.items()
        }

    @property
    def couples(self) -> bool:
        """Whether an item's loss depends on the other items of the batch: what the card says, unless an option decides."""
        return self.card.couples

    @property
    def needs_input_grad(self) -> bool:
        """Whether it takes gradients by the batch's first tensor, or by what the nets make of it: it reads ``input``."""
        return any("input" in roles for roles in self.reads.values())

    def resolve(
        self, student: Iterable[str], teacher: Iterable[str], missing_role_hint: str | None = None
    ) -> None:
        """Choose the roles to read among those there are; a miss is a ValueError that shows both lists; ``missing_role_hint``: what helps
        at the teacher's."""
        there = {"student": set(student), "teacher": set(teacher)}
        for side, needs in self.needs.items():
            for roles in needs:
                if not there[side] & set(roles):
                    given = ", ".join(sorted(there[side])) or (
                        "nothing (there is no teacher)" if side == "teacher" else "nothing"
                    )
                    why = "; ".join(
                        f"{role} cannot stand in: {self.unsupported_roles[role]}"
                        for role in sorted(there[side] & set(self.unsupported_roles))
                    )
                    raise ValueError(
                        f"{type(self).__name__} needs {' or '.join(roles)} of the {side}, which gives {given}; "
                        f"{why or (side == 'teacher' and missing_role_hint) or f'name the module that gives it in the {side} taps'}"
                    )
            self.reads[side] = tuple(next(r for r in roles if r in there[side]) for roles in needs)


class Weighting(RoleConsumer):
    """How much each sample counts in a loss, from what both sides say about it; options are kept as attributes of the same name."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """A factor of 0 or more for each item, in the shape of the logits without their classes; no gradient passes through it."""
        raise NotImplementedError


class Objective(RoleConsumer):
    """A loss of the student given the teacher, one value an item. May own trainable adapters and moving buffers.

    Options are kept as attributes of the same name. ``sample_weight``: what the value of each item is multiplied with, before the mean.
    """

    per_sample: ClassVar[bool] = (
        False  # its items are samples, also where ``valid`` has one entry a position
    )
    views_per_sample: ClassVar[int] = (
        1  # rows of one sample that a batch must have for it to say anything
    )
    calibration_samples: int = 0  # how many samples ``collect_statistics`` is shown
    handles_token_alignment: ClassVar[bool] = (
        False  # it finds what belongs together where the teacher reads other tokens than the student
    )
    supports_sharding: ClassVar[bool] = (
        True  # what it reads is still there after the forward of a net that is cut in pieces
    )
    handles_uncounted: ClassVar[bool] = False
    """Whether ``forward`` and ``state_updates`` ignore uncounted items whatever they hold, NaN included, so
    that the outputs need no replacement first (``item_mask``)."""

    relates_positions: ClassVar[bool] = False
    """Whether the value of a position depends on the other positions of its sample."""

    def __init__(self) -> None:
        super().__init__()
        self.sample_weight: Weighting | None = None

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Make adapters; called once, on a dry batch, before the optimizer exists."""

    def collect_statistics(self, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Rows of what is to be known of the teacher before training, from a batch without its label; all of them come back in
        ``load_statistics``."""
        return {}

    def load_statistics(self, rows: dict[str, Tensor]) -> None:
        """The place to settle what was studied, before the first step."""

    def weight(self, batch: Batch) -> Tensor:
        """How much each item counts, 0 for not at all: positions where ``valid`` has their shape, samples otherwise."""
        weight = item_weights(batch)
        return weight.flatten(1).amax(1) if self.per_sample and weight.ndim > 1 else weight

    def item_mask(self, batch: Batch) -> Tensor | None:
        """Return the mask of the items whose outputs may be read, or None if all may be.

        ``Objectives`` replaces the outputs of the other items before ``forward`` and ``state_updates``
        read them, so that NaN or inf in them cannot reach the loss, a gradient or a memory.

        Args:
            batch: the batch of this step.

        Returns:
            Boolean mask in the shape of the items: positions where ``valid`` has them, else
            samples.
        """
        if "valid" not in batch:
            return None
        valid = item_weights(batch) > 0
        return valid.flatten(1).any(1) if self.per_sample and valid.ndim > 1 else valid

    def num_items(self, batch: Batch) -> Tensor:
        """Number of items (scalar) that the loss of the batch is divided by."""
        return self.weight(batch).sum()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """One value an item, in the shape of ``weight``; a scalar where it ``couples`` them."""
        raise NotImplementedError

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Rows that banks, queues and centres need; they come back, from all micro-batches and ranks, in ``after_step``."""
        return {}

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """The only place where buffers move."""


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
        """Return the label with -100 in the place of every item that is not valid."""
        label: Tensor = batch["label"]
        valid = item_weights(batch) > 0 if "valid" in batch else None
        if valid is None or valid.ndim > label.ndim:
            return label
        return label.masked_fill(
            ~valid.view(*valid.shape, *[1] * (label.ndim - valid.ndim)), UNLABELLED
        )

    def item_mask(self, batch: Batch) -> Tensor | None:
        """Return the mask of the items that have a label and are valid."""
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
        counted: Tensor = weight * (
            labelled.flatten(weight.ndim).any(-1) if labelled.ndim > weight.ndim else labelled
        )
        return counted

    def num_items(self, batch: Batch) -> Tensor:
        if self.average == "batch":
            return super().weight(batch).sum()
        return self.weight(batch).sum()
