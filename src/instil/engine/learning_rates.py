"""Learning-rate schedules of torch by name, as functions of the position in a training."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch.optim import SGD, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from instil.cards import suggestion
from instil.cards.closest import unknown_option
from instil.engine.optimization import Options

UNSUPPORTED = {
    "ReduceLROnPlateau": "depends on a metric, not on the step only",
    "LambdaLR": "needs a function",
    "MultiplicativeLR": "needs a function",
    "SequentialLR": "needs other schedules",
    "ChainedScheduler": "needs other schedules",
}
INTERNAL = ("self", "optimizer", "last_epoch", "verbose", "scale_fn")
"""Parameters of a schedule that are not options."""
LENGTHS = ("T_max", "total_steps")
"""Options whose default is the length of the training."""
CHECKED_RATE = 1e-3
ROUNDING = 1e-6
"""Share of a rate by which rounding may make it negative."""


def find_schedule(name: str) -> type[LRScheduler]:
    """Find a learning-rate schedule of torch by its name.

    Args:
        name: name of a class of ``torch.optim.lr_scheduler``, in any case.

    Returns:
        The class.

    Raises:
        ValueError: for an unknown name, and for a schedule that does not depend on the step only.
    """
    kinds = {
        key.lower(): kind
        for key, kind in vars(lr_scheduler).items()
        if isinstance(kind, type)
        and issubclass(kind, LRScheduler)
        and kind.__name__ not in ("LRScheduler", "_LRScheduler")
    }
    supported = {key: kind for key, kind in kinds.items() if kind.__name__ not in UNSUPPORTED}
    kind = kinds.get(name.lower())
    if kind is not None and kind.__name__ in UNSUPPORTED:
        raise ValueError(
            f"{kind.__name__} {UNSUPPORTED[kind.__name__]}. Expected cosine, constant or a "
            f"schedule such as StepLR."
        )
    if name.lower() not in supported:
        names = [kind.__name__ for kind in supported.values()]
        hint = suggestion(name, ["cosine", "constant", *names])
        raise ValueError(
            f"no schedule named '{name}'. Expected cosine, constant or a class of "
            f"torch.optim.lr_scheduler.{hint}"
        )
    return supported[name.lower()]


@dataclass(frozen=True)
class TorchSchedule:
    """Learning-rate schedule of torch.

    Attributes:
        type: name in ``torch.optim.lr_scheduler``, in any case.
        options: options of the schedule. ``T_max`` and ``total_steps`` default to the length of the
            training.
        interval: unit of the options: ``"epoch"`` or ``"step"`` (an optimizer step). None: epochs
            if the length of the training is given in epochs, else steps.
        epochs: number of epochs of the training; None: that of ``Training``.

    Raises:
        ValueError: for an unknown name or option, or a value that the schedule refuses.

    Example:
        >>> schedule = TorchSchedule("StepLR", {"step_size": 10})
        >>> [round(schedule.rate(0.1, epoch, 30), 6) for epoch in (0, 9, 10, 25)]
        [0.1, 0.1, 0.01, 0.001]
    """

    type: str
    options: Options = field(default_factory=dict)
    interval: Literal["epoch", "step"] | None = None
    epochs: int | None = None
    _rates: dict[tuple[float, int], list[float]] = field(
        init=False, default_factory=dict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.interval not in (None, "epoch", "step"):
            raise ValueError(f"interval: Expected epoch or step, got '{self.interval}'.")
        kind = find_schedule(self.type)
        parameters = {
            name: parameter
            for name, parameter in inspect.signature(kind).parameters.items()
            if name not in INTERNAL
        }
        for name in self.options:
            if name not in parameters:
                options = [*parameters, "interval", "length"]
                raise ValueError(f"{name}: {unknown_option(name, kind.__name__, options)}")
        for name, parameter in parameters.items():
            is_required = parameter.default is inspect.Parameter.empty and name not in LENGTHS
            if is_required and name not in self.options:
                raise ValueError(f"{name} is missing. Expected an option of {kind.__name__}.")
        if self.options.get("cycle_momentum"):
            raise ValueError("cycle_momentum: only the learning rate can change. Expected false.")
        # Wrong values are found before a training.
        _simulate(kind, self.options, CHECKED_RATE, 1)

    def rate(self, initial: float, position: int, length: int) -> float:
        """Return a learning rate.

        Args:
            initial: learning rate of a parameter group.
            position: number of epochs or steps done, from 0 to ``length``.
            length: number of epochs or steps of the training.

        Raises:
            ValueError: if the schedule ends before the training.
        """
        key = initial, length
        if key not in self._rates:
            self._rates[key] = _simulate(find_schedule(self.type), self.options, initial, length)
        return self._rates[key][position]


def _simulate(
    kind: type[LRScheduler], options: Mapping[str, Any], initial: float, length: int
) -> list[float]:
    """Learning rates of all positions from 0 to ``length``."""
    parameters = inspect.signature(kind).parameters
    defaults: Options = {}
    if "T_max" in parameters:
        defaults["T_max"] = length
    if "total_steps" in parameters and not {"epochs", "steps_per_epoch"} & set(options):
        defaults["total_steps"] = length
    if "cycle_momentum" in parameters:
        defaults["cycle_momentum"] = False
    optimizer = SGD([torch.zeros(1)], lr=initial)
    try:
        schedule: Any = kind(optimizer, **(defaults | dict(options)))
        rates = [float(optimizer.param_groups[0]["lr"])]
        for _ in range(length):
            # torch warns about a schedule that is ahead of its optimizer.
            optimizer.step()
            schedule.step()
            rates.append(float(optimizer.param_groups[0]["lr"]))
    except (TypeError, ValueError, ArithmeticError, AttributeError, IndexError) as error:
        raise ValueError(f"{kind.__name__}: {error}") from error
    # Torch computes them without a check, and the training would diverge.
    if not min(rates) >= -ROUNDING * initial:
        raise ValueError(
            f"{kind.__name__}: its options {dict(options)} give the learning rate {min(rates):.3g}."
            " Expected rates of at least 0"
        )
    return rates
