"""Texts of earlier weights for schemes that generate text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instil.core import Batch, Net, Objectives
from instil.generation.later_texts import LaterTexts
from instil.generation.options import Sampling
from instil.generation.rollout_source import RolloutSource, StudentCopy
from instil.generation.sampling import choose_sampled
from instil.weightings.truncated_importance import TruncatedImportance

if TYPE_CHECKING:
    from instil.schemes.bases.writer import GenerativeScheme

TEXT_STREAM = "scheme.text"
"""Random stream of the tokens of student text."""


def later_texts(scheme: GenerativeScheme) -> LaterTexts | None:
    """Create the queue of later texts; None if each step generates its texts itself.

    Args:
        scheme: scheme whose networks are built.
    """
    for weighting in _ratios(scheme.objectives):
        weighting.vocabulary = scheme.vocabulary
    if scheme.rollouts.is_immediate:
        return None
    source = _source(scheme)
    return LaterTexts(scheme.rollouts, source, scheme.student, scheme.needs_student_text)


def _source(scheme: GenerativeScheme) -> RolloutSource:
    def generate(net: Net, batch: Batch) -> Batch:
        choose = choose_sampled(*scheme.sampling.distribution(batch))
        return scheme.generate_with(batch, [net], choose, TEXT_STREAM)

    return StudentCopy(scheme.student, generate, scheme.rollouts.device)


def check_ratios(objectives: Objectives, sampling: Sampling) -> None:
    """Check that texts have the probabilities that ``truncated_importance`` compares.

    Args:
        objectives: objectives of the scheme.
        sampling: options of the generated text.

    Raises:
        ValueError: for another temperature than 1 or a nucleus.
    """
    if _ratios(objectives) and (sampling.temperature, sampling.top_p) != (1, 1):
        raise ValueError(
            "scheme.sampling: truncated_importance needs texts from the student's own "
            "distribution. Expected temperature 1 and top_p 1, got "
            f"{sampling.temperature} and {sampling.top_p}. Leave both out"
        )


def _ratios(objectives: Objectives) -> list[TruncatedImportance]:
    """Sample weights that compare the student with the weights that generated a text."""
    weights = [objective.sample_weight for _, objective in objectives.named()]
    return [weight for weight in weights if isinstance(weight, TruncatedImportance)]
