"""Losses on heads of different padded sizes equal those on the tokens alone, for live teachers and
recorded ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil import catalogue
from instil.core import Batch, Net, Objectives, Outputs
from instil.core.objective import Objective
from instil.modules.data_tokens import TOKEN_ROLES, DataTokens, without_padding
from instil.networks.causal_transformer import causal_transformer
from instil.store.codecs import encode_outputs
from instil.tasks.bases.causal_model import call
from instil.testing.recipes import small_options
from tests.schemes.texts import LENGTH, VOCABULARY, timed

STUDENT, TEACHER = VOCABULARY + 2, VOCABULARY + 5
OF_IMAGES = {"c2kd", "srrl"}
"""Losses that are undefined for tokens, with any head."""
ROLES = {"logits", "projection", "head", "embedding", "token_embedding"}
"""Roles of a language model."""


def net(size: int, width: int, call_model: Any = call) -> Net:
    """Return a network with a head of this size, whose padding has the largest logits."""
    with torch.random.fork_rng():
        torch.manual_seed(width)
        model: Any = causal_transformer(size, LENGTH, width, 1, 2)
        with torch.no_grad():
            model.head.weight[VOCABULARY:] *= 20
        return Net(model, call_model)


def call_of_tokens(model: nn.Module, batch: Batch, roles: Collection[str] | None = None) -> Outputs:
    """Outputs of the tokens alone, from all logits of the model."""
    outputs = call(model, batch, roles)
    projection = outputs["projection"]
    weight, bias = outputs["head"]
    return {
        "logits": outputs["logits"][..., :VOCABULARY],
        "projection": dataclasses.replace(projection, weight=projection.weight[:VOCABULARY]),
        "head": (weight[:VOCABULARY], bias[:VOCABULARY]),
        "embedding": outputs["embedding"],
        "token_embedding": outputs["token_embedding"],
    }


def losses_of_tokens() -> list[str]:
    """Names of the losses that compare tokens of student and teacher."""
    names = []
    for name in catalogue.names("objective"):
        objective: type[Objective] = catalogue.find("objective", name)
        card = objective.card
        if (
            name in OF_IMAGES
            or card.couples
            or not {"classification", "language"} & set(card.tasks)
        ):
            continue
        teacher_roles = {role for need in objective.needs["teacher"] for role in need}
        has_roles = all(ROLES & set(need) for need in objective.needs["student"])
        if has_roles and TOKEN_ROLES & teacher_roles:
            names.append(name)
    return names


def loss_and_grad(
    student: Net, teacher: Outputs, objective: Objective, select: DataTokens | None
) -> tuple[Tensor, Tensor]:
    """Loss on one batch, and the gradient of the student."""
    batch = timed()
    objectives = Objectives({"one": objective})
    if select is not None:
        objectives.selection = select
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objectives.build(student(batch), teacher)
    loss = objectives(student(batch), teacher, batch).losses["one"]
    student.zero_grad()
    loss.backward()
    grads = [one.grad.flatten() for one in student.parameters() if one.grad is not None]
    return loss.detach(), torch.cat(grads)


@pytest.mark.parametrize("name", losses_of_tokens())
def test_only_the_tokens_are_compared(name: str) -> None:
    kind = catalogue.find("objective", name)
    results = []
    for call_model, select in ((call_of_tokens, None), (call, DataTokens(VOCABULARY, VOCABULARY))):
        student, teacher = net(STUDENT, 8, call_model), net(TEACHER, 12, call_model)
        with torch.no_grad():
            outputs = teacher(timed())
        results.append(loss_and_grad(student, outputs, kind(**small_options(name)), select))
    (expected, expected_grad), (loss, grad) = results
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize(("codec", "name"), [("top", "top_k"), ("sampled", "sampled_kd")])
def test_recorded_classes_are_tokens(codec: Any, name: str) -> None:
    batch = timed() | {"view": torch.zeros(16, dtype=torch.int64)}
    kind = catalogue.find("objective", name)
    with torch.no_grad():
        outputs = net(TEACHER, 12)(batch)
        expected_outputs = net(TEACHER, 12, call_of_tokens)(batch)
    recorded = without_padding({"projection": outputs["projection"]}, {"projection"}, VOCABULARY)
    records = [encode_outputs(part, batch, codec, 4) for part in (expected_outputs, recorded)]
    expected = loss_and_grad(net(STUDENT, 8, call_of_tokens), records[0], kind(), None)
    select = DataTokens(VOCABULARY, VOCABULARY)
    result = loss_and_grad(net(STUDENT, 8), records[1], kind(), select)
    torch.testing.assert_close(result, expected)


def test_members_of_an_ensemble_have_one_size() -> None:
    with torch.no_grad():
        members = (net(TEACHER, 12)(timed()), net(STUDENT, 8)(timed()))
    cut = without_padding({"members": members}, {"members"}, VOCABULARY)["members"]
    assert [part["logits"].shape[-1] for part in cut] == [VOCABULARY, VOCABULARY]
    torch.testing.assert_close(cut[0]["logits"], members[0]["logits"][..., :VOCABULARY])
    low_rank = (torch.ones(2, 12), torch.ones(TEACHER, 2))
    adapted = dataclasses.replace(
        members[0]["projection"], low_rank=low_rank, bias=torch.ones(TEACHER)
    )
    cut = without_padding({"projection": adapted}, {"projection"}, VOCABULARY)["projection"]
    torch.testing.assert_close(cut.logits(), adapted.logits()[..., :VOCABULARY])


def test_the_loss_on_labels_reads_the_whole_head() -> None:
    objective = catalogue.find("objective", "cross_entropy")()
    student, teacher = net(STUDENT, 8)(timed()), net(TEACHER, 12)(timed())
    select = DataTokens(VOCABULARY, VOCABULARY)
    assert select(objective, student, teacher, {})[:2] == (student, teacher)
