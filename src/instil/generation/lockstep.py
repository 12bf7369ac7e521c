"""Decisions that the processes of a sharded network take together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn

AnyProcess = Callable[[bool], bool]
"""Returns whether a flag is true in any process. All of them call it."""
AGREEMENT = "_instil_agreement"
"""Attribute of a sharded part of a network with its ``AnyProcess``."""


class Lockstep:
    """Answer to a question in all processes that have shards of a network.

    Each forward pass of a sharded network gathers its weights from all processes. They must
    therefore run the same number of passes, although their texts have different lengths. Without a
    sharded network, each process decides by itself.

    Args:
        networks: networks and functions that the processes call.
    """

    def __init__(self, networks: Iterable[object]):
        agreements = (_agreement_of(network) for network in networks)
        self._any_process = next((one for one in agreements if one is not None), None)

    def any(self, flag: bool) -> bool:
        """Return whether ``flag`` is true in any process. Call it in all of them."""
        return flag if self._any_process is None else self._any_process(flag)

    def all(self, flag: bool) -> bool:
        """Return whether ``flag`` is true in every process. Call it in all of them."""
        return not self.any(not flag)


def set_agreement(part: nn.Module, any_process: AnyProcess) -> None:
    """Mark a module whose weights are sharded over processes.

    Args:
        part: the module.
        any_process: decides for all of them.
    """
    setattr(part, AGREEMENT, any_process)


def is_sharded(network: object) -> bool:
    """Return whether the weights of a network are sharded over processes.

    Args:
        network: a network; other functions have no weights.
    """
    return _agreement_of(network) is not None


def _agreement_of(network: object) -> AnyProcess | None:
    if not isinstance(network, nn.Module):
        return None
    agreements = (vars(part).get(AGREEMENT) for part in network.modules())
    return next((one for one in agreements if one is not None), None)
