"""Who says which word."""

from __future__ import annotations

import torch

from instil.generation.rollout import generate_text
from instil.generation.sampling import sample_tokens
from instil.objectives.logits.forward_kl import ForwardKL
from instil.schemes.language.speculative import Speculative, interleaved
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.texts import END, VOCABULARY, net, prompts, timed


def test_contracts() -> None:
    check_scheme(
        lambda: Speculative(net(8), Frozen(net(8, 1)), {"forward_kl": ForwardKL()}, 3, END), prompts
    )


def test_a_word_out_of_the_teachers_likeliest_is_the_teachers() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 200, 7, generator=generator)
    numbers = torch.rand(200, 2, generator=generator)
    token, log = interleaved(student, teacher, numbers, 2)
    for row in range(200):
        proposed, other = (
            int(sample_tokens(student[row, None], numbers[row, :1])[0]),
            int(sample_tokens(teacher[row, None], numbers[row, 1:])[0]),
        )
        stays = proposed in teacher[row].topk(2).indices.tolist()
        assert int(token[row]) == (proposed if stays else other)
        side = student if stays else teacher
        assert torch.isclose(log[row], side[row].log_softmax(-1)[token[row]])


def test_the_ends_are_the_students_text_and_the_teachers() -> None:
    student, teacher = net(8), net(8, 1)
    own = Speculative(
        student, Frozen(teacher), {"forward_kl": ForwardKL()}, VOCABULARY, END
    ).before_step(timed())
    assert torch.equal(own["token"], generate_text(student, timed(), END)["token"])
    greedy = Speculative(
        student, Frozen(teacher), {"forward_kl": ForwardKL()}, 1, END, temperature=0
    ).before_step(timed())
    assert torch.equal(
        greedy["token"], generate_text(teacher, timed(), END, temperature=0)["token"]
    )
