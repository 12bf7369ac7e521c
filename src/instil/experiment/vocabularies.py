"""Checks that a model and the data use the same tokens and the same ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from instil.core import Batch, Net, side_effect_free
from instil.data.aligned import read_by_teacher
from instil.data.gguf_tokenizer import gguf_metadata
from instil.data.pair_tokenizers import tokenizer_of_samples
from instil.data.samples import Samples
from instil.data.special_tokens import SpecialTokenFiles, end_tokens
from instil.data.tokenizers import Tokenizer, vocabulary_of_file
from instil.experiment.experiment import Experiment
from instil.experiment.recipe_checks import has_trained_weights
from instil.recipe.errors import RecipeError
from instil.recipe.sections import ModelConfig, TeacherConfig
from instil.students.adapted_model import without_wrapper


def check_vocabulary(net: Net, experiment: Experiment, config: ModelConfig, path: str) -> None:
    """Compare the tokenizer in a model's own folder with that of the data.

    Args:
        net: the model. It is checked if transformers read it from a folder, or if it was read from
            a GGUF file.
        experiment: experiment with the data as this network reads them.
        config: section of the network.
        path: ``teacher`` or ``student``, for messages.

    Raises:
        RecipeError: if an id stands for two different tokens.
    """
    tokenizer = tokenizer_of_samples(experiment.visible_samples)
    file = _tokenizer_file(net.model)
    if tokenizer is None or file is None:
        return
    source: Path | None = getattr(tokenizer, "source", None)
    if source is not None and source.samefile(file):
        return
    option = "data.tokenizer"
    if isinstance(config, TeacherConfig) and config.tokenizer is not None:
        option = "teacher.tokenizer"
    tokens = _tokens(tokenizer)
    for index, token in sorted(vocabulary_of_file(file).items()):
        if tokens.get(index, token) != token:
            raise RecipeError(
                f"{option}: token {index} is {tokens[index]!r} here and {token!r} for the {path}, "
                f"whose tokenizer is in {file.parent}. Expected the tokenizer of the {path}. "
                f"Set {option} to its folder"
            )
    is_own_template = "chat_template" in experiment.recipe.data.options
    for sentence in _special_token_warnings(tokenizer, file, is_own_template):
        if f"{path}: {sentence}" not in experiment.warnings:
            experiment.warnings.append(f"{path}: {sentence}")


def require_same_tokens(own: Samples, read: Samples) -> None:
    """Check that the data of a teacher have the tokens that it reads in the student's data.

    Args:
        own: samples that the teacher is trained on.
        read: samples of the student, as the teacher reads them.

    Raises:
        RecipeError: if an id stands for two different tokens.
    """
    names, expected = _token_names(own), _token_names(read)
    if names is None or expected is None or names == expected:
        return
    differing = min(index for index, _ in names.items() ^ expected.items())
    tokens = [repr(side.get(differing, "missing")) for side in (names, expected)]
    raise RecipeError(
        f"teacher.data: token {differing} is {tokens[0]} there and {tokens[1]} in the texts that "
        f"this teacher reads later. Expected the same {len(expected)} tokens. Set the same "
        "tokenizer and no prune for both; the tokens of bpe:SIZE and of prune depend on the texts"
    )


def _token_names(samples: Any) -> dict[int, str] | None:
    """Token of each id of samples, None for samples that are not texts."""
    tokenizer = tokenizer_of_samples(samples)
    if tokenizer is None:
        return None
    tokens = _tokens(tokenizer)
    token_ids = samples.facts.get("tokens")  # of a reduced vocabulary
    return {new: tokens[old] for new, old in enumerate(token_ids)} if token_ids else tokens


def _special_token_warnings(tokenizer: Tokenizer, file: Path, is_own_template: bool) -> list[str]:
    """Sentences on other end tokens, and another chat template, in the folder of a model.

    Args:
        tokenizer: tokenizer of the data.
        file: tokenizer file of the model.
        is_own_template: whether the recipe sets a template, so that it may differ.
    """
    inner: Any = getattr(tokenizer, "inner", None)
    if inner is None:
        return []
    files = (
        SpecialTokenFiles.of_gguf(gguf_metadata(file))
        if file.suffix == ".gguf"
        else SpecialTokenFiles.of_folder(file.parent)
    )
    warnings = []
    is_defined = files.token("eos") or files.generation_config.get("eos_token_id") is not None
    ends = end_tokens(inner, files, file.name) if is_defined else tokenizer.ends
    if not set(ends) & set(tokenizer.ends):
        names = [", ".join(map(inner.id_to_token, side)) for side in (ends, tokenizer.ends)]
        warnings.append(
            f"its texts end with {names[0]}, those of the data with {names[1]}. It gives the end "
            "of the data's texts little probability. Set data.end"
        )
    own = getattr(tokenizer, "files", SpecialTokenFiles()).chat_template
    if files.chat_template and own and files.chat_template != own and not is_own_template:
        warnings.append(
            "its chat template is another one than that of the data. Set data.chat_template to the "
            "one that it was trained with"
        )
    return warnings


def add_output_warnings(
    experiment: Experiment, nets: Sequence[tuple[Net, ModelConfig]], batch: Batch
) -> None:
    """Add a sentence to ``experiment.warnings`` for each trained network that is worse than chance.

    Args:
        experiment: experiment of the stage.
        nets: networks with their sections.
        batch: batch of the student.
    """
    for net, config in nets:
        side = "teacher" if isinstance(config, TeacherConfig) else "student"
        # Low-rank adapters start as the identity; other changes may ruin the outputs of a model.
        is_changed = bool(set(config.changes) - {"lora"})
        if not has_trained_weights(config) or is_changed:
            continue
        has_tokenizer = isinstance(config, TeacherConfig) and config.tokenizer is not None
        own_batch = read_by_teacher(batch) if has_tokenizer else batch
        with side_effect_free(net):
            sentence = experiment.task.output_warning(net(own_batch), own_batch)
        if not sentence:
            continue
        warning = f"{side}: {sentence}"
        if warning not in experiment.warnings:
            experiment.warnings.append(warning)


def _tokens(tokenizer: Any) -> dict[int, str]:
    """Token of each id."""
    inner: Any = getattr(tokenizer, "inner", None)
    if symbols := getattr(tokenizer, "symbols", None):
        return dict(enumerate(symbols))
    if inner is None:  # a tokenizer of bytes
        return {index: f"byte {index}" for index in range(tokenizer.size)}
    return {index: token for token, index in inner.get_vocab().items()}


def _tokenizer_file(model: nn.Module) -> Path | None:
    """Tokenizer file in the folder that a model was read from, None if there is none."""
    bare = without_wrapper(model)
    if (file := getattr(bare, "tokenizer_file", None)) is not None:
        return Path(file)
    folder = getattr(bare, "name_or_path", None)
    if not isinstance(folder, str) or not folder:
        return None
    file = Path(folder) / "tokenizer.json"
    return file if file.is_file() else None
