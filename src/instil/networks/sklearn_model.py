"""Estimator of scikit-learn as a model: its probabilities as logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from instil.core import UNLABELLED
from instil.functional.log_probabilities import log_of, logit_of

TRUSTED = ("sklearn.", "numpy.", "scipy.", "lightgbm.", "xgboost.", "collections.OrderedDict")
"""Packages whose types a cached estimator may have."""


class SklearnModel(nn.Module):
    """Classifier or regressor of scikit-learn.

    The inputs of a sample are flattened to one row of numbers. Before ``fit``, the logits are those
    of a random linear layer, as of any untrained network. The state is the estimator in the format
    of skops, which executes no code when it is read.

    Args:
        estimator: estimator that is not fitted yet.
        outputs: number of classes, or of predicted numbers.
    """

    serialized: Tensor

    def __init__(self, estimator: Any, outputs: int):
        super().__init__()
        self.estimator = estimator
        self.outputs = outputs
        self.is_fitted = False
        self.register_buffer("serialized", torch.zeros(0, dtype=torch.uint8))

    def resize_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the size of a state that is loaded next."""
        self.is_fitted = False
        self.serialized = torch.zeros_like(state["serialized"])

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """Compute logits (N, C), or predicted numbers.

        Args:
            inputs: one tensor (N, ...).
            named: inputs by name, which no estimator has.

        Raises:
            ValueError: for other inputs than one table of numbers.
        """
        if len(inputs) != 1 or named or not inputs[0].is_floating_point():
            received = ", ".join(named) or f"{len(inputs)} tensors"
            raise ValueError(
                f"{self._name} reads one tensor of numbers per sample, such as a table or images. "
                f"Expected one input, got {received}"
            )
        rows = inputs[0].detach().flatten(1).float().cpu()
        if len(self.serialized) and not self.is_fitted:
            self._deserialize()
        logits = self._predict(rows.numpy()) if self.is_fitted else self._untrained(rows)
        return logits.float().to(inputs[0].device)

    def fit(self, inputs: Tensor, label: Tensor) -> None:
        """Fit the estimator.

        Args:
            inputs: (N, ...).
            label: class indices (N,), or float (N, C); rows with -100 are left out.

        Raises:
            ValueError: if there is no label, or the estimator cannot be fitted.
        """
        is_missing = label == UNLABELLED
        has_label = ~(is_missing.flatten(1).any(1) if label.ndim > 1 else is_missing)
        if not has_label.any():
            raise ValueError(f"{self._name} learns from labels, and no sample has one")
        target = label[has_label].cpu()
        columns = target.squeeze(1) if target.ndim == 2 and target.shape[1] == 1 else target
        values = columns.float() if self.predicts_numbers else columns.long()
        self._fit(inputs[has_label], values, None, is_independent=target.ndim == 2)

    def fit_classes(self, inputs: Tensor, weight: Tensor) -> None:
        """Fit a classifier on soft labels: copies of each row, weighted by its class.

        Without soft labels and with equal weights this is ``fit``.

        Args:
            inputs: (N, ...).
            weight: (N, C), weight of each class; classes with weight 0 are left out.

        Raises:
            ValueError: if all weights are 0, or the estimator cannot be fitted.
        """
        row, label = weight.nonzero(as_tuple=True)
        if not len(row):
            raise ValueError(f"{self._name} learns from labels, and no sample has one")
        weights = weight[row, label]
        has_one_class = bool(((weight > 0).sum(1) <= 1).all())
        is_hard = has_one_class and bool((weights == weights[0]).all())
        self._fit(inputs[row], label, None if is_hard else weights)

    def fit_numbers(self, inputs: Tensor, target: Tensor, weight: Tensor) -> None:
        """Fit a regressor on weighted rows.

        Args:
            inputs: (N, ...).
            target: (N, D).
            weight: (N,), weight of each row; rows with weight 0 are left out.

        Raises:
            ValueError: if all weights are 0, or the estimator cannot be fitted.
        """
        is_used = weight > 0
        if not is_used.any():
            raise ValueError(f"{self._name} learns from labels, and no sample has one")
        weights = weight[is_used]
        values = target[is_used].float()
        columns = values.squeeze(1) if values.shape[1] == 1 else values
        is_equal = bool((weights == weights[0]).all())
        self._fit(inputs[is_used], columns, None if is_equal else weights, is_independent=True)

    def fitted_estimator(self) -> Any:
        """Return the fitted estimator.

        Raises:
            ValueError: if it is not fitted.
        """
        if len(self.serialized) and not self.is_fitted:
            self._deserialize()
        if not self.is_fitted:
            raise ValueError(f"{self._name} is not fitted. Expected a call of fit first")
        return self.estimator

    def stored_bytes(self) -> bytes:
        """Return the fitted estimator as a file of skops, whose labels are class indices."""
        return bytes(self.serialized.cpu().numpy().tobytes())

    def unchecked_types(self) -> list[str]:
        """Return the types of the stored estimator that skops does not trust by itself."""
        from skops import io  # type: ignore[import-untyped]

        return list(io.get_untrusted_types(data=self.stored_bytes()))

    @property
    def accepts_weights(self) -> bool:
        """Whether the samples of a fit may have weights."""
        from sklearn.utils.validation import has_fit_parameter  # type: ignore[import-untyped]

        return bool(has_fit_parameter(self.estimator, "sample_weight"))

    def no_weights(self) -> str:
        """Return the error of soft targets for an estimator without sample weights."""
        kind = "Regressor" if self.predicts_numbers else "Classifier"
        return (
            f"model: {self._name} takes no sample weights, which are the soft targets of a student "
            f"that is fitted. Expected a fit with sample_weight, as of RandomForest{kind}"
        )

    @property
    def predicts_numbers(self) -> bool:
        """Whether the estimator is a regressor."""
        from sklearn.base import is_regressor  # type: ignore[import-untyped]

        return bool(is_regressor(self.estimator))

    @property
    def _name(self) -> str:
        return type(self.estimator).__name__

    def _fit(
        self, inputs: Tensor, values: Tensor, weight: Tensor | None, is_independent: bool = False
    ) -> None:
        """Fit the estimator on rows that all have a target.

        Args:
            inputs: (N, ...).
            values: targets.
            weight: sample weights; None for equal ones.
            is_independent: whether each output has a label of its own.
        """
        if weight is not None and not self.accepts_weights:
            raise ValueError(self.no_weights())
        rows = inputs.flatten(1).float().cpu().numpy()
        options = {} if weight is None else {"sample_weight": weight.double().cpu().numpy()}
        try:
            self.estimator.fit(rows, values.cpu().numpy(), **options)
        except Exception as error:  # a library may raise anything
            raise ValueError(f"{self._name} cannot be fitted: {error}") from error
        self.estimator.has_independent_labels_ = is_independent
        self.is_fitted = True
        self._serialize()

    def _untrained(self, rows: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(rows.shape[1], self.outputs, generator=generator)
        logits: Tensor = rows @ weight / max(rows.shape[1], 1) ** 0.5
        return logits

    def _predict(self, rows: NDArray[np.float32]) -> Tensor:
        if self.predicts_numbers:
            return torch.from_numpy(self.estimator.predict(rows)).reshape(len(rows), self.outputs)
        probabilities = self.estimator.predict_proba(rows)
        if not self.estimator.has_independent_labels_:
            return log_of(self._by_class(probabilities, self.estimator.classes_))
        # Several labels give a list with one array for each of them; one label gives an array.
        is_list = isinstance(probabilities, list)
        each = probabilities if is_list else [probabilities]
        classes = self.estimator.classes_ if is_list else [self.estimator.classes_]
        columns = [_probability_of_one(*pair) for pair in zip(each, classes, strict=True)]
        return logit_of(torch.stack(columns, dim=1))

    def _by_class(self, probabilities: NDArray[np.float64], classes: NDArray[np.int64]) -> Tensor:
        """Probabilities (N, C) in label order; a class without a training sample has 0."""
        table = torch.zeros(len(probabilities), self.outputs, dtype=torch.float64)
        table[:, torch.from_numpy(classes)] = torch.from_numpy(probabilities).double()
        return table

    def _serialize(self) -> None:
        from skops import io

        data = bytearray(io.dumps(self.estimator))
        self.serialized = torch.frombuffer(data, dtype=torch.uint8).clone()

    def _deserialize(self) -> None:
        from skops import io

        data = self.stored_bytes()
        types = self.unchecked_types()
        foreign = [name for name in types if not name.startswith(TRUSTED)]
        if foreign:
            raise ValueError(
                f"the stored {self._name} contains {foreign[0]}. Expected types of "
                f"{', '.join(name.rstrip('.') for name in TRUSTED)} only. Delete the file"
            )
        self.estimator = io.loads(data, trusted=types)
        self.is_fitted = True


def _probability_of_one(probabilities: NDArray[np.float64], classes: NDArray[np.int64]) -> Tensor:
    """Probability (N,) of the label 1; 0 if no training sample has it."""
    columns = probabilities[:, classes == 1]
    return torch.from_numpy(columns.sum(1))
