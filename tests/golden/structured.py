"""Adapters for losses on dense maps, graphs, and pairs of images and texts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED
from instil.functional.directions import l2_normalize
from instil.functional.feature_maps import downsample_labels, flatten_spatial
from instil.functional.graph import log_softmax_into
from instil.functional.similarities import scaled_similarities
from instil.modules.connectors import convolutions
from instil.objectives.features.attention_transfer import attention_transfer_loss
from instil.objectives.features.clip_feature import clip_feature_loss
from instil.objectives.features.ifvd import ifvd_loss
from instil.objectives.relations.affinity_mimicking import affinity_mimicking_loss
from instil.objectives.relations.augmented_feature import augmented_feature_loss
from instil.objectives.relations.cirkd_memory import cirkd_memory_loss
from instil.objectives.relations.cirkd_minibatch import cirkd_minibatch_loss
from instil.objectives.relations.clip_gradient import clip_gradient_loss
from instil.objectives.relations.dsd import csd_loss, psd_loss
from instil.objectives.relations.gcrd import gcrd_loss
from instil.objectives.relations.gsp import gsp_loss
from instil.objectives.relations.interactive_contrastive import interactive_contrastive_loss
from instil.objectives.relations.lsp import edge_values, lsp_loss
from instil.objectives.relations.skd_pairwise import skd_pairwise_loss
from tests.golden.cases import Case

Answer = tuple[Tensor, dict[str, Tensor]]
KERNELS = {"cosine": "cosine", "poly": "polynomial", "l2": "euclidean", "rbf": "gaussian"}


def labels(case: Case) -> Tensor:
    """Return pixel labels with -100 for ignored pixels."""
    target = case["target"]
    ignored = target == case.option("ignore_label", 255)
    if (
        "classes" in case.options
    ):  # IFVD: a pixel of an unknown class has a difference of 0 for every label
        ignored = ignored | (target < 0) | (target >= case.option("classes"))
    return target.masked_fill(ignored, UNLABELLED)


def parts(case: Case, terms: dict[str, Tensor]) -> Answer:
    """Return the weighted sum of the terms, and the terms that the case contains."""
    weighted = [
        case.option(f"lambda_{name}", case.option(f"{name}_weight", 1.0)) * term
        for name, term in terms.items()
    ]
    held = {
        f"{kind}.{name}": term
        for name, term in terms.items()
        for kind in ("loss", "part")
        if f"{kind}.{name}" in case
    }
    return torch.stack(weighted).sum(), held


def skd_pairwise(case: Case) -> Tensor:
    pooling = case.option("pooling", "max")
    if pooling not in ("max", "avg", "average"):
        raise NotImplementedError(f"pooling '{pooling}'")
    terms = []
    for student, teacher in case.pairs():
        height, width = teacher.shape[2:]
        pool = case.option("pool", 2)
        scale = case.option("scale")
        patch = (pool, pool) if scale is None else (int(height * scale), int(width * scale))
        through = "detached" not in case.formula.lower()
        terms.append(
            skd_pairwise_loss(
                student, teacher, patch, "max" if pooling == "max" else "average", through
            )
        )
    return torch.stack(terms).sum()


def ifvd(case: Case) -> Tensor:
    """The official mean includes unlabelled positions, whose difference is 0."""
    target, terms = labels(case), []
    for student, teacher in case.pairs():
        share = (downsample_labels(target, student.shape[2:]) != UNLABELLED).double().mean(1)
        terms.append((ifvd_loss(student, teacher, target, reduction="none") * share).mean())
    return torch.stack(terms).sum()


def cirkd_minibatch(case: Case) -> Tensor:
    pool = 2 if case.option("pooling", False) is True else 1
    return torch.stack(
        [
            cirkd_minibatch_loss(s, t, case.option("temperature", 0.1), case.option("pool", pool))
            for s, t in case.pairs()
        ]
    ).sum()


def cirkd_memory(case: Case) -> Answer:
    case.ignore("num_classes")
    ((student, teacher),) = case.pairs()
    official = {
        name: value.clone() if "running" in name or "num_" in name else value
        for name, value in case.params("project_head.").items()
    }
    source, target = official["0.weight"].shape[1], official["3.weight"].shape[0]
    projector = convolutions(
        [source, official["0.weight"].shape[0], target], [1, 1], "batch", "plain"
    ).double()
    projector.train(case.option("bn_training", True))
    counted = downsample_labels(labels(case), student.shape[2:]) != UNLABELLED
    own = l2_normalize(
        flatten_spatial(torch.func.functional_call(projector, official, (student,)))
    )[counted]
    reference = l2_normalize(flatten_spatial(teacher))[counted]
    terms = {}
    for name in ("pixel", "region"):
        memory = case[f"{name}_queue"][:, case[f"{name}_index"]].flatten(0, 1)
        temperatures = (
            case.option("contrast_temperature", 0.1),
            case.option("contrast_kd_temperature", 1.0),
        )
        terms[name] = cirkd_memory_loss(own, reference, memory, *temperatures)
    return parts(case, terms)


def dsd(case: Case) -> Answer:
    students, teachers = case.stages("student.features"), case.stages("teacher.features")
    power = float(case.option("p", 2))
    if power % 2 and any((stage < 0).any() for stage in (*students, *teachers)):
        raise NotImplementedError(
            f"signed features to the power {power:g}: this package uses absolute values"
        )
    category = csd_loss(students[-1], teachers[-1], case.option("tau", 4.0), case.option("pool", 2))
    return parts(case, {"psd": psd_loss(students, teachers, power), "csd": category})


def lsp(case: Case) -> Tensor:
    """Mean over nodes in the authors' code.

    Mean over edges or squared difference in efficient-gnns.
    """
    student, teacher, edges = (
        case["student.embedding"],
        case["teacher.embedding"],
        case["edge_index"],
    )
    if "kernel" not in case.options:
        values = lsp_loss(
            student, teacher, edges, "laplacian", case.option("scale", 100.0), reduction="none"
        )
        return values.mean()
    kernel = KERNELS[case.option("kernel")]
    criterion = case.option("criterion", "kld")
    if criterion == "kld":
        return (
            lsp_loss(student, teacher, edges, kernel, 1.0, reduction="none").sum() / edges.shape[1]
        )  # type: ignore[arg-type]
    if criterion != "mse":
        raise NotImplementedError(f"criterion '{criterion}'")
    every = torch.ones_like(edges[0], dtype=torch.bool)
    own, reference = (
        log_softmax_into(edge_values(side, edges, kernel), edges[1], len(side), every).exp()
        for side in (student, teacher)
    )  # type: ignore[arg-type]
    return F.mse_loss(own, reference)


def at_graph(case: Case) -> Tensor:
    """All nodes are positions of one map."""
    student, teacher = (
        case[f"{side}.embedding"].T[None, :, :, None] for side in ("student", "teacher")
    )
    return attention_transfer_loss(student, teacher, case.option("p", 2.0))


def gsp(case: Case) -> Tensor:
    return gsp_loss(
        case["student.embedding"],
        case["teacher.embedding"],
        KERNELS[case.option("kernel", "cosine")],
    )  # type: ignore[arg-type]


def gcrd(case: Case) -> Tensor:
    return gcrd_loss(
        l2_normalize(case["student.embedding"]),
        l2_normalize(case["teacher.embedding"]),
        case.option("nce_T", 0.075),
    )


def pair(case: Case, side: str) -> tuple[Tensor, Tensor]:
    return case[f"{side}.image_embedding"], case[f"{side}.text_embedding"]


def projected(case: Case) -> tuple[Tensor, Tensor]:
    """Return normalised student embeddings after the projections of the case, if it has them."""
    image, text = pair(case, "student")
    if "param.visual_proj.weight" in case:
        image = F.linear(image, case.param("visual_proj.weight"), case.param("visual_proj.bias"))
        text = F.linear(text, case.param("text_proj.weight"), case.param("text_proj.bias"))
    return l2_normalize(image), l2_normalize(text)


def scales(case: Case) -> tuple[float, float]:
    return case.option("logit_scale", 1.0), case.option("teacher_logit_scale", 1.0)


def weighted(case: Case, loss: Tensor) -> Tensor:
    return loss * float(case.option("weight", 1.0))


def clipkd_fd(case: Case) -> Tensor:
    case.ignore("logit_scale", "teacher_logit_scale")
    return weighted(case, clip_feature_loss(*projected(case), *pair(case, "teacher")))


def clipkd_gd(case: Case) -> Tensor:
    return weighted(case, clip_gradient_loss(projected(case), pair(case, "teacher"), *scales(case)))


def clipkd_icl(case: Case) -> Tensor:
    case.ignore("logit_scale", "teacher_logit_scale")  # the loss has its own scale
    return weighted(
        case,
        interactive_contrastive_loss(
            *projected(case), *pair(case, "teacher"), case.param("cross_logit_scale")
        ),
    )


def clipkd_crd(case: Case) -> Tensor:
    image, text = pair(case, "student")
    student, teacher = scales(case)
    loss = affinity_mimicking_loss(
        scaled_similarities(l2_normalize(image), l2_normalize(text), student),
        scaled_similarities(*pair(case, "teacher"), teacher),
    )
    return weighted(case, loss)


def clipkd_afd(case: Case) -> Tensor:
    case.ignore("logit_scale", "teacher_logit_scale")  # the loss has its own scale
    fused = []
    for name, student, teacher in zip(
        ("visual", "text"), projected(case), pair(case, "teacher"), strict=True
    ):
        parameters = (
            case.param(f"{name}_fusion_proj.weight"),
            case.param(f"{name}_fusion_proj.bias"),
        )
        fused.append(l2_normalize(F.linear(torch.cat([student, teacher], 1), *parameters)))
    return weighted(
        case, augmented_feature_loss(fused[0], fused[1], case.param("fusion_logit_scale"))
    )


def tinyclip(case: Case) -> Tensor:
    """The loss of the code includes the entropy of the teacher."""
    student, teacher = (
        scaled_similarities(*pair(case, side), scale)
        for side, scale in zip(("student", "teacher"), scales(case), strict=True)
    )
    loss = affinity_mimicking_loss(student, teacher)
    if not case.mentions("entropy not subtracted"):
        return loss
    entropies = [-(t.softmax(1) * t.log_softmax(1)).sum(1).mean() for t in (teacher, teacher.T)]
    return loss + (entropies[0] + entropies[1]) / 2


ADAPTERS = {
    "skd_pairwise": skd_pairwise,
    "ifvd": ifvd,
    "cirkd_minibatch": cirkd_minibatch,
    "cirkd_memory": cirkd_memory,
    "dsd": dsd,
    "lsp": lsp,
    "at_graph": at_graph,
    "gsp": gsp,
    "gcrd": gcrd,
    "clipkd_fd": clipkd_fd,
    "clipkd_gd": clipkd_gd,
    "clipkd_icl": clipkd_icl,
    "clipkd_crd": clipkd_crd,
    "clipkd_afd": clipkd_afd,
    "tinyclip": tinyclip,
}
