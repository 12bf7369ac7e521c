"""Source ``sklearn:``: estimators of scikit-learn, such as ``sklearn:RandomForestClassifier``."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from instil.cards import suggestion
from instil.networks.model_source import ModelRequest, ModelSource
from instil.networks.sklearn_model import SklearnModel
from instil.networks.tree_options import check_tree_options
from instil.networks.unknown_options import check_options

LIBRARIES = ("lightgbm", "xgboost")
"""Other libraries with estimators of this interface, as in ``sklearn:lightgbm.LGBMClassifier``."""


class SklearnSource(ModelSource):
    """Classifiers and regressors of scikit-learn, LightGBM and XGBoost, with their options.

    They are fitted instead of trained by gradients, and the logarithms of their probabilities are
    the logits. Without ``random_state`` each replica and each seed has its own.
    """

    package = "sklearn"
    extra = "sklearn"
    learns_by = "fit"

    def build(self, request: ModelRequest) -> nn.Module:
        self.library(request.spec)
        self.library(request.spec, "skops")
        from sklearn.base import is_regressor  # type: ignore[import-untyped]

        kind: Any = self._library_class(request) if "." in request.name else _own_class(request)
        options = dict(request.options)
        parameters = inspect.signature(kind).parameters
        # LightGBM and XGBoost take further options of their library by keyword.
        is_open = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        if not is_open:
            check_options(request.spec, options, parameters)
        names = kind().get_params() if is_open else parameters
        if is_open:
            library = request.name.partition(".")[0]
            module = self._library_module(request)
            check_tree_options(request.spec, library, module, options, names)
        if "random_state" in names:
            options.setdefault("random_state", torch.initial_seed() % 2**31)
        estimator = request.create(lambda: kind(**options))
        if not hasattr(estimator, "predict_proba") and not is_regressor(estimator):
            raise ValueError(
                f"{request.spec} gives no probabilities. Expected a classifier with "
                "predict_proba; choose another one, such as RandomForestClassifier"
            )
        return SklearnModel(estimator, request.fact("classes"))

    def identity(self, request: ModelRequest) -> str:
        self.library(request.spec)
        own = f"scikit-learn {version('scikit-learn')}"
        library, separator, _ = request.name.partition(".")
        if not separator:
            return own
        self._library_module(request)
        return f"{own}, {library} {version(library)}"

    def _library_class(self, request: ModelRequest) -> Any:
        """Estimator of another library with the interface of scikit-learn."""
        library, _, name = request.name.partition(".")
        module = self._library_module(request)
        names = [entry for entry in dir(module) if hasattr(getattr(module, entry), "fit")]
        if name not in names:
            raise ValueError(
                f"{library} has no estimator '{name}'. Expected one of {', '.join(names)}."
                f"{suggestion(name, names, is_listed=True)}"
            )
        return getattr(module, name)

    def _library_module(self, request: ModelRequest) -> Any:
        library, _, name = request.name.partition(".")
        if library in LIBRARIES:
            return self.library(request.spec, library, "trees")
        if name in _own_classes():
            raise ValueError(
                f"{request.spec}: estimators of scikit-learn are named without their module. "
                f"Write sklearn:{name}"
            )
        raise ValueError(
            f"{request.spec}: unknown library '{library}'. Expected one of "
            f"{', '.join(LIBRARIES)}.{suggestion(library, LIBRARIES, is_listed=True)}"
        )


def _own_class(request: ModelRequest) -> Any:
    """Classifier or regressor of scikit-learn itself."""
    estimators = _own_classes()
    if request.name not in estimators:
        raise ValueError(
            f"sklearn has no classifier or regressor '{request.name}'."
            f"{suggestion(request.name, estimators)}"
        )
    return estimators[request.name]


def _own_classes() -> dict[str, Any]:
    """Classifiers and regressors of scikit-learn by name."""
    from sklearn.utils import all_estimators  # type: ignore[import-untyped]

    return dict(all_estimators(type_filter=["classifier", "regressor"]))
