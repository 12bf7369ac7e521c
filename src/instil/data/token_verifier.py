"""Verification of generated tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.data.splits import Splits
from instil.data.token_vocabulary import TokenSamples
from instil.data.verifiers import Verifier


def set_verifier(splits: Splits, verifier: Verifier | None) -> Splits:
    """Set the verifier of all parts of the data.

    Args:
        splits: token rows.
        verifier: the verifier; None: answers are not checked.

    Returns:
        ``splits``.

    Raises:
        ValueError: for texts without prompts, which have no answers.
    """
    for samples in (splits.train, splits.validation, splits.test):
        assert isinstance(samples, TokenSamples)
        if verifier is not None and not samples.has_prompts:
            raise ValueError(
                "verifier: the texts have no prompts. Expected rows with 'prompt' and "
                "'completion', whose answers can be checked. Remove verifier"
            )
        samples.verifier = verifier
    return splits


class TokenVerifier:
    """Verifier of token rows.

    Args:
        samples: token rows with a verifier.
    """

    def __init__(self, samples: TokenSamples):
        assert samples.verifier is not None
        self.samples = samples
        self.verifier: Verifier = samples.verifier

    def __call__(self, token: Tensor, reference: Tensor) -> Tensor:
        """Return whether generated texts are correct.

        Args:
            token: generated tokens (N, T), -100 at other positions.
            reference: tokens of the data's answers (N, T), -100 at other positions.

        Returns:
            (N,), bool, on the device of ``token``.
        """
        rows = zip(token.tolist(), reference.tolist(), strict=True)
        accepted = [self.verifier.accepts(self.text(one), self.text(other)) for one, other in rows]
        return torch.tensor(accepted, dtype=torch.bool, device=token.device)

    def text(self, tokens: list[int]) -> str:
        """Return the text of a row, without end tokens and positions of no token."""
        skipped = (UNLABELLED, *self.samples.ends)
        return self.samples.text_of([token for token in tokens if token not in skipped])
