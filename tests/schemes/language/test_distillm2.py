"""Two texts per prompt, their divergences, and the running likelihood gap."""

from __future__ import annotations

import torch

from instil.functional.text_pairs import likelihood_gaps, skewed_forward
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.skewed_forward_kl import SkewedForwardKL
from instil.schemes.language.distillm2 import DistiLLM2, distillm2_loss, reverse_weight
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.texts import SAMPLING, net, prompts, timed


def make() -> DistiLLM2:
    scheme = DistiLLM2(
        net(8), Frozen(net(8, 1)), {"cross_entropy": CrossEntropy()}, sampling=SAMPLING
    )
    scheme.prepare(prompts())
    return scheme


def test_contracts() -> None:
    check_scheme(make, prompts)


def test_the_forward_divergence_is_the_objective_skewed_forward_kl() -> None:
    scheme = make()
    batch = scheme.before_step(timed())
    student, teacher = scheme.forward_both(batch)
    per_text = skewed_forward(
        *(side["logits"].log_softmax(-1) for side in (student, teacher)),
        batch["token"],
        torch.full((16,), 0.1),
    )
    objective = SkewedForwardKL(0.1)
    objective.resolve(student, teacher)
    values = objective(student, teacher, batch)
    for row in range(16):
        if batch["valid"][row].any():
            assert torch.isclose(per_text[row], values[row][batch["valid"][row]].mean(), atol=1e-5)


def test_the_reverse_weight_rises_in_the_first_half() -> None:
    assert [reverse_weight(progress) for progress in (0.0, 0.25, 0.5, 1.0)] == [1.0, 1.25, 1.5, 1.5]
    assert reverse_weight(1.0, False) == 1


def test_the_loss_is_that_of_both_texts_and_the_running_gap_follows() -> None:
    scheme = make()
    batch = scheme.before_step(timed(progress=0.25))
    (update,) = scheme.step(batch)
    texts = [
        (*(side["logits"].log_softmax(-1) for side in scheme.forward_both(text)), text["token"])
        for text in (batch, batch["student_text"])
    ]
    counts = batch["valid"].any(1)
    values = distillm2_loss(*texts, torch.full((16, 2), 0.1), 1.25)[counts]
    assert torch.allclose(update.losses["contrast"], values.mean(), atol=1e-6)
    scheme.after_step(dict(update.state_updates))
    assert torch.allclose(scheme.running_gap, likelihood_gaps(*texts)[counts].mean(0), atol=1e-6)
    assert float(scheme.running_gap[0]) > 0
