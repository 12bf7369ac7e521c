"""Base class of data sets of tokens: vocabulary, end tokens and text of token ids."""

from __future__ import annotations

from collections.abc import Sequence

from instil.data.samples import Facts, Samples
from instil.data.tokenizers import Tokenizer
from instil.data.verifiers import Verifier


class TokenSamples(Samples):
    """Base class of rows of tokens, whose label is the next token at each position.

    Attributes:
        vocabulary: number of tokens.
        length: length of a row in tokens.
        tokenizer: tokenizer of the rows.
        tokens: token ids of the tokenizer by the ids of a reduced vocabulary; empty for the whole
            vocabulary.
        end: token that is appended to texts.
        ends: all tokens that end a text.
        context: length of the longest context that is not part of the rows.
        has_prompts: whether any row has a prompt.
        notes: remarks for the user about texts that were left out.
        verifier: check of generated answers; None: answers are not checked.
    """

    noun = "row"
    vocabulary: int
    length: int
    tokenizer: Tokenizer
    tokens: tuple[int, ...]
    end: int
    ends: tuple[int, ...]
    context: int = 0
    has_prompts: bool
    notes: tuple[str, ...] = ()
    verifier: Verifier | None = None

    def set_vocabulary(
        self, vocabulary: int, length: int, tokenizer: Tokenizer, tokens: Sequence[int] = ()
    ) -> None:
        """Set the attributes of the vocabulary."""
        self.vocabulary = vocabulary
        self.length = length
        self.tokenizer = tokenizer
        self.tokens = tuple(tokens)
        self.ends = tuple(tokenizer.ends)
        if tokens:
            self.ends = tuple(self.tokens.index(end) for end in self.ends if end in self.tokens)
        self.end = self.ends[0]

    @property
    def facts(self) -> Facts:
        """``vocabulary``, ``length`` (with the context), ``end``, and ``tokens`` if reduced."""
        more = {"tokens": self.tokens} if self.tokens else {}
        return {
            "vocabulary": self.vocabulary,
            "length": self.length + self.context,
            "end": self.end if len(self.ends) == 1 else list(self.ends),
            **more,
        }

    @property
    def about(self) -> tuple[str, ...]:
        """A sentence about the tokens that begin and end a text."""
        inner = getattr(self.tokenizer, "inner", None)
        if inner is None:
            return ()
        ends = ", ".join(inner.id_to_token(end) for end in self.tokenizer.ends)
        bos = self.tokenizer.bos
        begins = "nothing" if bos is None else inner.id_to_token(bos)
        return (f"Tokens that end a text (the first is appended): {ends}; before it: {begins}.",)

    @property
    def kind(self) -> str:
        """``token``."""
        return "token"

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of token ids of this vocabulary."""
        return self.tokenizer.decode([self.tokens[i] for i in ids] if self.tokens else list(ids))
