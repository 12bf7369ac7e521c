"""Results of trials without numbers that JSON does not know."""

from __future__ import annotations

import math

from instil.search.finite import finite_result

TRIAL = {
    "status": "complete",
    "score": 2.0,
    "curve": [[1, math.inf], [2, 3.0]],
    "validation": {"perplexity": 2.0, "loss": math.nan},
}


def test_further_metrics_and_points_are_left_out() -> None:
    result = finite_result(TRIAL, "perplexity")
    assert result["status"] == "complete"
    assert result["curve"] == [[2, 3.0]]
    assert result["validation"] == {"perplexity": 2.0}


def test_a_headline_metric_that_is_not_finite_fails_the_trial() -> None:
    for changes in ({"score": math.nan}, {"test": {"perplexity": math.inf}}):
        result = finite_result(TRIAL | changes, "perplexity")
        assert result["status"] == "failed"
        assert result["score"] is None
        assert "validation" not in result
        assert "Expected a finite value" in result["error"]


def test_an_int8_file_without_a_finite_score_is_left_out() -> None:
    int8 = {"validation": {"perplexity": 2.0}, "test": {"perplexity": math.inf}}
    assert finite_result(TRIAL | {"int8": int8}, "perplexity")["int8"] is None
    int8["test"] = {"perplexity": 3.0, "loss": math.nan}
    finite = finite_result(TRIAL | {"int8": int8}, "perplexity")["int8"]
    assert finite == {"validation": {"perplexity": 2.0}, "test": {"perplexity": 3.0}}
