"""Message of a training whose loss is NaN or infinite."""

from __future__ import annotations

from instil.recipe.sections import Recipe
from instil.training.fit import Training
from instil.training.monitor import NotFiniteError


def divergence_message(
    error: NotFiniteError, arm: str, seed: int | None, recipe: Recipe, training: Training
) -> str:
    """Say whose training diverged, where, and what can be done.

    Args:
        error: step, objective, value and batch indices.
        arm: name of the arm; a teacher's is ``teacher`` or ``teacher0``, ``teacher1``, ...
        seed: of the arm, None for a teacher.
        recipe: of the stage.
        training: of the arm.

    Returns:
        Two or three sentences.
    """
    of_teacher = seed is None
    section = "teacher_train" if of_teacher and recipe.teacher_train is not None else "train"
    who = f"the training of the {arm}" if of_teacher else f"arm {arm}, seed {seed}"
    text = str(error)
    if of_teacher:
        # Every scheme calls the net that it trains the student.
        text = text.replace(f"'{error.objective}'", f"'{error.objective.rpartition('/')[2]}'", 1)
    lr = training.optimizer.options.get("lr")
    rate = f" ({section}.optimizer.lr is {lr:g})" if isinstance(lr, float) else ""
    clip = "" if training.clip is not None else f", set {section}.clip=1.0"
    return (
        f"{who}: {text}. The learning rate may be too high{rate}: try a tenth of it{clip}, "
        "or look at these samples for values that are not finite"
    )
