"""Language modelling: metrics compared with loops, outputs of several families, errors."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import instil
from instil.core import Net, Objectives
from instil.engine import Optimization
from instil.networks.causal_transformer import causal_transformer
from instil.objectives.features.fitnet import FitNet
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.objectives.logits.regression_kd import RegressionKD
from instil.tasks.bases import causal_model, token_chunks
from instil.tasks.language import Language, call
from instil.teachers.frozen import Frozen
from instil.training.fit import Training
from tests.tasks.samples import NextTokenProbe, rows

IDS = {
    "input_ids": torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]]),
    "attention_mask": torch.ones(2, 6, dtype=torch.int64),
}
TINY = {
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
FAMILIES = {
    "llama": {},
    "gemma2": {"final_logit_softcapping": 0.5, "head_dim": 4},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 3.0},
    "gpt2": {"n_embd": 8, "n_layer": 2, "n_head": 2},
}


def family(name: str) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        name, **(TINY if name != "gpt2" else {"vocab_size": 11}), pad_token_id=0, **FAMILIES[name]
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_projection_and_logits_equal_those_of_the_model(name: str) -> None:
    model = family(name)
    with torch.no_grad():
        outputs, expected = call(model, IDS), model(**IDS).logits
        torch.testing.assert_close(outputs["logits"], expected)
        assert torch.equal(outputs["prediction"], expected.argmax(-1))
    assert len(outputs["hidden_states"]) == 3
    assert not isinstance(outputs["projection"].weight, nn.Parameter)


def test_the_head_is_not_applied_before_logits_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = causal_transformer(11, width=8), []
    original = causal_model.projected
    monkeypatch.setattr(
        causal_model, "projected", lambda *args: calls.append(args) or original(*args)
    )
    outputs = Net(model, call)(IDS)
    assert "logits" in outputs
    assert calls == []
    torch.testing.assert_close(outputs["logits"], model(**IDS)["logits"])
    outputs["logits"].sum().backward()
    assert model.head.weight.grad is not None
    assert len(calls) == 1


def test_deferred_logits_of_a_teacher_have_no_gradient() -> None:
    model = causal_transformer(11, width=8)
    with torch.no_grad():
        outputs = call(model, IDS)
    assert not outputs["logits"].requires_grad
    assert not Frozen(Net(model, call))(IDS)["logits"].requires_grad


# peft reads an attribute of transformers by its older name.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_an_adapter_on_the_head_changes_the_logits() -> None:
    peft = pytest.importorskip("peft")
    model = family("llama")
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(target_modules=["lm_head", "q_proj"], r=2, init_lora_weights=False)
    ).eval()
    outputs = call(adapted, IDS)
    torch.testing.assert_close(outputs["logits"], adapted(**IDS).logits)
    outputs["logits"].sum().backward()
    assert all(p.grad is not None for name, p in adapted.named_parameters() if "lora" in name)
    with adapted.disable_adapter():
        torch.testing.assert_close(call(adapted, IDS)["logits"], adapted(**IDS).logits)


def test_causal_transformer_ignores_later_tokens_and_padding() -> None:
    model = causal_transformer(11, width=8).eval()
    changed = {**IDS, "input_ids": IDS["input_ids"].clone()}
    changed["input_ids"][:, 4:] = 0
    torch.testing.assert_close(
        call(model, IDS)["logits"][:, :4], call(model, changed)["logits"][:, :4]
    )
    padded = {**changed, "attention_mask": (torch.arange(6) < 4).long().expand(2, 6)}
    torch.testing.assert_close(
        call(model, padded)["logits"][:, :4], call(model, IDS)["logits"][:, :4]
    )


def fixed_net(logits: Tensor) -> Net:
    return Net(
        nn.Identity(),
        lambda _, batch: {
            "logits": logits[batch["index"]],
            "prediction": logits[batch["index"]].argmax(-1),
        },
    )


def test_metrics_equal_loops_over_the_labelled_tokens() -> None:
    batch = rows() | {"index": torch.arange(12)}
    batch["bytes"] = torch.arange(60).view(12, 5) % 4
    student_logits, teacher_logits = torch.randn(
        2, 12, 5, 9, generator=torch.Generator().manual_seed(0)
    )
    metrics = Language().evaluate(
        fixed_net(student_logits), [batch], Frozen(fixed_net(teacher_logits))
    )[0]
    positions = [(n, t) for n in range(12) for t in range(5) if batch["valid"][n, t]]
    losses = [
        -math.log(float(student_logits[n, t].softmax(0)[batch["label"][n, t]]))
        for n, t in positions
    ]
    right = [int(student_logits[n, t].argmax()) == int(batch["label"][n, t]) for n, t in positions]
    same = [
        int(student_logits[n, t].argmax()) == int(teacher_logits[n, t].argmax())
        for n, t in positions
    ]
    loss = sum(losses) / len(losses)
    expected = {"loss": loss, "perplexity": math.exp(loss)}
    expected |= {"accuracy": sum(right) / len(right), "agreement": sum(same) / len(same)}
    expected["bits_per_byte"] = (
        sum(losses) / math.log(2) / sum(int(batch["bytes"][n, t]) for n, t in positions)
    )
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_metrics_do_not_depend_on_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = causal_transformer(9, length=5, width=8).eval(), rows()
    whole = Language().evaluate(Net(model, call), [batch])[0]
    monkeypatch.setattr(token_chunks, "CHUNK", 40)
    assert Language().evaluate(Net(model, call), [batch])[0] == pytest.approx(whole)
    logits = Language().evaluate(
        Net(
            model,
            lambda model, batch: {
                "logits": model(batch["input_ids"], batch["attention_mask"])["logits"]
            },
        ),
        [batch],
    )
    assert logits[0] == pytest.approx(whole)


def test_a_batch_without_labels() -> None:
    batch = rows() | {"label": torch.full((12, 5), -100)}
    with pytest.raises(ValueError, match="no token to evaluate on has a label"):
        Language().evaluate(Net(NextTokenProbe(), call), [batch])
    model = NextTokenProbe()
    objectives = Objectives({"cross_entropy": CrossEntropy(), "kd": KD()})
    outputs = Net(model, call)(batch)
    teacher = {"logits": outputs["logits"].detach() + torch.randn(12, 5, 9)}
    update = objectives(outputs, teacher, batch | {"valid": torch.zeros(12, 5, dtype=torch.bool)})
    assert {name: loss.item() for name, loss in update.losses.items()} == {
        "cross_entropy": 0,
        "kd": 0,
    }
    sum(update.losses.values()).backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in model.parameters())


def test_invalid_objectives_data_and_models_raise() -> None:
    task = Language()
    task.check({"kd": KD(), "cross_entropy": CrossEntropy()})
    with pytest.raises(ValueError, match="RegressionKD is undefined for language modelling"):
        task.check({"it": RegressionKD()})
    with pytest.raises(ValueError, match=r"objectives\.hint: FitNet compares whole samples"):
        task.check({"hint": FitNet()})
    batch = rows()
    with pytest.raises(ValueError, match="these labels are the tokens themselves"):
        task.check_data(batch | {"label": batch["input_ids"]})
    with pytest.raises(ValueError, match=r"needs a token for each position of \(12, 5\)"):
        task.check_data(batch | {"label": batch["label"][:, 0]})
    with pytest.raises(
        ValueError, match="its vocabulary has 11 tokens, the tokenizer of the data has 12"
    ):
        task.check_model(causal_transformer(11), {"vocabulary": 12})
    task.check_model(causal_transformer(16), {"vocabulary": 12})
    with pytest.raises(
        ValueError, match="6 tokens is longer than the 4 that this net was built for"
    ):
        call(causal_transformer(11, length=4), IDS)


def test_rows_longer_than_the_context_raise() -> None:
    model = family("llama")
    model.config.max_position_embeddings = 4
    with pytest.raises(
        ValueError,
        match="rows of 6 tokens are longer than the context of LlamaForCausalLM, 4 tokens",
    ):
        call(model, IDS)


def vision_language_model(width: int) -> Any:
    """LLaVA with random weights: four image tokens (39) for an image of 8 x 8 pixels."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(width)
    vision = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    text = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=39, image_seq_length=4
    )
    return transformers.AutoModelForImageTextToText.from_config(config).eval()


