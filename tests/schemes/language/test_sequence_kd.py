"""Training on the sequences of a teacher's beam search."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from instil.functional.sequence_errors import edit_distance
from instil.generation.sequences import SequenceSearch
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.forward_kl import ForwardKL
from instil.schemes.language.sequence_kd import SequenceKD
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.nets import count_calls
from tests.schemes.pairs import net, pairs, timed


def scheme(**options: Any) -> SequenceKD:
    return SequenceKD(net(8), Frozen(net(8, 1)), {"cross_entropy": CrossEntropy()}, **options)


def test_contracts() -> None:
    check_scheme(scheme, pairs)


def test_contracts_with_a_word_level_objective() -> None:
    goals = {"cross_entropy": CrossEntropy(), "forward_kl": ForwardKL()}
    check_scheme(lambda: SequenceKD(net(8), Frozen(net(8, 1)), dict(goals)), pairs)


def test_labels_of_all_samples_are_the_best_hypothesis_of_the_teacher() -> None:
    teacher = net(8, 1).eval()
    batch = scheme().before_step(timed())
    search = {"sequence_search": SequenceSearch(beams=5)}
    with torch.no_grad():
        candidates = teacher(timed() | search)["candidates"]
    assert torch.equal(batch["label"], candidates[:, 0])
    assert torch.equal(batch["valid"], batch["label"] != -100)


def test_a_labelled_sample_may_get_the_hypothesis_that_is_closest_to_its_label() -> None:
    teacher = net(8, 1).eval()
    with torch.no_grad():
        search = {"sequence_search": SequenceSearch(beams=5)}
        candidates = teacher(timed() | search)["candidates"]
    # The third hypothesis with one token more.
    label = torch.cat([candidates[:, 2, :-1], torch.full((16, 1), 7)], 1)
    label[5] = -100
    batch = timed() | {"label": label}
    closest = scheme(interpolate=True).before_step(batch)["label"]

    def distance(row: int, sequence: torch.Tensor) -> int:
        correct = label[row][label[row] != -100].tolist()
        return edit_distance(sequence[sequence != -100].tolist(), correct)

    differs = 0
    for row in range(16):
        distances = [distance(row, candidate) for candidate in candidates[row]]
        assert distance(row, closest[row]) == (distances[0] if row == 5 else min(distances))
        differs += not torch.equal(closest[row], candidates[row, 0])
    assert differs > 8
    assert torch.equal(closest[5], candidates[5, 0])


def test_sequences_are_found_once_and_uncounted_samples_get_none() -> None:
    student, teacher = net(8), Frozen(net(8, 1))
    tested = SequenceKD(student, teacher, {"cross_entropy": CrossEntropy()})
    calls = count_calls(teacher)
    spare = timed() | {"valid": torch.zeros_like(timed()["valid"])}
    assert not tested.before_step(spare)["valid"].any()
    assert calls() == 0
    first = tested.before_step(timed())["label"]
    again = tested.before_step(timed() | {"step": torch.tensor(7)})["label"]
    assert calls() == 1
    assert torch.equal(first, again)


def test_decoders_read_the_sequences_of_the_teacher_and_not_the_labels_of_the_data() -> None:
    tested = scheme()
    collated = timed() | {"decoder_input_ids": torch.zeros_like(timed()["label"])}
    losses = []
    for batch in (timed(), collated):
        (update,) = tested.step(tested.before_step(batch))
        losses.append(update.losses["cross_entropy"])
    assert torch.equal(*losses)


def test_a_sequence_may_have_another_width_than_its_batch() -> None:
    wide, narrow = timed(), timed() | {"label": timed()["label"][:, :3]}
    tested = scheme(search=SequenceSearch(max_length=7))
    labels = [tested.before_step(batch)["label"] for batch in (wide, narrow)]
    assert labels[0].shape[1] > wide["label"].shape[1]
    assert torch.equal(*labels)


def test_wrong_parts_are_errors() -> None:
    objectives = {"cross_entropy": CrossEntropy()}
    with pytest.raises(ValueError, match="SequenceKD needs a teacher"):
        SequenceKD(net(8), None, objectives).prepare(timed())
    batch = {key: value for key, value in timed().items() if key != "index"}
    with pytest.raises(ValueError, match="needs samples with 'label'"):
        scheme().prepare(batch)
