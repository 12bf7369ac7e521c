"""Shares of generated answers that the verifier of the data accepts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, side_effect_free
from instil.data.token_verifier import TokenVerifier
from instil.engine.cpu_offload import device_of
from instil.functional.pass_at_k import pass_at_k
from instil.generation.rollout import generate_with
from instil.generation.sampling import sample_tokens

BATCH_ROWS = 64
"""Number of prompts that are completed at once."""


def verified_answers(net: nn.Module, samples: Any) -> dict[str, float]:
    """Generate answers to the prompts of samples, and measure how many are correct.

    Args:
        net: language model.
        samples: token rows with a verifier.

    Returns:
        ``solved``: share of the prompts whose most likely answer is correct. With ``samples`` of
        the verifier also ``pass_at_1``, ``pass_at_2``, ``pass_at_4`` ... up to their number: the
        probability that one of that many sampled answers is correct (Chen et al. 2021).
    """
    verify = TokenVerifier(samples)
    solved = []
    num_correct = []
    num_samples = verify.verifier.samples
    with side_effect_free(net):
        for batch in _batches(net, samples, verify.verifier.rows):
            reference = batch["label"].masked_fill(~batch["valid"], UNLABELLED)
            solved.append(verify(_answers(net, batch, samples, 0.0), reference))
            correct = torch.zeros(len(reference), dtype=torch.int64, device=reference.device)
            for index in range(num_samples):
                correct += verify(_answers(net, batch, samples, 1.0, index), reference)
            num_correct.append(correct)
    metrics = {"solved": torch.cat(solved).double().mean().item()}
    correct = torch.cat(num_correct)
    k = 1
    while k <= num_samples:
        metrics[f"pass_at_{k}"] = pass_at_k(correct, num_samples, k).mean().item()
        k *= 2
    return metrics


def _batches(net: nn.Module, samples: Any, num_rows: int) -> Iterator[Batch]:
    device = device_of(net)
    num_rows = min(num_rows, len(samples))
    for start in range(0, num_rows, BATCH_ROWS):
        batch = samples.__getitems__(range(start, min(start + BATCH_ROWS, num_rows)))
        yield {key: value.to(device) for key, value in batch.items()}


def _answers(
    net: nn.Module, batch: Batch, samples: Any, temperature: float, index: int = 0
) -> Tensor:
    """Generated tokens (N, T), -100 at other positions."""
    text = generate_with(
        batch,
        [net],
        lambda logits, uniforms: sample_tokens(logits[0], uniforms[:, 0], temperature),
        samples.ends,
        # The answers of a prompt differ, and are the same for all networks and runs.
        stream=f"evaluation.answers.{index}",
        vocabulary=samples.vocabulary,
    )
    token: Tensor = text["token"]
    return token
