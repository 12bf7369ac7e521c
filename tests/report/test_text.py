from pathlib import Path

import pytest

from instil.report import tables, text
from instil.report.record import Record


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (text.amount(0.9514), "95.1 %"),
        (text.amount(-0.02), "−2.0 %"),
        (text.amount(1.2345, fraction=False), "1.234"),
        (text.amount(None), "–"),
        (text.spread(0.951, 0.0042), "95.1 % ± 0.4"),
        (text.spread(0.951, None), "95.1 %"),
        (text.points(0.123), "+12.3"),
        (text.points(-0.004), "−0.4"),
        (text.points(0.0), "0.0"),
        (text.size(0), "0 B"),
        (text.size(999), "999 B"),
        (text.size(19872), "19.9 kB"),
        (text.size(376100), "376 kB"),
        (text.size(44_709_759), "44.7 MB"),
        (text.size(8.2e9), "8.2 GB"),
        (text.milliseconds(0.01634), "0.0163 ms"),
        (text.milliseconds(54.845), "54.8 ms"),
        (text.milliseconds(1234.5), "1234 ms"),
        (text.duration(2.94), "2.9 s"),
        (text.duration(75), "75 s"),
        (text.duration(600), "10 min"),
        (text.duration(9000), "2.5 h"),
        (text.times(20.4), "20×"),
        (text.times(1.34), "1.3×"),
        (text.power(4.8e-7), "5 × 10⁻⁷"),
        (text.power(0.0), "0"),
        (text.count(93322), "93 322"),
    ],
)
def test_numbers_read_well(found: str, expected: str) -> None:
    assert found.replace("\u202f", " ").replace("\xa0", " ") == expected


def test_the_headline_of_a_metric_of_which_less_is_better_says_so(tmp_path: Path) -> None:
    found = {
        "headline": "perplexity",
        "higher_is_better": False,
        "seeds": [0],
        "teacher": {"perplexity": {"mean": 11.5, "std": None, "values": [11.5]}},
        "alone": {"perplexity": {"mean": 709.2, "std": None, "values": [709.2]}},
        "distilled": {"perplexity": {"mean": 668.2, "std": None, "values": [668.2]}},
        "gain": {"mean": 41.0, "std": None, "interval": None, "significant": False},
    }
    record = Record(tmp_path, found)
    sentence = text.headline_sentence(record).replace("\u202f", " ").replace("\xa0", " ")
    assert "a perplexity of 668.2 (lower is better)" in sentence
    assert "41.00 below the same student trained alone" in sentence
    assert sentence.endswith("; the teacher has 11.50.")
    assert not record.fraction
    assert "Perplexity (lower is better)" in tables.arms_table(record)
    assert "Gain over the student alone" in tables.arms_table(record)
    assert "+41.00" in tables.arms_table(record).replace("\u202f", " ")
