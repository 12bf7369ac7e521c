"""The student learns to answer as if it had read what helps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from instil.core import (
    SHARED_ROLES,
    Batch,
    Card,
    LazyOutputs,
    Net,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    Projection,
    Teacher,
    Update,
    as_net,
    at_progress,
    side_effect_free,
)
from instil.generation.reader import TEXT_KEYS
from instil.generation.sampling import step_uniform
from instil.schemes.bases.writer import GenerativeScheme, Share, Token, Tokens
from instil.teachers.ema import Ema

CHOOSING = 3201
"""A salt."""
Reader = Literal["average", "adapter_off", "teacher"]


class PrivilegedContext(GenerativeScheme):
    """A teacher reads a context before the prompt, the student the prompt alone; they are compared where the answer is (Shenfeld et al. 2026).

    A row's context is ``context_ids`` with ``context_mask`` (N, C). The objectives are divergences of tokens; labels are those of given text alone.

    ``reader``: who reads the context: the ``average`` of the student's own weights, the student with its adapters off (``adapter_off``), which is the
    net that it began as, or the recipe's ``teacher``.
    ``decay``: how much of itself the average keeps at each step; 1: it stays what the student was.
    ``share``: how many of the steps are on text that the student writes after the prompt alone, the others are on the given one.
    ``end``: the token that ends a text; in a recipe null is that of the data's tokenizer.
    ``min_prompt_tokens``: of a row at least so many tokens are read, not written.
    ``max_new_tokens``: of a text; null: as many as the row is long.
    ``temperature``: of what is written; 0 is the likeliest token.
    ``top_p``: it is one of the likeliest that have so much probability together.
    ``vocabulary``: number of tokens that may be written, where heads are padded; in a recipe null is that of the data's tokenizer.
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
        equation=r"\mathbb{E}_x \mathbb{E}_{y \sim p_\theta(\cdot | x)} \sum_t D\big(p_{\theta'}(\cdot | c, x, y_{<t}), "
        r"p_\theta(\cdot | x, y_{<t})\big), \quad \theta' \leftarrow d\, \theta' + (1 - d)\, \theta",
        use="Demonstrations, hints or rules that the net can use where it reads them, and shall know without. On its own text it forgets less.",
        pitfalls="The net must be able to use the context: look first at what it answers with it. A context that says more than can be found from "
        "the prompt teaches to guess. What learns from prompts alone forgets how to use a context, and its average with it: keep the decay near 1.",
        deviations="The divergence is that of the recipe, reverse_kl in the paper; on given text (share 0) it is context distillation.",
    )
    needs_teacher_logits = False

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        reader: Reader = "average",
        decay: Annotated[float, Ge(0), Le(1)] = 0.999,
        share: Annotated[float, Ge(0), Le(1)] = 1.0,
        end: Token | None = None,
        min_prompt_tokens: Tokens = 1,
        max_new_tokens: Tokens | None = None,
        temperature: NonNegative = 1.0,
        top_p: Share = 1.0,
        vocabulary: Tokens | None = None,
    ):
        student = as_net(student)
        teacher = (
            teacher
            if reader == "teacher"
            else Ema(student, decay)
            if reader == "average"
            else AdapterOff(student)
        )
        super().__init__(
            student,
            teacher,
            objectives,
            end,
            min_prompt_tokens,
            max_new_tokens,
            temperature,
            top_p,
            vocabulary,
        )
        self.share = share

    def build(self, batch: Batch) -> None:
        if missing := [key for key in ("context_ids", "context_mask") if key not in batch]:
            raise ValueError(
                f"the teacher reads a context that the batch has not: '{missing[0]}' is none of {', '.join(batch)}; see data.context"
            )
        super().build(batch)
        if isinstance(self.teacher, (Ema, AdapterOff)):
            self.teacher.roles = frozenset(self.teacher_roles())

    def before_step(self, batch: Batch) -> Batch:
        return (
            self.student_text(batch)
            if step_uniform(batch, CHOOSING) < at_progress(self.share, batch)
            else batch
        )

    def teacher_outputs(self, batch: Batch, grad: bool = False) -> Outputs:
        return without_context(super().teacher_outputs(with_context(batch), grad), batch)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        if isinstance(self.teacher, Ema):
            self.teacher.follow(self.student)


def with_context(batch: Batch) -> Batch:
    """The batch with each row's context before it, without a gap between them: rows (N, T) and contexts (N, C) give (N, C + T).

    A token that begins a text (``num_bos``) stays in front of the context.
    """
    ids, mask = (
        torch.cat([batch[before], batch[key]], 1)
        for before, key in (("context_ids", "input_ids"), ("context_mask", "attention_mask"))
    )
    length = batch["context_mask"].sum(1, keepdim=True)
    place = torch.arange(ids.shape[1], device=ids.device)[None]
    gap = batch["context_ids"].shape[1] - length
    num_bos = batch.get("num_bos", torch.zeros_like(length[:, 0]))[:, None]
    before = torch.where(place < num_bos, batch["context_ids"].shape[1] + place, place - num_bos)
    is_row = place >= length + num_bos
    source = torch.where(is_row, (place + gap).clamp_max(ids.shape[1] - 1), before)
    rows = {
        "input_ids": ids.gather(1, source),
        "attention_mask": mask.gather(1, source) * (place + gap < ids.shape[1]),
    }
    return rows | {key: value for key, value in batch.items() if key not in TEXT_KEYS}


def without_context(outputs: Outputs, batch: Batch) -> Outputs:
    """What was said of the places (N, T) of the batch's own rows; attentions are left out."""
    length = batch["context_mask"].sum(1, keepdim=True)
    place = length + torch.arange(batch["input_ids"].shape[1], device=length.device)[None]
    row = torch.arange(len(place), device=length.device)[:, None]

    def taken(value: Any) -> Any:
        if isinstance(value, Projection):
            return replace(value, hidden=taken(value.hidden))
        return (
            tuple(taken(part) for part in value) if isinstance(value, tuple) else value[row, place]
        )

    later = {
        role: lambda role=role: outputs[role] if role in SHARED_ROLES else taken(outputs[role])
        for role in outputs
        if role != "attentions"
    }
    return LazyOutputs({}, later)


class AdapterOff(Teacher):
    """What a net says with its adapters switched off: the one that it began as, without a second copy of it (a model of peft, such as LoRA).

    Raises ValueError for a net without adapters.
    """

    def __init__(self, net: Net):
        super().__init__()
        if not hasattr(net.model, "disable_adapter"):
            raise ValueError(
                f"reader: {type(net.model).__name__} has no adapters to switch off; give the student some (student.changes.lora)"
            )
        self._net = (net,)  # no part of this teacher: its parameters are the student's
        self.roles: frozenset[str] | None = None  # the only roles that are read

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        (net,) = self._net
        model: Any = net.model
        with side_effect_free(net), torch.set_grad_enabled(grad), model.disable_adapter():
            outputs: Outputs = net(batch, roles=self.roles)
        return outputs
