"""Source ``sklearn``: tables that ship with scikit-learn, such as ``sklearn:breast_cancer``."""

from __future__ import annotations

from typing import Annotated, Any

from typing_extensions import Doc

from instil.cards import suggestion
from instil.data.splits import Splits, TestOption, ValidationOption
from instil.data.tabular import MungeOption, ScaleOption, StandardizeOption, SwapOption, table_data

NAMES = ("breast_cancer", "diabetes", "digits", "iris", "linnerud", "wine")
"""Tables whose rows are in the package scikit-learn itself."""


TableOption = Annotated[
    str,
    Doc("breast_cancer, digits, iris or wine with classes; diabetes or linnerud with numbers"),
]


def sklearn(
    table: TableOption,
    standardize: StandardizeOption = True,
    munge: MungeOption = 0,
    swap: SwapOption = 0.5,
    scale: ScaleOption = 1.0,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    task_name: str = "",
) -> Splits:
    """Tables of scikit-learn as the batch key ``features``, for the tabular tasks.

    Nothing is downloaded. The options are those of the source ``table``.

    Args:
        task_name: task of the recipe; diabetes and linnerud need ``tabular_regression``.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: without scikit-learn, for another name, and a task that does not fit.
    """
    if table not in NAMES:
        raise ValueError(
            f"scikit-learn ships no table '{table}'. Expected one of {', '.join(NAMES)}."
            f"{suggestion(table, NAMES, is_listed=True)}"
        )
    try:
        from sklearn import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError(
            "sklearn: the package scikit-learn is not installed. Install it with pip install "
            '"instil[sklearn]"'
        ) from error
    bunch: Any = getattr(datasets, f"load_{table}")()
    columns = {str(name): bunch.data[:, i].tolist() for i, name in enumerate(bunch.feature_names)}
    has_classes = table not in ("diabetes", "linnerud")
    if has_classes == (task_name == "tabular_regression"):
        expected = "tabular_classification" if has_classes else "tabular_regression"
        raise ValueError(f"sklearn:{table} does not fit task {task_name}. Use task: {expected}")
    label: str | list[str] = "label"
    if has_classes:
        columns["label"] = [str(bunch.target_names[index]) for index in bunch.target]
    else:
        target = bunch.target.reshape(len(bunch.target), -1)
        label = list(bunch.get("target_names", ["label"]))
        columns |= {name: target[:, i].tolist() for i, name in enumerate(label)}
    classes = [str(name) for name in bunch.target_names] if has_classes else None
    return table_data(
        {"train": columns},
        label,
        (validation, test),
        task_name,
        classes=classes,
        standardize=standardize,
        munge=munge,
        swap=swap,
        scale=scale,
    )
