"""Outputs of causal language models: any head gives the model's own logits; others raise."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net
from instil.objectives.logits.forward_kl import ForwardKL
from instil.schemes.offline.offline import Offline
from instil.tasks.bases.causal_model import call
from instil.tasks.language import Language
from instil.teachers.frozen import Frozen
from tests.tasks.bases.causal_families import tiny_model

pytest.importorskip("transformers")
IDS = {
    "input_ids": torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]]),
    "attention_mask": torch.ones(2, 6, dtype=torch.int64),
}
PROJECTED: dict[str, dict[str, Any]] = {
    "falcon_h1": {"lm_head_multiplier": 0.5},
    "hyperclovax": {"logits_scaling": 3.0},
    "granite": {"logits_scaling": 3.0},
    "minicpm3": {"dim_model_base": 8},
    "inkling_text": {"logits_mup_width_multiplier": 3.0},
    "recurrent_gemma": {"logits_soft_cap": 0.01, "num_hidden_layers": 3},
    "llama4_text": {},
    "opt": {},
    "bart": {},
}
OWN = ("bert", "roberta", "modernbert-decoder", "electra", "rembert", "prophetnet")


@pytest.mark.parametrize("name", PROJECTED)
def test_heads_with_a_scale_or_a_soft_cap_are_projections(name: str) -> None:
    model = tiny_model(name, **PROJECTED[name])
    with torch.no_grad():
        outputs, logits = call(model, IDS), model(**IDS)["logits"]
    torch.testing.assert_close(outputs["logits"], logits)
    assert "projection" in outputs


@pytest.mark.parametrize("name", OWN)
def test_other_heads_use_their_own_logits_and_warn_once(name: str) -> None:
    model = tiny_model(name)
    with pytest.warns(UserWarning, match=f"{type(model).__name__}: its logits are not a matrix"):
        outputs = call(model, IDS)
    assert "projection" not in outputs
    torch.testing.assert_close(outputs["logits"], model(**IDS)["logits"])
    assert torch.equal(outputs["prediction"], outputs["logits"].argmax(-1))
    assert outputs["embedding"].shape == (2, 6, 32)
    outputs["logits"].sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(model, IDS)
        call(copy.deepcopy(model), IDS)
        assert set(call(model, IDS, roles={"embedding"})) >= {"logits", "embedding"}
        assert "hidden_states" not in call(model, IDS, roles={"embedding"})
        assert "embedding" not in call(model, IDS, roles={"logits"})


def test_a_soft_cap_is_detected_for_small_logits() -> None:
    model = tiny_model("gemma2", final_logit_softcapping=30.0, head_dim=8)
    outputs = call(model, IDS)
    assert outputs["projection"].softcap == 30.0
    with torch.no_grad():
        model.lm_head.weight.mul_(1000)
        torch.testing.assert_close(call(model, IDS)["logits"], model(**IDS)["logits"])


def test_an_unknown_scale_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    plain = model.forward

    def scaled(**inputs: Any) -> Any:
        outputs = plain(**inputs)
        outputs["logits"] = outputs["logits"] * 1.5
        return outputs

    monkeypatch.setattr(model, "forward", scaled)
    with pytest.warns(UserWarning, match="its own logits are used"):
        torch.testing.assert_close(call(model, IDS)["logits"], model(**IDS)["logits"])


LORA: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True},
    "bias": {"lora_bias": True},
    "dropout": {"lora_dropout": 0.5},
}


def adapted(**options: Any) -> Any:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["lm_head", "q_proj"], r=2, **options)
    return peft.get_peft_model(tiny_model("llama"), config).eval()


def disturb(model: nn.Module) -> None:
    """Give all adapters random weights: initial adapters do not change the outputs."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.add_(0.5 * torch.randn_like(parameter))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")
