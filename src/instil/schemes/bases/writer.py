"""Base class of schemes that train on text generated during training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from torch import nn

from instil.cards import Schedule, at_progress
from instil.core import (
    Batch,
    Net,
    Objective,
    Objectives,
    Outputs,
    Scheme,
    Teacher,
)
from instil.generation.later_texts import LaterTexts
from instil.generation.options import Sampling
from instil.generation.rollout import generate_text, generate_with
from instil.generation.rollout_options import Rollouts
from instil.generation.sampling import ChooseTokens, choose_sampled, step_uniform
from instil.remote.server_texts import WriteStudent
from instil.schemes.bases.common_vocabulary import common_vocabulary
from instil.schemes.bases.rollouts import TEXT_STREAM, check_ratios, ratios, rollout_source

Retokenize = Callable[[Batch, Batch], Batch]
"""Maps rows of the data and generated rows to the latter with the teacher's tokens."""
TEXT_SOURCE_STREAM = "scheme.text_source"
"""Random stream that decides whether a step uses the student's text or the text of the data."""


class GenerativeScheme(Scheme):
    """Base class of schemes that generate text after the prompts of a batch of tokens.

    Student, teacher or both generate.

    Args:
        student: a language model, or its ``Net``.
        teacher: the teacher.
        objectives: the objectives by name.
        sampling: options of the generated text.
        rollouts: source and age of the weights that generate the student's text.
    """

    needs_teacher_logits: ClassVar[bool] = True
    """Whether the scheme reads the teacher's logits in addition to the roles of the objectives."""
    retokenize: Retokenize | None = None
    """Adds the teacher's tokens of generated text, for a teacher with another tokenizer."""
    own_schedules: ClassVar[tuple[str, ...]] = ("share",)
    write_student: WriteStudent | None = None
    """Writes the student for a server of texts."""
    share: float | Schedule = 1.0
    """Share of the steps that use the student's text; the others use the text of the data."""

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        sampling: Sampling = Sampling(),
        rollouts: Rollouts = Rollouts(),
    ):
        super().__init__(student, teacher, objectives)
        check_ratios(self.objectives, sampling, rollouts)
        self.sampling = sampling
        self.rollouts = rollouts
        self.later_texts: LaterTexts | None = None
        # Number of tokens that may be generated; ``build`` sets it to what both networks have.
        self.vocabulary = sampling.vocabulary

    def sharding_obstacle(self) -> str | None:
        """Reason why the nets cannot be sharded; None if each step generates its texts itself."""
        if self.rollouts.is_immediate:
            return None
        return "keeps a whole copy of the student for the texts of later steps"

    def build(self, batch: Batch) -> None:
        self._check_batch(batch)
        if self.teacher is None:
            raise ValueError(
                f"{type(self).__name__} needs a teacher. Expected a network that rates generated "
                "text, got None"
            )
        self._limit_vocabulary(batch)
        super().build(batch)
        for weighting in ratios(self.objectives):
            weighting.vocabulary = self.vocabulary
        if not self.rollouts.is_immediate:
            self.later_texts = self._make_later_texts()

    def _make_later_texts(self) -> LaterTexts:
        def generate(net: Net, batch: Batch) -> Batch:
            choose = choose_sampled(*self.sampling.distribution(batch))
            return self.generate_with(batch, [net], choose)

        source = rollout_source(
            self.rollouts,
            self.student,
            generate,
            self.sampling,
            self.vocabulary,
            self.write_student,
        )
        return LaterTexts(self.rollouts, source, self.student, self.student_rows)

    def preparation(self) -> LaterTexts | None:
        """Queue of the texts of later steps; None if each step generates its texts itself."""
        return self.later_texts

    def needs_student_writer(self) -> bool:
        """Whether a server generates the student's texts."""
        return self.rollouts.server is not None

    def set_student_writer(self, write: WriteStudent) -> None:
        """Set the function that writes the student for a server of texts.

        Args:
            write: writes a network to the path that the server reads.
        """
        self.write_student = write

    def student_rows(self, batch: Batch) -> Batch | None:
        """Rows whose prompts the student continues; None if the step of the batch needs no text."""
        if is_below_one(self.share):
            draw = self.draw_text_source(batch)
            return batch if draw < at_progress(self.share, batch) else None
        return batch

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
        min_prompt_tokens = self.sampling.min_prompt_tokens
        if length <= min_prompt_tokens:
            raise ValueError(
                "scheme.sampling.min_prompt_tokens: the prompts leave no position to generate. "
                f"Expected fewer than the {length} tokens of a row, got {min_prompt_tokens}"
            )
        if "teacher_input_ids" in batch and self.retokenize is None:
            raise ValueError(
                f"teacher.tokenizer: {name} generates text in the student's tokens, which a "
                "teacher with another tokenizer cannot read. Expected one tokenizer for both. "
                "Leave teacher.tokenizer out, or use the scheme offline"
            )

    def _limit_vocabulary(self, batch: Batch) -> None:
        """Limit the generated tokens to those that both networks have."""
        outputs_of_sides: Sequence[Outputs] = self.forward_both(batch)
        if self.retokenize is not None:
            outputs_of_sides = outputs_of_sides[:1]
        self.vocabulary = common_vocabulary(outputs_of_sides, self.sampling)

    def teacher_roles(self) -> set[str]:
        roles = super().teacher_roles()
        return roles | {"logits"} if self.needs_teacher_logits else roles

    def student_text(self, batch: Batch) -> Batch:
        """Text that the student samples after the prompts of ``student_rows``.

        Outside of ``fit``, which announces later steps, it is the text of the current weights.

        Args:
            batch: rows of tokens.

        Returns:
            The batch of ``generate_with``; ``batch`` itself if its step needs no text.
        """
        rows = self.student_rows(batch)
        if rows is None:
            return batch
        text = None if self.later_texts is None else self.later_texts.take(batch)
        if text is None:
            text = generate_text(
                self.student,
                rows,
                self.sampling.eos_token_id,
                self.sampling.min_prompt_tokens,
                self.sampling.max_new_tokens,
                *self.sampling.distribution(batch),
                stream=TEXT_STREAM,
                vocabulary=self.vocabulary,
            )
        return text if self.retokenize is None else self.retokenize(batch, text)

    @property
    def uses_data_text(self) -> bool:
        """Whether some steps compute the objectives on the text of the data, which has labels."""
        return is_below_one(self.share)

    def draw_text_source(self, batch: Batch) -> float:
        """Draw a number in [0, 1) per step; below a probability, the step uses student text."""
        return step_uniform(batch, TEXT_SOURCE_STREAM)

    def generate_with(
        self,
        batch: Batch,
        nets: Sequence[nn.Module],
        choose: ChooseTokens,
        stream: str = TEXT_STREAM,
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
            self.sampling.eos_token_id,
            self.sampling.min_prompt_tokens,
            self.sampling.max_new_tokens,
            stream,
            self.vocabulary,
        )


def is_below_one(share: float | Schedule) -> bool:
    """Whether a share, or a schedule of it, is below 1 at some progress."""
    return min(share.start, share.end) < 1 if isinstance(share, Schedule) else share < 1
