"""Catalogue of methods: names, classes and descriptions. Importing it does not import torch."""

from instil.catalogue.descriptions import cards, describe, roles_read
from instil.catalogue.folders import FOLDERS, files, kinds, losses
from instil.catalogue.plugins import add
from instil.catalogue.registry import find, named, names, unknown

__all__ = [
    "FOLDERS",
    "add",
    "cards",
    "describe",
    "files",
    "find",
    "kinds",
    "losses",
    "named",
    "names",
    "roles_read",
    "unknown",
]
