"""Adapters for losses between models of different tokenizers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED
from instil.data.alignment import spans
from instil.functional.tokens.cross_attention import cross_attention, token_pair_embeddings
from instil.functional.tokens.dual_space import (
    DualSpaceDivergence,
    frozen_head_logits,
    student_space,
    teacher_space,
)
from instil.functional.tokens.spans import (
    aligned_positions,
    gather_positions,
    merge_span_log_probs,
    sorted_distance,
    span_ends,
)
from instil.objectives.logits.gold import hybrid_divergence
from instil.objectives.logits.uld import uld_loss
from tests.golden.cases import Case

Pair = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
WEIGHTS = ("matched_weight", "unmatched_weight")


def sides(case: Case, row: int) -> list[tuple[Tensor, Tensor]]:
    """Return logits at temperature and labels of one row, for student and teacher."""
    rows = []
    for side, target in (("student", "target"), ("teacher", "teacher.target")):
        rows.append(
            (
                case[f"{side}.logits"][row] / case.option(f"{side}_temperature", 1.0),
                case[target][row],
            )
        )
    return rows


def answers(case: Case, row: int) -> Pair:
    """Return the logits of both answers, up to the length of the shorter one.

    TRL's observed merge starts at the token itself, all others at the position that predicts it. A
    row without a prompt starts at its beginning.
    """
    shift = 0 if case.option("token_merge_strategy") == "observed" else 1
    parts = []
    for (logits, target), side in zip(sides(case, row), ("student", "teacher"), strict=True):
        has_label = target != UNLABELLED
        start = max(int(has_label.nonzero()[0]) - shift, 0) if has_label.any() else 0
        parts.append(
            logits[
                start : start + int(has_label.sum()) - bool(case.option(f"skip_{side}_eos", False))
            ]
        )
    shorter = min(map(len, parts))
    return parts[0][:shorter], parts[1][:shorter]


def of_rows(case: Case, loss: Loss) -> Tensor:
    """Return the mean over rows of the means over positions or spans, plus cross-entropy."""
    rows = range(len(case["target"]))
    if case.option("use_extended_uld", "byte_offsets" in case):
        means = [loss(*spanned(case, row)).mean() for row in rows]
    else:
        means = [
            loss(*(logits.log_softmax(-1) for logits in answers(case, row))).mean() for row in rows
        ]
    total = case.option("distillation_weight", 1.0) * torch.stack(means).mean()
    if weight := case.option("crossentropy_weight", 0.0):
        logits, target = case["student.logits"][:, :-1], case["target"][:, 1:]
        total = total + weight * F.cross_entropy(
            logits.flatten(0, 1), target.flatten(), ignore_index=UNLABELLED
        )
    return total


def uld(case: Case) -> Tensor:
    if "token_merge_strategy" not in case.options and case.mentions(
        "rotating", "unmasked on both sides"
    ):
        return summed(case)
    return of_rows(case, lambda student, teacher: sorted_distance(student.exp(), teacher.exp()))


def summed(case: Case) -> Tensor:
    """Form of DSKD: every row starts with its answer; positions with labels on both sides count."""
    total = torch.zeros((), dtype=torch.float64)
    for row in range(len(case["target"])):
        turned = [
            (logits.roll(-start, 0), has_label.roll(-start))
            for logits, has_label, start in map(_start, sides(case, row))
        ]
        shorter = min(len(has_label) for _, has_label in turned)
        (student, student_mask), (teacher, teacher_mask) = (
            (logits[:shorter], has_label[:shorter]) for logits, has_label in turned
        )
        total = (
            total
            + (uld_loss(student, teacher, reduction="none") * (student_mask & teacher_mask)).sum()
        )
    return total


def _start(side: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, int]:
    has_label = side[1] != UNLABELLED
    return side[0], has_label, int(has_label.int().argmax())


def spanned(case: Case, row: int) -> Pair:
    """Return log-probabilities of spans, which merge tokens by their bytes.

    The observed merge uses the first distribution of a span, at the token itself.
    """
    late = case.option("token_merge_strategy") == "observed"
    if case.option("skip_student_eos", False) or case.option("skip_teacher_eos", False):
        raise NotImplementedError("merged spans without the end token")
    values, ids, sizes = [], [], []
    for prefix, (logits, target) in zip(("", "teacher."), sides(case, row), strict=True):
        start = int((target != UNLABELLED).nonzero()[0])
        offsets = case[f"{prefix}byte_offsets"][row, start:]
        sizes.append((offsets[:, 1] - offsets[:, 0]).tolist())
        ids.append(case[f"{prefix}input_ids"][row, start:])
        values.append(
            logits.log_softmax(-1)[start:] if late else logits.log_softmax(-1)[start - 1 : -1]
        )
    numbers = [torch.tensor(side) for side in spans(*sizes)]
    if late:  # the first token of a span is the last one in reverse order
        values, ids = [side.flip(0) for side in values], [side.flip(0) for side in ids]
        numbers = [span_ids.max() - span_ids.flip(0) for span_ids in numbers]
    student, teacher = (
        merge_span_log_probs(side[None], one[None], span_ids[None])
        for side, one, span_ids in zip(values, ids, numbers, strict=True)
    )
    span, other = numbers[0][None], numbers[1][None]
    ends = span_ends(span)
    return student[ends], gather_positions(teacher, aligned_positions(span, other))[ends]


def hybrid_weight(case: Case, kind: str) -> float | None:
    """Weight of the matched or unmatched tokens, whose name depends on the version of TRL."""
    for name in (f"uld_hybrid_{kind}", f"hybrid_{kind}", kind):
        if name in case.options:
            return float(case.option(name))
    return None


def gold(case: Case) -> Tensor:
    matched, unmatched = (hybrid_weight(case, kind) for kind in WEIGHTS)
    weights = None if matched is None or unmatched is None else (matched, unmatched)
    return of_rows(
        case,
        lambda student, teacher: hybrid_divergence(
            student, teacher, case["vocabulary_map"], case.option("beta", 0.5), weights
        ),
    )


DIVERGENCES: dict[str, DualSpaceDivergence] = {"js_divergence": "jsd"}


def linear(case: Case, name: str, values: Tensor) -> Tensor:
    return F.linear(
        values, case.param(f"projector.{name}.weight"), case.param(f"projector.{name}.bias")
    )


def head(case: Case, side: str) -> tuple[Tensor, Tensor]:
    weight = case.param(f"lm_head_{side}.weight")
    return weight, weight.new_zeros(len(weight))


def dual(
    case: Case, into_student: Tensor, into_teacher: Tensor, other: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sums over the labelled tokens.

    With two tokenizers only the tokens count where the projected teacher is correct; its logits are
    divided by the temperature once more.
    """
    objective, temperature, target = (
        case.option("kd_objective", "forward_kl"),
        case.option("kd_temperature", 1.0),
        case["target"],
    )
    counted = target != UNLABELLED
    labelled, _ = student_space(
        case["student.logits"], into_student, target, temperature, "forward_kl"
    )
    softer = into_student / case.option("teacher_temperature", 1.0)
    compared = student_space(
        case["student.logits"], softer, target, temperature, DIVERGENCES.get(objective, objective)
    )[1]
    if "teacher.target" in case:
        compared = compared * (into_student.argmax(-1) == target)
    in_teacher = teacher_space(case["teacher.logits"], into_teacher, temperature) * (
        other != UNLABELLED
    )
    terms = {
        "t2s_ce_loss": labelled.sum(),
        "t2s_kd_loss": (compared * counted).sum(),
        "s2t_kd_loss": in_teacher.sum(),
    }
    return torch.stack(list(terms.values())).sum(), {
        f"part.{name}": term for name, term in terms.items() if f"part.{name}" in case
    }


