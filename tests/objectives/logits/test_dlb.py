"""DLB over several steps, against a dictionary of the previous logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.core import Batch, Objectives
from instil.objectives.logits.dlb import DLB
from instil.objectives.logits.kd import kd_loss


def step(seed: int, index: list[int], *shape: int) -> tuple[Tensor, Batch]:
    logits = torch.randn(
        len(index), *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return logits, {"x": torch.zeros(len(index)), "index": torch.tensor(index)}


def test_only_samples_of_the_previous_step_count_with_their_own_logits() -> None:
    objectives = Objectives({"dlb": DLB(2.0, size=8)})
    objectives.build({"logits": step(0, [0, 1, 2, 3], 5)[0]}, {})
    remembered: dict[int, Tensor] = {}
    for seed, index in enumerate([[3, 7, 1, 4], [4, 9, 3, 0, 5], [9, 4], [8, 6]]):
        logits, batch = step(seed, index, 5)
        seen = [row for row, sample in enumerate(index) if sample in remembered]
        expected = [kd_loss(logits[row], remembered[index[row]], 2.0) for row in seen]
        assert objectives.counts(batch)["dlb"] == len(seen)
        update = objectives({"logits": logits}, {}, batch)
        torch.testing.assert_close(
            update.losses["dlb"], torch.stack(expected).mean() if seen else logits.new_zeros(())
        )
        objectives.after_step(update.state_updates)
        remembered = dict(zip(index, logits, strict=True))


def test_micro_batches_and_one_batch_agree() -> None:
    first, second = step(0, [5, 2, 8], 4), step(1, [8, 5, 1, 2], 4)
    objectives = Objectives({"dlb": DLB(size=4)})
    objectives.build({"logits": first[0]}, {})
    pieces = [
        objectives(
            {"logits": first[0][a:b]}, {}, {key: value[a:b] for key, value in first[1].items()}
        ).state_updates
        for a, b in ((0, 1), (1, 3))
    ]
    objectives.after_step({key: torch.cat([piece[key] for piece in pieces]) for key in pieces[0]})
    whole = objectives({"logits": second[0]}, {}, second[1]).losses["dlb"]
    torch.testing.assert_close(whole, kd_loss(second[0][[0, 1, 3]], first[0][[2, 0, 1]], 3.0))


def test_padding_is_not_stored() -> None:
    logits, batch = step(0, [5, 2, 8], 1, 2, 4)
    valid = torch.tensor([[[True, False]], [[True, True]], [[False, False]]])
    objectives = Objectives({"dlb": DLB(size=4)})
    objectives.build({"logits": logits}, {})
    objectives.after_step(
        objectives({"logits": logits}, {}, batch | {"valid": valid}).state_updates
    )
    again = batch | {"valid": torch.tensor([[[True, True]], [[False, True]], [[True, True]]])}
    weight = objectives["dlb"].weight(again)
    assert weight.tolist() == [[[1, 0]], [[0, 1]], [[0, 0]]]
    other = step(1, [5, 2, 8], 1, 2, 4)[0]
    loss = objectives({"logits": other}, {}, again).losses["dlb"]
    torch.testing.assert_close(
        loss,
        (kd_loss(other[0, 0, 0], logits[0, 0, 0], 3) + kd_loss(other[1, 0, 1], logits[1, 0, 1], 3))
        / 2,
    )


def test_the_stored_logits_are_in_the_checkpoint() -> None:
    logits, batch = step(0, [5, 2, 8], 4)
    one, other = DLB(size=4), DLB(size=4)
    for objective in (one, other):
        objective.build({"logits": logits}, {})
    one.after_step(one.state_updates({"logits": logits}, {}, batch))
    other.load_state_dict(one.state_dict())
    assert other.weight(batch).tolist() == [1, 1, 1]
    torch.testing.assert_close(
        other({"logits": logits}, {}, batch), torch.zeros(3, dtype=torch.float64)
    )


def test_wrong_input_is_refused() -> None:
    logits, batch = step(0, [5, 2, 8], 4)
    objective = DLB(size=2)
    objective.build({"logits": logits}, {})
    with pytest.raises(
        ValueError, match=r"size: .* Expected 3 or more for a step of 3 samples, got 2"
    ):
        objective.after_step(objective.state_updates({"logits": logits}, {}, batch))
    with pytest.raises(ValueError, match="DLB needs 'index' in the batch, which has x"):
        objective.weight({"x": torch.zeros(3)})


def test_logits_of_tokens_are_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"Expected logits \(N, C\) or \(N, H, W, C\), got \(2, 6, 5\)"
    ):
        DLB().build({"logits": torch.zeros(2, 6, 5)}, {})
