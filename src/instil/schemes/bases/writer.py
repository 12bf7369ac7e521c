"""What schemes share whose students learn from text that was written during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le
from torch import nn

from instil.core import (
    Batch,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    Scheme,
    Teacher,
    at_progress,
)
from instil.generation.rollout import ChooseTokens, generate_text, generate_with, stop_tokens

Tokens = Annotated[int, Ge(1)]
Token = Annotated[int, Ge(0)] | list[Annotated[int, Ge(0)]]
Share = Annotated[float, Gt(0), Le(1)]


class GenerativeScheme(Scheme):
    """Writes after the prompts of a batch of tokens: student, teacher, or both; the options are those of ``generate_with`` and ``sample_tokens``.

    ``end``: the token that ends a text, or a list of them; in a recipe null is that of the data's tokenizer.
    ``min_prompt_tokens``: of a row at least so many tokens are read, not written.
    ``max_new_tokens``: of a text; null: as many as the row is long.
    ``temperature``: of what is written; 0 is the likeliest token.
    ``top_p``: it is one of the likeliest that have so much probability together.
    ``vocabulary``: number of tokens that may be written, where heads are padded; in a recipe null is that of the data's tokenizer.
    """

    on_policy_text = True
    needs_teacher_logits: ClassVar[bool] = True  # they are read beside what the objectives read
    supports_sharding = False  # ranks would ask for the parts of a net a different number of times

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        end: Token | None = None,
        min_prompt_tokens: Tokens = 1,
        max_new_tokens: Tokens | None = None,
        temperature: NonNegative = 1.0,
        top_p: Share = 1.0,
        vocabulary: Tokens | None = None,
    ):
        super().__init__(student, teacher, objectives)
        self.end, self.min_prompt_tokens, self.max_new_tokens, self.temperature, self.top_p = (
            end,
            min_prompt_tokens,
            max_new_tokens,
            temperature,
            top_p,
        )
        self.vocabulary = vocabulary

    def build(self, batch: Batch) -> None:
        if missing := [
            key for key in ("input_ids", "attention_mask", "valid", "index") if key not in batch
        ]:
            raise ValueError(
                f"{type(self).__name__} writes text after prompts: it needs rows of tokens with '{missing[0]}', not {', '.join(batch)}"
            )
        if (length := batch["input_ids"].shape[1]) <= self.min_prompt_tokens:
            raise ValueError(
                f"scheme.min_prompt_tokens: of rows of {length} tokens {self.min_prompt_tokens} are read, and nothing is left to write"
            )
        if self.teacher is None:
            raise ValueError(
                f"{type(self).__name__} needs a teacher: nobody else says what is wrong with a text"
            )
        if "teacher_input_ids" in batch:
            raise ValueError(
                f"teacher.tokenizer: {type(self).__name__} writes text in the student's tokens, which a teacher with "
                "another tokenizer cannot read. Expected one tokenizer for both. Leave teacher.tokenizer out, or use "
                "the scheme offline"
            )
        self._limit_vocabulary(batch)
        super().build(batch)
        self.teacher.select_roles(self.teacher_roles(), batch)

    def _limit_vocabulary(self, batch: Batch) -> None:
        """Settle how many tokens may be written: no more than both nets have."""
        sizes = [
            size for size in map(num_output_tokens, self.forward_both(batch)) if size is not None
        ]
        if not sizes:
            return
        if self.vocabulary is not None and self.vocabulary > min(sizes):
            raise ValueError(
                f"scheme.vocabulary: a net has fewer tokens. Expected at most {min(sizes)}, got {self.vocabulary}"
            )
        self.vocabulary = self.vocabulary or min(sizes)
        wrong = [token for token in stop_tokens(self.end) if token >= self.vocabulary]
        if wrong:
            raise ValueError(
                f"scheme.end: there is no such token. Expected a token from 0 to {self.vocabulary - 1}, got {wrong[0]}. "
                "Leave end out for the end of the data's tokenizer"
            )

    def teacher_roles(self) -> set[str]:
        """All roles that are read of the teacher."""
        return self.objectives.reads("teacher") | (
            {"logits"} if self.needs_teacher_logits else set()
        )

    def student_text(self, batch: Batch) -> Batch:
        """What the student writes after the prompts."""
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
        """Temperature and top_p of now."""
        return at_progress(self.temperature, batch), at_progress(self.top_p, batch)

    def generate_with(
        self,
        batch: Batch,
        asks: Sequence[nn.Module],
        choose: ChooseTokens,
        stream: str = "scheme.text",
    ) -> Batch:
        """What ``choose`` makes of the answers of some nets after the prompts."""
        return generate_with(
            batch,
            asks,
            choose,
            self.end,
            self.min_prompt_tokens,
            self.max_new_tokens,
            stream,
            self.vocabulary,
        )


def num_output_tokens(outputs: Outputs) -> int | None:
    """Number of tokens in the outputs of a net; None where they are not about all tokens."""
    if "projection" in outputs:
        return len(outputs["projection"].weight)
    return int(outputs["logits"].shape[-1]) if "logits" in outputs else None
