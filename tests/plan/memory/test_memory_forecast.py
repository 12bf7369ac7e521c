"""Forecasts of memory from configurations, against the memory of real steps on the CPU."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from instil.cli import main
from instil.cli.memory_page import forecast_of
from instil.core import Batch, Scheme
from instil.engine import Engine, Optimization
from instil.engine.cpu_offload import offloaded_blocks, offloaded_parameters
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.trained_teachers import load_if_trained
from instil.plan.forecast import forecast_training
from instil.plan.loss_probe import first_batches
from instil.plan.memory.layout import Layout
from instil.plan.memory.memory_forecast import MemoryForecast, forecast_memory
from instil.recipe import RecipeError, build, load
from instil.recipe.sections import Recipe, TeacherConfig
from instil.training.step import train_step
from tests.experiment.small import recipe as small_recipe
from tests.networks.sources.folders import language_recipe, tokenizer, write_chat
from tests.students.families import FAMILIES

pytest.importorskip("transformers")
CAUSAL = "transformers:AutoModelForCausalLM"
MEDIUM = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 1000}
MEDIUM_GPT2 = {"n_embd": 64, "n_layer": 2, "vocab_size": 1000}


def cases() -> list[Any]:
    slow = [(name, "float32") for name in ("llama", "qwen3", "gemma2", "gemma3_text")]
    slow.append(("qwen2", "bfloat16"))
    return [("gpt2", "float32"), *(pytest.param(*case, marks=pytest.mark.slow) for case in slow)]


def config_of(name: str, **changed: Any) -> dict[str, Any]:
    sizes = MEDIUM_GPT2 if name == "gpt2" else MEDIUM
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return {"model_type": name} | FAMILIES[name] | sizes | special | changed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with conversations and a tokenizer."""
    folder = tmp_path_factory.mktemp("memory")
    write_chat(folder / "chat.jsonl")
    tokenizer().save_pretrained(folder / "teacher")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(folder / "cache"))


def recipe_of(folder: Path, name: str = "llama", precision: str = "float32") -> Recipe:
    teacher = {"model": CAUSAL, "options": {"config": config_of("llama")}, "is_trained": True}
    student = {"model": CAUSAL, "options": {"config": config_of(name)}}
    objectives: dict[str, Any] = {"forward_kl": {}, "cross_entropy": {}}
    return build(
        language_recipe(
            folder=str(folder),
            name="memory",
            teacher=teacher,
            student=student,
            objectives=objectives,
            device="cpu",
            train={"epochs": 1, "precision": precision},
        )
    )


def real_step(recipe: Recipe, batch: Batch, is_checkpointed: bool) -> tuple[Engine, Scheme]:
    """Train a step of a recipe with values, so that all states of the optimizer exist."""
    _, scheme, _ = next(dry_run(Experiment.from_recipe(recipe), load_if_trained))
    engine = Engine("cpu", recipe.train.precision, activation_checkpointing=is_checkpointed)
    engine.setup(scheme, lambda learner: Optimization())
    scheme.train()
    train_step(engine, scheme, [batch])
    return engine, scheme


