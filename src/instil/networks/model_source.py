"""Base class of model sources: the libraries and files behind prefixes such as ``timm:``."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from instil.core import Batch, Outputs
from instil.data.splits import Splits
from instil.files.checksums import file_sha256
from instil.networks.unknown_options import refused_option

LearnsBy = Literal["gradients", "fit", "nothing"]
"""Training of a source's models: by gradients, by their own ``fit``, or not at all."""


@runtime_checkable
class ResizesState(Protocol):
    """Protocol of models whose state has another size after their training."""

    def resize_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the size of a state that is loaded next."""


@runtime_checkable
class KeepsSettings(Protocol):
    """Protocol of models with settings that a training may change, such as a sampler.

    They are stored with the weights of a student, and replace those of the recipe.
    """

    def settings(self) -> dict[str, Any]:
        """Return the settings, as values of JSON."""

    def load_settings(self, settings: Mapping[str, Any]) -> None:
        """Take the settings of a file."""


@runtime_checkable
class ReadsBatch(Protocol):
    """Protocol of models that get the batch itself instead of the inputs of the task."""

    def bind(self, splits: Splits) -> None:
        """Receive the data, in which all samples have different indices.

        Raises:
            ValueError: for samples that have no outputs.
        """

    def call_batch(self, batch: Batch) -> Outputs:
        """Return the outputs for a batch."""


@dataclass(frozen=True)
class ModelRequest:
    """Model that a recipe requests from a source.

    Attributes:
        spec: model as the recipe names it, such as ``timm:resnet18``; for messages.
        name: part of ``spec`` after the prefix.
        options: options of the model.
        facts: properties of the data, such as ``classes``, ``channels`` and ``size``.
        base: folder that relative paths start from.
        pretrained: whether to load pretrained weights.
        fetch: False to set only the expected input of those weights, which are loaded afterwards.
    """

    spec: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    base: Path = Path()
    pretrained: bool = False
    fetch: bool = True

    @property
    def loads_weights(self) -> bool:
        """Whether weights are loaded now."""
        return self.pretrained and self.fetch

    @property
    def path(self) -> Path:
        """The name as a path, relative to ``base``."""
        return self.base / self.name

    def fact(self, name: str) -> Any:
        """Return a property of the data.

        Raises:
            ValueError: if the data do not have it.
        """
        if name not in self.facts:
            needs = "reads images" if name == "channels" else f"needs the property '{name}'"
            raise ValueError(f"{self.spec} {needs}, and these data have only {_join(self.facts)}")
        return self.facts[name]

    def create(self, function: Callable[[], Any], hint: str = "", names: Sequence[str] = ()) -> Any:
        """Call a function of a library; its errors become ValueErrors that name the model.

        Args:
            function: the function.
            hint: sentence at the end of an error.
            names: options of the model, for an option that the function refuses. Empty: the
                parameters of the function.
        """
        try:
            return function()
        except Exception as error:  # a library may raise anything
            if isinstance(error, ValueError) and str(error).startswith("options."):
                raise
            # One problem is one line.
            problem = f"{self.spec} cannot be built: {' '.join(str(error).split())}{hint}"
            raise ValueError(
                refused_option(error, self.spec, self.options, names) or problem
            ) from error


class ModelSource(ABC):
    """Builder of the models that have one prefix.

    A package declares its own source by an entry point of the group ``instil.model_sources``,
    whose name is the prefix and whose value is a subclass. A module that a recipe imports defines a
    subclass with a ``prefix``.

    Attributes:
        catalogue_kind: kind in the catalogue.
        prefix: prefix of the models of a source in a module that a recipe imports.
        package: package that must be installed; empty for none.
        extra: extra of this package that installs it.
        has_weights: whether ``pretrained: true`` is allowed.
        executes_code: whether a model executes code of the folder that the recipe names.
        learns_by: training of the models. Models that learn nothing are teachers only.
        by_index: whether a model has outputs for the recipe's samples only; see ``ReadsBatch``.
    """

    catalogue_kind: ClassVar[str] = "model_source"
    prefix: ClassVar[str] = ""
    package: ClassVar[str] = ""
    extra: ClassVar[str] = ""
    has_weights: ClassVar[bool] = False
    executes_code: ClassVar[bool] = False
    learns_by: ClassVar[LearnsBy] = "gradients"
    by_index: ClassVar[bool] = False

    @abstractmethod
    def build(self, request: ModelRequest) -> nn.Module:
        """Build a model.

        Args:
            request: name, options and data of the model.

        Raises:
            ValueError: for a name or an option that does not exist.
        """

    def files(self, request: ModelRequest) -> list[Path]:
        """Return the files whose content decides the outputs."""
        return []

    def identity(self, request: ModelRequest) -> str:
        """Return what determines the outputs, apart from the options, for fingerprints.

        Args:
            request: name and folder of the model.

        Returns:
            SHA-256 of each of ``files`` that exists, one per line.
        """
        return "\n".join(file_sha256(file) for file in self.files(request) if file.is_file())

    def library(self, spec: str, package: str = "", extra: str = "") -> Any:
        """Import the package of the source.

        Args:
            spec: model as the recipe names it, for messages.
            package: another package that the source needs.
            extra: extra of that package, if it is not the one of the source.

        Raises:
            ValueError: if the package is not installed, with the command that installs it.
        """
        try:
            return importlib.import_module(package or self.package)
        except ImportError as error:
            name = package or self.package
            extra = extra or self.extra
            install = f'"instil[{extra}]"' if extra else name
            raise ValueError(f"{spec} needs the package {name}: pip install {install}") from error


def _join(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"
