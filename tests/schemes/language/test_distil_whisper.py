"""Pseudo-labels with few errors."""

from __future__ import annotations

import torch

from instil.core import Net
from instil.functional.sequence_errors import edit_distance
from instil.networks.encoder_decoder import encoder_decoder
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.forward_kl import ForwardKL
from instil.schemes.language.distil_whisper import DistilWhisper
from instil.tasks.seq2seq import call
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.pairs import net, pairs, timed


def scheme(max_error_rate: float | None = None) -> DistilWhisper:
    goals = {"cross_entropy": CrossEntropy(), "forward_kl": ForwardKL()}
    return DistilWhisper(net(8), Frozen(net(8, 1)), goals, max_error_rate=max_error_rate)


def test_contracts() -> None:
    check_scheme(scheme, pairs)
    check_scheme(lambda: scheme(1.0), pairs)


def test_samples_with_many_errors_are_left_out() -> None:
    target = timed()["label"]
    every = scheme().before_step(timed())["label"]
    assert (every != -100).any(1).all()
    limit = 0.99
    filtered = scheme(limit).before_step(timed())
    num_left = 0
    for filtered_label, label, expected in zip(filtered["label"], every, target, strict=True):
        correct = expected[expected != -100].tolist()
        errors = edit_distance(label[label != -100].tolist(), correct)
        is_used = not correct or errors <= limit * len(correct)
        assert torch.equal(filtered_label, label if is_used else torch.full_like(label, -100))
        num_left += is_used
    assert 0 < num_left < len(target)
    assert torch.equal(filtered["valid"], filtered["label"] != -100)


def test_the_filter_can_be_removed() -> None:
    every = scheme().before_step(timed())["label"]
    strict = scheme(0.0)
    assert strict.remove_filter()
    assert torch.equal(strict.before_step(timed())["label"], every)
    assert not strict.remove_filter()


def test_a_perfect_teacher_keeps_all_samples() -> None:
    every = scheme().before_step(timed())["label"]
    again = scheme(0.0).before_step(timed() | {"label": every})["label"]
    assert torch.equal(every, again)


def test_audio_features_get_labels_of_the_teacher() -> None:
    def listener(seed: int) -> Net:
        torch.manual_seed(seed)
        model = encoder_decoder(9, inputs="input_features", channels=6, width=8, depth=1)
        return Net(model, call)

    frames = torch.randn(16, 6, 12, generator=torch.Generator().manual_seed(0))
    text = {"input_ids", "encoder_attention_mask"}
    batch = {key: value for key, value in timed().items() if key not in text}
    objectives = {"cross_entropy": CrossEntropy(), "forward_kl": ForwardKL()}
    teacher = listener(1)
    tested = DistilWhisper(listener(0), Frozen(teacher), objectives, max_error_rate=None)
    tested.prepare({"input_features": frames, **batch})
    labelled = tested.before_step({"input_features": frames, **batch})
    with torch.no_grad():
        expected = teacher.eval()({"input_features": frames, **batch})["sequence"]
    assert torch.equal(labelled["label"], expected)
    update = next(iter(tested.step(labelled)))
    assert all(torch.isfinite(loss) for loss in update.losses.values())
