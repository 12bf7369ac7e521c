"""Base classes and types of the sections of a recipe."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]


class Section(BaseModel):
    """A section of a recipe. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class OpenSection(Section):
    """A section whose further keys are options of the method or source that it names."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """Further keys, as plain data."""
        return dict(self.model_extra or {})


class TaskConfig(OpenSection):
    """Task of the student. Further keys are options of the task."""

    name: str = "classification"
    """Name of a task in the catalogue."""


class MetricConfig(OpenSection):
    """A metric of the evaluation. Further keys are its options."""

    type: str
    """Name in the catalogue. Default: the key of the section."""


def default_of(section: Section, field: str) -> Any:
    """Return the default of a field."""
    return type(section).model_fields[field].default
