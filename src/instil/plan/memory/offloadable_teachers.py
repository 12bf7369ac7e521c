"""Teachers of a recipe that ``cpu_offload`` could keep in the memory of the machine."""

from __future__ import annotations

import itertools

from instil.core import Net, Scheme
from instil.engine.blocks import repeated_blocks
from instil.recipe.sections import Recipe


def offloadable_teachers(recipe: Recipe, scheme: Scheme) -> dict[str, Net]:
    """Return the teachers that are not trained, are not offloaded and have repeated blocks.

    Args:
        recipe: recipe of one stage.
        scheme: its scheme.

    Returns:
        Recipe path of the teacher -> its network.
    """
    if scheme.teacher is None or recipe.store is not None:
        return {}
    nets = (part for part in scheme.teacher.modules() if isinstance(part, Net))
    sections = recipe.teacher if isinstance(recipe.teacher, list) else recipe.teachers[:1]
    teachers: dict[str, Net] = {}
    for index, config in enumerate(sections):
        replicas = list(itertools.islice(nets, config.num_replicas))
        can_offload = config.ready and config.is_differentiable and not config.cpu_offload
        if can_offload and any(True for _ in repeated_blocks(replicas[0])):
            path = f"teacher.{index}" if isinstance(recipe.teacher, list) else "teacher"
            teachers[path] = replicas[0]
    return teachers
