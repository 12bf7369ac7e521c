"""Result of a run in one sentence."""

from pathlib import Path

from instil.report.headline import headline_sentence
from instil.report.record import Record
from instil.report.result_tables import arms_table


def test_the_headline_names_the_direction_of_a_metric_where_lower_is_better(tmp_path: Path) -> None:
    result = {
        "headline": "perplexity",
        "higher_is_better": False,
        "seeds": [0],
        "teacher": {"perplexity": {"mean": 11.5, "std": None, "values": [11.5]}},
        "alone": {"perplexity": {"mean": 709.2, "std": None, "values": [709.2]}},
        "distilled": {"perplexity": {"mean": 668.2, "std": None, "values": [668.2]}},
        "gain": {"mean": 41.0, "std": None, "interval": None, "significant": False},
    }
    record = Record(tmp_path, result)
    sentence = headline_sentence(record).replace("\u202f", " ").replace("\xa0", " ")
    assert "a perplexity of 668.2 (lower is better)" in sentence
    assert "41.00 below the same student trained alone" in sentence
    assert sentence.endswith("; the teacher reaches 11.50.")
    assert not record.is_fraction
    assert "Perplexity (lower is better)" in arms_table(record)
    assert "Gain over the student alone" in arms_table(record)
    assert "+41.00" in arms_table(record).replace("\u202f", " ")
