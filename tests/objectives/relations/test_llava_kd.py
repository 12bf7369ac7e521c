"""Visual tokens: the value equals that of the formula for each sample alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from instil.objectives.relations.llava_kd import LLaVAKD, llava_kd_loss
from instil.roles import IMAGE_TOKENS


def test_the_loss_is_that_of_the_visual_tokens_of_each_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    teacher = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    is_visual = torch.tensor([[0, 1, 1, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    expected = []
    for sample in range(2):
        chosen = is_visual[sample].bool()
        own, other = student[sample][chosen], teacher[sample][chosen]
        log_probs = [side.log_softmax(-1) for side in (own, other)]
        divergence = F.kl_div(*log_probs, log_target=True, reduction="batchmean")
        matrices = [(side @ side.T).flatten() for side in (own, other)]
        cosine = F.cosine_similarity(matrices[0], matrices[1], dim=0)
        expected.append(0.5 * divergence + 2 * (1 - cosine))
    student[:, 4] = torch.nan
    student.requires_grad_()
    values = llava_kd_loss(student, teacher, is_visual, 0.5, 2.0, "none")
    torch.testing.assert_close(values[:2], torch.stack(expected))
    assert values[2] == 0
    values.sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert (student.grad.abs().sum(-1) > 0).equal(is_visual > 0)


def test_the_entry_of_the_batch_selects_the_tokens() -> None:
    logits = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]])
    batch = {"attention_mask": torch.ones(2, 4), IMAGE_TOKENS: mask}
    loss = LLaVAKD(relation=0.5)
    values = loss({"logits": logits}, {"logits": 2 * logits}, batch)
    torch.testing.assert_close(values, llava_kd_loss(logits, 2 * logits, mask, 1, 0.5, "none"))
    assert (loss({"logits": logits}, {"logits": logits}, batch) == 0).all()
    del batch[IMAGE_TOKENS]
    every = loss({"logits": logits}, {"logits": 2 * logits}, batch)
    torch.testing.assert_close(every, llava_kd_loss(logits, 2 * logits, None, 1, 0.5, "none"))
