"""Options of text generation that all schemes with generated text share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from instil.cards import at_progress
from instil.core import Batch, NonNegative

Token = Annotated[int, Ge(0)]


@dataclass(frozen=True)
class Sampling:
    """Options of text generation, named as in ``transformers.GenerationConfig``.

    Example:
        >>> Sampling(temperature=0.7, max_new_tokens=64).top_p
        1.0
    """

    temperature: Annotated[
        NonNegative, Doc("sampling temperature; 0: always the most likely token")
    ] = 1.0
    top_p: Annotated[
        float,
        Gt(0),
        Le(1),
        Doc(
            "nucleus sampling threshold: sample from the most likely tokens that reach this total "
            "probability; 1: from all tokens"
        ),
    ] = 1.0
    max_new_tokens: Annotated[
        Annotated[int, Ge(1)] | None,
        Doc("maximum number of generated tokens; null: up to the length of the row"),
    ] = None
    min_prompt_tokens: Annotated[
        int,
        Ge(1),
        Doc("minimum prompt length in tokens; a shorter prompt takes further tokens of its row"),
    ] = 1
    eos_token_id: Annotated[
        Token | list[Token] | None,
        Doc(
            "token that ends a text, or a list of such tokens; null: in a recipe the end token of "
            "the data's tokenizer, otherwise none"
        ),
    ] = None
    vocabulary: Annotated[
        Annotated[int, Ge(1)] | None,
        Doc(
            "number of tokens that may be generated, for padded heads; null: in a recipe the size "
            "of the data's tokenizer, otherwise all tokens that both networks have"
        ),
    ] = None

    def fill(
        self, eos_token_id: int | list[int] | None = None, vocabulary: int | None = None
    ) -> Sampling:
        """Return these options with values for ``eos_token_id`` and ``vocabulary`` if they are
        None.

        Args:
            eos_token_id: end token, or a list of end tokens.
            vocabulary: number of tokens.
        """
        own_end = self.eos_token_id
        return replace(
            self,
            eos_token_id=eos_token_id if own_end is None else own_end,
            vocabulary=vocabulary if self.vocabulary is None else self.vocabulary,
        )

    def distribution(self, batch: Batch) -> tuple[float, float]:
        """Return ``temperature`` and ``top_p`` at the progress of a batch."""
        return at_progress(self.temperature, batch), at_progress(self.top_p, batch)


SamplingOption = Annotated[Sampling, Doc("options of the generated text")]
