"""Parts of a scheme, and repeated blocks of a network."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def parts_of_scheme(scheme: nn.Module) -> Iterator[nn.Module]:
    """Return the children of a scheme, and the members of its lists in their place.

    Args:
        scheme: the scheme, or a list of it.
    """
    for child in scheme.children():
        if type(child) is nn.ModuleList:
            yield from parts_of_scheme(child)
        else:
            yield child


def repeated_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Find the outermost members of lists and sequences with parameters and child modules.

    Args:
        module: network, or a part of one.
    """
    for child in module.children():
        if (
            isinstance(module, (nn.ModuleList, nn.Sequential))
            and any(True for _ in child.children())
            and any(True for _ in child.parameters())
        ):
            yield child
        else:
            yield from repeated_blocks(child)