@pytest.mark.parametrize("name", LORA)
def test_adapters_without_an_exact_product_use_the_models_own_logits(name: str) -> None:
    model = adapted(**LORA[name])
    with pytest.warns(UserWarning, match="its own logits are used"):
        call(model, IDS)  # before training, when the adapter does nothing yet
    disturb(model)
    torch.testing.assert_close(call(model, IDS)["logits"], model(**IDS)["logits"])
    model.train()
    torch.manual_seed(1)
    logits = call(model, IDS)["logits"]
    torch.manual_seed(1)
    torch.testing.assert_close(logits, model(**IDS)["logits"])
    logits.sum().backward()
    assert all(p.grad is not None for key, p in model.named_parameters() if "lora_" in key)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_two_adapters_at_once() -> None:
    peft = pytest.importorskip("peft")
    model = adapted()
    assert "projection" in call(model, IDS)
    model.add_adapter("other", peft.LoraConfig(target_modules=["lm_head", "q_proj"], r=2))
    model.base_model.set_adapter(["default", "other"])
    with pytest.warns(UserWarning, match="its own logits are used"):
        call(model, IDS)
    disturb(model)
    torch.testing.assert_close(call(model, IDS)["logits"], model(**IDS)["logits"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_rounding_of_a_dtype_is_not_a_difference(dtype: torch.dtype) -> None:
    model = tiny_model("cohere", logit_scale=0.0625).to(dtype)
    assert "projection" in call(model, IDS)


def test_an_encoder_raises() -> None:
    model = tiny_model("bert", is_decoder=False)
    refused = "BertLMHeadModel: the logits of a position depend on later tokens"
    with pytest.raises(ValueError, match=refused):
        call(model, IDS)
    with pytest.raises(ValueError, match=refused):
        Language().check_model(model, {"vocabulary": 60})
    import transformers

    masked = transformers.BertForMaskedLM(model.config)
    with pytest.raises(ValueError, match="BertForMaskedLM: the logits of a position"):
        call(masked, IDS)


class Bidirectional(nn.Module):
    """A user's model whose positions attend to all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 4)
        self.head = nn.Linear(4, 11)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        state = self.tokens(input_ids)
        logits: Tensor = self.head(state + state.mean(1, keepdim=True))
        return logits


def test_a_model_that_cannot_compute_a_row() -> None:
    model = tiny_model("llama")
    model.model.layers[0].self_attn.q_proj = nn.Linear(16, 5)
    with pytest.raises(ValueError, match=r"LlamaForCausalLM cannot compute a row of \d+ tokens"):
        call(model, IDS)


def test_a_model_without_a_head_is_tested_for_causality() -> None:
    with pytest.raises(ValueError, match="Bidirectional: the logits of a position depend on later"):
        call(Bidirectional(), IDS)


def test_an_encoder_decoder_raises() -> None:
    import transformers

    config = transformers.T5Config(
        vocab_size=60, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    model = transformers.T5ForConditionalGeneration(config)
    for refuse in (
        lambda: call(model, IDS),
        lambda: Language().check_model(model, {"vocabulary": 60}),
    ):
        with pytest.raises(ValueError, match="T5ForConditionalGeneration is an encoder-decoder"):
            refuse()


def test_fewer_tokens_than_the_tokenizer_raises() -> None:
    with pytest.raises(
        ValueError, match="its vocabulary has 60 tokens, the tokenizer of the data has 61"
    ):
        Language().check_model(tiny_model("llama"), {"vocabulary": 61})


def test_a_teacher_computes_layer_outputs_only_on_request() -> None:
    requests: list[bool] = []
    model = tiny_model("llama")
    model.model.register_forward_pre_hook(
        lambda _module, _args, options: requests.append(bool(options.get("output_hidden_states"))),
        with_kwargs=True,
    )
    teacher = Frozen(Net(model, call))
    batch = IDS | {"valid": torch.ones(2, 6, dtype=torch.bool), "index": torch.arange(2)}
    scheme = Offline(Net(tiny_model("llama"), call), teacher, {"forward_kl": ForwardKL()})
    scheme.prepare(batch)
    requests.clear()
    outputs = teacher(batch)
    assert requests == [False]
    assert "hidden_states" not in outputs
    assert outputs["embedding"].shape == (2, 6, 32)
    teacher.select_roles({"hidden_states"}, batch)
    assert len(teacher(batch)["hidden_states"]) == 3
