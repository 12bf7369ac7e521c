"""The student writes and is rewarded for what the teacher finds likely: reverse KL of whole texts, by policy gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from instil.core import (
    Batch,
    Card,
    Objective,
    Objectives,
    Positive,
    Teacher,
    Update,
    at_progress,
    item_weights,
    mean,
    side_effect_free,
    to_float32,
)
from instil.functional.token_log_probs import token_log_probs
from instil.generation.sampling import sample_top_p
from instil.schemes.bases.two_texts import TwoTextsScheme
from instil.schemes.bases.writer import Token, Tokens


def advantages(
    reward: Tensor, mask: Tensor, gamma: float = 1.0, normalised: bool = True, own: bool = False
) -> Tensor:
    """What is still to come after each token, (N, T): the sum of later rewards, over their number if ``normalised`` (Gu et al. 2024, Eqs. 5, 7).

    ``reward`` (N, T) is log p_teacher - log p_student of each token, 0 outside the text, ``mask`` (N, T) marks the tokens of the text; ``gamma``
    discounts. ``own``: the token's own reward is one of them, as in the authors' code.
    """
    total, number = torch.zeros_like(reward[:, 0]), torch.zeros_like(reward[:, 0])
    found = []
    for place in reversed(range(reward.shape[1])):
        later, left = gamma * total, number
        total, number = reward[:, place] + later, number + (mask[:, place] > 0)
        value, among = (total, number) if own else (later, left)
        found.append(value / among.clamp_min(1) if normalised else value)
    return torch.stack(found[::-1], 1)


def policy_gradient_loss(
    log_probability: Tensor,
    before: Tensor,
    advantage: Tensor,
    mask: Tensor,
    importance: Tensor | float = 1.0,
    clip: float = 0.2,
    reduction: str = "mean",
) -> Tensor:
    """max(-A r, -A clip(r, 1 - c, 1 + c)) of each token, r = w exp(log p - log p when written) (Gu et al. 2024, Algorithm 1; Schulman et al. 2017).

    All are (N, T): the student's log-probability of each token now and ``before``, what came of it, which tokens count, and ``importance`` w.
    """
    ratio = (log_probability - before).exp() * importance
    values = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))
    return mean(values, mask.to(values.dtype)) if reduction == "mean" else values


class MiniLLM(TwoTextsScheme):
    """Reverse KL of whole texts (Gu et al. 2024, Algorithm 1): student and teacher write together, and a token's gradient has two parts.

    The part of the token itself is the objective reverse_kl on that text, exact over the vocabulary (single-step decomposition). The part of its
    effect on later tokens is the loss ``policy``: their mean reward (length normalisation), log p_teacher - log p_student. Other objectives, such as
    cross_entropy, see the given text.

    ``student_text_objectives``: the objectives on the written text.
    ``teacher_mix``: the teacher's share of each token's distribution while writing, the paper's alpha; corrected by importance weights.
    ``clip``: how far from 1 the importance of a token may be for its gradient to count.
    ``policy_weight``: of the loss ``policy``.
    ``end``: the token that ends a text; in a recipe null is that of the data's tokenizer.
    ``min_prompt_tokens``: of a row at least so many tokens are read, not written.
    ``max_new_tokens``: of a text; null: as many as the row is long.
    ``vocabulary``: number of tokens that may be written, where heads are padded; in a recipe null is that of the data's tokenizer.
    """

    card = Card(
        "MiniLLM: Knowledge Distillation of Large Language Models",
        "https://arxiv.org/abs/2306.08543",
        "ICLR",
        2024,
        source="online",
        algorithms=("adaptive",),
        tasks=("language",),
        labels=("single",),
        equation=r"-\mathbb{E}_{y \sim \tilde p} \sum_t w_t \Big( \nabla \mathbb{E}_{y_t \sim p^s} [r_t] + "
        r"\frac{\sum_{u > t} r_u}{T - t} \nabla \log p^s(y_t) \Big), \quad r_t = \log \frac{p^t(y_t)}{p^s(y_t)}",
        use="To have the reverse KL of whole texts, of which on_policy with reverse_kl leaves out how a token changes what comes after it.",
        pitfalls="A policy gradient is noisy: give it large batches, a small learning rate, a student that was trained on the given text before, and "
        "cross_entropy on given text beside it (the paper's pre-training loss).",
        deviations="Each text is learned from once, in the paper by several updates. The reward of a token is not part of its own advantage (Eq. 5); "
        "in the authors' code it is, advantages are whitened over the batch, which would make the result depend on its cut, and discounted by 0.95. "
        "The single-step part has no importance weight, as in the authors' code.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        student_text_objectives: Sequence[str] = ("reverse_kl",),
        teacher_mix: Annotated[float, Ge(0), Lt(1)] = 0.2,
        clip: Annotated[float, Gt(0)] = 0.2,
        policy_weight: Positive = 1.0,
        end: Token | None = None,
        min_prompt_tokens: Tokens = 1,
        max_new_tokens: Tokens | None = None,
        vocabulary: Tokens | None = None,
    ):
        super().__init__(
            student,
            teacher,
            objectives,
            student_text_objectives,
            end,
            min_prompt_tokens,
            max_new_tokens,
            vocabulary=vocabulary,
        )
        self.teacher_mix, self.clip, self.policy_weight = teacher_mix, clip, policy_weight

    def before_step(self, batch: Batch) -> Batch:
        if not (share := at_progress(self.teacher_mix, batch)):
            return batch | {"student_text": self.student_text(batch)}

        def choose(logits: Sequence[Tensor], numbers: Tensor) -> tuple[Tensor, Tensor]:
            student, teacher = (to_float32(one).softmax(-1) for one in logits)
            mixture = torch.lerp(student, teacher, share)
            token = sample_top_p(mixture, numbers[:, 0])
            return token, mixture.gather(-1, token[:, None]).squeeze(-1).log()

        assert self.teacher is not None
        with side_effect_free(self.student):
            return batch | {
                "student_text": self.generate_with(batch, [self.student, self.teacher], choose)
            }

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "policy": item_weights(batch["student_text"]).sum()}

    def step(self, batch: Batch) -> Iterator[Update]:
        update, student, teacher = self.update_on_student_text(batch)
        own = batch["student_text"]
        log_s, log_t = (
            token_log_probs(side["logits"][..., : self.vocabulary], own["token"])
            for side in (student, teacher)
        )
        now = log_s.detach()
        importance = (now - own["log_probability"]).exp()
        advantage = advantages(log_t - now, own["valid"])
        loss = policy_gradient_loss(
            log_s, now, advantage, own["valid"], importance, at_progress(self.clip, batch)
        )
        update.losses["policy"] = at_progress(self.policy_weight, batch) * loss
        del student, teacher, log_s, loss
        self.add_data_losses(update, batch)
        yield update
        del update
