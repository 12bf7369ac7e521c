"""Search spaces of all methods of the catalogue."""

from __future__ import annotations

import pytest

from instil import catalogue
from instil.catalogue.signatures import parameters
from instil.recipe import RecipeError, build_options
from instil.search.space import Dimension, method_space, weight_dimension

METHODS = [(kind, name) for kind in ("objective", "scheme") for name in catalogue.names(kind)]


def samples(space: tuple[Dimension, ...], num_samples: int) -> list[dict[str, object]]:
    """Random values of all dimensions."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    distributions = {one.path: one.distribution() for one in space}
    drawn = []
    for _ in range(num_samples):
        params = study.ask(distributions).params
        drawn.append({one.path: one.rounded(params[one.path]) for one in space})
    return drawn


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_the_default_lies_in_the_space_and_every_sample_builds(kind: str, name: str) -> None:
    space = method_space(kind, name, "section", {})
    assert all(one.default in one for one in space)
    required = [
        option
        for option, parameter in parameters(catalogue.find(kind, name)).items()
        if parameter.default is parameter.empty
    ]
    for params in samples(space, 10) if space else []:
        assert all(params[one.path] in one for one in space)
        options = {path.removeprefix("section."): value for path, value in params.items()}
        if required:
            # A scheme with further networks: only the networks may be missing.
            with pytest.raises(RecipeError) as error:
                build_options(kind, name, options, "section")
            assert len(str(error.value).splitlines()) == len(required)
            continue
        checked = build_options(kind, name, options, "section")
        if kind == "objective":
            catalogue.find(kind, name)(**checked)


def test_ranges_follow_the_annotations() -> None:
    space = {one.path: one for one in method_space("objective", "dkd", "objectives.dkd", {})}
    assert space["objectives.dkd.temperature"] == Dimension(
        "objectives.dkd.temperature", 4.0, 1.0, 16.0, is_log=True
    )
    assert space["objectives.dkd.standardize"].choices == (False, True)
    share = {one.path: one for one in method_space("objective", "jsd", "o", {})}["o.beta"]
    assert (share.low, share.high, share.is_log) == (0.0, 1.0, False)
    labels = method_space("objective", "label_smoothing", "o", {})[0]
    assert 0.0 == labels.low < labels.high < 1.0
    count = {one.path: one for one in method_space("objective", "mlkd", "o", {})}["o.count"]
    assert (count.low, count.high) == (2, 10)


def test_the_value_of_a_recipe_replaces_the_published_default() -> None:
    space = method_space("objective", "kd", "o", {"temperature": 10.0})
    assert (space[0].default, space[0].low, space[0].high) == (10.0, 2.5, 40.0)


def test_a_weight_is_searched_around_its_default() -> None:
    weight = weight_dimension("objectives.kd.weight", 30.0)
    assert (weight.low, weight.high, weight.is_log) == (3.0, 300.0, True)
    # With a weight of 0.3 its gradient is that of the label losses.
    large = weight_dimension("objectives.kd.weight", 30.0, balanced=0.3)
    assert (large.low, large.default, large.high) == (0.3, 30.0, 300.0)
    small = weight_dimension("objectives.kd.weight", 30.0, balanced=3000.0)
    assert (small.low, small.high) == (3.0, 3000.0)
    assert weight.rounded(12.3456) == 12.3


def test_the_range_of_a_weight_includes_the_published_one() -> None:
    weight = weight_dimension("objectives.pkt.weight", 1.0, 500.0, published=30_000.0)
    assert (weight.low, weight.default, weight.high, weight.published) == (0.1, 1.0, 3e4, 3e4)
    assert weight_dimension("objectives.dkd.weight", 1.0, published=1.0).published is None
