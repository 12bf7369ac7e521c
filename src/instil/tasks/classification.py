"""Images to classes: one, several or yes-or-no."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Card, Net, Objective, Objectives, Outputs, Teacher, dry
from instil.core import size as batch_size
from instil.tasks.scores import scores

KINDS = {"single": "single-label", "multi": "multi-label", "binary": "binary"}


def call(
    model: nn.Module, batch: Batch, size: int | tuple[int, int] | None = None, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Outputs:
    """``logits`` for ``image`` (N, C, H, W) in [0, 1], resized (bilinear, antialiased) and normalised as this model expects it.

    Grey images become colour where ``mean`` has three values. Of a transformers model ``hidden_states`` and, where its config asks for them,
    ``attentions`` come too.
    """
    answer = model(prepared(batch["image"], size, mean, std), **_asks(model))
    if isinstance(answer, Mapping):
        return {role: answer[role] for role in ("logits", "hidden_states", "attentions") if answer.get(role) is not None}
    return {"logits": answer[0] if isinstance(answer, (tuple, list)) else answer}


def prepared(image: Tensor, size: int | tuple[int, int] | None, mean: Sequence[float] | None, std: Sequence[float] | None) -> Tensor:
    """The image at (``size``, ``size``) or ``size`` = (H, W), less ``mean`` and over ``std``, each one number a channel."""
    if size is not None:
        wanted = (size, size) if isinstance(size, int) else tuple(size)
        if image.shape[-2:] != wanted:
            image = F.interpolate(image, wanted, mode="bilinear", antialias=True)
    if mean is not None:
        image = image - image.new_tensor(mean)[:, None, None]
    if std is not None:
        image = image / image.new_tensor(std)[:, None, None]
    return image


def _asks(model: nn.Module) -> dict[str, bool]:
    """What a transformers model is asked besides its logits."""
    return {"output_hidden_states": True} if hasattr(getattr(model, "config", None), "model_type") else {}


class Classification:
    """What the loop and the command line ask of the task; ``kind`` is that of the labels: ``single``, ``multi`` or ``binary``.

    Labels are int64 (N,) for ``single``, float (N, C) for ``multi``, (N, 1) for ``binary``; -100 where there is none.
    """

    card = Card("Image classification")
    names = ("image", "label")  # of the tuples that a user's own loader yields
    label_objective = "cross_entropy"
    headline = "accuracy"  # the metric that arms are compared by
    call = staticmethod(call)

    def __init__(self, kind: str = "single"):
        if kind not in KINDS:
            raise ValueError(f"labels are single, multi or binary, not '{kind}'")
        self.kind = kind

    def named(self, batch: Any) -> Batch:
        """A mapping as it is; a tuple as ``image`` and ``label``."""
        if isinstance(batch, Mapping):
            return dict(batch)
        if not isinstance(batch, (tuple, list)) or len(batch) != len(self.names):
            what = f"{len(batch)} things" if isinstance(batch, (tuple, list)) else f"a {type(batch).__name__}"
            raise ValueError(f"a batch must be a dict, or a tuple of {' and '.join(self.names)}, not {what}")
        return dict(zip(self.names, batch, strict=True))

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """ValueError for an objective that is not defined for this kind of label."""
        for name, objective in objectives.items():
            assert isinstance(objective, Objective)
            title, defined = type(objective).__name__, objective.card.labels
            what = f"{KINDS[self.kind]} classification"
            if self.kind not in defined:
                raise ValueError(f"objectives.{name}: {title} is undefined for {what} (it is defined for {', '.join(defined)})")
            if self.kind == "multi" and getattr(objective, "multi_label", True) is False:
                raise ValueError(f"objectives.{name}: set multi_label: true; without it, {title} is not one for {what}")

    def check_classes(self, outputs: Outputs, classes: Sequence[str], names: Sequence[str] | None = None, whose: str = "teacher") -> None:
        """ValueError where the logits, or the class ``names`` of the net that has them, do not agree with the data's ``classes``."""
        count = outputs["logits"].shape[-1]
        if count != len(classes):
            raise ValueError(f"the {whose} gives {count} logits, the data has {len(classes)} classes: {_some(classes)}")
        if names is None or tuple(names) == tuple(classes):
            return
        where, theirs, ours = next(((n, a, b) for n, (a, b) in enumerate(zip(names, classes, strict=False)) if a != b), (0, "", ""))
        what = "in another order" if sorted(names) == sorted(classes) else "not the same"
        raise ValueError(f"the classes of {whose} and data are {what}: class {where} is '{theirs}' for the {whose} and '{ours}' in the data")

    def evaluate(self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None) -> tuple[dict[str, float], dict[str, Any]]:
        """Metrics and details (see ``scores``) of a net over ``batches``, in eval mode; with a teacher also how often both agree."""
        net = net if isinstance(net, (Net, Teacher)) else Net(net, call)
        modules = nn.ModuleList([net] if teacher is None else [net, teacher])
        device = next((p.device for p in net.parameters()), torch.device("cpu"))
        collected: list[tuple[Tensor, ...]] = []
        with dry(modules):
            for batch in map(self.named, batches):
                moved = {key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value for key, value in batch.items()}
                if batch_size(moved):
                    answers = [net(moved)["logits"]] if teacher is None else [net(moved)["logits"], teacher(moved)["logits"]]
                    collected.append((answers[0], moved["label"], *answers[1:]))
        if not collected:
            raise ValueError("there are no batches to evaluate on")
        logits, label, *theirs = (torch.cat(parts) for parts in zip(*collected, strict=True))
        return scores(logits, label, theirs[0] if theirs else None, self.kind)


def _some(classes: Sequence[str]) -> str:
    return ", ".join(classes[:5]) + (" ..." if len(classes) > 5 else "")
