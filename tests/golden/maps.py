"""Adapters for losses on channels, positions and flows of feature maps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.functional.feature_maps import resize
from instil.objectives.features.activation_boundary import activation_boundary_loss
from instil.objectives.features.afd import LevelAttention, afd_loss
from instil.objectives.features.cwd import cwd_loss
from instil.objectives.features.factor_transfer import FactorNets, factor_transfer_loss
from instil.objectives.features.fbkd import (
    DetectionAdapters,
    DetectionFeatures,
    fbkd_loss,
    fbkd_mask,
)
from instil.objectives.features.fsp import fsp_loss
from instil.objectives.features.ickd import ickd_loss
from instil.objectives.features.kdsvd import kdsvd_loss
from instil.objectives.features.mgd import mgd_loss
from instil.objectives.features.nst import nst_loss
from instil.objectives.features.ofd import batch_norm_margin, ofd_loss
from instil.objectives.features.pad import pad_loss
from instil.objectives.features.pkd import pkd_loss
from instil.objectives.features.sad import sad_loss
from tests.golden.cases import Case
from tests.golden.stages import called, only


def total(terms: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """Return the weighted sum of one term per stage."""
    return torch.stack(
        [w * term for w, term in zip(weights or [1.0] * len(terms), terms, strict=True)]
    ).sum()


def halved(count: int) -> list[float]:
    """Return ..., 1/4, 1/2, 1: the deepest stage has the largest weight."""
    return [2.0 ** (level - count + 1) for level in range(count)]


def normed(case: Case, prefix: str, stage: Tensor) -> Tensor:
    """BatchNorm with the parameters of the case; the running statistics do not change."""
    state = {
        name: value.clone() if "running" in name else value
        for name, value in case.params(prefix).items()
    }
    training = case.option("bn_training", True)
    return F.batch_norm(
        stage,
        state["running_mean"],
        state["running_var"],
        state["weight"],
        state["bias"],
        training,
        eps=1e-5,
    )


def convolved(case: Case, prefix: str, stage: Tensor, **options: int) -> Tensor:
    """Convolution with the parameters of the case."""
    state = case.params(prefix)
    return F.conv2d(stage, state["weight"], state.get("bias"), **options)


def nst(case: Case) -> Tensor:
    only(case, "d", "c", "kernel")
    kernel = {"poly": "polynomial", "rbf": "gaussian"}.get(
        name := case.option("kernel", "poly"), name
    )
    degree, offset = case.option("d", 2), case.option("c", 0)
    return total([nst_loss(s, t, kernel, degree, float(offset)) for s, t in case.pairs()])


def fsp(case: Case) -> Tensor:
    only(case, "weights")
    pool, form = (
        ("max", "columns")
        if case.mentions("norm over dim 1", "norm of matrix columns")
        else ("average", "mean")
    )
    pairs = list(itertools.pairwise(case.pairs()))
    return total(
        [fsp_loss((a[0], b[0]), (a[1], b[1]), pool, form) for a, b in pairs], case.option("weights")
    )


def kdsvd(case: Case) -> Tensor:
    only(case, "k")
    student, teacher = zip(*case.pairs(), strict=True)
    return kdsvd_loss(student, teacher, case.option("k", 1), "decomposition")


def ab(case: Case) -> Tensor:
    """Sums over the elements, with the weights of the repositories."""
    only(case, "margin", "stage_weights", "scale", "feat_num")
    case.ignore("feat_num")
    pairs = case.pairs()
    weights = case.option("stage_weights", halved(len(pairs)))
    margin, scale = case.option("margin", 1.0), case.option("scale", 3 / 1000)
    return scale * total(
        [s[0].numel() * activation_boundary_loss(s, t, margin) for s, t in pairs], weights
    )


def ofd(case: Case) -> Tensor:
    """Sums over elements and batch.

    The margin is an input or follows from the teacher's BatchNorm.
    """
    only(case, "stage_divisors", "outer_scale", "bn_training")
    case.ignore("outer_scale")
    terms = []
    for index, (student, teacher) in enumerate(case.pairs()):
        margin = case["margin"].flatten() if "margin" in case else None
        if margin is None:
            margin = batch_norm_margin(
                case[f"teacher.bn.{index}.weight"], case[f"teacher.bn.{index}.bias"]
            )
            student = normed(
                case, f"connectors.{index}.1.", convolved(case, f"connectors.{index}.0.", student)
            )
        terms.append(student.numel() * ofd_loss(student, teacher, margin))
    divisors = case.option("stage_divisors", [1 / weight for weight in halved(len(terms))])
    return total(terms, [1 / divisor for divisor in divisors])


def ickd(case: Case) -> Tensor:
    """Includes the embedding if the case has one; the ImageNet code divides by the batch twice."""
    only(case, "bn_training", "weight")
    terms = []
    for student, teacher in case.pairs():
        if "param.embed_s.conv2d.weight" in case:
            student = normed(case, "embed_s.l2norm.", convolved(case, "embed_s.conv2d.", student))
        terms.append(ickd_loss(student, teacher) / (len(student) if case.mentions("B*B") else 1))
    return case.option("weight", 1.0) * total(terms)


def mgd(case: Case) -> Tensor:
    """Sum over the elements, with the mask of the case."""
    only(case, "alpha_mgd", "lambda_mgd", "mask_on_channel")
    case.ignore("lambda_mgd", "mask_on_channel")  # the case contains the resulting mask

    def generate(masked: Tensor) -> Tensor:
        return convolved(
            case,
            "generation.2.",
            convolved(case, "generation.0.", masked, padding=1).relu(),
            padding=1,
        )

    terms = []
    for student, teacher in case.pairs():
        aligned = convolved(case, "align.", student) if "param.align.weight" in case else student
        terms.append(teacher[0].numel() * mgd_loss(aligned, teacher, case["mask"], generate))
    return case.option("alpha_mgd") * total(terms)


def pkd(case: Case) -> Tensor:
    only(case, "loss_weight", "resize_stu")
    terms = []
    for student, teacher in case.pairs():
        if student.shape[2:] != teacher.shape[2:] and case.option("resize_stu", True):
            student = F.interpolate(student, teacher.shape[2:], mode="bilinear")
        elif student.shape[2:] != teacher.shape[2:]:
            teacher = F.interpolate(teacher, student.shape[2:], mode="bilinear")
        terms.append(pkd_loss(student, teacher))
    return case.option("loss_weight", 1.0) * total(terms)


def cwd(case: Case) -> Tensor:
    only(case, "norm_type", "divergence", "temperature", "tau", "loss_weight")
    form = case.option("norm_type", "channel")
    if case.option("divergence", "kl") != "kl" or form not in ("channel", "spatial"):
        raise NotImplementedError(f"divergence {case.option('divergence')} of {form} distributions")
    temperature = case.option("temperature", case.option("tau", 1.0))
    return case.option("loss_weight", 1.0) * total(
        [cwd_loss(s, t, temperature, form) for s, t in case.pairs()]
    )


def ft(case: Case) -> Tensor:
    """The factors are inputs, or outputs of the translator and paraphraser of the case."""
    only(case, "p", "p1", "p2", "k", "bn_training")
    attention = case.mentions("positions", "repdistiller") or "p1" in case.options
    exponent = case.option("p2", 1) if attention else case.option("p", 1)
    if exponent not in (1, 2):
        raise NotImplementedError(f"a distance with exponent {exponent}")
    if attention and case.option("p1", 2) % 2:
        raise NotImplementedError(
            f"signed features to the power {case.option('p1')}: this package uses absolute values"
        )
    terms = []
    for student, teacher in case.pairs():
        if "param.translator.encoder.0.weight" in case:
            nets = FactorNets(student.shape[1], teacher.shape[1], case.option("k", 0.5), "batch")
            student = called(
                nets.translator,
                case.params("translator.encoder."),
                student,
                training=case.option("bn_training", True),
            )
            teacher = called(nets.paraphraser, case.params("paraphraser."), teacher)
        grid = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
        student, teacher = resize(student, grid), resize(teacher, grid)
        form = "attention" if attention else "paper"
        terms.append(
            factor_transfer_loss(
                student, teacher, form, "l1" if exponent == 1 else "l2", case.option("p1", 2)
            )
        )
    return total(terms)


def afd(case: Case) -> Tensor:
    """Attention with the official parameters."""
    only(case, "qk_dim", "n_t", "unique_t_shapes", "bn_training")
    case.ignore("n_t", "unique_t_shapes")
    student, teacher = case.stages("student.features"), case.stages("teacher.features")
    names = (
        ("linear_trans_s.key_layer", "keys"),
        ("linear_trans_t.query_layer", "queries"),
        ("linear_trans_s.bilinear", "bilinear"),
    )
    parameters = {
        "teacher_place": case.param("attention.p_t"),
        "student_place": case.param("attention.p_s"),
    }
    for official, own_name in names:
        parameters |= {
            f"{own_name}.{name.replace('bn.', 'norm.')}": value
            for name, value in case.params(f"attention.{official}.").items()
        }
    attend = LevelAttention(
        [s.shape[1] for s in student], [t.shape[1] for t in teacher], case.option("qk_dim"), "batch"
    )
    return afd_loss(
        student,
        teacher,
        called(attend, parameters, student, teacher, training=case.option("bn_training", True)),
    )


def fbkd(case: Case) -> Tensor:
    """Four norms over the batch, of views that are inputs or computed with official parameters."""
    weights = tuple(
        case.option(name)
        for name in ("mask_l2_weight", "channel_weight", "spatial_weight", "nonloacl_weight")
    )
    scale = case.option("loss_weight", 1.0)
    if "student.feat_adapt" in case:
        student = DetectionFeatures(
            *(
                case[f"student.{name}_adapt"]
                for name in ("feat", "channel_pool", "spatial_pool", "relation")
            )
        )
        teacher = DetectionFeatures(
            case["teacher.feat"],
            case["teacher.feat"].mean((2, 3)),
            case["teacher.spatial_pool"],
            case["teacher.relation"],
        )
        mask = ((case["student.spatial_mask"] + case["teacher.spatial_mask"]) / 2).detach()
        return scale * fbkd_loss(student, teacher, mask, weights, "batch")
    # The code averages channels for every channel_T; reduction is a size.
    case.ignore("channel_T", "reduction", "maxpool_stride")
    if case.option("mode", "dot_product") != "dot_product":
        raise NotImplementedError(f"a non-local block in mode {case.option('mode')}")
    # With sub_sample the code pools twice: 2 x 2 inside the non-local block, then once more.
    stride, pooled = 1, ""
    if case.option("sub_sample", False):
        stride, pooled = 2 * case.option("maxpool_stride", 2), "0.0."
    names = {
        "features": "adaptation_layers",
        "channels": "channel_wise_adaptation",
        "positions": "spatial_wise_adaptation",
    }
    official = {own_name: f"student_connector.{name}" for own_name, name in names.items()} | {
        "relations": "student_connector.non_local_adaptation"
    }
    for side in ("student", "teacher"):
        parts = {
            "value": f"g.{pooled}conv",
            "query": "theta.conv",
            "key": f"phi.{pooled}conv",
            "out": "conv_out.conv",
            "norm": "conv_out.bn",
        }
        official |= {
            f"{side}_relations.{own_name}": f"{side}_connector.{side}_non_local.{name}"
            for own_name, name in parts.items()
        }
    parameters = {
        f"{own_name}.{n}": value
        for own_name, name in official.items()
        for n, value in case.params(f"{name}.").items()
    }
    terms = []
    for student, teacher in case.pairs():
        views = DetectionAdapters(student.shape[1], teacher.shape[1], "batch", stride)
        student_relations, teacher_relations = called(
            views, parameters, student, teacher, training=case.option("bn_training", True)
        )
        mask = fbkd_mask(student, student, teacher, case.option("spatial_T", 0.5), "code")
        terms.append(
            fbkd_loss(
                DetectionFeatures(*student_relations),
                DetectionFeatures(*teacher_relations),
                mask,
                weights,
                "batch",
            )
        )
    return scale * total(terms)


def pad(case: Case) -> Tensor:
    only(case, "eps")
    return pad_loss(
        case["student.embedding"],
        case["teacher.embedding"],
        case["student.log_variance"],
        case.option("eps", 1e-6),
    )


def sad(case: Case) -> Tensor:
    """Multiplied by the weight of the library."""
    only(case)
    return 1000 * total(
        [sad_loss(a, b, "features") for a, b in itertools.pairwise(case.stages("student.features"))]
    )


ADAPTERS = {
    "nst": nst,
    "fsp": fsp,
    "kdsvd": kdsvd,
    "ab": ab,
    "ofd": ofd,
    "ickd": ickd,
    "mgd": mgd,
    "pkd": pkd,
    "cwd": cwd,
    "ft": ft,
    "afd": afd,
    "fbkd": fbkd,
    "pad": pad,
    "sad": sad,
}
