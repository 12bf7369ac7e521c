"""Files that the shipped model of gain names."""

from pathlib import Path

from instil.early_signals.gain_model import read_gain_model

ROOT = Path(__file__).parents[2]


def test_every_source_of_the_model_exists() -> None:
    sources = [row["source"] for row in read_gain_model()["sources"]]
    assert len(sources) >= 9
    assert [source for source in sources if not (ROOT / source).is_file()] == []
