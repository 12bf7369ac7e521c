"""Spans of merged tokens: the chain rule by plain loops, items, and relations of positions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from instil.core import Objectives
from instil.functional.tokens.spans import aligned_positions, merge_span_log_probs, span_ends
from instil.objectives.logits.gold import GOLD, gold_loss
from instil.objectives.logits.uld import ULD, uld_loss

SPAN = torch.tensor([[0, 0, 1, 2, 2, -1], [0, 1, 1, 1, -1, -1]])
OTHER = torch.tensor([[-1, 0, 1, 1, 2], [0, 0, 1, -1, -1]])


def aligned(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Return outputs of 7 and 9 tokens, and a batch of two rows with spans."""
    generator = torch.Generator().manual_seed(seed)

    def labels(span: Tensor, size: int) -> Tensor:
        return torch.randint(0, size, span.shape, generator=generator).masked_fill(span < 0, -100)

    student, teacher = (
        torch.randn(*span.shape, size, generator=generator).double()
        for span, size in ((SPAN, 7), (OTHER, 9))
    )
    batch = {
        "label": labels(SPAN, 7),
        "teacher_label": labels(OTHER, 9),
        "valid": SPAN >= 0,
        "span": SPAN,
        "teacher_span": OTHER,
    }
    return {"logits": student}, {"logits": teacher}, batch


def chain(logits: Tensor, label: Tensor, span: Tensor, row: int, span_index: int) -> list[float]:
    """Return the last distribution of a span times the probabilities of its earlier tokens."""
    places = [position for position in range(span.shape[1]) if span[row, position] == span_index]
    earlier = math.prod(
        float(logits[row, position].softmax(-1)[label[row, position]]) for position in places[:-1]
    )
    return [earlier * float(p) for p in logits[row, places[-1]].softmax(-1)]


def sorted_difference(p: list[float], q: list[float]) -> float:
    size = max(len(p), len(q))
    p, q = (sorted([*side, *[0.0] * (size - len(side))], reverse=True) for side in (p, q))
    return sum(abs(a - b) for a, b in zip(p, q, strict=True))


def test_a_span_is_as_likely_as_all_its_tokens() -> None:
    student, _, batch = aligned()
    log_p = student["logits"].log_softmax(-1)
    whole = merge_span_log_probs(log_p, batch["label"], SPAN)
    ends = span_ends(SPAN)
    assert ends.nonzero().tolist() == [[0, 1], [0, 2], [0, 4], [1, 0], [1, 3]]
    token_log_probs = log_p.gather(-1, batch["label"].clamp_min(0)[..., None])[..., 0]
    for row, position in ends.nonzero().tolist():
        together = token_log_probs[row][SPAN[row] == SPAN[row, position]].sum()
        torch.testing.assert_close(whole[row, position, batch["label"][row, position]], together)


def test_partners_end_the_same_span() -> None:
    actual = aligned_positions(SPAN, OTHER)
    assert actual.tolist() == [[1, 1, 3, 4, 4, 0], [1, 2, 2, 2, 0, 0]]
    assert aligned_positions(OTHER, SPAN)[0].tolist() == [0, 1, 2, 2, 4]


def test_uld_of_spans_is_the_loop() -> None:
    student, teacher, batch = aligned()
    expected = []
    for row, spans in enumerate((3, 2)):
        for span_index in range(spans):
            sides = [
                chain(*side, row, span_index)
                for side in (
                    (student["logits"], batch["label"], SPAN),
                    (teacher["logits"], batch["teacher_label"], OTHER),
                )
            ]
            expected.append(sorted_difference(*sides))
    loss = Objectives({"uld": ULD()})(student, teacher, batch).losses["uld"]
    assert float(loss) == pytest.approx(sum(expected) / 5), (
        "the mean is over spans, not over tokens"
    )


def test_one_tokenizer_needs_no_spans_and_gets_the_same_with_them() -> None:
    student, other = aligned()[0], aligned(1)[0]
    whole = torch.arange(6).expand(2, 6)
    label = torch.randint(0, 7, (2, 6), generator=torch.Generator().manual_seed(2))
    alike = {
        "label": label,
        "teacher_label": label,
        "span": whole,
        "teacher_span": whole,
        "valid": torch.ones(2, 6, dtype=torch.bool),
    }
    for objective in (ULD(), GOLD()):
        plain = {"valid": alike["valid"]}
        values = [
            Objectives({"it": objective})(student, other, inputs).losses["it"]
            for inputs in (alike, plain)
        ]
        torch.testing.assert_close(*values)


def test_gold_parts_the_vocabularies() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, size, generator=generator).double() for size in (5, 6))
    same, beta = torch.tensor([[5, 0], [2, 3]]), 0.25
    expected = []
    for q, p in zip(student.softmax(-1).tolist(), teacher.softmax(-1).tolist(), strict=True):
        pairs = [(p[t], q[s]) for t, s in same.tolist()]
        middle = [beta * a + (1 - beta) * b for a, b in pairs]
        jsd = sum(
            beta * a * math.log(a / m) + (1 - beta) * b * math.log(b / m)
            for (a, b), m in zip(pairs, middle, strict=True)
        )
        rest = sorted_difference([q[n] for n in (1, 2, 4)], [p[n] for n in (0, 1, 3, 4)])
        expected.append(2 / 6 * jsd + 4 / 6 * rest)
    torch.testing.assert_close(
        gold_loss(student, teacher, same, beta, reduction="none"),
        torch.tensor(expected, dtype=torch.float64),
    )
    student, teacher, batch = aligned()
    with_pairs = batch | {"same_tokens": torch.tensor([[8, 0], [1, 6]]).expand(2, 2, 2)}
    assert torch.isfinite(Objectives({"it": GOLD()})(student, teacher, with_pairs).losses["it"])
    with pytest.raises(
        ValueError,
        match=r"same_tokens: .* got 7 \(student\) and 9 \(teacher\)",
    ):
        GOLD()(student, teacher, batch)


def test_no_gradient_of_a_span_that_does_not_count() -> None:
    student, teacher, batch = aligned()
    logits = student["logits"].requires_grad_()
    batch["valid"] = batch["valid"] & torch.tensor([[True], [False]])
    Objectives({"it": ULD()})({"logits": logits}, teacher, batch).losses["it"].backward()
    assert logits.grad[0, :5].abs().sum(-1).gt(0).all(), "also of the earlier tokens of a span"
    assert not logits.grad[1].any()
    assert not logits.grad[0, 5].any()


def test_positions_that_nobody_has_aligned_are_refused() -> None:
    student, teacher, _ = aligned()
    with pytest.raises(
        ValueError,
        match=r"student has \(2, 6\) tokens, the teacher \(2, 5\).*name teacher\.tokenizer",
    ):
        ULD()(student, teacher, {"valid": torch.ones(2, 6)})
    with pytest.raises(ValueError, match="which belong together"):
        uld_loss(student["logits"], teacher["logits"])


def test_an_empty_batch_has_a_loss_of_nothing() -> None:
    student, teacher, batch = aligned()
    empty = {key: value[:0] for key, value in batch.items()} | {
        "same_tokens": torch.zeros(0, 2, 2, dtype=torch.int64)
    }
    for objective in (ULD(), GOLD()):
        assert objective(
            {"logits": student["logits"][:0]}, {"logits": teacher["logits"][:0]}, empty
        ).shape == (0, 6)
