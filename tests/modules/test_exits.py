from __future__ import annotations

import torch
from torch import nn

from instil.modules.exits import MapExit, TokenExit


def test_many_tokens_are_merged_and_the_class_token_is_classified() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 1 + 28 * 28, 8)
    exit_ = TokenExit(tokens, 1, 5)
    assert len(exit_.merge) == 2
    shapes: list[tuple[int, ...]] = []
    exit_.blocks.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    assert exit_(tokens).shape == (2, 5)
    assert shapes == [(2, 50, 8)]


def test_neighbouring_tokens_are_merged() -> None:
    tokens = torch.randn(1, 64, 4).requires_grad_()
    exit_ = TokenExit(tokens, 1, 5)
    merged = exit_.merge[0](
        nn.functional.pixel_unshuffle(tokens.mT.reshape(1, 4, 8, 8), 2).permute(0, 2, 3, 1)
    )
    (gradient,) = torch.autograd.grad(merged[0, 1, 2, 0], tokens)
    assert {divmod(int(n), 8) for n in gradient[0].abs().sum(1).nonzero()} == {
        (2, 4),
        (2, 5),
        (3, 4),
        (3, 5),
    }


def test_a_map_of_the_deepest_size_has_one_convolution() -> None:
    deepest = torch.randn(2, 6, 3, 2)
    assert isinstance(MapExit(torch.randn(2, 4, 3, 2), deepest, 5, "group").body, nn.Conv2d)
    assert MapExit(torch.randn(2, 4, 12, 8), deepest, 5, "batch")(
        torch.randn(2, 4, 12, 8)
    ).shape == (2, 5)
