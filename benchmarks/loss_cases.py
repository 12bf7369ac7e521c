"""Cases of ``losses.py``: sizes, inputs, and the formulations of every loss function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from types import SimpleNamespace as Inputs
from typing import Any

import loss_references as plain
import token_references as tokens
import torch
import torch.nn.functional as F
from loss_references import WHERE, contrastive, kl, kl_values, sides, through, unit
from torch import Tensor, nn

from instil.functional.logits import standardize
from instil.objectives.features.fbkd import DetectionFeatures
from instil.roles import Sampled

SIZES: dict[str, dict[str, Any]] = {
    "logits": {"shape": (1024, 1000)},
    "tokens": {"shape": (4096, 32000)},
    "regions": {"shape": (256, 21, 1000)},
    "boxes": {"shape": (65536, 68)},
    "maps": {"shape": (64, 256, 14, 14)},
    "few_maps": {"shape": (16, 256, 14, 14)},
    "embeddings": {"shape": (4096, 512), "memory": 16384},
    "samples": {"shape": (1024, 512), "memory": 16384},
    "triples": {"shape": (256, 512), "memory": 4096},
    "hidden": {"shape": (32, 128, 768)},
    "attentions": {"shape": (32, 12, 128, 128)},
}
"""Kind of input -> shape and other sizes. ``triples`` are embeddings for losses with cubic cost,
``samples`` for losses that need more than a few numbers per pair."""

Loss = Callable[[Inputs], Tensor]


@dataclass(frozen=True)
class Case:
    """A loss function and its other formulations.

    Args:
        kinds: kinds of the inputs.
        instil: calls the loss function of this package on the inputs.
        plain: plain formulation with the same value.
        torchdistill: builds the loss of torchdistill from its module of losses.
        same_direction: whether the gradient of ``torchdistill`` has the same direction; False: the
            cost is the same, but the form differs.
    """

    kinds: tuple[str, ...]
    instil: Callable[[Callable[..., Tensor], Inputs], Tensor]
    plain: Loss | None = None
    torchdistill: Callable[[ModuleType, Inputs], Callable[[], Tensor]] | None = None
    same_direction: bool = True


def inputs(
    kind: str, size: dict[str, Any], device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Inputs:
    """Return random student (with gradient), teacher and other inputs of this kind."""
    generator = torch.Generator().manual_seed(0)
    shape = size["shape"]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype).to(device)

    def whole(below: int, *shape: int) -> Tensor:
        return torch.randint(below, shape, generator=generator).to(device)

    sample = Inputs(
        size="x".join(str(count) for count in shape),
        student=normal(*shape).requires_grad_(),
        teacher=normal(*shape),
    )
    if kind in ("logits", "tokens", "boxes"):
        sample.label = whole(shape[-1], *shape[:-1])
        sample.real_label = normal(*shape)
    if kind == "logits":
        sample.teachers, sample.embedding = normal(tokens.TEACHERS, *shape), normal(shape[0], 128)
        sample.other = normal(*shape).requires_grad_()
    if kind == "tokens":
        ids = whole(shape[-1], shape[0], 64)
        sample.drawn = Sampled(ids, sample.teacher.log_softmax(-1).gather(-1, ids))
    if kind == "boxes":
        sample.box = normal(shape[0], 4).sigmoid() * (shape[1] // 4 - 1)
    elif kind == "regions":
        sample.label = whole(shape[-1], shape[0])
    elif kind in ("maps", "few_maps"):
        count, channels, height, width = shape
        sample.label = whole(20, count, height, width)
        sample.other, sample.other_teacher = normal(*shape).requires_grad_(), normal(*shape)
        sample.mask = whole(2, count, 1, height, width).to(sample.teacher)
        sample.channels = normal(channels).exp().requires_grad_()
        sample.attention = normal(count, 2, 2).softmax(-1).requires_grad_()
    elif kind in ("embeddings", "samples", "triples"):
        count, width = shape
        sample.label = whole(count, count)
        sample.edges = whole(count, 2, 8 * count)
        sample.student_text, sample.teacher_text = normal(*shape).requires_grad_(), normal(*shape)
        sample.memory = F.normalize(normal(size["memory"], width), dim=1)
        sample.matrix = normal(width, width)
    elif kind == "attentions":
        sample.student_shares, sample.teacher_shares = (
            sample.student.detach().softmax(-1).requires_grad_(),
            sample.teacher.softmax(-1),
        )
    return sample


def views(x: Inputs, student: bool) -> DetectionFeatures:
    """Return features and relations; the cost of the other parts is negligible."""
    features, relations = (x.student, x.other) if student else (x.teacher, x.other_teacher)
    return DetectionFeatures(features, x.teacher[:, :, 0, 0], x.teacher[:, :1], relations)


def costs(x: Inputs) -> Tensor:
    index = torch.arange(x.student.shape[-1], device=x.student.device, dtype=x.student.dtype)
    return 1 - (-(index[:, None] - index).abs() / 10).exp()


def first_half(x: Inputs) -> Tensor:
    """Return the pairs of common classes, (P, 2)."""
    return torch.arange(x.student.shape[-1] // 2, device=x.student.device)[:, None].expand(-1, 2)


def same(loss: Callable[..., Tensor], x: Inputs) -> Tensor:
    return loss(x.student, x.teacher)


def labelled(loss: Callable[..., Tensor], x: Inputs) -> Tensor:
    return loss(x.student, x.teacher, x.label)


def limited(count: int, x: Inputs) -> int:
    """Return ``count`` classes, but at most half of all."""
    return min(count, x.student.shape[-1] // 2)


def mse(x: Inputs) -> Tensor:
    return F.mse_loss(x.student, x.teacher)


LOGITS, TOKENS = ("logits",), ("logits", "tokens")
MAPS, EMBEDDINGS, SAMPLES, HIDDEN = ("maps",), ("embeddings",), ("samples",), ("hidden",)


CASES: dict[str, Case] = {
    # labels
    "cross_entropy_loss": Case(
        TOKENS, lambda f, x: f(x.student, x.label), lambda x: F.cross_entropy(x.student, x.label)
    ),
    "label_smoothing_loss": Case(
        TOKENS,
        lambda f, x: f(x.student, x.label),
        lambda x: F.cross_entropy(x.student, x.label, label_smoothing=0.1),
    ),
    "contrastive_loss": Case(
        EMBEDDINGS,
        lambda f, x: f(x.student, x.student_text, 10.0),
        lambda x: contrastive(10 * unit(x.student), unit(x.student_text)),
    ),
    # logits
    "kd_loss": Case(
        TOKENS,
        same,
        lambda x: 4 * kl(x.student, x.teacher, 2),
        through(sides, lambda m: m.KDLoss(**WHERE, temperature=2.0, alpha=0.0)),
    ),
    "kd_loss multi_label": Case(
        LOGITS,
        lambda f, x: f(x.student, x.teacher, multi_label=True),
        lambda x: (
            4
            * (
                F.binary_cross_entropy_with_logits(x.student / 2, torch.sigmoid(x.teacher / 2))
                - plain.bernoulli_entropy(x.teacher / 2)
            )
        ),
    ),
    "kd_loss standardize": Case(
        LOGITS,
        lambda f, x: f(standardize(x.student), standardize(x.teacher)),
        None,
        through(sides, lambda m: m.LogitStdKDLoss(**WHERE, temperature=4.0, alpha=0.0)),
    ),
    "cs_kd_loss": Case(
        LOGITS, lambda f, x: f(x.student, x.student, plain.same_label(x)), plain.cs_kd
    ),
    "ctkd_loss": Case(
        LOGITS,
        lambda f, x: f(x.student, x.teacher, torch.tensor(4.0)),
        lambda x: 16 * kl(x.student, x.teacher, 4),
    ),
    "deit_hard_loss": Case(
        TOKENS, same, lambda x: F.cross_entropy(x.student, x.teacher.argmax(-1))
    ),
    "bild_loss": Case(LOGITS, same, tokens.bild),
    "sinkd_loss": Case(LOGITS, same, tokens.sinkd),
    "spherical_kd_loss": Case(LOGITS, same, tokens.spherical_kd),
    "dist_loss": Case(LOGITS, same, None, through(sides, lambda m: m.DISTLoss(**WHERE))),
    "dkd_loss": Case(TOKENS, labelled, plain.dkd),
    "gkl_loss": Case(TOKENS, same, plain.gkl),
    "listmle_loss": Case(LOGITS, same, plain.listmle),
    "localisation_distillation_loss": Case(
        ("boxes",),
        same,
        lambda x: 100 * 4 * kl(*(side.reshape(-1, side.shape[1] // 4) for side in sides(x)), 10),
    ),
    "logit_mse_loss": Case(TOKENS, same, mse),
    "mft_loss": Case(LOGITS, labelled, plain.mft),
    "mlkd_loss": Case(LOGITS, same, plain.mlkd),
    "mlkd_batch_loss": Case(LOGITS, same, lambda x: plain.mlkd_pairs(x, classes=False)),
    "mlkd_class_loss": Case(LOGITS, same, lambda x: plain.mlkd_pairs(x, classes=True)),
    "nkd_loss": Case(TOKENS, labelled, plain.nkd),
    "normkd_loss": Case(TOKENS, same, plain.normkd),
    "pld_loss": Case(LOGITS, labelled, plain.pld),
    "probability_shift_loss": Case(LOGITS, labelled, plain.probability_shift),
    "ps_kd_loss": Case(LOGITS, labelled, plain.ps_kd),
    "regression_kd_loss": Case(
        LOGITS, lambda f, x: f(x.student, x.teacher, x.real_label), plain.regression_kd
    ),
    "rld_loss": Case(LOGITS, labelled, plain.rld),
    "sdd_loss": Case(("regions",), labelled, plain.sdd),
    "streamlined_kd_loss": Case(LOGITS, same, None, plain.streamlined),
    "direction_loss": Case(
        LOGITS, same, None, through(sides, lambda m: m.SKDDirectionLoss(**WHERE))
    ),
    "tf_kd_loss": Case(
        LOGITS,
        lambda f, x: f(x.student, x.label),
        lambda x: kl(
            x.student,
            torch.full_like(x.student, 0.01 / (x.student.shape[1] - 1)).scatter(
                1, x.label[:, None], 0.99
            )
            / 20,
        ),
    ),
    "ttm_loss": Case(TOKENS, same, lambda x: kl(x.student, 0.1 * x.teacher)),
    "ttm_loss weighted": Case(
        TOKENS,
        lambda f, x: f(x.student, x.teacher, weighted=True),
        lambda x: (
            kl_values(x.student, 0.1 * x.teacher) * (F.softmax(x.teacher, -1) ** 0.1).sum(-1)
        ).mean(),
    ),
    "uskd_loss": Case(LOGITS, labelled, plain.uskd),
    "wkd_logit_loss": Case(
        LOGITS,
        lambda f, x: f(x.student, x.teacher, x.label, costs(x)),
        lambda x: plain.wkd_logit(x, costs(x)),
    ),
    "wsld_loss": Case(LOGITS, labelled, plain.wsld),
    # tokens
    "forward_kl_loss": Case(TOKENS, same, lambda x: kl(x.student, x.teacher)),
    "reverse_kl_loss": Case(LOGITS, same, tokens.reverse_kl),
    "symmetric_kl_loss": Case(LOGITS, same, tokens.symmetric_kl),
    "jsd_loss": Case(TOKENS, same, tokens.jsd),
    "skewed_forward_kl_loss": Case(LOGITS, same, tokens.skewed_forward_kl),
    "skewed_reverse_kl_loss": Case(LOGITS, same, tokens.skewed_reverse_kl),
    "todi_loss": Case(LOGITS, same, tokens.todi),
    "bdkd_loss": Case(LOGITS, same, tokens.bdkd),
    "alphanet_loss": Case(LOGITS, same, tokens.alphanet),
    "sparse_soft_labels_loss": Case(LOGITS, same, tokens.sparse_soft_labels),
    "tvd_loss": Case(LOGITS, same, tokens.tvd),
    "akl_loss": Case(LOGITS, same, tokens.akl),
    "alpha_beta_loss": Case(LOGITS, same, tokens.alpha_beta),
    "taid_loss": Case(LOGITS, lambda f, x: f(x.student, x.teacher, 0.5), tokens.taid),
    "top_k_loss": Case(
        TOKENS,
        lambda f, x: f(x.student, x.teacher, limited(64, x)),
        lambda x: tokens.top(x, limited(64, x)),
    ),
    "top_k_ranking_loss": Case(
        LOGITS,
        lambda f, x: f(x.student, x.teacher, limited(16, x)),
        lambda x: tokens.ranking(x, limited(16, x)),
    ),
    "sampled_kd_loss": Case(("tokens",), lambda f, x: f(x.student, x.drawn), tokens.sampled),
    "opd_loss": Case(LOGITS, labelled, tokens.opd),
    "uld_loss": Case(LOGITS, same, tokens.uld),
    "multilevel_ot_loss": Case(("regions",), same, tokens.multilevel_ot),
    "gold_loss": Case(LOGITS, same, tokens.jsd),
    "gold_loss apart": Case(
        LOGITS, lambda f, x: f(x.student, x.teacher, first_half(x), 0.5, (0.5, 0.5)), tokens.gold
    ),
    "dskd_loss": Case(
        LOGITS, lambda f, x: f(x.student, x.teacher, x.other, x.other, x.label), tokens.dskd
    ),
    "dskd_cma_loss": Case(
        LOGITS,
        lambda f, x: f(
            *(
                part.unflatten(0, (2, -1))
                for part in (x.student, x.teacher, x.other, x.other, x.label, x.label)
            )
        ),
        tokens.dskd_cma,
    ),
    # several teachers, views and versions
    "amtml_kd_loss": Case(
        LOGITS,
        lambda f, x: f(
            x.student,
            x.teachers,
            x.teachers.new_full(x.teachers.shape[:2], 1 / tokens.TEACHERS).log(),
        ),
        tokens.amtml_kd,
    ),
    "amtml_kd_angle_loss": Case(("triples",), same, tokens.amtml_kd_angle),
    "amtml_kd_hint_loss": Case(
        MAPS, same, lambda x: F.mse_loss(x.student, F.normalize(x.teacher, dim=1))
    ),
    "bake_loss": Case(LOGITS, lambda f, x: f(x.student, x.embedding), tokens.bake),
    "camkd_logit_loss": Case(LOGITS, lambda f, x: f(x.student, x.teachers, x.label), tokens.camkd),
    "camkd_feature_loss": Case(
        LOGITS,
        lambda f, x: f([x.student] * tokens.TEACHERS, list(x.teachers), x.teachers, x.label),
        tokens.camkd_feature,
    ),
    "ddgsd_loss": Case(LOGITS, lambda f, x: f(x.student, x.other), tokens.ddgsd),
    "dgkd_loss": Case(
        LOGITS,
        lambda f, x: f(x.student, x.teachers),
        lambda x: 25 * torch.stack([kl(x.student, one, 5) for one in x.teachers]).sum(),
    ),
    "dino_loss": Case(("regions",), lambda f, x: f(x.student, x.teacher[:, :2]), tokens.dino),
    "ebkd_loss": Case(LOGITS, lambda f, x: f(x.student, x.teachers), tokens.ebkd),
    "logit_mae_loss": Case(LOGITS, same, lambda x: F.l1_loss(x.student, x.teacher)),
    "meal_discriminator_loss": Case(
        ("boxes",),
        lambda f, x: f(*(side.view(-1, 2) for side in sides(x))),
        tokens.meal_discriminator,
    ),
    "meal_similarity_loss": Case(LOGITS, same, lambda x: kl(x.student, x.teacher)),
    "mean_discrepancy_loss": Case(
        EMBEDDINGS, same, lambda x: (x.student.mean(0) - x.teacher.mean(0)).square().sum()
    ),
    # real labels
    "denoising_loss": Case(
        MAPS,
        lambda f, x: f(x.student, x.teacher, x.student.detach().mean((1, 2, 3)).exp()),
        lambda x: (
            x.student.detach().mean((1, 2, 3)).exp()
            * (x.student - x.teacher).square().mean((1, 2, 3))
        ).mean(),
    ),
    "mean_squared_error_loss": Case(
        LOGITS, lambda f, x: f(x.student, x.real_label), tokens.mean_squared_error
    ),
    "distribution_focal_loss": Case(
        ("boxes",), lambda f, x: f(x.student, x.box), tokens.distribution_focal
    ),
    # features
    "activation_boundary_loss": Case(
        MAPS,
        same,
        None,
        through(
            sides, lambda m: m.AltActTransferLoss(plain.pairs("student", "teacher"), 1.0, "mean")
        ),
    ),
    "am_radio_spatial_loss": Case(HIDDEN, same, tokens.am_radio_spatial),
    "am_radio_summary_loss": Case(EMBEDDINGS, same, tokens.am_radio_summary),
    "embedding_regression_loss": Case(EMBEDDINGS, same, mse),
    "afd_loss": Case(
        MAPS,
        lambda f, x: f([x.student, x.other], [x.teacher, x.other_teacher], x.attention),
        plain.afd,
    ),
    "attention_transfer_loss": Case(
        MAPS, same, None, through(sides, lambda m: m.ATLoss(plain.pairs("student", "teacher")))
    ),
    "cat_kd_loss": Case(
        MAPS, same, lambda x: F.mse_loss(*(F.adaptive_avg_pool2d(side, 2) for side in sides(x)))
    ),
    "clip_feature_loss": Case(
        EMBEDDINGS,
        lambda f, x: f(x.student, x.student_text, x.teacher, x.teacher_text),
        lambda x: F.mse_loss(x.student, x.teacher) + F.mse_loss(x.student_text, x.teacher_text),
    ),
    "cwd_loss": Case(
        MAPS, same, lambda x: 16 * kl(*(side.flatten(2).flatten(0, 1) for side in sides(x)), 4)
    ),
    "diffkd_loss": Case(
        MAPS,
        lambda f, x: f(x.student, x.teacher, x.attention[:, 0, 0], x.attention[:, 0, 1]),
        plain.diffkd,
    ),
    "distilbert_loss": Case(
        HIDDEN, same, lambda x: 1 - F.cosine_similarity(x.student, x.teacher, dim=-1).mean()
    ),
    "factor_transfer_loss": Case(
        MAPS, same, None, lambda losses, x: plain.factor_transfer(losses, x)
    ),
    "kta_loss": Case(MAPS, same, plain.kta),
    "kta_affinity_loss": Case(MAPS, same, plain.kta_affinity),
    "fbkd_loss": Case(MAPS, lambda f, x: f(views(x, True), views(x, False), x.mask), plain.fbkd),
    "fgd_loss": Case(MAPS, lambda f, x: f(x.student, x.teacher, x.mask, 1 - x.mask), plain.fgd),
    "fitnet_loss": Case(MAPS, same, mse),
    "fsp_loss": Case(
        MAPS,
        lambda f, x: f([x.student, x.other], [x.teacher, x.other_teacher]),
        plain.fsp,
        plain.torchdistill_fsp,
        same_direction=False,
    ),
    "ickd_loss": Case(
        MAPS, same, None, through(sides, lambda m: m.ChSimLoss(plain.pairs("student", "teacher")))
    ),
    "ifvd_loss": Case(MAPS, labelled, plain.ifvd),
    "jacobian_loss": Case(
        MAPS, same, lambda x: F.mse_loss(x.student, x.teacher) * x.student[0, 0].numel()
    ),
    "kdsvd_loss": Case(
        ("few_maps",),
        lambda f, x: f([x.student, x.other], [x.teacher, x.other_teacher]),
        plain.kdsvd,
    ),
    "lwm_loss": Case(MAPS, lambda f, x: f(x.student[:, 0], x.teacher[:, 0]), plain.lwm),
    "mgd_loss": Case(
        MAPS,
        lambda f, x: f(x.student, x.teacher, x.mask, nn.Identity()),
        lambda x: F.mse_loss(x.student * x.mask, x.teacher),
    ),
    "mobilebert_feature_loss": Case(HIDDEN, same, plain.mobilebert),
    "mobilebert_attention_loss": Case(
        ("attentions",),
        lambda f, x: f(x.student_shares, x.teacher_shares),
        lambda x: (
            F.kl_div(x.student_shares.log(), x.teacher_shares, reduction="sum")
            / x.student[:, :, :, 0].numel()
        ),
    ),
    "nst_loss": Case(MAPS, same, plain.nst),
    "ofa_loss": Case(LOGITS, labelled, plain.ofa),
    "ofd_loss": Case(MAPS, lambda f, x: f(x.student, x.teacher, -x.channels.detach()), plain.ofd),
    "pad_loss": Case(
        EMBEDDINGS,
        lambda f, x: f(x.student, x.teacher, x.student_text),
        None,
        lambda losses, x: plain.pad(losses, x),
    ),
    "patient_kd_loss": Case(HIDDEN, same, lambda x: F.mse_loss(unit(x.student), unit(x.teacher))),
    "phi_s_loss": Case(
        EMBEDDINGS,
        lambda f, x: f(x.student, x.teacher, x.matrix[0], x.matrix),
        lambda x: F.mse_loss(x.student, F.linear(x.teacher - x.matrix[0], x.matrix)),
    ),
    "pkd_loss": Case(MAPS, same, plain.pkd),
    "dist_plus_loss": Case(MAPS, same, plain.dist_plus),
    "hcl_loss": Case(MAPS, same, None, plain.hierarchical_context),
    "sad_loss": Case(MAPS, lambda f, x: f(x.student, x.other), plain.sad),
    "norm_loss": Case(MAPS, same, mse),
    "semckd_loss": Case(
        ("attentions",),
        lambda f, x: f(x.student.flatten(0, 1), x.teacher_shares.flatten(0, 1)),
        lambda x: (x.student * x.teacher_shares).sum(-1).mean(),
    ),
    "simkd_loss": Case(MAPS, same, mse),
    "srd_loss": Case(EMBEDDINGS, same, lambda x: (x.student - x.teacher).abs().pow(4).sum().log()),
    "srd_correlation_loss": Case(
        EMBEDDINGS,
        same,
        lambda x: (((x.student * x.teacher).mean(0) - 1).abs().pow(4).sum() + 1e-5).log(),
    ),
    "srrl_loss": Case(
        EMBEDDINGS,
        lambda f, x: f(x.student, x.teacher, x.student_text, x.teacher_text),
        lambda x: F.mse_loss(x.student, x.teacher) + F.mse_loss(x.student_text, x.teacher_text),
    ),
    "theia_loss": Case(HIDDEN, same, plain.theia),
    "tinybert_hidden_loss": Case(HIDDEN, same, mse),
    "tinybert_attention_loss": Case(("attentions",), same, plain.tinybert_attention),
    "unic_loss": Case(HIDDEN, same, plain.unic),
    "vid_loss": Case(MAPS, lambda f, x: f(x.student, x.teacher, x.channels), None, plain.vid),
    "vitkd_mimicking_loss": Case(
        MAPS, same, lambda x: F.mse_loss(x.student, x.teacher, reduction="sum") / len(x.student)
    ),
    "vitkd_generation_loss": Case(
        MAPS,
        lambda f, x: f(x.student, x.teacher, x.mask[:, 0]),
        lambda x: (
            F.mse_loss(x.student * x.mask, x.teacher * x.mask, reduction="sum")
            / len(x.student)
            / 0.5
        ),
    ),
    "vkd_loss": Case(
        HIDDEN,
        same,
        lambda x: F.smooth_l1_loss(x.student, F.layer_norm(x.teacher, x.teacher.shape[-1:])),
    ),
    "wkd_feature_loss": Case(MAPS, same, plain.wkd_feature),
    "wkd_feature_loss full": Case(
        ("few_maps",), lambda f, x: f(x.student, x.teacher, "full"), plain.wkd_feature_full
    ),
    # relations
    "affinity_mimicking_loss": Case(
        LOGITS, same, lambda x: (kl(x.student, x.teacher) + kl(x.student.T, x.teacher.T)) / 2
    ),
    "augmented_feature_loss": Case(
        EMBEDDINGS,
        lambda f, x: f(x.student, x.student_text, 0.1),
        lambda x: contrastive(0.1 * x.student, x.student_text),
    ),
    "cirkd_memory_loss": Case(
        SAMPLES,
        lambda f, x: f(unit(x.student), unit(x.teacher), x.memory),
        lambda x: kl(*(unit(side) @ x.memory.T for side in sides(x)), 0.1),
    ),
    "cirkd_minibatch_loss": Case(("few_maps",), same, plain.cirkd_minibatch),
    "cka_loss": Case(EMBEDDINGS, same, plain.cka),
    "cka_loss rbf": Case(
        EMBEDDINGS, lambda f, x: f(x.student, x.teacher, "rbf"), plain.gaussian_cka
    ),
    "clip_gradient_loss": Case(
        EMBEDDINGS,
        lambda f, x: f(
            (unit(x.student), unit(x.student_text)),
            (unit(x.teacher), unit(x.teacher_text)),
            10.0,
            10.0,
            "paper",
        ),
        plain.clip_gradient,
    ),
    "compress_loss": Case(
        SAMPLES,
        lambda f, x: f(x.student, x.teacher, x.memory, x.memory),
        lambda x: kl(*(unit(side) @ x.memory.T for side in sides(x)), 0.04),
    ),
    "correlation_congruence_loss": Case(
        EMBEDDINGS, same, plain.correlation_congruence, plain.congruence
    ),
    "neighbour_congruence_loss": Case(
        EMBEDDINGS,
        same,
        lambda x: ((x.student - x.teacher)[:-1] * (x.student - x.teacher)[1:]).abs().sum(1).mean(),
    ),
    "crd_loss": Case(SAMPLES, plain.instil_crd, None, plain.crd),
    "darkrank_loss": Case(EMBEDDINGS, same, plain.darkrank),
    "dcd_loss": Case(EMBEDDINGS, same, plain.dcd),
    "psd_loss": Case(
        MAPS, lambda f, x: f([x.student, x.other], [x.teacher, x.other_teacher]), plain.psd
    ),
    "csd_loss": Case(MAPS, same, plain.csd),
    "ega_loss": Case(EMBEDDINGS, same, plain.ega),
    "gcrd_loss": Case(
        EMBEDDINGS,
        lambda f, x: f(unit(x.student), unit(x.teacher)),
        lambda x: contrastive(unit(x.student) / 0.075, unit(x.teacher), False),
    ),
    "gsp_loss": Case(
        EMBEDDINGS, same, lambda x: F.mse_loss(plain.cosines(x.student), plain.cosines(x.teacher))
    ),
    "gsp_loss euclidean": Case(
        EMBEDDINGS,
        lambda f, x: f(x.student, x.teacher, "euclidean"),
        lambda x: F.mse_loss(plain.matmul_distances(x.student), plain.matmul_distances(x.teacher)),
    ),
    "hkd_loss": Case(EMBEDDINGS, same, plain.hkd),
    "interactive_contrastive_loss": Case(
        EMBEDDINGS,
        lambda f, x: f(x.student, x.student_text, x.teacher, x.teacher_text, 0.1),
        lambda x: (
            (
                contrastive(0.1 * x.student, x.teacher_text, False)
                + contrastive(0.1 * x.student_text, x.teacher, False)
            )
            / 2
        ),
    ),
    "irg_graph_loss": Case(EMBEDDINGS, same, plain.irg),
    "irg_transform_loss": Case(
        SAMPLES,
        lambda f, x: f((x.student, x.student_text), (x.teacher, x.teacher_text)),
        plain.irg_transform,
    ),
    "itrd_correlation_loss": Case(EMBEDDINGS, same, plain.itrd),
    "itrd_mutual_loss": Case(EMBEDDINGS, same, plain.itrd_mutual),
    "lsp_loss": Case(EMBEDDINGS, lambda f, x: f(x.student, x.teacher, x.edges), plain.lsp),
    "minilmv2_loss": Case(
        ("attentions",), same, lambda x: kl(x.student.flatten(0, 2), x.teacher.flatten(0, 2))
    ),
    "pkt_loss": Case(
        EMBEDDINGS, same, None, through(sides, lambda m: m.PKTLoss("m", "output", "m", "output"))
    ),
    "rkd_distance_loss": Case(
        EMBEDDINGS, same, None, through(sides, plain.relational(distance=True))
    ),
    "rkd_angle_loss": Case(
        ("triples",), same, None, through(sides, plain.relational(distance=False))
    ),
    "seed_loss": Case(SAMPLES, lambda f, x: f(x.student, x.teacher, x.memory), plain.seed),
    "similarity_preserving_loss": Case(
        EMBEDDINGS,
        same,
        lambda x: F.mse_loss(*(F.normalize(side @ side.T, dim=1) for side in sides(x))),
        through(sides, lambda m: m.SPKDLoss("m", "m", "batchmean")),
        same_direction=False,
    ),
    "skd_pairwise_loss": Case(MAPS, same, plain.skd_pairwise),
    "sskd_transformed_loss": Case(
        ("regions",), same, lambda x: 16 * kl(x.student.flatten(0, 1), x.teacher.flatten(0, 1), 4)
    ),
    "sskd_contrastive_loss": Case(
        SAMPLES,
        lambda f, x: f(
            (x.student, x.student_text[:, None]), (x.teacher, x.teacher_text[:, None]), 0.5, 1.0
        ),
        lambda x: (
            0.25
            * kl(
                unit(x.student_text) @ unit(x.student).T,
                unit(x.teacher_text) @ unit(x.teacher).T,
                0.5,
            )
        ),
    ),
    "wcord_transport_loss": Case(SAMPLES, same, plain.wcord),
}
