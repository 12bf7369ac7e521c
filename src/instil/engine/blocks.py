"""Parts of a scheme, and repeated blocks of a network."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from instil.core import Net, Teacher


def parts_of_scheme(scheme: nn.Module) -> Iterator[nn.Module]:
    """Yield the children of a scheme, and the members of its lists in their place.

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

    Of a network in a list, such as a member of an ensemble, the blocks are found instead.

    Args:
        module: network, or a part of one.
    """
    is_list = isinstance(module, (nn.ModuleList, nn.Sequential))
    for child in module.children():
        if is_list and _is_block(child):
            yield child
        else:
            yield from repeated_blocks(child)


def _is_block(module: nn.Module) -> bool:
    has_children = any(True for _ in module.children())
    has_parameters = any(True for _ in module.parameters())
    return has_children and has_parameters and not isinstance(module, (Net, Teacher))
