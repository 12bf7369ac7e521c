"""Adapters on weights that another library has quantised, and their export."""

from __future__ import annotations

import copy
import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from instil.deployment.export import export
from instil.networks.factory import build
from instil.recipe import build as build_recipe
from instil.recipe.errors import RecipeError
from instil.students.lora import lora
from instil.students.quantized_base import is_quantized_base, merged_in_float32
from tests.experiment.small import run_of
from tests.networks.sources.folders import language_recipe, write_chat, write_model
from tests.students.nets import IDS, llama, logits

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
CAUSAL = "transformers:AutoModelForCausalLM"
FOUR_BITS = {"load_in_4bit": True, "bnb_4bit_compute_dtype": "float32"}
WIDTHS = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
"""Widths of whole blocks of 64 weights, which the CPU kernels need."""


class Int8Linear(nn.Module):
    """Linear layer with weights of 8 bits and a scale."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.scale = linear.weight.detach().abs().max() / 127
        weight = (linear.weight.detach() / self.scale).round().to(torch.int8)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None

    def forward(self, features: Tensor) -> Tensor:
        return features @ (self.weight * self.scale).T


def test_adapters_and_whole_numbers_become_linear_layers() -> None:
    model: Any = lora(llama(), rank=2, modules=["q_proj", "down_proj"])
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    base = model.get_base_model()
    perceptron = base.model.layers[0].mlp
    perceptron.up_proj = Int8Linear(perceptron.up_proj)
    base.quantization_method = "int8"
    base.config.quantization_config = {"bits": 8}
    expected = logits(model)
    merged: Any = merged_in_float32(copy.deepcopy(model))
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)
    assert type(merged.model.layers[0].mlp.up_proj) is nn.Linear
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    assert is_quantized_base(model)
    assert not is_quantized_base(merged)
    assert not hasattr(merged.config, "quantization_config")


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="is installed")
def test_a_missing_library_is_named(tmp_path: Path) -> None:
    write_model(tmp_path / "teacher", "llama")
    options = {"path": "teacher", "quantization_config": FOUR_BITS}
    with pytest.raises(ValueError, match=r"cannot be built: .*bitsandbytes"):
        build(CAUSAL, options, base=tmp_path, pretrained=True)


def check_gradients(folder: Path) -> None:
    """Compare gradients after an evaluation with those of the same weights in float32."""
    options = {"path": "teacher", "quantization_config": FOUR_BITS}
    model: Any = lora(build(CAUSAL, options, base=folder, pretrained=True), rank=2)
    merged: Any = merged_in_float32(copy.deepcopy(model))
    plain: Any = lora(merged, rank=2)
    own = dict(model.named_parameters())
    gradients = []
    for net in (model, plain):
        for name, parameter in net.named_parameters():
            if ".lora_" in name:
                parameter.data = own[name].data.clone()
        logits(net.eval())
        net.train()(input_ids=IDS["input_ids"])["logits"].square().mean().backward()
        names = [name for name, parameter in net.named_parameters() if ".lora_B" in name]
        gradients.append({name: net.get_parameter(name).grad for name in names})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-5)
        assert gradient.abs().max() > 0


@pytest.mark.slow
def test_adapters_on_four_bits_are_trained_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bitsandbytes")
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    write_model(tmp_path / "teacher", "llama", **WIDTHS)
    write_chat(tmp_path / "chat.jsonl")
    teacher = {"model": "transformers:teacher", "options": {"quantization_config": FOUR_BITS}}
    student: dict[str, Any] = {"model": "teacher", "changes": {"lora": {"rank": 2}}}
    check_gradients(tmp_path)
    recipe = language_recipe(folder=str(tmp_path), teacher=teacher, student=student)
    assert run_of(build_recipe(recipe), tmp_path / "run")["status"] == "complete"
    export(tmp_path / "run", int8=False)
    again = build(CAUSAL, {"path": str(tmp_path / "run" / "student")}, pretrained=True)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    with pytest.raises(RecipeError, match="quantised weights cannot be trained"):
        run_of(build_recipe(recipe | {"student": teacher}), tmp_path / "other")


RUN = """
import os, signal, sys
from instil.engine.engine import Engine
from instil.recipe import build
from tests.experiment.small import run_of
import json, pathlib

step, count = Engine.step, 0

def killed(self, learner):
    global count
    count += 1
    if count == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, learner)

Engine.step = killed
folder = pathlib.Path(sys.argv[1])
run_of(build(json.loads((folder / "recipe.json").read_text())), folder / "killed")
"""


@pytest.mark.slow
def test_a_killed_training_on_four_bits_ends_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bitsandbytes")
    # Otherwise the second run would read the students of the first.
    monkeypatch.setenv("INSTIL_CACHE_GB", "0")
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    write_model(tmp_path / "teacher", "llama", **WIDTHS)
    write_chat(tmp_path / "chat.jsonl", 40)
    changes = {"lora": {"rank": 2, "dropout": 0.1}}
    student = {"model": "transformers:teacher", "changes": changes}
    train = {"epochs": 2, "optimizer": {"lr": 1e-2}, "checkpoint_steps": 3, "average": 0.9}
    recipe = language_recipe(
        folder=str(tmp_path),
        teacher={"model": "transformers:teacher"},
        student=student | {"options": {"quantization_config": FOUR_BITS}},
        train=train,
        baselines=[],
    )
    recipe["data"] |= {"rows": 24, "batch_size": 4}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    command = [sys.executable, "-W", "ignore", "-c", RUN, str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    run_of(build_recipe(recipe), tmp_path / "killed", resume=True)
    run_of(build_recipe(recipe), tmp_path / "whole")
    weights = [load_file(tmp_path / name / "student.safetensors") for name in ("killed", "whole")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
