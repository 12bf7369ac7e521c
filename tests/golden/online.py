"""Adapters for schemes in which networks or branches teach each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from instil.functional.peer_ensembles import best_logits, minimum_logits
from instil.objectives.labels.cross_entropy import cross_entropy_loss
from instil.objectives.logits.kd import kd_loss
from instil.schemes.online.mutual import averaged_logits
from instil.schemes.online.okddip import mixed_logits, peer_attention
from instil.schemes.online.one import Gate, gated_logits
from instil.schemes.self_distillation.byot import byot_hint_loss
from tests.golden.cases import Case
from tests.golden.logits import Answer, temperature

LIFTED = 1e-7
"""What some code adds to the probabilities of a teacher."""


def stored_outputs(case: Case, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the outputs that the case contains."""
    return {name: value for name, value in outputs.items() if name in case}


def students(case: Case, role: str = "logits") -> list[Tensor]:
    """Return the role of every student that has it, in their order."""
    keys = [
        name.split(".")[1]
        for name in case.arrays
        if name.startswith("students.") and name.endswith(f".{role}")
    ]
    return [case[f"students.{index}.{role}"] for index in sorted(keys, key=int)]


def label(case: Case, logits: Tensor) -> Tensor:
    return cross_entropy_loss(logits, case["target"])


def distilled(case: Case, student: Tensor, teacher: Tensor) -> Tensor:
    """T² KL with the first-order effect of 1e-7 added to the teacher probabilities."""
    soft = temperature(case)
    loss = kd_loss(student, teacher, soft)
    if "1e-7" not in case.formula:
        return loss
    apart = (teacher / soft).log_softmax(-1) - (student / soft).log_softmax(-1)
    return loss + soft**2 * LIFTED * (1 + apart).sum(-1).mean()


def kdcl(case: Case) -> Answer:
    """All networks learn from the best, minimum or mean logits. The best one excludes itself."""
    nets = students(case)
    stacked = torch.stack(nets).detach()
    if "smallest batch CE" in case.formula:
        teacher = best_logits(stacked, case["target"], per="batch")
    elif "min over models" in case.formula:
        teacher = minimum_logits(stacked, case["target"])
    elif "mean of all logits" in case.formula:
        teacher = averaged_logits(list(stacked), "logits")
    else:
        raise NotImplementedError(f"formula: {case.formula}")
    soft = torch.stack([distilled(case, net, teacher) for net in nets])
    if case.mentions("no cross-entropy"):
        return soft.sum(), {}
    share = case.option("alpha")
    losses = (1 - share) * torch.stack([label(case, net) for net in nets]) + share * soft
    return losses.sum(), stored_outputs(case, {"part.models": losses})


def one(case: Case) -> Answer:
    nets, features = students(case), case["gate.features"]
    gate = Gate(features.shape[1], len(nets), "batch").double()
    gate.train(case.option("bn_training", True))
    names = {"control_v1": "score", "bn_v1": "norm"}
    values = {
        f"{names[name.split('.')[0]]}.{name.split('.')[1]}": value
        for name, value in case.params().items()
    }
    weights = functional_call(
        gate,
        {
            name: value.clone() if "running" in name or "num" in name else value
            for name, value in values.items()
        },
        features,
    )
    together = gated_logits(torch.stack(nets, 1), weights)
    hard = torch.stack([label(case, logits) for logits in (*nets, together)]).sum()
    soft = (
        case.option("consistency_weight", 1.0)
        * torch.stack([distilled(case, net, together.detach()) for net in nets]).sum()
    )
    return hard + soft, stored_outputs(case, {"gate": weights, "part.ce": hard, "part.kl": soft})


def okddip(case: Case) -> Answer:
    case.ignore("num_branches")
    *nets, leader = students(case)
    embeddings = torch.stack(students(case, "embedding"), 1)
    attention = peer_attention(
        *(embeddings @ case.param(f"{name}_weight.weight").T for name in ("query", "key"))
    )
    logits = torch.stack(nets, 1)
    mixed = mixed_logits(logits, attention).unbind(1)
    hard = torch.stack([label(case, net) for net in nets]).sum()
    group = torch.stack(
        [distilled(case, net, teacher) for net, teacher in zip(nets, mixed, strict=True)]
    ).sum()
    led = distilled(case, leader, logits.mean(1))
    weight = case.option("alpha", 1.0) * case.option("consistency_weight", 1.0)
    loss = hard + label(case, leader) + weight * (group + led)
    return loss, stored_outputs(
        case, {"attention": attention, "part.ce_peers": hard, "part.group": group}
    )


def byot(case: Case) -> Answer:
    """Cross-entropy with the deepest logits, or KL, plus a hint.

    The hint is a sum over the batch, or a mean over all entries of the second and later features.
    """
    deepest, *shallow = students(case)
    teacher, soft = deepest.detach(), temperature(case)
    hard = torch.stack([label(case, logits) for logits in (deepest, *shallow)]).sum()
    loss = torch.stack([distilled(case, logits, teacher) for logits in shallow]).sum()
    features = students(case, "embedding")
    if case.mentions("soft cross-entropy"):
        entropy = torch.special.entr((teacher / soft).softmax(-1)).sum(-1).mean()
        loss = loss + len(shallow) * soft**2 * entropy
        hint = torch.stack(
            [byot_hint_loss(one, features[0], reduction="none").sum() for one in features[1:]]
        ).sum()
        share = case.option("alpha")
        return (1 - share) * hard + share * loss + case.option("beta") * hint, stored_outputs(
            case, {"part.kd": loss, "part.feature": hint}
        )
    if not case.mentions("0.05 * MSE mean"):
        raise NotImplementedError(f"reduction: {case.reduction}")
    target = features[1]
    hints = [
        byot_hint_loss(one, target, positive=False) / target[0].numel() for one in features[2:]
    ]
    loss = loss + 0.05 * torch.stack(hints).sum() if hints else loss
    return hard + loss, stored_outputs(case, {"part.ce": hard, "part.div": loss})


def dks(case: Case) -> Answer:
    nets = students(case)
    hard = torch.stack([label(case, net) for net in nets]).sum()
    pairs = [
        distilled(case, net, other.detach())
        for i, net in enumerate(nets)
        for j, other in enumerate(nets)
        if i != j
    ]
    soft = torch.stack(pairs).sum()
    return hard + soft, stored_outputs(case, {"part.ce": hard, "part.div": soft})


ADAPTERS = {"kdcl": kdcl, "one": one, "okddip": okddip, "byot": byot, "dks": dks}
