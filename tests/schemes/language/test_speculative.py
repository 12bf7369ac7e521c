"""Source of each token: student or teacher."""

from __future__ import annotations

import pytest
import torch

from instil.core import Objectives
from instil.generation.rollout import generate_text
from instil.generation.sampling import sample_tokens
from instil.objectives.logits.forward_kl import ForwardKL
from instil.schemes.language.speculative import Speculative, sample_interleaved
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from instil.weightings.truncated_importance import TruncatedImportance
from tests.schemes.texts import END, GREEDY, SAMPLING, VOCABULARY, net, prompts, timed


def test_contracts() -> None:
    check_scheme(
        lambda: Speculative(net(8), Frozen(net(8, 1)), {"forward_kl": ForwardKL()}, 3, SAMPLING),
        prompts,
    )


def test_a_token_outside_the_teachers_top_k_is_replaced_by_the_teacher() -> None:
    generator = torch.Generator().manual_seed(0)
    student_logits, teacher_logits = torch.randn(2, 200, 7, generator=generator)
    uniforms = torch.rand(200, 2, generator=generator)
    token, log_prob = sample_interleaved(student_logits, teacher_logits, uniforms, 2)
    for row in range(200):
        proposed = int(sample_tokens(student_logits[row, None], uniforms[row, :1])[0])
        replacement = int(sample_tokens(teacher_logits[row, None], uniforms[row, 1:])[0])
        is_accepted = proposed in teacher_logits[row].topk(2).indices.tolist()
        assert int(token[row]) == (proposed if is_accepted else replacement)
        author = student_logits if is_accepted else teacher_logits
        assert torch.isclose(log_prob[row], author[row].log_softmax(-1)[token[row]])


def test_the_largest_top_k_gives_the_students_text_and_one_the_teachers() -> None:
    student, teacher = net(8), net(8, 1)
    own = Speculative(
        student, Frozen(teacher), {"forward_kl": ForwardKL()}, VOCABULARY, SAMPLING
    ).before_step(timed())
    assert torch.equal(
        own["token"], generate_text(student, timed(), END, stream="scheme.text")["token"]
    )
    greedy = Speculative(
        student, Frozen(teacher), {"forward_kl": ForwardKL()}, 1, GREEDY
    ).before_step(timed())
    assert torch.equal(
        greedy["token"], generate_text(teacher, timed(), END, temperature=0)["token"]
    )


def test_log_probabilities_of_two_networks_give_no_importance_weights() -> None:
    student = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    uniforms = torch.cartesian_prod(*[(torch.arange(200) + 0.5) / 200] * 2)
    rows = len(uniforms)
    token, log_prob = sample_interleaved(
        student.expand(rows, -1), student.flip(1).expand(rows, -1), uniforms, 2
    )
    chance = student.softmax(-1)[0]
    ratio = chance[token] / log_prob.exp()
    weighted = torch.zeros(4).index_add(0, token, ratio) / rows
    # With the right weights these would be the probabilities of the student.
    assert (weighted - chance).abs().max() > 0.05
    objectives = Objectives(
        {"forward_kl": ForwardKL()}, sample_weights={"forward_kl": TruncatedImportance()}
    )
    with pytest.raises(ValueError, match="Expected texts of one network, got texts of student and"):
        Speculative(net(8), Frozen(net(8, 1)), objectives, 3, SAMPLING)
