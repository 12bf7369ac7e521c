"""Edit distances of sequences, and the error rates that follow from them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

Symbols = Sequence[Hashable]
"""A sequence of symbols: token ids, phonemes, characters or words."""


def edit_distance(prediction: Symbols, target: Symbols) -> int:
    """Return the smallest number of insertions, deletions and substitutions (Levenshtein 1966).

    Args:
        prediction: predicted symbols.
        target: correct symbols.

    Example:
        >>> edit_distance("kitten", "sitting")
        3
    """
    row = list(range(len(target) + 1))
    for i, symbol in enumerate(prediction, 1):
        diagonal = row[0]
        row[0] = i
        for j, other in enumerate(target, 1):
            substituted = diagonal + (symbol != other)
            diagonal = row[j]
            row[j] = min(substituted, row[j] + 1, row[j - 1] + 1)
    return row[-1]


def sequence_error_rate(predictions: Sequence[Symbols], targets: Sequence[Symbols]) -> float:
    """Return the edits of all sequences divided by the number of symbols of all targets.

    The symbols decide the name: phoneme, character or word error rate. The value may exceed 1.

    Args:
        predictions: predicted sequences.
        targets: correct sequences.

    Raises:
        ValueError: for another number of predictions, and for targets without symbols.

    Example:
        >>> sequence_error_rate([[3, 4], [5]], [[3, 4], [5, 6]])
        0.25
    """
    if len(predictions) != len(targets):
        raise ValueError(f"predictions: there are {len(predictions)}. Expected {len(targets)}")
    total = sum(len(target) for target in targets)
    if not total:
        raise ValueError("targets: there are no symbols. Expected at least one")
    pairs = zip(predictions, targets, strict=True)
    return sum(edit_distance(prediction, target) for prediction, target in pairs) / total


def character_errors(predictions: Sequence[str], targets: Sequence[str]) -> float:
    """Return the character error rate of texts; spaces count.

    Example:
        >>> character_errors(["a cat"], ["a bat"])
        0.2
    """
    return sequence_error_rate(predictions, targets)


def word_errors(predictions: Sequence[str], targets: Sequence[str]) -> float:
    """Return the word error rate of texts, split at white space.

    Example:
        >>> word_errors(["a cat sat"], ["a cat sits here"])
        0.5
    """
    return sequence_error_rate(
        [prediction.split() for prediction in predictions], [target.split() for target in targets]
    )


def exact_match(predictions: Sequence[Symbols], targets: Sequence[Symbols]) -> float:
    """Return the share of the predictions that equal their target.

    Example:
        >>> exact_match(["ab", "c"], ["ab", "d"])
        0.5
    """
    pairs = list(zip(predictions, targets, strict=True))
    same = [list(prediction) == list(target) for prediction, target in pairs]
    return sum(same) / max(1, len(same))
