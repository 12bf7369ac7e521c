"""Message of a training whose loss is NaN or infinite."""

from __future__ import annotations

from instil.recipe.sections import Recipe
from instil.training.fit import Training
from instil.training.monitor import NotFiniteError


def divergence_message(
    error: NotFiniteError, arm: str, seed: int | None, recipe: Recipe, training: Training
) -> str:
    """Describe a diverged training, its position and the remedies.

    Args:
        error: error with step, objective, value and batch indices.
        arm: name of the arm; a teacher is ``teacher`` or ``teacher0``, ``teacher1``, ...
        seed: seed of the arm, None for a teacher.
        recipe: recipe of the stage.
        training: settings of the training.

    Returns:
        Two or three sentences.
    """
    is_teacher = seed is None
    if is_teacher:
        section = "train" if recipe.teacher_train is None else "teacher_train"
        subject = f"the training of the {arm}"
        # Every scheme calls the net that it trains the student: drop that name for a teacher.
        objective = error.objective.rpartition("/")[2]
        text = str(error).replace(f"'{error.objective}'", f"'{objective}'", 1)
    else:
        section = "train"
        subject = f"arm {arm}, seed {seed}"
        text = str(error)
    lr = training.optimizer.options.get("lr")
    current = f" ({section}.optimizer.lr is {lr:g})" if isinstance(lr, float) else ""
    clip = "" if training.clip is not None else f", set {section}.clip=1.0"
    return (
        f"{subject}: {text}. The learning rate may be too high{current}: try a tenth of it{clip}, "
        "or check these samples for values that are not finite"
    )
