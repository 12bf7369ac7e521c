"""Check of sharded vision-language models."""

from __future__ import annotations

from collections.abc import Iterable

from instil.core import Net, Scheme
from instil.data.ragged_rows import RaggedRows
from instil.data.samples import Samples


def check_images_of_shards(scheme: Scheme, sample_sets: Iterable[Samples]) -> None:
    """Check that each process of a sharded training runs the image towers in the same steps.

    A model runs its image tower for batches with an image only. To gather the weights of a tower,
    all processes are needed.

    Args:
        scheme: prepared scheme of a sharded training.
        sample_sets: samples of training and evaluation.

    Raises:
        ValueError: for a vision-language model, if some rows have an image and others have none.
    """
    if not any(isinstance(part, Net) and _has_image_tower(part) for part in scheme.modules()):
        return
    for samples in sample_sets:
        if not isinstance(samples, RaggedRows):
            continue
        has_image = samples.has_image()
        if 0 < sum(has_image) < len(has_image):
            raise ValueError(
                f"shard: {has_image.count(False)} of {len(has_image)} rows have no image. A "
                "process whose batch has none would not take part in gathering the weights of "
                "the image tower. Expected an image in each row, or in none. Leave out the rows "
                "of one kind, or set train.shard: false"
            )


def _has_image_tower(net: Net) -> bool:
    return hasattr(getattr(net.model, "config", None), "vision_config")
