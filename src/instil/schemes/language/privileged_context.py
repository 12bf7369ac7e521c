"""Privileged context: the student learns to answer as a teacher that also reads a context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    Net,
    Objective,
    Objectives,
    Outputs,
    Teacher,
    Update,
    as_net,
    side_effect_free,
)
from instil.generation.options import Sampling, SamplingOption
from instil.generation.reader import TEXT_KEYS
from instil.generation.rollout_options import RolloutOption, Rollouts
from instil.roles import SHARED_ROLES, LazyOutputs, Projection
from instil.schemes.bases.writer import GenerativeScheme
from instil.teachers.ema import Ema

ContextReader = Literal["average", "adapter_off", "teacher"]


class PrivilegedContext(GenerativeScheme):
    """Distillation from a teacher with a context to a student without it (Shenfeld et al. 2026).

    The teacher reads the context before the prompt, the student only the prompt. The losses compare
    both at the positions of the answer. The context of a row is ``context_ids`` with
    ``context_mask`` (N, C). The objectives are token-level divergences; objectives with labels
    apply to the text of the data only.
    """

    card = Card(
        "Self-Distillation Enables Continual Learning",
        "https://arxiv.org/abs/2601.19897",
        "arXiv",
        2026,
        source="self",
        algorithms=("adaptive",),
        tasks=("language",),
        labels=("single",),
        equation=r"\mathbb{E}_x \mathbb{E}_{y \sim p_\theta(\cdot | x)} \sum_t "
        r"D\big(p_{\theta'}(\cdot | c, x, y_{<t}), p_\theta(\cdot | x, y_{<t})\big), \quad "
        r"\theta' \leftarrow d\, \theta' + (1 - d)\, \theta",
        use="For demonstrations, hints or rules that the network can use when it reads them, and "
        "that it must learn to follow without them. Training on its own text forgets less.",
        pitfalls="The network must be able to use the context: check its answers with the context "
        "first. A context with information that cannot be inferred from the prompt teaches the "
        "student to guess. A student trained on prompts only forgets how to use a context, and so "
        "does its average: keep the decay near 1.",
        deviations="The divergence is the one of the recipe; the paper uses reverse_kl. On the "
        "text of the data (share 0) the scheme is context distillation. Texts of earlier weights "
        "(``rollouts``) are not part of the paper.",
    )
    needs_teacher_logits = False

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        reader: Annotated[
            ContextReader,
            Doc(
                "network that reads the context. average: moving average of the student; "
                "adapter_off: the student without its adapters, that is, its initial state; "
                "teacher: the teacher of the recipe"
            ),
        ] = "average",
        decay: Annotated[
            float,
            Ge(0),
            Le(1),
            Doc("decay of the moving average per step; 1: it keeps the initial weights"),
        ] = 0.999,
        share: Annotated[
            float,
            Ge(0),
            Le(1),
            Doc(
                "share of the steps with text that the student generates from the prompt only; the "
                "other steps use the text of the data"
            ),
        ] = 1.0,
        sampling: SamplingOption = Sampling(),
        rollouts: RolloutOption = Rollouts(),
    ):
        # Converted once: the teachers below must hold the same Net as the scheme.
        student = as_net(student)
        if reader == "average":
            teacher = Ema(student, decay)
        elif reader == "adapter_off":
            teacher = AdapterOff(student)
        super().__init__(
            student,
            teacher,
            objectives,
            sampling,
            rollouts,
        )
        self.share = share

    def build(self, batch: Batch) -> None:
        missing = [key for key in ("context_ids", "context_mask") if key not in batch]
        if missing:
            raise ValueError(
                f"scheme: the teacher of privileged_context reads a context. Expected "
                f"'{missing[0]}' in the batch, got {', '.join(batch)}. Use data "
                "with a context, such as a field context of the source text"
            )
        super().build(batch)
        if isinstance(self.teacher, (Ema, AdapterOff)):
            self.teacher.roles = frozenset(self.teacher_roles())

    def before_step(self, batch: Batch) -> Batch:
        return self.student_text(batch)

    def teacher_outputs(self, batch: Batch, grad: bool = False) -> Outputs:
        return without_context(super().teacher_outputs(with_context(batch), grad), batch)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        if isinstance(self.teacher, Ema):
            self.teacher.follow(self.student)


def with_context(batch: Batch) -> Batch:
    """Insert the context of each row before its tokens, without a gap between them.

    A token that begins a text (``num_bos``) stays in front of the context.

    Args:
        batch: rows ``input_ids`` and ``attention_mask`` (N, T) with ``context_ids`` and
            ``context_mask`` (N, C).

    Returns:
        The batch with rows (N, C + T), without the other keys that describe the text.
    """
    ids = torch.cat([batch["context_ids"], batch["input_ids"]], 1)
    mask = torch.cat([batch["context_mask"], batch["attention_mask"]], 1)
    length = batch["context_mask"].sum(1, keepdim=True)
    position = torch.arange(ids.shape[1], device=ids.device)[None]
    width = batch["context_ids"].shape[1]
    gap = width - length
    num_bos = batch.get("num_bos", torch.zeros_like(length[:, 0]))[:, None]
    # Tokens that open every text stay in front; the context follows them.
    bos_or_context = torch.where(position < num_bos, width + position, position - num_bos)
    is_row = position >= length + num_bos
    # Positions behind the end of the row repeat its last token, and the mask below excludes them.
    row_position = (position + gap).clamp_max(ids.shape[1] - 1)
    source = torch.where(is_row, row_position, bos_or_context)
    rows = {
        "input_ids": ids.gather(1, source),
        "attention_mask": mask.gather(1, source) * (position + gap < ids.shape[1]),
    }
    return rows | {key: value for key, value in batch.items() if key not in TEXT_KEYS}


def without_context(outputs: Outputs, batch: Batch) -> Outputs:
    """Select the outputs at the positions (N, T) of the batch's own rows.

    Args:
        outputs: outputs for the rows of ``with_context``.
        batch: the batch without contexts in its rows.

    Returns:
        The outputs without ``attentions``, which refer to pairs of positions.
    """
    length = batch["context_mask"].sum(1, keepdim=True)
    width = batch["input_ids"].shape[1]
    position = length + torch.arange(width, device=length.device)[None]
    row = torch.arange(len(position), device=length.device)[:, None]

    def select(value: Any) -> Any:
        if isinstance(value, Projection):
            return replace(value, hidden=select(value.hidden))
        if isinstance(value, tuple):
            return tuple(select(part) for part in value)
        return value[row, position]

    def select_role(role: str) -> Any:
        return outputs[role] if role in SHARED_ROLES else select(outputs[role])

    lazy = {role: partial(select_role, role) for role in outputs if role != "attentions"}
    return LazyOutputs({}, lazy)


class AdapterOff(Teacher):
    """Outputs of a network with its adapters (such as LoRA) off: its initial state without a copy.

    Args:
        net: network whose model is one of peft.

    Raises:
        ValueError: if the model has no adapters.
    """

    def __init__(self, net: Net):
        super().__init__()
        if not hasattr(net.model, "disable_adapter"):
            raise ValueError(
                f"scheme.reader: {type(net.model).__name__} has no adapters to switch off. "
                "Expected a student with adapters. Set student.changes.lora"
            )
        # In a tuple the network is not a submodule: its parameters belong to the student.
        self._net = (net,)
        # Roles that the losses read; None: all.
        self.roles: frozenset[str] | None = None

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        (net,) = self._net
        model: Any = net.model
        with side_effect_free(net), torch.set_grad_enabled(grad), model.disable_adapter():
            outputs: Outputs = net(batch, roles=self.roles)
        return outputs
