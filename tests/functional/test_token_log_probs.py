"""Log-probabilities of tokens, whole and in chunks."""

from __future__ import annotations

import pytest
import torch

from instil.functional.token_log_probs import chunked_log_probs, token_log_probs
from instil.roles import Projection


@pytest.mark.parametrize("vocabulary", [None, 7])
@pytest.mark.parametrize("is_projection", [False, True])
def test_chunks_equal_the_whole_in_values_and_gradients(
    vocabulary: int | None, is_projection: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 5, 4, generator=generator, requires_grad=True)
    weight = torch.randn(9, 4, generator=generator, requires_grad=True)
    bias = torch.randn(9, generator=generator, requires_grad=True)
    token = torch.randint(0, 7, (3, 5), generator=generator)
    token[1, 2:] = -100
    # One weight for each text, as in a loss of whole texts.
    factor = torch.randn(3, 1, generator=generator)
    logits = hidden @ weight.T + bias
    whole = token_log_probs(logits[..., :vocabulary], token)
    expected = torch.autograd.grad((factor * whole).sum(), (hidden, weight, bias))
    logits = hidden @ weight.T + bias
    signal = Projection(hidden, weight, bias) if is_projection else logits
    values = chunked_log_probs(signal, token, vocabulary)
    torch.testing.assert_close(values, whole)
    assert (values[1, 2:] == 0).all()
    gradients = torch.autograd.grad((factor * values).sum(), (hidden, weight, bias))
    torch.testing.assert_close(gradients, expected)
