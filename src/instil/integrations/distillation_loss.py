"""Loss of a scheme as a module, for training loops outside of the package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from instil import catalogue
from instil.core import Scheme, Update
from instil.engine import gather_rows, world_size
from instil.engine.differentiable import set_gather
from instil.engine.learners import shared_with_teacher
from instil.engine.loss_weights import loss_weights
from instil.engine.processes import sum_over_ranks
from instil.engine.state import fixed_teachers
from instil.modules.data_tokens import DataTokens
from instil.offline_scheme import ObjectiveSpecs, offline_scheme
from instil.tasks.bases.loader import task_loader
from instil.training.clock import clock


class LossOutputs(NamedTuple):
    """Loss of a batch.

    Attributes:
        loss: scalar to call ``backward`` on.
        parts: objective -> its weighted loss, detached.
    """

    loss: Tensor
    parts: dict[str, Tensor]


class DistillationLoss(nn.Module):
    """Loss of a teacher and a student in a training loop outside of the package.

    The module contains the student and the adapters of feature objectives. Its ``parameters`` are
    what an optimizer trains, and its ``state_dict`` does not contain fixed teachers. The loss is
    that of ``fit``, also under ``DistributedDataParallel``: a mean over the items of all processes.
    Gradient accumulation in the outer loop averages the means of micro-batches instead.

    Args:
        teacher: module, or several modules, whose logits are averaged.
        student: module, which is trained in place.
        objectives: as in ``instil.distil``, which also has the default.
        example: batch in the form of the loop: a dict, or a tuple in the order of ``names``. The
            adapters are built from its shapes.
        task: name of the task.
        names: keys of the values of a tuple; None: those of the task.
        seed: seed of the random numbers that objectives draw.
        num_tokens: number of tokens of the tokenizer. Losses that compare tokens do not read the
            rows of heads beyond it; other tasks ignore it. None: heads without such padding.

    Raises:
        ValueError: for unknown names, wrong options, outputs that an objective cannot read, and a
            student without a parameter to train.

    Example:
        >>> import torch
        >>> teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> batch = (torch.randn(8, 3, 2, 2), torch.tensor([0, 1] * 4))
        >>> distillation = DistillationLoss(teacher, student, {"kd": {"temperature": 2}}, batch)
        >>> optimizer = torch.optim.AdamW(distillation.parameters())
        >>> distillation(batch).loss.backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        teacher: nn.Module | Sequence[nn.Module],
        student: nn.Module,
        objectives: ObjectiveSpecs | None,
        example: Any,
        *,
        task: str = "classification",
        names: Sequence[str] | None = None,
        seed: int = 0,
        num_tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.task = catalogue.find("task", task)()
        scheme = offline_scheme(teacher, student, [example], objectives, self.task, names)
        if num_tokens is not None and self.task.has_token_outputs:
            scheme.objectives.selection = DataTokens(num_tokens, num_tokens)
        if not any(parameter.requires_grad for parameter in scheme.student.parameters()):
            reason = shared_with_teacher(scheme, [scheme.student])
            raise ValueError(f"student: has no parameter to train{reason}")
        self._batches = task_loader([example], self.task, scheme.student, names)
        for _ in self._batches:  # checks inputs and labels
            pass
        scheme.prepare(self._batches.sample(student) | clock(0, 0.0, seed))
        self.scheme: Scheme = scheme
        self.seed = seed
        self._rows: dict[str, list[Tensor]] = {}
        self.register_state_dict_post_hook(_drop_teachers)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_add_teachers)  # type: ignore[no-untyped-call]

    @property
    def student(self) -> nn.Module:
        """The student."""
        return self.scheme.student.model

    def forward(self, batch: Any, step: int = 0, progress: float = 0.0) -> LossOutputs:
        """Return the loss of a batch.

        Args:
            batch: dict or tuple in the form of ``example``, on the device of the student.
            step: index of the optimizer step, from which objectives draw their random numbers.
            progress: share of the training that is done, in [0, 1], for scheduled weights and
                options.
        """
        adapted = self.task.adapt_batch(self._batches.named(batch))
        adapted |= clock(step, progress, self.seed)
        set_gather(self.scheme)
        adapted = self.scheme.before_step(adapted)
        update = _only_update(self.scheme.step(adapted))
        weights = loss_weights([self.scheme.counts(adapted)], sum_over_ranks)[0]
        # DistributedDataParallel averages gradients, but the weights of all processes sum to 1.
        parts = {
            name: loss * weights[name].squeeze() * world_size()
            for name, loss in update.losses.items()
        }
        if torch.is_grad_enabled():
            for name, rows in update.state_updates.items():
                self._rows.setdefault(name, []).append(rows.detach())
        loss = torch.stack(list(parts.values())).sum()
        return LossOutputs(loss, {name: value.detach() for name, value in parts.items()})

    @torch.no_grad()
    def after_step(self) -> None:
        """Update memories and averages of the objectives; call it after each optimizer step."""
        rows = {name: gather_rows(torch.cat(values)) for name, values in self._rows.items()}
        self._rows = {}
        self.scheme.after_step(rows)


def _only_update(updates: Iterator[Update]) -> Update:
    """Return the update of a scheme with one update per step."""
    update = next(updates)
    if update.learner != "student" or next(updates, None) is not None:
        raise RuntimeError("scheme: several updates per step. Train it with instil.fit")
    return update


def _drop_teachers(
    module: DistillationLoss, state: dict[str, Any], prefix: str, _local_metadata: Mapping[str, Any]
) -> None:
    """Remove the fixed teachers from a state."""
    prefixes = tuple(f"{prefix}scheme.{name}" for name in fixed_teachers(module.scheme))
    for name in [name for name in state if name.startswith(prefixes)]:
        del state[name]


def _add_teachers(
    module: DistillationLoss, state: dict[str, Any], prefix: str, *_others: Any
) -> None:
    """Add the current fixed teachers to a state that is loaded."""
    teachers = fixed_teachers(module.scheme)
    for name, value in module.scheme.state_dict().items():
        if name.startswith(teachers):
            state.setdefault(f"{prefix}scheme.{name}", value)
