"""Trainer of transformers that distils a student."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from instil import Optimization, Training, distil

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

STEPS = 4
ROWS = 2


def language_model(layers: int, seed: int) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=8 * layers,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        tie_word_embeddings=True,
        output_attentions=True,
    )
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(config)
    model.set_attn_implementation("eager")  # returns attention maps
    return model


def rows() -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 32, (STEPS * ROWS, 10), generator=generator).tolist()
    return [
        {"input_ids": row, "attention_mask": [1] * 10, "labels": [-100] * 3 + row[3:]}
        for row in tokens
    ]


def arguments(folder: Path, **options: Any) -> Any:
    values = {
        "per_device_train_batch_size": ROWS,
        "max_steps": STEPS,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return transformers.TrainingArguments(str(folder), **(values | options))


def trainer(folder: Path, student: Any, objectives: Any, **options: Any) -> Any:
    from instil.integrations.hf_trainer import DistillationTrainer

    return DistillationTrainer(
        student,
        language_model(2, 1),
        objectives,
        args=arguments(folder, **options),
        train_dataset=rows(),
        eval_dataset=rows(),
    )


def tokenizer(num_tokens: int) -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {f"t{i}": i for i in range(num_tokens)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="t0"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="t0")


def vector(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters())


@pytest.mark.parametrize(
    "objectives",
    [
        {"cross_entropy": 1.0, "kd": {"temperature": 2}},
        {"cross_entropy": 1.0, "tinybert": 1.0},
    ],
    ids=["kd", "adapter"],
)
def test_the_weights_are_those_of_fit(tmp_path: Path, objectives: dict[str, Any]) -> None:
    student = language_model(1, 0)
    expected = copy.deepcopy(student)
    run = trainer(tmp_path, student, objectives)
    run.train()
    loader = [
        {key: torch.tensor([row[key] for row in rows()[i : i + ROWS]]) for key in rows()[0]}
        for i in range(0, STEPS * ROWS, ROWS)
    ]
    training = Training(
        steps=STEPS, optimizer=Optimization("sgd", {"lr": 0.05}), schedule="constant", device="cpu"
    )
    teacher = language_model(2, 1)
    torch.manual_seed(42)  # the seed of TrainingArguments
    distil(
        teacher,
        expected,
        loader,
        objectives,
        task="language",
        training=training,
        progress=False,
    )
    torch.testing.assert_close(vector(student), vector(expected), rtol=0, atol=1e-6)
    logs = [entry for entry in run.state.log_history if "loss" in entry]
    assert len(logs) == STEPS
    assert {f"loss_{name}" for name in objectives} <= set(logs[0])


def test_a_checkpoint_is_the_student_and_continues(tmp_path: Path) -> None:
    objectives = {"kd": 1.0, "tinybert": 1.0}
    student = language_model(1, 0)
    trainer(tmp_path / "whole", student, objectives).train()
    stopped = trainer(
        tmp_path / "part", language_model(1, 0), objectives, save_strategy="steps", save_steps=2
    )
    stopped.train()
    checkpoint = tmp_path / "part" / "checkpoint-2"
    loaded = transformers.AutoModelForCausalLM.from_pretrained(checkpoint)
    assert loaded.config.num_hidden_layers == 1
    continued = language_model(1, 5)
    trainer(tmp_path / "rest", continued, objectives).train(resume_from_checkpoint=str(checkpoint))
    torch.testing.assert_close(vector(continued), vector(student), rtol=0, atol=1e-6)


def test_evaluation_is_that_of_the_student(tmp_path: Path) -> None:
    student = language_model(1, 0)
    run = trainer(tmp_path, student, {"kd": 1.0})
    batch = {key: torch.tensor([row[key] for row in rows()]) for key in rows()[0]}
    with torch.no_grad():
        expected = student(**batch).loss.item()
    assert run.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-5)


def test_the_best_checkpoint_is_loaded_at_the_end(tmp_path: Path) -> None:
    student = language_model(1, 0)
    run = trainer(
        tmp_path,
        student,
        {"kd": 1.0},
        save_strategy="steps",
        save_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        load_best_model_at_end=True,
        activation_checkpointing=True,
    )
    run.train()
    best = transformers.AutoModelForCausalLM.from_pretrained(run.state.best_model_checkpoint)
    torch.testing.assert_close(vector(student), vector(best), rtol=0, atol=0)


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        trainer(tmp_path, language_model(1, 0), {"kd": 1.0}, label_smoothing_factor=0.1)
    with pytest.raises(ValueError, match=r"objectives\.fitnet"):
        trainer(tmp_path, language_model(1, 0), {"fitnet": 1.0})


def test_models_and_options_that_the_trainer_cannot_use_are_refused(tmp_path: Path) -> None:
    from instil.integrations.hf_trainer import DistillationTrainer

    with pytest.raises(ValueError, match="model: Expected a module, got str"):
        trainer(tmp_path, "my/model", {"kd": 1.0})
    student = language_model(1, 0)
    for teacher, message in (("my/model", "teacher: Expected a module"), (student, "no parameter")):
        with pytest.raises(ValueError, match=message):
            DistillationTrainer(student, teacher, args=arguments(tmp_path), train_dataset=rows())
    with pytest.raises(ValueError, match="compute_loss_func"):
        DistillationTrainer(
            language_model(1, 0),
            language_model(2, 1),
            args=arguments(tmp_path),
            train_dataset=rows(),
            compute_loss_func=lambda *_: 0,
        )


def test_an_optimizer_without_the_adapters_is_refused(tmp_path: Path) -> None:
    from instil.integrations.hf_trainer import DistillationTrainer

    student = language_model(1, 0)
    options = {
        "args": arguments(tmp_path),
        "train_dataset": rows(),
        "optimizers": (torch.optim.SGD(student.parameters(), lr=0.1), None),
    }
    teacher = language_model(2, 1)
    with pytest.raises(ValueError, match=r"optimizers: .* adapters .* distilbert"):
        DistillationTrainer(student, teacher, {"distilbert": 1.0}, **options)
    DistillationTrainer(student, teacher, {"kd": 1.0}, **options).train()


def test_classes_of_texts_with_the_task_of_tokens(tmp_path: Path) -> None:
    from instil.integrations.hf_trainer import DistillationTrainer

    rows_of_classes = [row | {"labels": 1} for row in rows()]
    with pytest.raises(ValueError, match="labels: Expected a token for each position"):
        DistillationTrainer(
            language_model(1, 0),
            language_model(2, 1),
            args=arguments(tmp_path),
            train_dataset=rows_of_classes,
        )


def test_embedding_noise(tmp_path: Path) -> None:
    run = trainer(tmp_path, language_model(1, 0), {"kd": 1.0}, neftune_noise_alpha=5)
    run.train()
    assert run.state.global_step == STEPS


def test_losses_read_the_tokens_of_the_tokenizer(tmp_path: Path) -> None:
    """Heads of student and teacher have 32 and 40 rows, and the tokenizer 30 tokens."""
    from instil.integrations.hf_trainer import DistillationTrainer

    student, teacher = language_model(1, 0), language_model(2, 1)
    teacher.resize_token_embeddings(40)
    batch = {key: torch.tensor([row[key] for row in rows()[:ROWS]]) for key in rows()[0]}
    with torch.no_grad():
        logits = [
            model(**batch).logits[:, 2:-1, :30].log_softmax(-1) for model in (student, teacher)
        ]
    divergence = (logits[1].exp() * (logits[1] - logits[0])).sum(-1).mean()
    run = DistillationTrainer(
        student,
        teacher,
        {"kd": {"temperature": 1}},
        args=arguments(tmp_path, max_steps=1),
        train_dataset=rows(),
        processing_class=tokenizer(30),
    )
    run.train()
    assert run.state.log_history[0]["loss_kd"] == pytest.approx(divergence.item(), rel=1e-5)