def dskd(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    into_student = frozen_head_logits(
        head(case, "s"), linear(case, "t2s", case["teacher.hidden_states.0"])
    )
    into_teacher = frozen_head_logits(
        head(case, "t"), linear(case, "s2t", case["student.hidden_states.0"])
    )
    return dual(case, into_student, into_teacher, case["target"])


def dskd_cma(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    """Form of the code, which divides by deviations over the whole batch."""
    target, other, states = case["target"], case["teacher.target"], case["teacher.hidden_states.0"]
    student = torch.cat(
        token_pair_embeddings(case.param("embed.stu.weight"), case["input_ids"], target), -1
    )
    read, outputs = token_pair_embeddings(
        case.param("embed.tea.weight"), case["teacher.input_ids"], other
    )
    keys = torch.cat([read, outputs], -1)
    scores = cross_attention(
        linear(case, "query", student), keys / keys.std(), target != UNLABELLED, other != UNLABELLED
    )
    attended = scores.softmax(-1) @ linear(
        case, "t2s", states / states.std() + outputs / outputs.std()
    )
    back = scores.mT.softmax(-1) @ linear(case, "s2t", case["student.hidden_states.0"])
    return dual(
        case,
        frozen_head_logits(head(case, "s"), attended),
        frozen_head_logits(head(case, "t"), back),
        other,
    )


ADAPTERS = {"uld": uld, "gold": gold, "dskd": dskd, "dskd_cma": dskd_cma}
