"""Base class of schemes that train on text generated during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn

from instil.core import (
    Batch,
    Objective,
    Objectives,
    Outputs,
    Scheme,
    Teacher,
    at_progress,
)
from instil.generation.rollout import ChooseTokens, generate_text, generate_with, stop_tokens
from instil.schemes.bases.generation_options import (
    EndToken,
    NewTokens,
    PromptTokens,
    SamplingTemperature,
    TopP,
    Vocabulary,
)


class GenerativeScheme(Scheme):
    """Base class of schemes that generate text after the prompts of a batch of tokens.

    Student, teacher or both generate. The options are those of ``generate_with`` and
    ``sample_tokens``.
    """

    on_policy_text = True
    needs_teacher_logits: ClassVar[bool] = True
    """Whether the scheme reads the teacher's logits in addition to the roles of the objectives."""
    # Ranks would run the shards of a network a different number of times.
    supports_sharding = False

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        end: EndToken = None,
        min_prompt_tokens: PromptTokens = 1,
        max_new_tokens: NewTokens = None,
        temperature: SamplingTemperature = 1.0,
        top_p: TopP = 1.0,
        vocabulary: Vocabulary = None,
    ):
        super().__init__(student, teacher, objectives)
        self.end = end
        self.min_prompt_tokens = min_prompt_tokens
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.top_p = top_p
        self.vocabulary = vocabulary

    def build(self, batch: Batch) -> None:
        self._check_batch(batch)
        if self.teacher is None:
            raise ValueError(
                f"{type(self).__name__} needs a teacher. Expected a network that rates generated "
                "text, got None"
            )
        self._limit_vocabulary(batch)
        super().build(batch)
        self.teacher.select_roles(self.teacher_roles(), batch)

    def _check_batch(self, batch: Batch) -> None:
        """Raise ValueError unless the batch has prompts that both networks can read."""
        name = type(self).__name__
        required = ("input_ids", "attention_mask", "valid", "index")
        missing = [key for key in required if key not in batch]
        if missing:
            raise ValueError(
                f"{name} generates text after prompts: it needs rows of tokens with "
                f"'{missing[0]}', got {', '.join(batch)}"
            )
        length = batch["input_ids"].shape[1]
        if length <= self.min_prompt_tokens:
            raise ValueError(
                "scheme.min_prompt_tokens: the prompts leave no position to generate. Expected "
                f"fewer than the {length} tokens of a row, got {self.min_prompt_tokens}"
            )
        if "teacher_input_ids" in batch:
            raise ValueError(
                f"teacher.tokenizer: {name} generates text in the student's tokens, which a "
                "teacher with another tokenizer cannot read. Expected one tokenizer for both. "
                "Leave teacher.tokenizer out, or use the scheme offline"
            )

    def _limit_vocabulary(self, batch: Batch) -> None:
        """Limit the generated tokens to those that both networks have."""
        sizes = [num_output_tokens(outputs) for outputs in self.forward_both(batch)]
        limits = [size for size in sizes if size is not None]
        if not limits:
            return
        limit = min(limits)
        if self.vocabulary is not None and self.vocabulary > limit:
            raise ValueError(
                "scheme.vocabulary: a network has fewer tokens. Expected at most "
                f"{limit}, got {self.vocabulary}"
            )
        self.vocabulary = self.vocabulary or limit
        wrong = [token for token in stop_tokens(self.end) if token >= self.vocabulary]
        if wrong:
            raise ValueError(
                f"scheme.end: there is no such token. Expected a token from 0 to "
                f"{self.vocabulary - 1}, got {wrong[0]}. Leave end out to use the end token of the "
                "data's tokenizer"
            )

    def teacher_roles(self) -> set[str]:
        """Roles of the teacher that the scheme and its objectives read."""
        roles = self.objectives.reads("teacher")
        return roles | {"logits"} if self.needs_teacher_logits else set(roles)

    def student_text(self, batch: Batch) -> Batch:
        """Replace the text after each prompt by text that the student samples.

        Args:
            batch: rows of tokens.

        Returns:
            The batch of ``generate_with``.
        """
        return generate_text(
            self.student,
            batch,
            self.end,
            self.min_prompt_tokens,
            self.max_new_tokens,
            *self.sampling_now(batch),
            stream="scheme.text",
            vocabulary=self.vocabulary,
        )

    def sampling_now(self, batch: Batch) -> tuple[float, float]:
        """Return ``temperature`` and ``top_p`` at the progress of the batch."""
        return at_progress(self.temperature, batch), at_progress(self.top_p, batch)

    def generate_with(
        self,
        batch: Batch,
        nets: Sequence[nn.Module],
        choose: ChooseTokens,
        stream: str = "scheme.text",
    ) -> Batch:
        """Generate text from the logits of several networks, with the scheme's options.

        Args:
            batch: rows of tokens.
            nets: networks that compute the logits.
            choose: selects the next tokens.
            stream: name of the random stream.

        Returns:
            The batch of ``instil.generation.rollout.generate_with``.
        """
        return generate_with(
            batch,
            nets,
            choose,
            self.end,
            self.min_prompt_tokens,
            self.max_new_tokens,
            stream,
            self.vocabulary,
        )


def num_output_tokens(outputs: Outputs) -> int | None:
    """Number of tokens in the outputs of a network; None if the outputs are not over tokens."""
    if "projection" in outputs:
        return len(outputs["projection"].weight)
    return int(outputs["logits"].shape[-1]) if "logits" in outputs else None
