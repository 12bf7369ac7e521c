"""Teachers that need not be trained: an earlier run did it, or somebody else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch

from instil.core import Net
from instil.experiment import build
from instil.experiment.bench import Bench
from instil.experiment.teachers import school
from instil.export.student import load_student
from instil.networks.factory import code_of
from instil.recipe import fingerprint, label_goals
from instil.recipe.sections import TeacherModel

SAMPLED = 64  # inputs that stand for all of them; labels count all


def known(stage: Bench, spec: TeacherModel, number: int) -> Net | None:
    """A teacher that need not be trained: it has weights, is trained as built, or an earlier run trained it; else None."""
    given = spec.ready
    if spec.earlier or not (given or place(stage, spec, number).exists()):
        return None
    net = untrained(stage, spec, number)
    if not given:
        load_student(net, place(stage, spec, number))
    return net


def untrained(stage: Bench, spec: TeacherModel, number: int) -> Net:
    """A teacher as it is built, with the weights that the recipe gives it."""
    torch.manual_seed(number)
    return build.net(spec, school(stage, spec, number), "teacher")


def place(stage: Bench, spec: TeacherModel, number: int) -> Path:
    """Where a trained teacher is kept: named by the hash of all that made it, in ``$INSTIL_CACHE`` or ``~/.cache/instil``."""
    stage = school(stage, spec, number)
    recipe = stage.recipe
    made_of: list[Any] = [
        recipe.task,
        recipe.data.model_dump(
            exclude={
                "images": True,
                "num_labeled": True,
                "sampler": True,
                "workers": True,
                "augment": {"mixup"},
            }
        ),
        contents(stage),
        spec.model_dump(exclude={"taps", "plain", "data", "copies"}, exclude_defaults=True),
        None
        if spec.weights is None
        else hashlib.sha256(recipe.locate(spec.weights).read_bytes()).hexdigest(),
        code_of(spec.model, Path(recipe.folder)),
        {
            name: goal.model_dump(mode="json")
            for name, goal in label_goals(recipe, *stage.task.label_objectives).items()
        },
        recipe.teacher_train or recipe.train,
        number,
    ]
    cache = Path(os.environ.get("INSTIL_CACHE") or Path.home() / ".cache" / "instil")
    return cache / "teachers" / f"{fingerprint(*made_of)}.safetensors"


def contents(stage: Bench) -> str:
    """What is in the files: two folders may hold different data under one name."""
    train = stage.splits.train
    rows = torch.linspace(0, len(train) - 1, min(len(train), SAMPLED)).long()
    digest = hashlib.sha256(repr((train.classes, len(train))).encode())
    for values in (train.label, *train.inputs(rows).values()):
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()
