"""Means and gains compared with numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from instil.plan.statistics import paired_gain, summarize

TREATED, CONTROL = [0.91, 0.88, 0.93, 0.90], [0.84, 0.86, 0.85, 0.87]


def test_mean_and_sample_deviation() -> None:
    result = summarize(TREATED)
    assert result["mean"] == pytest.approx(np.mean(TREATED))
    assert result["std"] == pytest.approx(np.std(TREATED, ddof=1))
    assert result["values"] == TREATED


def test_the_gain_is_the_paired_t_interval() -> None:
    result = paired_gain(TREATED, CONTROL)
    expected = stats.ttest_rel(TREATED, CONTROL).confidence_interval(0.95)
    difference = np.subtract(TREATED, CONTROL)
    assert result["mean"] == pytest.approx(difference.mean())
    assert result["std"] == pytest.approx(difference.std(ddof=1))
    assert result["interval"] == pytest.approx([expected.low, expected.high])
    assert (result["level"], result["paired"], result["significant"]) == (0.95, True, True)


@pytest.mark.parametrize("treated", [[0.9, 0.8, 0.85], [0.85, 0.87, 0.83]])
def test_significance_agrees_with_the_t_test(treated: list[float]) -> None:
    control = [0.80, 0.81, 0.82]
    assert paired_gain(treated, control)["significant"] == (
        stats.ttest_rel(treated, control).pvalue < 0.05
    )


def test_one_seed_has_neither_deviation_nor_interval() -> None:
    assert summarize([0.5]) == {"mean": 0.5, "std": None, "values": [0.5]}
    assert paired_gain([0.5], [0.25]) == {
        "mean": 0.25,
        "std": None,
        "interval": None,
        "level": 0.95,
        "paired": True,
        "p": None,
        "significant": False,
    }


@pytest.mark.parametrize("num_seeds", [2, 3, 6])
def test_equal_differences_have_the_p_value_of_all_changes_of_sign(num_seeds: int) -> None:
    """Student's t is infinite, as if two seeds proved a gain of one image."""
    control = [0.1 * seed for seed in range(num_seeds)]
    gain = paired_gain([value + 0.01 for value in control], control)
    exact = stats.permutation_test(
        (np.full(num_seeds, 0.01), np.zeros(num_seeds)),
        lambda first, second: np.sum(first - second),
        permutation_type="samples",
    )
    assert gain["p"] == pytest.approx(exact.pvalue)
    assert gain["significant"] == (num_seeds == 6)
    assert paired_gain(control, control)["p"] == 1


def test_unequal_numbers_of_values_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_gain([0.5, 0.6], [0.5])


def test_a_gain_is_positive_for_an_improvement_whichever_direction_is_better() -> None:
    lower = paired_gain([668.0, 660.0, 671.0], [709.0, 700.0, 713.0], higher_is_better=False)
    assert lower["mean"] == pytest.approx(41.0)
    assert lower["interval"][0] > 0
    assert lower["significant"]
    assert paired_gain([0.5], [0.4], higher_is_better=True)["mean"] == pytest.approx(0.1)
