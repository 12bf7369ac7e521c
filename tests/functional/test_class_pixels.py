"""Sampled pixels and regions of classes against plain loops."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from instil.functional.class_pixels import class_regions, sample_class_pixels


def test_the_pixels_with_the_largest_numbers_are_sampled_once_each() -> None:
    vectors = torch.arange(6.0).reshape(1, 6, 1)
    in_class = torch.tensor([[[True, True, True, False, True, False], [False] * 5 + [True]]])
    uniforms = torch.tensor([[0.1, 0.9, 0.5, 0.8, 0.0, 0.7]])
    pixels, exists = sample_class_pixels(vectors, in_class, uniforms, 3)
    assert pixels[0, 0, :, 0].tolist() == [1.0, 2.0, 0.0]
    assert exists.tolist() == [[[True, True, True], [True, False, False]]]
    assert pixels[0, 1, 0, 0] == 5.0
    pixels, exists = sample_class_pixels(vectors, in_class, uniforms, 100)
    assert pixels.shape == (1, 2, 6, 1)
    assert exists.sum(2).tolist() == [[4, 1]], "a number of 0 is drawn too"


def test_regions_are_mean_directions() -> None:
    vectors = torch.randn(2, 5, 3)
    in_class = torch.rand(2, 4, 5) < 0.6
    in_class[0, 1] = False
    regions, exists = class_regions(vectors, in_class)
    assert torch.equal(exists, in_class.any(2))
    for image in range(2):
        for label in range(4):
            mean = vectors[image][in_class[image, label]].sum(0)
            assert torch.allclose(regions[image, label], F.normalize(mean, dim=0), atol=1e-6)
