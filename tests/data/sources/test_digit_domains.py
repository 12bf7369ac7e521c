"""Digits of some classes, with another appearance."""

from __future__ import annotations

import pytest
import torch

from instil.data.sources.digit_domains import digit_domains
from instil.data.sources.digits import digits


def test_classes_are_numbered_in_the_order_of_the_option() -> None:
    some, every = digit_domains(["7", "2"]), digits()
    assert some.classes == ("7", "2")
    for subset, whole in (
        (some.train, every.train),
        (some.validation, every.validation),
        (some.test, every.test),
    ):
        is_chosen = torch.isin(whole.label, torch.tensor([2, 7]))
        assert torch.equal(subset.label == 0, whole.label[is_chosen] == 7)
        assert torch.equal(
            subset.__getitems__(range(len(subset)))["image"],
            whole.__getitems__(range(len(whole)))["image"][is_chosen],
        )  # type: ignore[arg-type]
        assert torch.equal(subset.index, torch.arange(len(subset)))


def test_looks() -> None:
    plain, inverted, turned = (
        digit_domains(look=look).test.__getitems__([0, 3])["image"]
        for look in ("plain", "inverted", "turned")
    )  # type: ignore[arg-type]
    assert torch.equal(inverted, 1 - plain)
    assert torch.equal(turned[0, 0], plain[0, 0].T.flip(0))


def test_rows_part_the_training_images() -> None:
    first, second = digit_domains(rows=[0, 600]).train, digit_domains(rows=[600, 1000]).train
    both = torch.cat([part.__getitems__(range(len(part)))["image"] for part in (first, second)])
    assert torch.equal(both, digits().train.__getitems__(range(1000))["image"])
    assert len(digit_domains(rows=[0, 600]).test) == 500


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="classes: unknown digit '10'"):
        digit_domains(["10"])
    with pytest.raises(ValueError, match="classes: '1' is listed twice"):
        digit_domains(["1", "1"])
    for rows in ([0], [5, 5], [0, 1001]):
        with pytest.raises(ValueError, match=r"rows: .*two numbers from 0 to 1000"):
            digit_domains(rows=rows)
