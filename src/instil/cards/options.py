"""Types of options."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
