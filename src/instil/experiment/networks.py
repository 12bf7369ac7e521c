"""Networks of a recipe."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from instil import catalogue
from instil.core import Batch, Net
from instil.data.samples import Facts
from instil.engine.cpu_offload import offloaded_blocks, undo_offload
from instil.experiment.compression import Observer, check_copied, compress
from instil.experiment.experiment import Experiment
from instil.experiment.graph_reach import check_reach
from instil.experiment.network_calls import (
    call_with_batch,
    call_with_teacher_tokens,
    network_call,
)
from instil.experiment.network_inputs import check_channel_statistics, check_reads, input_size
from instil.experiment.offloaded_teachers import offload_teacher
from instil.experiment.own_losses import label_options
from instil.experiment.weight_precision import in_training_precision
from instil.modules.denoiser_call import reconfigure_copy
from instil.networks import factory
from instil.networks.inferred_taps import infer_taps
from instil.networks.inputs import call_options
from instil.networks.model_source import ReadsBatch
from instil.networks.network_call import Counts, NetworkCall, read_keys
from instil.networks.presets import taps_for
from instil.networks.weights import load_weights
from instil.recipe import error_context
from instil.recipe.sections import ModelConfig, Recipe, TeacherConfig
from instil.tasks.bases.class_call import CallWithClasses


def build_network(
    config: ModelConfig,
    experiment: Experiment,
    path: str,
    teacher: Net | None = None,
    label_seed: int | None = None,
) -> Net:
    """Build a network of a recipe with its weights, taps and frozen parts.

    Args:
        config: section of the network.
        experiment: data that the network reads.
        path: recipe path of the section, for messages.
        teacher: teacher that a student with ``model: teacher`` is a copy of. None: the first
            teacher of the recipe, built here.
        label_seed: seed of the labels that a compression may read. None: the first of the recipe.

    Raises:
        RecipeError: for options, weights or taps that do not fit.
    """
    with error_context(path):
        samples = experiment.visible_samples
        check_reads(experiment.task, samples, config)
        facts = experiment.facts_for(config)
        check_channel_statistics(config, facts)
        builder = NetworkBuilder(
            experiment.recipe,
            experiment.task,
            facts,
            example=functools.partial(samples.__getitems__, [0]),
            observer=_observer(config, experiment, label_seed),
        )
        net = builder.build(config, teacher)
        if isinstance(net.model, ReadsBatch):
            net.model.bind(experiment.splits)
        if config.weights is not None:
            with error_context(f"{path}.weights"):
                load_weights(net.model, experiment.recipe.locate(config.weights))
        net.freeze(config.freeze)
        offload_teacher(net, config)
        check_reach(net, samples)
        return net


def _observer(
    config: ModelConfig, experiment: Experiment, label_seed: int | None
) -> Callable[[Callable[..., Any]], Observer]:
    """Return the function that observes a network with a call, for its compressions."""
    seed = experiment.recipe.seeds[0] if label_seed is None else label_seed
    # The choice of labels takes time, and few networks are compressed.
    labelled = experiment.labelled_samples(seed) if config.changes else None
    return lambda call: Observer(call, experiment.visible_samples, labelled)


@dataclass(frozen=True)
class NetworkBuilder:
    """Builder of networks for data of known facts, without loading the weights of a file.

    Args:
        recipe: recipe of the networks.
        task: task, or its class, of the networks.
        facts: arguments for builders of networks.
        example: function that returns a batch, from which missing taps are inferred.
        observer: function of the network's call that returns its outputs on some samples, for
            compressions.
        fetch: whether pretrained weights may be downloaded.
        trust_code: whether code of the recipe may be executed.
    """

    recipe: Recipe
    task: Any
    facts: Facts
    example: Callable[[], Batch]
    observer: Callable[[Callable[..., Any]], Observer] | None = None
    fetch: bool = True
    trust_code: bool = True

    def build(self, config: ModelConfig, teacher: Net | None = None) -> Net:
        """Build a network.

        Args:
            config: section of the network.
            teacher: teacher that a student with ``model: teacher`` is a copy of.

        Raises:
            ValueError: for options or taps that do not fit.
            UntrustedCode: if code of the recipe would be executed without ``trust_code``.
        """
        model = in_training_precision(self._build_model(config, teacher), config)
        call = self._call(config, model)
        # Compressions observe the model on inputs as the network gets them.
        model = compress(model, config, self.observer and self.observer(call))
        if isinstance(model, ReadsBatch):
            return Net(model, call)
        taps: dict[str, Any] = dict(taps_for(model))
        if "features" not in taps and _needs_inner_outputs(self.recipe, config):
            batch = self.example()
            # Without images there is no resolution that tells the stages apart.
            if "image" in read_keys(batch, config.reads):
                taps = infer_taps(model, call, batch) | taps
        # Taps of the recipe replace those of the architecture, which replace inferred ones.
        for role, modules in config.taps.items():
            taps[role] = _module_paths(modules)
        if isinstance(config, TeacherConfig) and config.tokenizer:
            return Net(model, functools.partial(call_with_teacher_tokens, call), taps)
        return Net(model, call, taps)

    def _call(self, config: ModelConfig, model: nn.Module) -> Callable[..., Any]:
        """Function that runs the model on the inputs of its section."""
        task_call = network_call(self.task, model)
        input_options, counts = self._input_options(config, task_call)
        if isinstance(model, ReadsBatch):
            return call_with_batch
        options = call_options(model, task_call) | input_options
        options |= label_options(self.task, self.recipe)
        call: Callable[..., Any] = functools.partial(task_call, **options)
        if config.reads or counts:
            call = NetworkCall(call, config.reads, counts)
        # A task class, as for a plan without data, has no prompts.
        prompts = getattr(self.task, "prompts", None)
        if prompts is not None and isinstance(config, TeacherConfig):
            call = CallWithClasses(call, prompts)
        return call

    def _build_model(self, config: ModelConfig, teacher: Net | None) -> nn.Module:
        if config.model == "teacher":
            return self._copy_teacher(config, teacher)
        return factory.build(
            config.model,
            config.options,
            base=Path(self.recipe.folder),
            imports=self.recipe.imports,
            pretrained=config.pretrained,
            fetch=self.fetch,
            trust_code=self.trust_code,
            **(self.facts | input_size(config)),
        )

    def _copy_teacher(self, config: ModelConfig, teacher: Net | None) -> nn.Module:
        """Copy of the teacher, for a student that starts from it."""
        teachers = self.recipe.teachers
        if isinstance(config, TeacherConfig) or not teachers or teachers[0].earlier:
            raise ValueError(
                "model: 'teacher' initialises the student from its teacher; this needs a teacher "
                "that is not the output of an earlier stage"
            )
        teacher_config = teachers[0]
        check_copied(teacher_config)
        if teacher is not None:
            model = teacher.model
        else:
            model = compress(self._build_model(teacher_config, None), teacher_config, None)
            if self.fetch and teacher_config.weights is not None:
                with error_context("teacher.weights"):
                    load_weights(model, self.recipe.locate(teacher_config.weights))
        # The teacher is frozen; its copy is trained.
        student = copy.deepcopy(model)
        undo_offload(offloaded_blocks(student))
        # Quantised weights are whole numbers and have no gradient.
        for parameter in student.parameters():
            parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
        reconfigure_copy(student, config.options)
        return student

    def _input_options(
        self, config: ModelConfig, call: Callable[..., Any]
    ) -> tuple[dict[str, Any], Counts]:
        """Options of the task's call, and axes to shorten, that the section ``input`` sets."""
        options = config.input.model_dump(exclude_none=True)
        names = [name for name in self.task.axes if name in options]
        counts = {name: (*self.task.axes[name], options.pop(name)) for name in names}
        unknown = [key for key in options if key not in inspect.signature(call).parameters]
        if unknown:
            raise ValueError(
                f"input.{unknown[0]}: a model of {self.recipe.task.name} gets its input as the "
                f"data are. Leave input.{unknown[0]} out"
            )
        return options, counts


def _needs_inner_outputs(recipe: Recipe, config: ModelConfig) -> bool:
    """Whether an objective of the recipe, or its scheme, reads more of a network than logits."""
    side = "teacher" if isinstance(config, TeacherConfig) else "student"
    if recipe.scheme.type != "offline":
        return True
    for objective in recipe.objectives.values():
        for roles in catalogue.find("objective", objective.type).needs.get(side, ()):
            if set(roles) - {"logits"}:
                return True
    return False


def _module_paths(modules: str | int | Sequence[str | int]) -> str | list[str]:
    if isinstance(modules, (str, int)):
        return str(modules)
    return [str(module) for module in modules]
