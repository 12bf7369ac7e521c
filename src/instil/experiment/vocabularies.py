"""Whether a model and the data mean the same token by the same id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from instil.core import Batch, Net, side_effect_free
from instil.data.aligned import read_by_teacher
from instil.data.tokenizers import Tokenizer, vocabulary_of_file
from instil.experiment.experiment import Experiment
from instil.recipe.errors import RecipeError
from instil.recipe.sections import ModelConfig, TeacherConfig

PRETRAINED_BUILDERS = ("gguf", "networks:gguf")
"""Models that are always read from trained weights."""


def has_trained_weights(spec: ModelConfig) -> bool:
    """Whether a model is built with trained weights, as far as the recipe says."""
    has_weights = spec.weights is not None or spec.is_trained or spec.pretrained
    return has_weights or spec.model in PRETRAINED_BUILDERS


def check_vocabulary(net: Net, experiment: Experiment, spec: ModelConfig, whose: str) -> None:
    """Compare the tokenizer in a model's own folder with that of the data.

    Args:
        net: the model; one that transformers read from a folder, or from a GGUF file, knows where
            it comes from. Nothing is compared for others.
        experiment: task and data as this net reads them.
        spec: the model's entry in the recipe.
        whose: ``teacher`` or ``student``.

    Raises:
        RecipeError: if an id stands for two different tokens.
    """
    tokenizer: Tokenizer | None = getattr(experiment.visible_samples, "tokenizer", None)
    file = _tokenizer_file(net.model)
    if tokenizer is None or file is None:
        return
    if (source := getattr(tokenizer, "source", None)) is not None and source.samefile(file):
        return
    option = "data.tokenizer"
    if isinstance(spec, TeacherConfig) and spec.tokenizer is not None:
        option = "teacher.tokenizer"
    words = _words(tokenizer)
    for index, word in sorted(vocabulary_of_file(file).items()):
        if words.get(index, word) != word:
            raise RecipeError(
                f"{option}: token {index} is {words[index]!r} here and {word!r} for the {whose}, "
                f"whose tokenizer is in {file.parent}. Expected the tokenizer of the {whose}. "
                f"Set {option} to its folder"
            )


def _words(tokenizer: Tokenizer) -> dict[int, str]:
    inner: Any = getattr(tokenizer, "inner", None)
    if inner is None:  # bytes
        return {index: f"byte {index}" for index in range(tokenizer.size)}
    return {index: word for word, index in inner.get_vocab().items()}


def _tokenizer_file(model: nn.Module) -> Path | None:
    """The file with the tokenizer of the folder that a model was read from, None where unknown."""
    bare: Any = model
    if hasattr(bare, "get_base_model"):  # inside the wrapper of peft
        bare = bare.get_base_model()
    if (file := getattr(bare, "tokenizer_file", None)) is not None:
        return Path(file)
    folder = getattr(bare, "name_or_path", None)
    if not isinstance(folder, str) or not folder:
        return None
    file = Path(folder) / "tokenizer.json"
    return file if file.is_file() else None


def add_output_warnings(
    experiment: Experiment, nets: Sequence[tuple[Net, ModelConfig]], batch: Batch
) -> None:
    """Add a sentence to ``experiment.doubts`` for each trained net that does worse than guessing."""
    for net, spec in nets:
        whose = "teacher" if isinstance(spec, TeacherConfig) else "student"
        changed = bool(spec.changes) and not set(spec.changes) <= {"lora"}
        if not has_trained_weights(spec) or changed:
            continue
        own = isinstance(spec, TeacherConfig) and spec.tokenizer is not None
        own_batch = read_by_teacher(batch) if own else batch
        with side_effect_free(net):
            sentence = experiment.task.output_warning(net(own_batch), own_batch)
        if sentence and (line := f"{whose}: {sentence}") not in experiment.warnings:
            experiment.warnings.append(line)