def allocated(engine: Engine, scheme: Scheme, batch: Batch) -> int:
    """Largest number of bytes that the allocator of the CPU hands out during a step."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        train_step(engine, scheme, [batch])
    results = profiler.profiler.kineto_results
    events = [event for event in results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    totals: list[int] = list(accumulate(event.nbytes() for event in events))
    return max(totals)


@pytest.mark.parametrize(("name", "precision"), cases())
def test_within_ten_percent_of_a_real_step(name: str, precision: str, folder: Path) -> None:
    recipe = recipe_of(folder, name, precision)
    forecast = MemoryForecast(recipe, ranks=1, device="cpu")
    experiment = Experiment.from_recipe(recipe)
    for is_checkpointed in (False, True):
        memory = forecast.of_rank(Layout(1, False, is_checkpointed))
        engine, scheme = real_step(recipe, forecast.batch, is_checkpointed)
        weights = sum(tensor.nbytes for tensor in (*scheme.parameters(), *scheme.buffers()))
        assert memory.student + memory.teacher == weights
        trained = [parameter for parameter in scheme.parameters() if parameter.requires_grad]
        assert memory.gradients == sum(parameter.nbytes for parameter in trained)
        states = engine.optimizers["student"].state.values()
        state_bytes = sum(value.nbytes for state in states for value in state.values())
        assert memory.optimizer == state_bytes
        # The gradients of the last step are not counted: they exist before the profile starts.
        passes = allocated(engine, scheme, forecast.batch)
        assert memory.activations + memory.buffers == pytest.approx(passes, rel=0.1)
        measured = forecast_training(experiment, scheme, engine, forecast.batch)
        assert memory.activations == pytest.approx(measured["activation_bytes"], rel=0.1)
        resident = weights + state_bytes + memory.gradients
        assert measured["bytes"] == pytest.approx(resident + passes, rel=0.1)


@pytest.mark.parametrize("name", ["kd", "text_classification", "language"])
def test_the_memory_that_doctor_shows_is_that_of_a_real_step(name: str) -> None:
    recipe = load(name, ["device=cpu"])
    stage, scheme, _ = next(dry_run(Experiment.from_recipe(recipe)))
    engine = Engine("cpu", recipe.train.precision)
    engine.setup(scheme, lambda learner: Optimization())
    scheme.train()
    batch = next(first_batches(stage.loader(stage.train_data(0), 0), engine, 0))
    forecast = forecast_training(stage, scheme, engine, batch)
    resident = 0
    for tensor in scheme.parameters():
        resident += tensor.nbytes + (tensor.nbytes if tensor.requires_grad else 0)
    for state in engine.optimizers["student"].state.values():
        resident += sum(value.nbytes for value in state.values())
    measured = resident + allocated(engine, scheme, batch)
    # Saved activations are about half of it. The allocator also has what an operation needs inside.
    assert forecast["bytes"] == pytest.approx(measured, rel=0.1)
    assert forecast["activation_bytes"] < 0.7 * measured


def test_several_updates_of_a_step_need_the_memory_of_the_largest() -> None:
    scheme_config = {"type": "mutual", "peers": ["mlp"]}
    recipe = small_recipe("data.batch_size=16", teacher=None, store=None, scheme=scheme_config)
    forecast = MemoryForecast(recipe, ranks=1, device="cpu")
    engine, scheme = real_step(recipe, forecast.batch, False)
    experiment = Experiment.from_recipe(recipe)
    expected = forecast.of_rank(Layout(1, False, False)).activations
    for _ in range(3):
        measured = forecast_training(experiment, scheme, engine, forecast.batch)
        assert measured["activation_bytes"] == expected


def test_layouts_and_proposals() -> None:
    recipe = small_recipe("data.batch_size=64", student={"model": "cnn", "options": {"width": 3}})
    forecast = MemoryForecast(recipe, ranks=2)
    replicated, sharded, checkpointed, smallest = forecast.layouts()
    whole = forecast.of_rank(replicated)
    part = forecast.of_rank(sharded)
    trained = [p for p in forecast.scheme.parameters() if p.requires_grad]
    assert part.gradients == sum(torch.chunk(p, 2)[0].nbytes for p in trained)
    assert 0.5 * whole.optimizer <= part.optimizer < 0.6 * whole.optimizer
    assert whole.communication == 0
    blocks = max(p.nbytes for p in forecast.scheme.parameters())
    assert part.communication >= 2 * blocks
    # FSDP2 sums gradients after the last micro-batch.
    in_two = forecast.of_rank(Layout(2, True, False, accumulate=2))
    assert in_two.communication == part.communication + sum(p.nbytes for p in trained)
    assert forecast.of_rank(checkpointed).activations < 0.8 * whole.activations
    assert forecast.propose(2 * whole.total) == replicated
    needed = min(forecast.of_rank(layout).total for layout in (checkpointed, smallest))
    proposed = forecast.propose(needed)
    assert proposed is not None
    assert proposed.accumulate > 1
    assert forecast.of_rank(proposed).total <= 0.9 * needed
    assert forecast.propose(1000) is None
    forecast.ranks = 16
    assert [layout.group for layout in forecast.layouts()] == [1, 8, 16] * 2
    assert forecast.layouts()[1].changes[:2] == ["train.shard=true", "train.shard_group=8"]
    in_groups = forecast.of_rank(forecast.layouts()[1])
    assert in_groups.optimizer == forecast.of_rank(Layout(8, True, False)).optimizer


def test_shards_that_training_refuses_are_not_proposed() -> None:
    for penalty, is_sharded in ((0.0, [False, True] * 2), (1.0, [False] * 2)):
        scheme = {"type": "adversarial", "penalty": penalty}
        layouts = MemoryForecast(small_recipe(scheme=scheme), ranks=2).layouts()
        assert [layout.is_sharded for layout in layouts] == is_sharded


def test_a_folder_with_a_configuration_in_bfloat16_is_enough(folder: Path, tmp_path: Path) -> None:
    config = config_of("llama", dtype="bfloat16", tie_word_embeddings=True)
    tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    recipe = recipe_of(folder)
    tied = {"config": config_of("llama", tie_word_embeddings=True)}
    rows = []
    for changes in ({"options": {"path": str(tmp_path)}}, {"options": tied}):
        own = recipe.model_copy(update={"student": recipe.student.model_copy(update=changes)})
        forecast = MemoryForecast(own, ranks=2)
        assert {weight.dtype for weight in forecast.scheme.parameters()} == {torch.float32}
        rows.append(forecast.of_rank(Layout(2, True, False)))
    assert rows[0] == rows[1]


def test_sharded_weights_in_bfloat16(folder: Path) -> None:
    half = MemoryForecast(recipe_of(folder, precision="bfloat16"), ranks=2)
    whole, sharded, whole_checkpointed, checkpointed = half.layouts()
    single = MemoryForecast(recipe_of(folder), ranks=2)
    # Shards of the student and its gradients stay in float32, those of the teacher do not.
    assert half.of_rank(sharded).student == single.of_rank(sharded).student
    assert half.of_rank(sharded).gradients == single.of_rank(sharded).gradients
    assert 2 * half.of_rank(sharded).teacher == single.of_rank(sharded).teacher
    assert half.of_rank(whole).teacher == single.of_rank(whole).teacher
    assert half.of_rank(sharded).communication < 0.7 * single.of_rank(sharded).communication
    # Gathered weights are not copied again, and hidden states are in bfloat16.
    assert half.of_rank(sharded).activations < 0.8 * half.of_rank(whole).activations
    # Autocast copies the weights of one block at a time.
    assert half.of_rank(whole_checkpointed).buffers < 1.1 * half.of_rank(checkpointed).buffers


def large_teacher(folder: Path, **changes: Any) -> Recipe:
    """Recipe whose teacher has most of the weights."""
    recipe = recipe_of(folder, "gpt2")
    assert isinstance(recipe.teacher, TeacherConfig)
    layers = config_of("llama", num_hidden_layers=4, intermediate_size=1024)
    changes["options"] = {"config": layers}
    return recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update=changes)})


def test_offloaded_teachers(folder: Path) -> None:
    recipe = large_teacher(folder, cpu_offload=True)
    forecast = MemoryForecast(recipe, ranks=1, device="cpu")
    memory = forecast.of_rank(Layout(1, False, False))
    engine, scheme = real_step(recipe, forecast.batch, False)
    assert len(offloaded_blocks(scheme)) == 4
    on_cpu = offloaded_parameters(scheme)
    others = [p for p in scheme.parameters() if p not in on_cpu]
    resident = sum(tensor.nbytes for tensor in (*others, *scheme.buffers()))
    assert memory.student + memory.teacher == resident
    passes = allocated(engine, scheme, forecast.batch)
    assert memory.activations + memory.buffers == pytest.approx(passes, rel=0.1)
    # Without the option: a copy of a block less, and all blocks more.
    plain = MemoryForecast(large_teacher(folder), ranks=1, device="cpu")
    whole = plain.of_rank(Layout(1, False, False))
    block = sum(parameter.nbytes for parameter in offloaded_blocks(scheme)[0].parameters())
    assert whole.teacher == memory.teacher + 4 * block
    assert plain.of_rank(Layout(1, False, False, offloaded=("teacher",))) == memory
    assert plain.of_rank(Layout(1, False, False)) == whole
    measured = forecast_training(Experiment.from_recipe(recipe), scheme, engine, forecast.batch)
    assert measured["bytes"] == pytest.approx(memory.total, rel=0.1)


def test_a_proposal_that_offloads_the_teacher() -> None:
    student = {"model": "cnn", "options": {"width": 2}}
    teacher = {"model": "mlp", "options": {"width": 64, "depth": 12}, "is_trained": True}
    recipe = small_recipe("data.batch_size=2", teacher=teacher, student=student)
    forecast = MemoryForecast(recipe, ranks=2)
    sharded = Layout(2, True, True)
    offloaded = Layout(2, True, True, offloaded=("teacher",))
    smallest = min(forecast.of_rank(layout).total for layout in forecast.layouts())
    needed = forecast.of_rank(Layout(2, False, False, offloaded=("teacher",))).total
    assert needed < 0.5 * smallest
    blocks = forecast.offloaded_bytes(offloaded)
    difference = forecast.of_rank(sharded).teacher - forecast.of_rank(offloaded).teacher
    assert blocks / 2 <= difference < 0.6 * blocks
    # The gathered block is on the device, and no further copy of it.
    assert forecast.of_rank(offloaded).communication == forecast.of_rank(sharded).communication
    assert forecast.of_rank(offloaded).buffers == forecast.of_rank(sharded).buffers
    fits = forecast.propose(2 * smallest)
    assert fits is not None
    assert fits.offloaded == ()
    proposed = forecast_memory(recipe, 2, (needed + smallest) / 2 / 0.9)
    assert proposed["proposal"][-1] == "teacher.cpu_offload=true"
    assert "CPU offload" in proposed["layouts"][-1]["name"]
    assert proposed["layouts"][-1]["fits"]
    assert proposed["notes"][-1].startswith("teacher.cpu_offload keeps ")
    # Teachers that are trained first cannot be offloaded.
    assert MemoryForecast(small_recipe(), ranks=1).offloadable == {}
    several = small_recipe(teacher=[teacher, {"model": "cnn"}, teacher], student=student)
    assert [*MemoryForecast(several, ranks=1).offloadable] == ["teacher.0", "teacher.2"]


def test_the_command(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    command = ["doctor", "digits", "--ranks", "2", "--memory"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "8GB"])
    output = capsys.readouterr().out
    assert ended.value.code == 0
    assert "Memory of each of 2 processes" in output
    assert "train.shard=false train.shard_group=null" in output
    with pytest.raises(SystemExit) as ended:
        main([*command, "0.01MB", "--json"])
    forecast = json.loads(capsys.readouterr().out)
    assert ended.value.code == 1
    assert forecast["proposal"] is None
    assert "No layout of 2 processes fits" in forecast["problems"][0]
    assert [layout["fits"] for layout in forecast["layouts"]] == [False] * 4


def test_wrong_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RecipeError, match=r"data.batch_size: .* Expected 500 or more, got 250"):
        forecast_memory(small_recipe(), 500)
    with pytest.raises(RecipeError, match=r"--ranks: Expected 1 or more processes, got 0"):
        forecast_memory(small_recipe(), 0)
    with pytest.raises(RecipeError, match=r"stages: the forecast of memory reads one stage"):
        forecast_memory(small_recipe(stages=[{}, {"student": "previous"}]), 1)
    quantized = {"model": CAUSAL, "options": {"quantization_config": {"load_in_4bit": True}}}
    with pytest.raises(RecipeError, match=r"teacher.options.quantization_config: the size of"):
        forecast_memory(small_recipe(teacher=quantized), 1)
    experts = {"model": CAUSAL, "options": {"config": config_of("qwen2_moe")}}
    sections = recipe_of(folder).model_dump(exclude_defaults=True)
    with pytest.raises(RecipeError, match=r"--ranks: a network or an objective of this recipe"):
        forecast_memory(build(sections | {"student": experts}), 1)
    for text in ("80", "eighty GB", "0GB", "8TB"):
        with pytest.raises(ValueError, match=r"--memory: not an amount of memory"):
            forecast_of(small_recipe(), 1, text)
    with pytest.raises(SystemExit):
        main(["doctor", "digits", "--memory", "8GB"])
    assert "--memory needs --ranks" in capsys.readouterr().err
