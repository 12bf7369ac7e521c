"""Training on texts that the teacher generates."""

from __future__ import annotations

import torch

from instil.core import Schedule
from instil.generation.options import Sampling
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.forward_kl import ForwardKL
from instil.schemes.language.sequence_level import SequenceLevel
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.nets import count_calls
from tests.schemes.texts import END, GREEDY, SAMPLING, net, prompts, timed


def test_contracts() -> None:
    check_scheme(
        lambda: SequenceLevel(net(8), Frozen(net(8, 1)), {"cross_entropy": CrossEntropy()}, GREEDY),
        prompts,
    )


def test_sampled_texts_with_a_word_level_objective() -> None:
    goals = {"cross_entropy": CrossEntropy(), "forward_kl": ForwardKL()}
    check_scheme(lambda: SequenceLevel(net(8), Frozen(net(8, 1)), dict(goals), SAMPLING), prompts)


def test_labels_are_the_most_likely_tokens_of_the_teacher() -> None:
    teacher = net(8, 1)
    scheme = SequenceLevel(net(8), Frozen(teacher), {"cross_entropy": CrossEntropy()}, GREEDY)
    text = scheme.before_step(timed())
    likeliest = teacher(text)["logits"].argmax(-1)
    assert text["valid"].sum() > 20
    assert torch.equal(text["label"], torch.where(text["valid"], likeliest, -100))


def test_a_lost_text_is_generated_again_unchanged_with_a_scheduled_temperature() -> None:
    sampling = Sampling(temperature=Schedule(0.0, 4.0), eos_token_id=END)  # type: ignore[arg-type]
    labels = []
    for progress in (0.0, 0.9):
        scheme = SequenceLevel(
            net(8), Frozen(net(8, 1)), {"cross_entropy": CrossEntropy()}, sampling
        )
        labels.append(scheme.before_step(timed(3, progress))["label"])
    assert torch.equal(*labels)


def test_a_text_may_have_another_width_than_its_batch() -> None:
    scheme = SequenceLevel(net(8), Frozen(net(8, 1)), {"cross_entropy": CrossEntropy()}, GREEDY)
    wide = timed()
    narrow = {key: value[:, :6] if value.ndim == 2 else value for key, value in wide.items()}
    first = scheme.before_step(narrow)
    again = scheme.before_step(wide)
    for key in ("input_ids", "attention_mask", "valid", "label"):
        assert torch.equal(again[key][:8, :6], first[key][:8])
        assert again[key].shape == wide[key].shape
    # The row without text is that of its batch.
    assert torch.equal(again["input_ids"][8], wide["input_ids"][8])
    assert not again["valid"][:, 6:].any()


def test_texts_are_generated_once_and_uncounted_rows_get_none() -> None:
    teacher = Frozen(net(8, 1))
    scheme = SequenceLevel(net(8), teacher, {"cross_entropy": CrossEntropy()}, SAMPLING)
    calls = count_calls(teacher)
    spare = timed() | {"valid": torch.zeros_like(timed()["valid"])}
    assert not scheme.before_step(spare)["valid"].any()
    assert calls() == 0
    first = scheme.before_step(timed())
    written = calls()
    assert written > 0
    again = scheme.before_step(timed() | {"step": torch.tensor(7)})
    assert calls() == written
    assert torch.equal(first["label"], again["label"])
    assert not scheme.before_step(spare)["valid"].any()
