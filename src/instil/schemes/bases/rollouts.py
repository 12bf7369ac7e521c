"""Texts of earlier weights for schemes that generate text."""

from __future__ import annotations

from instil.core import Net, Objectives
from instil.generation.options import Sampling
from instil.generation.rollout_options import Rollouts
from instil.generation.rollout_source import GenerateText, RolloutSource, StudentCopy
from instil.remote.server_texts import ServerTexts, WriteStudent
from instil.weightings.truncated_importance import TruncatedImportance

TEXT_STREAM = "scheme.text"
"""Random stream of the tokens of student text."""


def rollout_source(
    rollouts: Rollouts,
    student: Net,
    generate: GenerateText,
    sampling: Sampling,
    vocabulary: int | None,
    write: WriteStudent | None,
) -> RolloutSource:
    """Create the source of the student's texts.

    Args:
        rollouts: options of the source.
        student: the student.
        generate: generates the texts of a batch with a network.
        sampling: options of the generated text.
        vocabulary: number of tokens that may be generated.
        write: writes the student for a server; None: there is none.

    Raises:
        ValueError: if there is no such server, or nothing writes the student for it.
    """
    if rollouts.server is None:
        return StudentCopy(student, generate, rollouts.device)
    if write is None:
        raise ValueError(
            "scheme.rollouts.server: nothing writes the student for the server. Expected a "
            "function. Call set_student_writer"
        )
    try:
        source = ServerTexts(rollouts, sampling, vocabulary, TEXT_STREAM, write)
        source.start(student)
    except ValueError as error:
        raise ValueError(f"scheme.rollouts.{error}") from error
    return source


def check_ratios(objectives: Objectives, sampling: Sampling, rollouts: Rollouts) -> None:
    """Check that texts have the probabilities that ``truncated_importance`` compares.

    Args:
        objectives: objectives of the scheme.
        sampling: options of the generated text.
        rollouts: options of the source.

    Raises:
        ValueError: for another temperature than 1 or a nucleus, and for a server without
            log-probabilities.
    """
    if not ratios(objectives):
        return
    if (sampling.temperature, sampling.top_p) != (1, 1):
        raise ValueError(
            "scheme.sampling: truncated_importance needs texts from the student's own "
            "distribution. Expected temperature 1 and top_p 1, got "
            f"{sampling.temperature} and {sampling.top_p}. Leave both out"
        )
    check_log_probs("truncated_importance", rollouts)


def check_log_probs(name: str, rollouts: Rollouts) -> None:
    """Check that the source of the texts returns the log-probabilities of all tokens.

    Args:
        name: what reads the log-probabilities.
        rollouts: options of the source.

    Raises:
        ValueError: for llama.cpp.
    """
    if rollouts.server == "llama_cpp":
        raise ValueError(
            "scheme.rollouts.server: llama.cpp returns no log-probabilities of some tokens, which "
            f"{name} needs. Expected vllm, sglang or null"
        )


def ratios(objectives: Objectives) -> list[TruncatedImportance]:
    """Return the sample weights that compare the student with the weights of a text.

    Args:
        objectives: objectives of a scheme.
    """
    weights = [objective.sample_weight for _, objective in objectives.named()]
    return [weight for weight in weights if isinstance(weight, TruncatedImportance)]