def images_and_text() -> Any:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 39, (4, 10), generator=generator)
    ids[:, 1:5] = 39
    label = ids.roll(-1, 1)
    label[:, :5], label[:, -1] = -100, -100
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.rand(4, 3, 8, 8, generator=generator),
        "label": label,
        "valid": label != -100,
    }


def test_a_vision_language_model_reads_its_images() -> None:
    model, batch = vision_language_model(16), images_and_text()
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values")}
    outputs = call(model, batch)
    torch.testing.assert_close(outputs["logits"], model(**inputs).logits)
    assert "projection" in outputs
    other = call(model, batch | {"pixel_values": 1 - batch["pixel_values"]})
    assert (other["logits"] - outputs["logits"]).abs().max() > 1e-3


def test_vision_language_models_distil_on_the_tokens_of_the_text() -> None:
    student, batch = vision_language_model(16), images_and_text()
    before = copy.deepcopy(student.state_dict())
    result = instil.distil(
        vision_language_model(32),
        student,
        [batch],
        {"forward_kl": 1.0},
        training=Training(epochs=8, optimizer=Optimization(options={"lr": 1e-2})),
        task="language",
        progress=False,
    )
    losses = [record["losses"]["student/forward_kl"] for record in result.records]
    assert losses[-1] < 0.5 * losses[0]
    changed = [
        not torch.equal(weight, before[name])
        for name, weight in student.named_parameters()
        if "vision_tower" in name
    ]
    assert any(changed)
