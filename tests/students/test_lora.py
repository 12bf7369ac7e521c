"""Adapters: no change of the initial outputs; only adapters are trained."""

from __future__ import annotations

import copy

import pytest
import torch

from instil.students.lora import lora
from instil.tasks.language import call
from tests.students.nets import IDS, llama, logits

pytest.importorskip("peft")


@pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.*:FutureWarning"
)  # peft uses the older name in transformers
def test_only_the_adapters_learn() -> None:
    model = llama()
    student = lora(copy.deepcopy(model), rank=2)
    torch.testing.assert_close(logits(student), logits(model))
    call(student, IDS)["logits"].square().sum().backward()
    learned = {name for name, parameter in student.named_parameters() if parameter.grad is not None}
    assert learned == {name for name, _ in student.named_parameters() if "lora" in name}
    assert len(learned) == 5 * 7 * 2, "all linear layers but the head"
    few = lora(copy.deepcopy(model), modules=["q_proj"])
    assert sum(parameter.requires_grad for parameter in few.parameters()) == 5 * 2
    with pytest.raises(ValueError, match=r"modules: no linear layer has the name 'no_such'"):
        lora(copy.deepcopy(model), modules=["no_such"])
    with pytest.raises(ValueError, match=r"name 'v_prj'\. Did you mean v_proj"):
        lora(copy.deepcopy(model), modules=["self_attn.q_proj", "v_prj"])


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_alpha_over_rank_scales_what_is_added() -> None:
    student = lora(llama(), rank=2, alpha=6, modules=["q_proj"])
    assert student.base_model.model.model.layers[0].self_attn.q_proj.scaling[
        "default"
    ] == torch.tensor(3.0)
