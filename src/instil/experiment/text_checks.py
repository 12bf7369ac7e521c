"""Check of losses on the features of texts."""

from __future__ import annotations

from instil.core import Batch, Scheme
from instil.recipe.errors import error_context
from instil.tasks.bases.checks import check_compares_tokens
from instil.tasks.bases.task import Task
from instil.tasks.seq2seq import Seq2Seq


def check_encoded_texts(scheme: Scheme, task: Task, batch: Batch) -> None:
    """Check that no loss of an encoder-decoder compares features of its padded input texts.

    Encoders of images have no padding.

    Args:
        scheme: scheme of a stage.
        task: task of the recipe.
        batch: batch of the data.

    Raises:
        RecipeError: for an objective on features that is not made for encoder-decoders.
    """
    if isinstance(task, Seq2Seq) and "input_ids" in batch:
        with error_context(""):
            check_compares_tokens(scheme.objectives, {"features"}, ("seq2seq",))
