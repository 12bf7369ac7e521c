"""Options of LightGBM and XGBoost, which accept further ones by keyword and check none."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from typing import Any

from instil.cards.closest import did_you_mean

UNUSED = re.compile(r"Parameters: \{ (.*?) \} are not used")
"""Warning of XGBoost about parameters that it does not have or does not use."""
DECISIVE = ("booster", "objective", "tree_method")
"""Parameters of XGBoost that decide which others are used."""


def check_tree_options(
    spec: str, library: str, module: Any, options: Mapping[str, Any], names: Collection[str]
) -> None:
    """Check the options of an estimator that its constructor does not declare.

    Args:
        spec: model as the recipe names it, for the message.
        library: ``lightgbm`` or ``xgboost``.
        module: the imported library.
        options: options that the recipe sets.
        names: options that the constructor declares.

    Raises:
        ValueError: for an option that the library does not have, with the closest one.
    """
    further = {key: value for key, value in options.items() if key not in names}
    if not further:
        return
    if library == "xgboost":
        decisive = {key: options[key] for key in DECISIVE if isinstance(options.get(key), str)}
        unknown, valid = _unused_by_xgboost(module, decisive | further), set(names)
    else:
        valid = {*names, *_parameters_of_lightgbm(module)}
        # Without the library's table nothing can be refused.
        unknown = [name for name in further if name not in valid] if len(valid) > len(names) else []
    for name in unknown:
        if name in further:
            raise ValueError(
                f"options.{name}: unknown option. Expected an option of {spec} that it uses."
                f"{did_you_mean(name, sorted(valid))}"
            )


def _parameters_of_lightgbm(module: Any) -> set[str]:
    """Return all parameters of LightGBM with their aliases; empty for another version."""
    table = getattr(getattr(module, "basic", None), "_ConfigAliases", None)
    read = getattr(table, "_get_all_param_aliases", None)
    names: set[str] = set()
    for name, aliases in (read() if callable(read) else {}).items():
        names |= {name, *aliases}
    return names


def _unused_by_xgboost(module: Any, options: Mapping[str, Any]) -> list[str]:
    """Return the parameters that a training of one tree on four rows does not use."""
    data = module.DMatrix([[0.0], [1.0], [2.0], [3.0]], label=[0, 1, 0, 1])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            module.train({**options, "verbosity": 1}, data, num_boost_round=1)
        except Exception:  # a wrong value is an error of the fit, with its own message
            return []
    unused: list[str] = []
    for warning in caught:
        match = UNUSED.search(str(warning.message))
        unused += re.findall(r'"(.*?)"', match[1]) if match else []
    return unused
