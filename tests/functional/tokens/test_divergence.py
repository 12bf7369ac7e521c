"""Values and gradients of all token divergences against dense float64 formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from instil import catalogue
from instil.core import Batch, Objectives
from instil.functional.tokens import chunk_sizes
from instil.objectives.bases.token_objective import TokenObjective
from instil.objectives.logits.akl import akl_loss
from instil.objectives.logits.alpha_beta import alpha_beta_loss
from instil.objectives.logits.alphanet import alphanet_loss
from instil.objectives.logits.bdkd import bdkd_loss
from instil.objectives.logits.forward_kl import ForwardKL, forward_kl_loss
from instil.objectives.logits.jsd import JSD, jsd_loss
from instil.objectives.logits.reverse_kl import reverse_kl_loss
from instil.objectives.logits.sampled_kd import sampled_kd_loss
from instil.objectives.logits.skewed_forward_kl import skewed_forward_kl_loss
from instil.objectives.logits.skewed_reverse_kl import skewed_reverse_kl_loss
from instil.objectives.logits.symmetric_kl import symmetric_kl_loss
from instil.objectives.logits.taid import taid_loss
from instil.objectives.logits.todi import todi_loss
from instil.objectives.logits.top_k import top_k_loss
from instil.objectives.logits.top_k_ranking import top_k_ranking_loss
from instil.objectives.logits.tvd import tvd_loss
from instil.roles import Projection, Sampled, Top

TOKENS, VOCABULARY, WIDTH, RANK = (2, 7), 19, 6, 2


def kl(p: Tensor, q: Tensor) -> Tensor:
    return torch.xlogy(p, p / q).sum(-1)


def oracle_jsd(p: Tensor, q: Tensor, beta: float) -> Tensor:
    m = beta * p + (1 - beta) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def oracle_akl(p: Tensor, q: Tensor, mass: float) -> Tensor:
    values = []
    for one, other in zip(p.flatten(0, -2), q.flatten(0, -2), strict=True):
        order = sorted(range(len(one)), key=lambda v: -float(one[v]))
        head, held = order[:1], float(one[order[0]])
        for v in order[1:]:
            held += float(one[v])
            if held <= mass:
                head.append(v)
        gap = (one - other).abs().detach()
        share = gap[head].sum() / gap.sum()
        values.append(share * kl(one, other) + (1 - share) * kl(other, one))
    return torch.stack(values).view(p.shape[:-1])


def oracle_alpha_beta(p: Tensor, q: Tensor, a: float, b: float) -> Tensor:
    return -(p**a * q**b - a / (a + b) * p ** (a + b) - b / (a + b) * q ** (a + b)).sum(-1) / (
        a * b
    )


def oracle_todi(p: Tensor, q: Tensor) -> Tensor:
    ratio = (p / q).log()
    weight = ratio.detach().sigmoid()
    return ((weight * p - (1 - weight) * q) * ratio).sum(-1)


def oracle_bdkd(p: Tensor, q: Tensor, factor: float) -> Tensor:
    p_entropy, q_entropy = (torch.special.entr(side).sum(-1) for side in (p, q))
    forward = torch.where(p_entropy > q_entropy, factor, 1.0)
    reverse = torch.where(q_entropy > p_entropy, factor, 1.0)
    return forward * kl(p, q) + reverse * kl(q, p)


def oracle_alphanet(p: Tensor, q: Tensor) -> Tensor:
    """Compute divergences of orders -1 and 1, the first clipped at 5, with surrogate gradients."""
    powers = (q / p).detach().clamp(max=5)
    low = (q.detach() * (powers - 1) / 2).sum(-1)
    high = kl(p, q)
    surrogate = -(q.detach() * (0.5 - powers) * q.log()).sum(-1)
    return torch.where(low > high.detach(), low + surrogate - surrogate.detach(), high)


def oracle_taid(p: Tensor, q: Tensor, time: float) -> Tensor:
    return kl(((1 - time) * q.detach().log() + time * p.log()).softmax(-1), q)


def coarse(p: Tensor, ids: Tensor) -> Tensor:
    """Return the probabilities of the classes and their complements."""
    chosen = p.gather(-1, ids)
    return torch.cat([chosen, 1 - chosen.sum(-1, keepdim=True)], -1)


def oracle_ranking(p: Tensor, q: Tensor, hinge: bool) -> Tensor:
    values = []
    for one, other in zip(p.flatten(0, -2), q.flatten(0, -2), strict=True):
        best = one.argsort(descending=True)[:5].tolist()
        pairs = [(k, v) for index, k in enumerate(best) for v in best[index + 1 :]]
        terms = [
            (one[k] - one[v] - other[k] + other[v]).clamp_min(0)
            if hinge
            else (1 + other[v] / other[k]).log()
            for k, v in pairs
        ]
        values.append(torch.stack(terms).mean())
    return torch.stack(values).view(p.shape[:-1])


Pair = tuple[Callable[..., Tensor], Callable[[Tensor, Tensor], Tensor]]
FAMILY: dict[str, Pair] = {
    "forward_kl": (forward_kl_loss, kl),
    "reverse_kl": (reverse_kl_loss, lambda p, q: kl(q, p)),
    "jsd": (lambda s, t, **k: jsd_loss(s, t, 0.3, **k), lambda p, q: oracle_jsd(p, q, 0.3)),
    "jsd near 0": (
        lambda s, t, **k: jsd_loss(s, t, 0.004, True, **k),
        lambda p, q: oracle_jsd(p, q, 0.004) / (0.004 * 0.996),
    ),
    "jsd near 1": (
        lambda s, t, **k: jsd_loss(s, t, 0.996, True, **k),
        lambda p, q: oracle_jsd(p, q, 0.996) / (0.004 * 0.996),
    ),
    "jsd at 1": (lambda s, t, **k: jsd_loss(s, t, 1, True, **k), lambda p, q: kl(q, p)),
    "skewed_forward_kl": (
        lambda s, t, **k: skewed_forward_kl_loss(s, t, 0.2, **k),
        lambda p, q: kl(p, 0.2 * p + 0.8 * q),
    ),
    "skewed_reverse_kl": (
        lambda s, t, **k: skewed_reverse_kl_loss(s, t, 0.2, **k),
        lambda p, q: kl(q, 0.8 * p + 0.2 * q),
    ),
    "skewed_reverse_kl, mixture constant": (
        lambda s, t, **k: skewed_reverse_kl_loss(s, t, 0.2, False, **k),
        lambda p, q: kl(q, 0.8 * p + 0.2 * q.detach()),
    ),
    "symmetric_kl": (
        lambda s, t, **k: symmetric_kl_loss(s, t, 0.3, **k),
        lambda p, q: 0.3 * kl(p, q) + 0.7 * kl(q, p),
    ),
    "akl": (akl_loss, lambda p, q: oracle_akl(p, q, 0.5)),
    "tvd": (
        lambda s, t, **k: tvd_loss(s, t, **{"scale": True, **k}),
        lambda p, q: (p - q).abs().sum(-1) / 2,
    ),
    "todi": (todi_loss, oracle_todi),
    "bdkd": (bdkd_loss, lambda p, q: oracle_bdkd(p, q, 3.0)),
    "alphanet": (alphanet_loss, oracle_alphanet),
    "alpha_beta": (alpha_beta_loss, lambda p, q: oracle_alpha_beta(p, q, 0.2, 0.7)),
    "taid": (lambda s, t, **k: taid_loss(s, t, 0.4, **k), lambda p, q: oracle_taid(p, q, 0.4)),
    "top_k": (
        lambda s, t, **k: top_k_loss(s, t, 5, **k),
        lambda p, q: kl(coarse(p, p.topk(5).indices), coarse(q, p.topk(5).indices)),
    ),
    "top_k, reverse, of the student": (
        lambda s, t, **k: top_k_loss(s, t, 5, "reverse_kl", support="student", **k),
        lambda p, q: kl(coarse(q, q.topk(5).indices), coarse(p, q.topk(5).indices)),
    ),
    "top_k alone": (
        lambda s, t, **k: top_k_loss(s, t, 5, tail=False, **k),
        lambda p, q: kl(
            *(
                x.gather(-1, p.topk(5).indices)
                / x.gather(-1, p.topk(5).indices).sum(-1, keepdim=True)
                for x in (p, q)
            )
        ),
    ),
    "top_k_ranking": (
        lambda s, t, scale=True, **k: top_k_ranking_loss(s, t, 5, **k),
        lambda p, q: oracle_ranking(p, q, False),
    ),
    "top_k_ranking, hinge": (
        lambda s, t, scale=True, **k: top_k_ranking_loss(s, t, 5, "hinge", **k),
        lambda p, q: oracle_ranking(p, q, True),
    ),
}
"""Ours, and the formula of two distributions p (teacher) and q."""
family = pytest.mark.parametrize(
    "pair", [pytest.param(pair, id=name) for name, pair in FAMILY.items()]
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def side(
    seed: int,
    bias: bool = False,
    low_rank: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
) -> Projection:
    """Return hidden states and a head whose logits have a standard deviation of about 2."""
    hidden, weight = (
        draw(*TOKENS, WIDTH, seed=seed),
        draw(VOCABULARY, WIDTH, seed=seed + 1) * 2 / WIDTH**0.5,
    )
    extra = draw(VOCABULARY, seed=seed + 2) if bias else None
    adapter = (
        (draw(RANK, WIDTH, seed=seed + 3), draw(VOCABULARY, RANK, seed=seed + 4) / 3)
        if low_rank
        else None
    )
    return Projection(hidden, weight, extra, scale, softcap, adapter)


def dense(signal: Projection) -> Tensor:
    logits = signal.hidden @ signal.weight.T
    if signal.low_rank is not None:
        down, up = signal.low_rank
        logits = logits + signal.hidden @ (up @ down).T
    logits = logits if signal.bias is None else logits + signal.bias
    logits = logits * (1 if signal.scale is None else signal.scale)
    return (
        logits if signal.softcap is None else signal.softcap * torch.tanh(logits / signal.softcap)
    )


def parts(signal: Projection) -> list[Tensor]:
    return [
        part
        for part in (signal.hidden, signal.weight, signal.bias, *(signal.low_rank or ()))
        if part is not None
    ]


def moved(signal: Projection, dtype: torch.dtype) -> Projection:
    """Return a copy of this type that requires gradients."""

    def leaf(tensor: Tensor | None) -> Any:
        return None if tensor is None else tensor.detach().to(dtype).requires_grad_()

    low_rank = (
        None if signal.low_rank is None else (leaf(signal.low_rank[0]), leaf(signal.low_rank[1]))
    )
    return replace(
        signal,
        hidden=leaf(signal.hidden),
        weight=leaf(signal.weight),
        bias=leaf(signal.bias),
        low_rank=low_rank,
    )


def close(ours: Tensor, expected: Tensor, what: str = "", rtol: float = 2e-5) -> None:
    """Assert equality within float32 rounding of the largest entry."""
    off = (
        ours.detach().double() - expected.detach().double()
    ).abs().max() / expected.detach().abs().max()
    assert ours.shape == expected.shape, what
    assert off < rtol, f"{what} is off by {off:.1e} of its largest entry"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set four tokens per chunk and three per block; the last ones are shorter."""
    monkeypatch.setitem(chunk_sizes.CHUNK, "cpu", 4 * VOCABULARY)
    monkeypatch.setitem(chunk_sizes.BLOCK, "cpu", 3 * VOCABULARY)


HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"bias": True},
    "low rank": {"low_rank": True},
    "softcap": {"softcap": 3.0},
    "scale": {"scale": 0.5, "bias": True},
    "all": {"bias": True, "low_rank": True, "scale": 0.7, "softcap": 3.0},
}


@family
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_loss_and_gradients_are_those_of_the_dense_formula(
    pair: Pair, head: str, temperature: float
) -> None:
    ours, formula = pair
    student, teacher = side(1, **HEADS[head]), side(7, **HEADS[head])
    weight = torch.rand(TOKENS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight[0, 1], weight[1, -2:] = 0, 0
    exact, quick = moved(student, torch.float64), moved(student, torch.float32)
    p, q = ((dense(signal) / temperature).softmax(-1) for signal in (teacher, exact))
    factor = 1 if "ranking" in str(ours.__code__.co_names) else temperature**2
    expected = (formula(p, q) * weight).sum() / weight.sum() * factor
    actual = ours(
        quick, moved(teacher, torch.float32), temperature=temperature, weight=weight.float()
    )
    close(actual, expected, "the loss")
    expected_gradients = torch.autograd.grad(expected, parts(exact))
    for index, (left, right) in enumerate(
        zip(torch.autograd.grad(actual, parts(quick)), expected_gradients, strict=True)
    ):
        assert left.dtype == torch.float32
        close(left, right, f"gradient {index}", 1e-4)


@family
def test_logits_and_projections_of_either_side_give_one_loss(pair: Pair) -> None:
    ours, _ = pair
    student, teacher = moved(side(1, bias=True), torch.float64), side(7, softcap=3.0)
    logits = dense(student)
    whole = ours(logits, dense(teacher), reduction="none")
    gradient = torch.autograd.grad(whole.sum(), student.hidden)[0]
    for student_signal, teacher_signal in (
        (student, teacher),
        (student, dense(teacher)),
        (dense(student), teacher),
    ):
        values = ours(student_signal, teacher_signal, reduction="none")
        torch.testing.assert_close(values, whole, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            torch.autograd.grad(values.sum(), student.hidden)[0], gradient, rtol=1e-6, atol=1e-9
        )


@family
def test_nothing_at_a_match(pair: Pair) -> None:
    """Value and gradient; a ranking has neither."""
    ours, _ = pair
    if "ranking" in str(ours.__code__.co_names):
        pytest.skip("a ranking loss wants more than a match")
    student = moved(side(1, bias=True), torch.float64)
    loss = ours(student, side(1, bias=True))
    assert loss.abs() < 1e-12
    for gradient in torch.autograd.grad(loss, parts(student)):
        assert (
            gradient.abs().max() < 1e-7
        )  # the total variation has a kink there, of which 0 is a slope


@family
@pytest.mark.parametrize("cuts", [(1, 6), (3, 2, 2)])
def test_the_cut_into_micro_batches_changes_nothing(pair: Pair, cuts: tuple[int, ...]) -> None:
    """Each part's mean counts by its share of the valid tokens: value and every gradient, that of
    the head too.
    """
    ours, _ = pair
    student, teacher = side(1, bias=True), side(7)
    weight = (torch.arange(14).view(TOKENS) % 3 > 0).double()
    whole = moved(student, torch.float64)
    loss = ours(whole, teacher, weight=weight)
    expected = torch.autograd.grad(loss, parts(whole))
    cut = moved(student, torch.float64)
    total, start = torch.zeros((), dtype=torch.float64), 0
    for length in cuts:
        here = slice(start, start + length)
        start += length
        student_cut, teacher_cut = (
            replace(signal, hidden=signal.hidden[:, here]) for signal in (cut, teacher)
        )
        share = weight[:, here].sum() / weight.sum()
        part = ours(student_cut, teacher_cut, weight=weight[:, here]) * share
        part.backward()
        total += part.detach()
    torch.testing.assert_close(total, loss.detach(), rtol=1e-9, atol=1e-12)
    for student_cut, gradient in zip(parts(cut), expected, strict=True):
        torch.testing.assert_close(student_cut.grad, gradient, rtol=1e-6, atol=1e-9)


@family
def test_where_a_token_stands_and_what_pads_the_row_changes_nothing(pair: Pair) -> None:
    """Left padding, right padding and packing: the same valid tokens, the same loss; padding gets
    no gradient, whatever is in it.
    """
    ours, _ = pair
    student, teacher = side(1), side(7)
    values = []
    for rows in ([0, 1, 2, 3], [9, 9, 0, 1, 2, 3], [0, 1, 9, 2, 3, 9]):
        weight = torch.tensor([float(row != 9) for row in rows], dtype=torch.float64)
        hidden, other = (
            torch.where(weight[:, None] > 0, signal.hidden[0][torch.tensor(rows) % 7], torch.nan)
            for signal in (student, teacher)
        )
        hidden.requires_grad_()
        loss = ours(replace(student, hidden=hidden), replace(teacher, hidden=other), weight=weight)
        gradient = torch.autograd.grad(loss, hidden)[0]
        assert gradient[weight == 0].abs().sum() == 0
        values.append(torch.cat([loss.detach().view(1), gradient[weight > 0].flatten()]))
    torch.testing.assert_close(values[1], values[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(values[2], values[0], rtol=1e-9, atol=1e-12)


@family
def test_no_token_counts(pair: Pair) -> None:
    ours, _ = pair
    student = moved(side(1), torch.float64)
    loss = ours(student, side(7), weight=torch.zeros(TOKENS))
    assert loss == 0
    assert all(gradient.abs().sum() == 0 for gradient in torch.autograd.grad(loss, parts(student)))


@family
def test_a_weighted_sum_of_values_has_its_own_gradient(pair: Pair) -> None:
    """If the backward pass has other weights than the forward pass, the head's gradient is computed
    again.
    """
    ours, _ = pair
    student, teacher, exact = (
        moved(side(1, bias=True), torch.float64),
        side(7),
        moved(side(1, bias=True), torch.float64),
    )
    factor = torch.arange(1.0, 15, dtype=torch.float64).view(TOKENS)
    announced = ours(student, teacher, weight=factor)
    surprised = (ours(exact, teacher, reduction="none") * factor).sum() / factor.sum()
    for actual, expected in zip(
        torch.autograd.grad(announced, parts(student)),
        torch.autograd.grad(surprised, parts(exact)),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)


def test_tied_embeddings_learn_from_both_ends() -> None:
    """The head is the embedding: its gradient is the sum of what comes through the hidden states
    and what comes directly.
    """
    ids = torch.arange(14).view(TOKENS) % VOCABULARY
    table, other = (nn.Embedding(VOCABULARY, WIDTH, dtype=torch.float64) for _ in range(2))
    other.load_state_dict(table.state_dict())
    teacher = side(7)
    forward_kl_loss(
        Projection(table(ids).tanh(), table.weight.view_as(table.weight)), teacher
    ).backward()
    forward_kl_loss(other(ids).tanh() @ other.weight.T, dense(teacher)).backward()
    torch.testing.assert_close(table.weight.grad, other.weight.grad, rtol=1e-6, atol=1e-9)


def test_a_frozen_head_costs_no_gradient_and_gets_none() -> None:
    student = moved(side(1, low_rank=True), torch.float64)
    student = replace(student, weight=student.weight.detach())
    assert student.low_rank is not None
    exact = moved(side(1, low_rank=True), torch.float64)
    expected = torch.autograd.grad(
        forward_kl_loss(dense(exact), dense(side(7))), [exact.hidden, *(exact.low_rank or ())]
    )
    actual = torch.autograd.grad(
        forward_kl_loss(student, side(7)), [student.hidden, *student.low_rank]
    )
    for left, right in zip(actual, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-9)


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = moved(side(7), torch.float32)
    loss = forward_kl_loss(moved(side(1), torch.float32), teacher)
    assert torch.autograd.grad(loss, parts(teacher), allow_unused=True) == (None, None)


@pytest.mark.parametrize(
    "name",
    [
        "forward_kl",
        "reverse_kl",
        "jsd",
        "skewed_forward_kl",
        "akl",
        "todi",
        "bdkd",
        "alphanet",
        "tvd",
        "alpha_beta",
        "taid",
        "top_k",
        "sampled_kd",
    ],
)
@pytest.mark.parametrize("sides", ["logits", "projection"])
def test_padding_of_the_vocabulary_is_minus_infinity(name: str, sides: str) -> None:
    """Rows of the head beyond the tokenizer have no probability, whatever they hold, on either
    side, and get no gradient.
    """
    real = 15
    student, teacher = moved(side(1), torch.float64), side(7)
    narrow = (
        replace(student, weight=student.weight[:real]),
        replace(teacher, weight=teacher.weight[:real]),
    )
    wide = student, replace(teacher, weight=torch.cat([teacher.weight, 50 + teacher.weight]))
    batch: Batch = {"index": torch.arange(2), "valid": torch.ones(TOKENS)}
    actual = []
    for vocabulary, pair in ((None, narrow), (real, wide)):
        objective = catalogue.find("objective", name)(vocabulary=vocabulary)
        outputs = [{sides: signal if sides == "projection" else dense(signal)} for signal in pair]
        objectives = Objectives({"it": objective})
        objectives.build(*outputs)
        actual.append(objectives(*outputs, batch).losses["it"])
    torch.testing.assert_close(actual[1], actual[0])
    gradient = torch.autograd.grad(actual[1], student.weight)[0]
    assert gradient[real:].abs().sum() == 0
    assert gradient[:real].abs().sum() > 0


def test_zeros_in_the_place_of_padding_would_leak_a_fifth_of_the_probability() -> None:
    """Liger pads the smaller vocabulary's logits by zeros; with logits around -5 and 24,000 of them
    they take this.
    """
    logits = 3 * draw(1, 128_000) - 5
    padded = torch.cat([logits, torch.zeros(1, 24_000, dtype=torch.float64)], 1).softmax(-1)
    assert 0.15 < padded[:, 128_000:].sum() < 0.3
    padded_logits = torch.cat([logits, torch.full((1, 24_000), -torch.inf, dtype=torch.float64)], 1)
    assert forward_kl_loss(padded_logits, padded_logits.clone()) == 0
    torch.testing.assert_close(
        forward_kl_loss(
            padded_logits, padded_logits.roll(1, -1).where(padded_logits > -torch.inf, -torch.inf)
        ).isfinite(),
        torch.tensor(True),
    )


@pytest.mark.parametrize(
    "name",
    [
        "forward_kl",
        "jsd",
        "skewed_forward_kl",
        "skewed_reverse_kl",
        "symmetric_kl",
        "akl",
        "todi",
        "bdkd",
        "alphanet",
        "tvd",
        "alpha_beta",
        "taid",
    ],
)
def test_classes_that_both_hold_impossible_change_nothing(name: str) -> None:
    """0 times the logarithm of 0 is 0, not NaN."""
    ours, _ = FAMILY[name]
    student, teacher = draw(4, 6).requires_grad_(), draw(4, 6, seed=1)
    impossible = torch.full((4, 3), -torch.inf, dtype=torch.float64)
    whole = ours(torch.cat([student, impossible], 1), torch.cat([teacher, impossible], 1))
    expected = ours(student, teacher)
    torch.testing.assert_close(whole, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, student)[0] for loss in (whole, expected))
    )


def test_other_tokens_and_other_vocabularies_are_refused() -> None:
    student, teacher = side(1), side(7)
    with pytest.raises(ValueError, match=r"the student has tokens \(2, 7\), the teacher \(2, 6\)"):
        forward_kl_loss(student, replace(teacher, hidden=teacher.hidden[:, 1:]))
    with pytest.raises(
        ValueError,
        match=r"19 classes, the teacher's 18; if both know the same tokens .* vocabulary=",
    ):
        forward_kl_loss(student, replace(teacher, weight=teacher.weight[1:]))
    with pytest.raises(ValueError, match="vocabulary is 20; the student's logits have 19"):
        ForwardKL(vocabulary=20)(
            {"projection": student}, {"projection": teacher}, {"valid": torch.ones(TOKENS)}
        )
    with pytest.raises(ValueError, match=r"weights \(7,\) for tokens \(2, 7\)"):
        forward_kl_loss(student, teacher, weight=torch.ones(7))
    with pytest.raises(ValueError, match=r"^forward_kl_loss\.temperature: Expected"):
        forward_kl_loss(student, teacher, temperature=0)
    with pytest.raises(ValueError, match="reduction is 'mean' or 'none', not 'batchmean'"):
        forward_kl_loss(student, teacher, reduction="batchmean")


def test_a_pair_of_signal_and_objective_that_cannot_be_is_refused_with_the_reason() -> None:
    top, sampled = (
        Top(draw(14, 3), torch.zeros(14, 3).long(), draw(14)),
        Sampled(torch.zeros(14, 3).long(), draw(14, 3)),
    )
    cases = {
        (
            "forward_kl",
            "top",
            "ForwardKL needs projection or logits of the teacher, which outputs top; top cannot "
            "stand in: .*; use top_k",
        ): top,
        (
            "jsd",
            "sampled",
            "sampled cannot stand in: sampled classes give only an estimate; use sampled_kd",
        ): sampled,
        ("top_k", "sampled", "sampled classes are not the top classes: use sampled_kd"): sampled,
        ("sampled_kd", "top", "the estimate would be biased: use top_k"): top,
        ("reverse_kl", "text", "text has no probabilities of other classes; use cross_entropy"): (
            "one",
            "two",
        ),
    }
    for (name, role, reason), signal in cases.items():
        objectives = Objectives({"it": catalogue.find("objective", name)()})
        with pytest.raises(ValueError, match=reason):
            objectives.build({"logits": draw(14, 5)}, {role: signal})


def test_gradients_of_half_precision_are_added_up_in_float32() -> None:
    """Inputs, and what comes back for them, are bfloat16; the loss is float32 and right to
    bfloat16's rounding.
    """
    student, teacher = moved(side(1, bias=True), torch.bfloat16), moved(side(7), torch.bfloat16)
    exact = moved(student, torch.float64)
    loss = jsd_loss(student, teacher)
    expected = jsd_loss(exact, moved(teacher, torch.float64))
    assert loss.dtype == torch.float32
    close(loss, expected, "loss", 1e-2)
    for actual, right in zip(
        torch.autograd.grad(loss, parts(student)),
        torch.autograd.grad(expected, parts(exact)),
        strict=True,
    ):
        assert actual.dtype == torch.bfloat16
        close(actual, right, "gradient", 2e-2)


class Largest(TorchDispatchMode):
    """Recorder of the number of elements of the largest created tensor."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        sizes = [
            part
            for part in (answer if isinstance(answer, (tuple, list)) else (answer,))
            if isinstance(part, Tensor)
        ]
        self.numbers = max(self.numbers, *(part.numel() for part in sizes), 0)
        return answer


@family
def test_tokens_times_vocabulary_never_exists(pair: Pair) -> None:
    """No tensor is larger than a chunk of both sides' logits, or than the hidden states."""
    ours, _ = pair
    tokens = 300
    hidden, weight = (
        draw(tokens, WIDTH).requires_grad_(),
        draw(VOCABULARY, WIDTH, seed=1).requires_grad_(),
    )
    with Largest() as largest:
        ours(
            Projection(hidden, weight),
            Projection(draw(tokens, WIDTH, seed=2), draw(VOCABULARY, WIDTH, seed=3)),
        ).backward()
    assert largest.numbers <= tokens * WIDTH < tokens * VOCABULARY


@pytest.mark.parametrize("loss", [forward_kl_loss, reverse_kl_loss, jsd_loss])
def test_a_second_derivative_is_an_error_not_a_zero(loss: Callable[..., Tensor]) -> None:
    student = moved(side(1), torch.float64)
    value = loss(student, side(7))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(value, student.hidden, create_graph=True)


def test_jsd_is_no_interpolation_of_the_two_kls_unless_continuous() -> None:
    """The paper's formula is 0 at its ends, where TRL and Liger jump to the KLs; ours refuses them,
    or divides by beta (1 - beta).
    """
    student, teacher = 3 * draw(8, 500), 3 * draw(8, 500, seed=1)
    forward, reverse = forward_kl_loss(student, teacher), reverse_kl_loss(student, teacher)
    assert jsd_loss(student, teacher, 1e-4) < 1e-3 * forward
    torch.testing.assert_close(jsd_loss(student, teacher, 0, continuous=True), forward)
    torch.testing.assert_close(jsd_loss(student, teacher, 1, continuous=True), reverse)
    near = jsd_loss(student, teacher, 1e-9, continuous=True)
    assert abs(near / forward - 1) < 0.02
    for beta, instead in ((0, "forward_kl"), (1, "reverse_kl")):
        with pytest.raises(ValueError, match=f"Use {instead}, or continuous=True"):
            JSD(beta=beta)


def test_the_direction_of_the_divergence() -> None:
    """Forward KL is large for a confident teacher and an uncertain student, reverse KL vice versa.

    The beta of jsd is the share of the teacher.
    """
    broad, narrow = (
        torch.zeros(1, 4, dtype=torch.float64),
        torch.tensor([[0.0, -8, -8, -8]], dtype=torch.float64),
    )
    assert forward_kl_loss(narrow, broad) > 3 * forward_kl_loss(broad, narrow)
    torch.testing.assert_close(forward_kl_loss(narrow, broad), reverse_kl_loss(broad, narrow))
    p, q = broad.softmax(-1), narrow.softmax(-1)
    torch.testing.assert_close(jsd_loss(narrow, broad, 0.1), oracle_jsd(p, q, 0.1).mean())
    torch.testing.assert_close(
        skewed_forward_kl_loss(narrow, broad, 0.1), kl(p, 0.1 * p + 0.9 * q).mean()
    )


def test_a_skew_of_each_token() -> None:
    student, teacher = draw(3, 5), draw(3, 5, seed=1)
    skew = torch.tensor([0.05, 0.1, 0.3], dtype=torch.float64)
    for loss in (skewed_forward_kl_loss, skewed_reverse_kl_loss):
        values = loss(student, teacher, skew, reduction="none")
        torch.testing.assert_close(
            values, torch.stack([loss(student[n], teacher[n], float(skew[n])) for n in range(3)])
        )


def test_sums_over_the_vocabulary_not_means() -> None:
    """A mean over V = 32,000 classes is a loss, and a learning rate, 32,000 times smaller."""
    student, teacher = 3 * draw(4, 32_000), 3 * draw(4, 32_000, seed=1)
    assert 5 < forward_kl_loss(student, teacher) < 15


def test_sampled_kd_has_the_value_and_the_gradient_of_the_forward_kl_in_the_mean() -> None:
    """All draws of two classes, each by its probability: exact; and from another proposal, by its
    weights.
    """
    student, teacher = draw(1, 5).requires_grad_(), draw(1, 5, seed=1)
    log_p, proposal = teacher.log_softmax(-1)[0], draw(1, 5, seed=2).log_softmax(-1)[0]
    expected = forward_kl_loss(student, teacher)
    gradient = torch.autograd.grad(expected, student)[0]
    for by in (log_p, proposal):
        total = torch.zeros((), dtype=torch.float64)
        for one in range(5):
            for two in range(5):
                ids = torch.tensor([[one, two]])
                drawn = Sampled(ids, log_p[ids], None if by is log_p else by[ids])
                total = total + (by[one] + by[two]).exp() * sampled_kd_loss(student, drawn)
        torch.testing.assert_close(total, expected)
        torch.testing.assert_close(
            torch.autograd.grad(total, student)[0], gradient, rtol=1e-6, atol=1e-9
        )


OF_TOKENS = [
    name
    for name in catalogue.files("objective")
    if issubclass(catalogue.find("objective", name), TokenObjective)
]


@pytest.mark.parametrize("name", OF_TOKENS)
def test_every_objective_that_reads_projections_gives_the_loss_of_the_logits_whatever_the_cut(
    name: str,
) -> None:
    """Rows of tokens with prompts, padding and labels: uneven micro-batches weighed by their
    counts, projections instead of logits.
    """
    student, teacher = moved(side(1, bias=True, softcap=4.0), torch.float64), side(7)
    label = (torch.arange(14).view(TOKENS) * 5) % VOCABULARY
    batch: Batch = {
        "index": torch.arange(2),
        "label": label,
        "valid": torch.tensor([[0, 0, 1, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0, 0]]).bool(),
    }
    torch.manual_seed(0)
    objectives = Objectives({"it": catalogue.find("objective", name)()})
    objectives.build({"projection": student}, {"projection": teacher})
    losses, gradients = [], []
    for role in ("projection", "logits"):
        objectives["it"].resolve({role}, {role})
        student_signal, teacher_signal = (
            {role: signal if role == "projection" else dense(signal)}
            for signal in (student, teacher)
        )
        losses.append(objectives(student_signal, teacher_signal, batch).losses["it"])
        gradients.append(torch.autograd.grad(losses[-1], parts(student)))
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-9)
    objectives["it"].resolve({"projection"}, {"projection"})
    counts = [
        objectives["it"].weight({key: value[row : row + 1] for key, value in batch.items()}).sum()
        for row in range(2)
    ]
    total = torch.zeros((), dtype=torch.float64)
    for row, count in enumerate(counts):
        student_signal, teacher_signal = (
            {"projection": replace(signal, hidden=signal.hidden[row : row + 1])}
            for signal in (student, teacher)
        )
        part = objectives(
            student_signal,
            teacher_signal,
            {key: value[row : row + 1] for key, value in batch.items()},
        ).losses["it"]
        total = total + part * count / (counts[0] + counts[1])
    torch.testing.assert_close(total, losses[0])
    torch.testing.assert_close(
        torch.autograd.grad(total, parts(student)), gradients[0], rtol=1e-6, atol=1e-9
    )
