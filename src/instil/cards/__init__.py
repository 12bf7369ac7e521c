"""Descriptions of methods: cards, types of options, schedules, and errors about names."""

from instil.cards.bounds import check_bounds
from instil.cards.card import Card, Tag, has_tag
from instil.cards.closest import suggestion
from instil.cards.forms import form_of
from instil.cards.keywords import ClearKeywords
from instil.cards.options import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt
from instil.cards.schedule import Schedule, at_progress

__all__ = [
    "Card",
    "ClearKeywords",
    "Fraction",
    "NonNegative",
    "NonNegativeInt",
    "Positive",
    "PositiveInt",
    "Schedule",
    "Tag",
    "at_progress",
    "check_bounds",
    "form_of",
    "has_tag",
    "suggestion",
]
