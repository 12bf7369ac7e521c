"""KDRL: divergence from the teacher and a verifiable reward, on the student's own texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.cards import at_progress
from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    Objective,
    Objectives,
    Positive,
    Teacher,
    Update,
    item_weights,
    mean,
)
from instil.functional.group_policy import (
    answer_tokens,
    clipped_policy_values,
    exact_match,
    group_advantages,
    token_accuracy,
)
from instil.functional.token_log_probs import chunked_log_probs
from instil.functional.tokens.signals import token_role
from instil.generation.options import Sampling, SamplingOption
from instil.generation.reader import index_batch
from instil.generation.rollout_options import RolloutOption, Rollouts
from instil.schemes.bases.rollouts import check_log_probs
from instil.schemes.bases.teacher_texts import VerifyTokens
from instil.schemes.bases.writer import GenerativeScheme

Clip = Annotated[
    float,
    Gt(0),
    Lt(1),
    Doc(
        "largest change of a token's probability that the loss ``policy`` rewards; it has an "
        "effect on texts of earlier weights only (``rollouts.staleness``)"
    ),
]
REWARDS = {"exact_match": exact_match, "token_accuracy": token_accuracy}


class KDRL(GenerativeScheme):
    """Divergence from the teacher and a verifiable reward, on groups of the student's own texts.

    The student writes several texts for each prompt. The loss ``policy`` is that of GRPO: the
    log-probability of each token, weighted by the reward of its text relative to its group. The
    objectives, such as reverse_kl, apply to the same texts (Xu et al. 2025). For another reward,
    derive a class and override ``reward``.
    """

    own_schedules = ("policy_weight",)
    card = Card(
        "KDRL: Post-Training Reasoning LLMs via Unified Knowledge Distillation and Reinforcement "
        "Learning",
        "https://arxiv.org/abs/2506.02208",
        "arXiv",
        2025,
        source="online",
        algorithms=("adaptive",),
        tasks=("language",),
        labels=("single",),
        equation=r"-\frac{1}{\sum_i |y_i|} \sum_i \sum_t \min(r_{i,t} \hat A_i, "
        r"\mathrm{clip}_{1 \pm \epsilon}(r_{i,t}) \hat A_i) + \beta D(p^s \Vert p^t), \quad "
        r"r_{i,t} = \frac{p^s(y_{i,t})}{p^{s\prime}(y_{i,t})}, \; "
        r"\hat A_i = \frac{R_i - \mathrm{mean}(R)}{\mathrm{std}(R)}",
        use="For tasks whose answers can be checked, when the student already solves some of them. "
        "The reward lets the student become better than the teacher; the divergence gives a "
        "target at each token, also where no text of a group is correct.",
        pitfalls="A group whose texts are all correct or all wrong gives no reward gradient, so "
        "train the student on the text of the data first. The weight of the divergence decides "
        "which loss dominates: the paper's weights are 0.001 to 0.005, with a decreasing schedule. "
        "The cost is `group_size` texts per prompt.",
        deviations="The reverse KL of a token is exact over the vocabulary; the paper estimates it "
        "from the sampled token (k2), which has the same expected gradient. Each text is used for "
        "one update. The standard deviation of a group is divided by its size, in TRL by one less.",
    )
    needs_teacher_logits = False

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        group_size: Annotated[int, Ge(2), Doc("number of texts for each prompt")] = 4,
        reward: Annotated[
            Literal["exact_match", "token_accuracy", "verifier"],
            Doc(
                "reward of a text; exact_match: 1 if it equals the text of the data, "
                "token_accuracy: share of equal tokens, verifier: 1 if the verifier of the data "
                "(``data.verifier``) accepts it"
            ),
        ] = "exact_match",
        policy_weight: Annotated[Positive, Doc("weight of the loss ``policy``")] = 1.0,
        distils_solved: Annotated[
            bool,
            Doc(
                "apply the objectives also to texts with the reward 1; false: only to the others "
                "(reward-guided distillation of the paper)"
            ),
        ] = True,
        clip: Clip = 0.2,
        sampling: SamplingOption = Sampling(),
        rollouts: RolloutOption = Rollouts(),
    ):
        if (sampling.temperature, sampling.top_p) != (1, 1):
            raise ValueError(
                "scheme.sampling: the policy gradient of kdrl needs texts from the student's own "
                "distribution. Expected temperature 1 and top_p 1, got "
                f"{sampling.temperature} and {sampling.top_p}. Leave both out"
            )
        check_log_probs("the loss policy", rollouts)
        super().__init__(student, teacher, objectives, sampling, rollouts)
        self.group_size = group_size
        self.clip = clip
        self.reward_name = reward
        self.verify: VerifyTokens | None = None
        self.policy_weight = policy_weight
        self.distils_solved = distils_solved

    def needs_verifier(self) -> bool:
        """Whether the reward is the verifier of the data."""
        return self.reward_name == "verifier"

    def set_verifier(self, verify: VerifyTokens) -> None:
        """Set the check of the student's texts.

        Args:
            verify: maps generated tokens and those of the data's answers (N, T) to whether they
                are correct (N,).
        """
        self.verify = verify

    def build(self, batch: Batch) -> None:
        if self.needs_verifier() and self.verify is None:
            raise ValueError(
                "scheme.reward: there is no verifier. Expected one. Set data.verifier in a recipe, "
                "or call set_verifier"
            )
        if "label" not in batch:
            raise ValueError(
                "kdrl compares generated texts with those of the data. Expected rows with answers, "
                f"got {', '.join(batch)}"
            )
        super().build(batch)

    def reward(self, text: Batch, reference: Tensor) -> Tensor:
        """Rewards (N,) of generated texts.

        Args:
            text: rows with generated texts; ``token`` (N, T) has the tokens of the answers, also
                those at the beginning that belong to the prompts.
            reference: tokens of the data's texts (N, T), -100 at other positions.
        """
        if self.verify is not None:
            return self.verify(text["token"], reference).float()
        return REWARDS[self.reward_name](text["token"], reference)

    def student_rows(self, batch: Batch) -> Batch:
        index = batch["index"]
        rows = index_batch(
            batch, torch.arange(len(index), device=index.device).repeat(self.group_size)
        )
        # The random numbers of a text depend on its index, and the texts of a group differ.
        member = torch.arange(self.group_size, device=index.device)[:, None]
        return rows | {"index": (index * self.group_size + member).flatten()}

    def before_step(self, batch: Batch) -> Batch:
        reference = batch["label"].masked_fill(~batch["valid"], UNLABELLED)
        group = self.student_text(batch)
        references = reference.repeat(self.group_size, 1)
        answers = group | {"token": answer_tokens(group["token"], references)}
        rewards = self.reward(answers, references)
        group["index"] = batch["index"].repeat(self.group_size)
        group["advantage"] = group_advantages(rewards.view(self.group_size, -1)).flatten()
        distilled = dict(group)
        if not self.distils_solved:
            distilled["valid"] = group["valid"] & (rewards < 1)[:, None]
        return batch | {"student_text": group, "distilled_text": distilled}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        counts = self.objectives.counts(batch["distilled_text"])
        return counts | {"policy": item_weights(batch["student_text"]).sum()}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self._losses(batch)

    def _losses(self, batch: Batch) -> Update:
        text = batch["student_text"]
        student, teacher = self.forward_both(text)
        update: Update = self.objectives(student, teacher, batch["distilled_text"])
        signal = student[token_role(student)]
        log_probs = chunked_log_probs(signal, text["token"], self.vocabulary)
        # Without rollouts the ratio of probabilities is 1, apart from rounding.
        is_current = self.rollouts.is_immediate
        old_log_probs = log_probs.detach() if is_current else text["log_probability"]
        values = clipped_policy_values(log_probs, old_log_probs, text["advantage"], self.clip)
        loss = mean(values, text["valid"].to(values.dtype))
        update.losses["policy"] = at_progress(self.policy_weight, batch) * loss
        return update
