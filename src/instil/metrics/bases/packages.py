"""Optional packages of metrics, checked before anything is trained."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

COCO_PACKAGES = {"pycocotools": "detection"}
"""Packages of the metrics of COCO."""


def require_packages(packages: Mapping[str, str]) -> None:
    """Check that the packages of a metric are installed.

    An evaluation follows a training, whose time would be lost.

    Args:
        packages: name of each package, and the extra of this package that installs it.

    Raises:
        ValueError: for a package that is not installed, with the command that installs it.
    """
    for name, extra in packages.items():
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f'the evaluation needs the package {name}: pip install "instil[{extra}]"'
            ) from error
