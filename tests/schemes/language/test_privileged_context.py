"""The network that reads the context, the positions of the context, and the student without it."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from instil.core import Batch
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.reverse_kl import ReverseKL
from instil.schemes.language.privileged_context import (
    AdapterOff,
    PrivilegedContext,
    with_context,
    without_context,
)
from instil.students.lora import lora
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.texts import END, SAMPLING, informed, net, timed, with_hints


def make_scheme(
    reader: Literal["average", "teacher"] = "average", share: float = 0.4, decay: float = 0.9
) -> PrivilegedContext:
    goals = {"reverse_kl": ReverseKL(), "cross_entropy": CrossEntropy()}
    return PrivilegedContext(
        informed(), Frozen(informed(seed=1)), goals, reader, decay, share, SAMPLING
    )


@pytest.mark.parametrize("reader", ["average", "teacher"])
def test_contracts(reader: Literal["average", "teacher"]) -> None:
    check_scheme(lambda: make_scheme(reader), with_hints)


def test_roles_that_no_loss_reads_are_not_computed() -> None:
    scheme, batch = make_scheme(), with_hints() | timed()
    assert "hidden_states" in scheme.teacher_outputs(batch)
    scheme.prepare(batch)
    outputs = scheme.teacher_outputs(batch)
    assert "logits" in outputs
    assert "hidden_states" not in outputs


def test_outputs_equal_those_of_the_context_and_row_concatenated() -> None:
    model, batch = informed(), with_hints(size=6)
    outputs = without_context(model(with_context(batch)), batch)
    for row in range(6):
        hint = batch["context_ids"][row][batch["context_mask"][row].bool()]
        text = batch["input_ids"][row][batch["attention_mask"][row].bool()]
        alone = model({"input_ids": torch.cat([hint, text])[None]})
        torch.testing.assert_close(
            outputs["logits"][row, : len(text)], alone["logits"][0, len(hint) :]
        )
        torch.testing.assert_close(
            outputs["projection"].hidden[row, : len(text)],
            alone["projection"].hidden[0, len(hint) :],
        )
    assert outputs["logits"].shape[:2] == batch["input_ids"].shape


def test_the_student_does_not_see_the_context() -> None:
    scheme, batch = make_scheme(share=1.0), with_hints() | timed()
    other = batch | {"context_ids": (batch["context_ids"] + 1) % END}
    scheme.prepare(batch)
    one, two = scheme.before_step(batch), scheme.before_step(other)
    assert torch.equal(one["input_ids"], two["input_ids"])
    torch.testing.assert_close(
        scheme.student(one)["logits"], scheme.student(two)["logits"], rtol=0, atol=0
    )
    assert not torch.equal(
        scheme.teacher_outputs(one)["logits"], scheme.teacher_outputs(two)["logits"]
    )


def test_average_follows_the_student_unless_decay_is_one() -> None:
    batch, fixed = with_hints(), make_scheme(decay=1.0)
    average = make_scheme(decay=0.5)
    for scheme in (fixed, average):
        scheme.prepare(batch)
        before = scheme.teacher_outputs(batch)["logits"]
        with torch.no_grad():
            for parameter in scheme.student.parameters():
                parameter.add_(torch.randn_like(parameter))
        scheme.after_step({})
        assert torch.equal(scheme.teacher_outputs(batch)["logits"], before) == (scheme is fixed)
    with pytest.raises(ValueError, match="needs a teacher"):
        PrivilegedContext(informed(), None, {"reverse_kl": ReverseKL()}, "teacher").prepare(batch)
    with pytest.raises(ValueError, match=r"reads a context\. Expected 'context_ids'.*Use data w"):
        make_scheme().prepare(timed())


@pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.*:FutureWarning"
)  # peft uses the older name in transformers
def test_the_student_without_its_adapters_is_its_initial_state() -> None:
    pytest.importorskip("peft")
    from instil.core import Net
    from instil.tasks.language import call
    from tests.students.nets import llama

    batch: Batch = with_hints() | timed()
    student = Net(lora(llama(), rank=2), call)
    scheme = PrivilegedContext(
        student, None, {"reverse_kl": ReverseKL()}, "adapter_off", sampling=SAMPLING
    )
    scheme.prepare(batch)
    before, mode = scheme.teacher_outputs(batch)["logits"], student.training
    adapters = [parameter for name, parameter in student.named_parameters() if "lora_B" in name]
    with torch.no_grad():
        for parameter in adapters:
            parameter.add_(1.0)
    assert torch.equal(scheme.teacher_outputs(batch)["logits"], before)
    assert not torch.allclose(student(with_context(batch))["logits"][:, :8], before)
    assert all(parameter.requires_grad for parameter in adapters)
    assert student.training == mode
    assert len(list(scheme.parameters())) == len(list(student.parameters())), (
        "there is no second copy"
    )
    with pytest.raises(ValueError, match="CausalTransformer has no adapters to switch off"):
        AdapterOff(net())


def test_the_token_that_begins_a_text_stays_before_the_context() -> None:
    batch = with_hints(size=6) | {"num_bos": torch.tensor([1, 0, 1, 1, 0, 1])}
    rows = with_context(batch)
    model = informed()
    outputs = without_context(model(rows), batch)
    for row, num_bos in enumerate(batch["num_bos"].tolist()):
        hint = batch["context_ids"][row][batch["context_mask"][row].bool()]
        text = batch["input_ids"][row][batch["attention_mask"][row].bool()]
        whole = torch.cat([text[:num_bos], hint, text[num_bos:]])
        assert torch.equal(rows["input_ids"][row, : len(whole)], whole)
        assert rows["attention_mask"][row].sum() == len(whole)
        alone = model({"input_ids": whole[None]})["logits"][0, len(hint) :]
        torch.testing.assert_close(outputs["logits"][row, : len(text)], alone)
