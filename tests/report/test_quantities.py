"""Metrics, sizes and times as text."""

import pytest

from instil.report import quantities


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (quantities.amount(0.9514), "95.1 %"),
        (quantities.amount(-0.02), "−2.0 %"),
        (quantities.amount(1.2345, is_fraction=False), "1.234"),
        (quantities.amount(None), "–"),
        (quantities.spread(0.951, 0.0042), "95.1 % ± 0.4"),
        (quantities.spread(0.951, None), "95.1 %"),
        (quantities.points(0.123), "+12.3"),
        (quantities.points(-0.004), "−0.4"),
        (quantities.points(0.0), "0.0"),
        (quantities.size(0), "0 B"),
        (quantities.size(999), "999 B"),
        (quantities.size(19872), "19.9 kB"),
        (quantities.size(376100), "376 kB"),
        (quantities.size(44_709_759), "44.7 MB"),
        (quantities.size(8.2e9), "8.2 GB"),
        (quantities.milliseconds(0.01634), "0.0163 ms"),
        (quantities.milliseconds(54.845), "54.8 ms"),
        (quantities.milliseconds(1234.5), "1234 ms"),
        (quantities.duration(2.94), "2.9 s"),
        (quantities.duration(75), "75 s"),
        (quantities.duration(600), "10 min"),
        (quantities.duration(9000), "2.5 h"),
        (quantities.factor(20.4), "20×"),
        (quantities.factor(1.34), "1.3×"),
        (quantities.power_of_ten(4.8e-7), "5 × 10⁻⁷"),
        (quantities.power_of_ten(0.0), "0"),
        (quantities.count(93322), "93 322"),
    ],
)
def test_numbers_as_text(text: str, expected: str) -> None:
    assert text.replace("\u202f", " ").replace("\xa0", " ") == expected


def test_plain_text_is_ascii_apart_from_the_plus_minus_sign() -> None:
    text = quantities.plain(quantities.spread(-1234.5, 0.5, is_fraction=False))
    assert text == "-1 234 ± 0.500"
