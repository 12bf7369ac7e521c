"""MiniLLM: reverse KL of whole texts, minimised by policy gradient on generated text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.cards import at_progress
from instil.core import (
    Batch,
    Card,
    Objective,
    Objectives,
    Positive,
    Teacher,
    Update,
    item_weights,
    mean,
    side_effect_free,
    to_float32,
)
from instil.functional.token_log_probs import chunked_log_probs
from instil.functional.tokens.signals import token_role
from instil.generation.options import Sampling, SamplingOption
from instil.generation.sampling import sample_top_p
from instil.schemes.bases.two_texts import add_losses, split_objectives
from instil.schemes.bases.writer import GenerativeScheme


def advantages(
    reward: Tensor,
    mask: Tensor,
    gamma: float = 1.0,
    length_normalized: bool = True,
    include_current: bool = False,
) -> Tensor:
    """Sum of the rewards after each token (Gu et al. 2024, Eqs. 5 and 7).

    Args:
        reward: log p_teacher - log p_student of each token (N, T), 0 outside the text.
        mask: non-zero at the tokens of the text (N, T).
        gamma: discount factor per token.
        length_normalized: divide the sum by the number of its tokens.
        include_current: add the token's own reward, as in the authors' code.

    Returns:
        Advantages (N, T).

    Example:
        >>> import torch
        >>> advantages(torch.tensor([[1.0, 2.0, 6.0]]), torch.ones(1, 3))
        tensor([[4., 6., 0.]])
    """
    total = count = torch.zeros_like(reward[:, 0])
    backwards = []
    for position in reversed(range(reward.shape[1])):
        later_total = gamma * total
        later_count = count
        total = reward[:, position] + later_total
        count = count + (mask[:, position] > 0)
        value = total if include_current else later_total
        length = count if include_current else later_count
        backwards.append(value / length.clamp_min(1) if length_normalized else value)
    return torch.stack(backwards[::-1], 1)


def policy_gradient_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantage: Tensor,
    mask: Tensor,
    importance_weight: Tensor | float = 1.0,
    clip: float = 0.2,
    reduction: str = "mean",
) -> Tensor:
    """Clipped policy gradient loss (Gu et al. 2024, Algorithm 1; Schulman et al. 2017).

    ``max(-A r, -A clip(r, 1 - clip, 1 + clip))`` for each token with advantage ``A`` and
    probability ratio ``r = importance_weight * exp(log_probs - old_log_probs)``.

    Args:
        log_probs: log-probabilities of the tokens by the current student (N, T).
        old_log_probs: their log-probabilities when the text was generated (N, T).
        advantage: (N, T).
        mask: weight of each token (N, T), 0 outside the text.
        importance_weight: factor on the ratio (N, T), or a number.
        clip: largest distance of the ratio from 1.
        reduction: ``"mean"`` over the tokens of ``mask``, or ``"none"``.

    Returns:
        Scalar, or (N, T) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> log_probs = torch.tensor([[0.5, 0.25]]).log()
        >>> old_log_probs = torch.tensor([[0.25, 0.25]]).log()
        >>> advantage = torch.tensor([[1.0, -1.0]])
        >>> policy_gradient_loss(log_probs, old_log_probs, advantage, torch.ones(1, 2))
        tensor(-0.1000)
    """
    ratio = (log_probs - old_log_probs).exp() * importance_weight
    # The maximum of two losses is the minimum of two objectives in PPO: the pessimistic bound.
    values = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))
    return mean(values, mask.to(values.dtype)) if reduction == "mean" else values


class MiniLLM(GenerativeScheme):
    """Reverse KL of whole texts that student and teacher write together (Gu et al. 2024, Alg. 1).

    The gradient of a token has two parts. The part of the token itself is the objective reverse_kl
    on the generated text, exact over the vocabulary (single-step decomposition). The part of its
    effect on later tokens is the loss ``policy``, whose reward is the mean of
    ``log p_teacher - log p_student`` over the later tokens (length normalization). Other
    objectives, such as cross_entropy, use the text of the data.
    """

    own_schedules = ("teacher_mix", "clip", "policy_weight")
    card = Card(
        "MiniLLM: Knowledge Distillation of Large Language Models",
        "https://arxiv.org/abs/2306.08543",
        "ICLR",
        2024,
        source="online",
        algorithms=("adaptive",),
        tasks=("language",),
        labels=("single",),
        equation=r"-\mathbb{E}_{y \sim \tilde p} \sum_t w_t \Big( \nabla "
        r"\mathbb{E}_{y_t \sim p^s} [r_t] + "
        r"\frac{\sum_{u > t} r_u}{T - t} \nabla \log p^s(y_t) \Big), \quad "
        r"r_t = \log \frac{p^t(y_t)}{p^s(y_t)}",
        use="To minimise the reverse KL of whole texts. On_policy with reverse_kl leaves out the "
        "effect of a token on the tokens after it.",
        pitfalls="A policy gradient is noisy. Use large batches, a small learning rate, and a "
        "student that was trained on the text of the data before. Add cross_entropy on the text "
        "of the data (the paper's pre-training loss).",
        deviations="Each text is used for one update; the paper uses several. The reward of a "
        "token is not part of its own advantage (Eq. 5); in the authors' code it is. Their code "
        "also discounts by 0.95 and whitens advantages over the batch, which would make the result "
        "depend on how the batch is split. Texts are sampled at temperature 1 from all tokens, as "
        "in their scripts. The single-step part has no importance weight, as in their code.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        student_text_objectives: Annotated[
            Sequence[str], Doc("names of the objectives on the generated text")
        ] = ("reverse_kl",),
        teacher_mix: Annotated[
            float,
            Ge(0),
            Lt(1),
            Doc(
                "weight of the teacher in the distribution that tokens are sampled from, the "
                "paper's alpha; corrected by importance weights"
            ),
        ] = 0.2,
        clip: Annotated[
            float, Gt(0), Doc("largest distance of the probability ratio of a token from 1")
        ] = 0.2,
        policy_weight: Annotated[Positive, Doc("weight of the loss ``policy``")] = 1.0,
        sampling: SamplingOption = Sampling(),
    ):
        if (sampling.temperature, sampling.top_p) != (1, 1):
            raise ValueError(
                "scheme.sampling: minillm samples from a mixture of student and teacher at "
                "temperature 1, which its importance weights assume. Expected temperature 1 and "
                f"top_p 1, got {sampling.temperature} and {sampling.top_p}. Leave both out"
            )
        student_text, data = split_objectives("MiniLLM", objectives, student_text_objectives)
        super().__init__(student, teacher, student_text, sampling)
        self.data_objectives = data
        self.learners["student"] = (*self.learners["student"], "data_objectives")
        self.teacher_mix = teacher_mix
        self.clip = clip
        self.policy_weight = policy_weight

    @property
    def uses_data_text(self) -> bool:
        return True

    def build(self, batch: Batch) -> None:
        # Before super().build, which restricts the roles of the teacher.
        self.data_objectives.build(*self.forward_both(batch))
        super().build(batch)

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() | self.data_objectives.reads("teacher")

    def before_step(self, batch: Batch) -> Batch:
        teacher_mix = at_progress(self.teacher_mix, batch)
        if not teacher_mix:
            return batch | {"student_text": self.student_text(batch)}

        def choose(logits: Sequence[Tensor], uniforms: Tensor) -> tuple[Tensor, Tensor]:
            student_probs, teacher_probs = (to_float32(side).softmax(-1) for side in logits)
            mixture = torch.lerp(student_probs, teacher_probs, teacher_mix)
            token = sample_top_p(mixture, uniforms[:, 0])
            # The probability under the mixture, which the importance weight corrects for.
            return token, mixture.gather(-1, token[:, None]).squeeze(-1).log()

        assert self.teacher is not None
        # Only the student can be in training mode; the teacher is always in evaluation mode.
        with side_effect_free(self.student):
            text = self.generate_with(batch, [self.student, self.teacher], choose)
        return batch | {"student_text": text}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        text = batch["student_text"]
        counts = self.objectives.counts(text) | self.data_objectives.counts(batch)
        return counts | {"policy": item_weights(text).sum()}

    def step(self, batch: Batch) -> Iterator[Update]:
        text = batch["student_text"]
        student, teacher = self.forward_both(text)
        update: Update = self.objectives(student, teacher, text)
        student_log_probs, teacher_log_probs = (
            chunked_log_probs(outputs[token_role(outputs)], text["token"], self.vocabulary)
            for outputs in (student, teacher)
        )
        # The text is used for one update, so the current probabilities are also the old ones. The
        # importance weight corrects for the mixture that the tokens were sampled from.
        old_log_probs = student_log_probs.detach()
        importance_weight = (old_log_probs - text["log_probability"]).exp()
        advantage = advantages(teacher_log_probs - old_log_probs, text["valid"])
        loss = policy_gradient_loss(
            student_log_probs,
            old_log_probs,
            advantage,
            text["valid"],
            importance_weight,
            at_progress(self.clip, batch),
        )
        update.losses["policy"] = at_progress(self.policy_weight, batch) * loss
        # Release the graph of the generated text before the forward pass on the data's text.
        del student, teacher, student_log_probs, loss
        add_losses(update, self, self.data_objectives, batch)
        yield update
        del update

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        self.data_objectives.after_step(gathered_rows)
