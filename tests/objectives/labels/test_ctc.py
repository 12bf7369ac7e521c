"""CTC loss against PyTorch's module and at its limits."""

from __future__ import annotations

import torch
from torch import nn

from instil.objectives.labels.ctc import ctc_loss


def test_the_loss_is_that_of_torch_per_symbol() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 7, 5, generator=generator)
    target = torch.tensor([[1, 2, 2], [4, -100, -100], [3, 1, -100]])
    frames = torch.tensor([7, 3, 5])
    value = ctc_loss(logits, target, frames, reduction="none")
    for row, length in enumerate((3, 1, 2)):
        log_probs = logits[row, : frames[row], None].log_softmax(-1)
        expected = nn.CTCLoss(reduction="sum")(
            log_probs, target[row, None, :length], frames[row, None], torch.tensor([length])
        )
        torch.testing.assert_close(value[row], expected / length)


def test_texts_without_symbols_and_texts_that_are_too_long_have_no_loss_and_no_gradient() -> None:
    logits = torch.randn(2, 2, 3, requires_grad=True)
    target = torch.tensor([[-100, -100], [1, 1]])
    value = ctc_loss(logits, target, torch.tensor([2, 2]), reduction="none")
    assert value.tolist() == [0, 0]
    value.sum().backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))
