"""Images in a list, in the forms that a student reads."""

from __future__ import annotations

import numpy as np
import torch

from instil.deployment.image_inputs import as_images


def test_arrays_of_8_bits_and_floating_point_have_one_scale() -> None:
    deep = np.full((4, 4), 0.5, np.float32)
    images = as_images([np.full((4, 4), 255, np.uint8), deep], 1, None)
    assert images.dtype == torch.float32
    assert images.flatten(1).amax(1).tolist() == [1, 0.5]
    assert as_images([np.full((4, 4), 255, np.uint8)], 1, None).dtype == torch.uint8
