"""Documented types of the options that all schemes with generated text share."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le
from typing_extensions import Doc

from instil.core import NonNegative

Token = Annotated[int, Ge(0)]
EndToken = Annotated[
    Token | list[Token] | None,
    Doc(
        "token that ends a text, or a list of such tokens; null: in a recipe the end token of the "
        "data's tokenizer, otherwise none"
    ),
]
PromptTokens = Annotated[
    int,
    Ge(1),
    Doc("minimum prompt length in tokens; a shorter prompt takes further tokens of its row"),
]
NewTokens = Annotated[
    Annotated[int, Ge(1)] | None,
    Doc("maximum number of generated tokens; null: up to the length of the row"),
]
SamplingTemperature = Annotated[
    NonNegative, Doc("sampling temperature; 0: always the most likely token")
]
TopP = Annotated[
    float,
    Gt(0),
    Le(1),
    Doc(
        "nucleus sampling threshold: sample from the most likely tokens that reach this total "
        "probability; 1: from all tokens"
    ),
]
Vocabulary = Annotated[
    Annotated[int, Ge(1)] | None,
    Doc(
        "number of tokens that may be generated, for padded heads; null: in a recipe the size of "
        "the data's tokenizer, otherwise all tokens that both networks have"
    ),
]
