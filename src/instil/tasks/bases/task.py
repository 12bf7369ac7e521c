"""What the loop and the command line ask of every task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil.core import (
    Batch,
    Card,
    Net,
    Objective,
    Objectives,
    Outputs,
    Teacher,
    batch_size,
    side_effect_free,
)

Evaluation = tuple[dict[str, float], dict[str, Any]]
"""Metrics, and details to draw."""
KINDS = {
    "single": "single-label",
    "multi": "multi-label",
    "binary": "binary",
    "real": "real-valued",
    "token": "token-by-token",
}


class Task:
    """Base of the tasks, each with its ``call``, its metrics and what belongs to them; ``kind`` is that of the labels.

    ``names``: of the tuples that a user's own loader yields. ``inputs``: what ``call`` reads of a batch. ``roles``: of the outputs, what ``evaluate``
    reads; ``teacher_eval_roles``: of the teacher's where it is not the same. ``label_objectives``: what teacher and student alone learn with. ``headline``: the
    metric that arms are compared by, ``higher_is_better`` its direction, ``secondary`` the metrics shown beside it.
    ``baselines``: of each kind of label, what a gain must beat; all but ``alone`` need a class for each sample.
    ``exports``: whether a student is a graph of ``inputs`` to ``logits`` that ONNX can hold. ``eval_batch_size``: samples that are judged at once.
    """

    card: ClassVar[Card]
    title: ClassVar[str]
    names: ClassVar[tuple[str, ...]]
    inputs: ClassVar[tuple[str, ...]]
    roles: ClassVar[tuple[str, ...]] = ("logits",)
    teacher_eval_roles: ClassVar[tuple[str, ...]] = ()
    label_objectives: ClassVar[tuple[str, ...]] = ("cross_entropy",)
    headline: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    secondary: ClassVar[tuple[str, ...]] = ()
    kinds: ClassVar[tuple[str, ...]] = ("single",)
    baselines: ClassVar[Mapping[str, tuple[str, ...]]] = {"single": ("alone",)}
    exports: ClassVar[bool] = True
    eval_batch_size: ClassVar[int] = 256
    call: ClassVar[Callable[..., Outputs]]
    aliases: ClassVar[Mapping[str, str]] = {}
    label_hint: ClassVar[str] = ""

    def __init__(self, kind: str = "single"):
        if kind not in self.kinds:
            known = (
                f"{', '.join(self.kinds[:-1])} or {self.kinds[-1]}"
                if len(self.kinds) > 1
                else self.kinds[0]
            )
            raise ValueError(f"labels are {known}, not '{kind}'")
        self.kind = kind

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Metrics and details of a net over ``batches``, in eval mode; with a teacher also how often both agree."""
        raise NotImplementedError

    def evaluate_generation(
        self, net: nn.Module, samples: Any, teacher: nn.Module | None = None
    ) -> Evaluation:
        """Metrics and details of what a net says when it goes on from samples by itself, and a teacher of it; of tasks in which it can."""
        return {}, {}

    def as_dict(self, batch: Any) -> Batch:
        """A mapping as it is; a tuple by ``names``."""
        if isinstance(batch, Mapping):
            return dict(batch)
        if not isinstance(batch, (tuple, list)) or len(batch) != len(self.names):
            what = (
                f"{len(batch)} things"
                if isinstance(batch, (tuple, list))
                else f"a {type(batch).__name__}"
            )
            raise ValueError(
                f"a batch must be a dict, or a tuple of {' and '.join(self.names)}, not {what}"
            )
        return dict(zip(self.names, batch, strict=True))

    def adapt_batch(self, batch: Batch) -> Batch:
        """Batch of a user's loader in the form that this task reads.

        Keys in ``aliases`` (those of Hugging Face) get the task's name, uint8 images become float
        in [0, 1], whole labels int64.
        """
        adapted: Batch = {}
        for key, value in batch.items():
            name = self.aliases.get(key, key)
            adapted[key if name in batch else name] = value
        image, label = adapted.get("image"), adapted.get("label")
        if isinstance(image, Tensor) and image.dtype == torch.uint8:
            adapted["image"] = image.float() / 255
        if isinstance(label, Tensor) and not label.is_floating_point():
            adapted["label"] = label.long()
        return adapted

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """ValueError for an objective that is not defined for this kind of label."""
        what = f"{KINDS[self.kind]} {self.title}"
        for name, objective in objectives.items():
            assert isinstance(objective, Objective)
            title, defined = type(objective).__name__, objective.card.labels
            if self.kind not in defined:
                raise ValueError(
                    f"objectives.{name}: {title} is undefined for {what} (it is defined for {', '.join(defined)})"
                )
            if self.kind == "multi" and getattr(objective, "multi_label", True) is False:
                raise ValueError(
                    f"objectives.{name}: set multi_label: true; without it, {title} is not one for {what}"
                )

    def check_data(self, batch: Batch) -> None:
        """ValueError where a batch to learn from has not what this task reads, or labels of another form."""
        self.check_inputs(batch)

    def check_model(self, model: nn.Module, facts: Mapping[str, Any]) -> None:
        """ValueError where a model cannot take data of these facts, which would only show in its answers."""

    def check_inputs(self, batch: Batch) -> None:
        """ValueError where a batch has not all inputs of this task."""
        missing = [key for key in self.inputs if key not in batch]
        if missing:
            raise ValueError(
                f"{self.title} reads '{missing[0]}' of a batch, and this one has {', '.join(batch)}"
            )

    def check_export(self) -> None:
        """ValueError where a student cannot be exported to ONNX."""
        if not self.exports:
            raise ValueError(
                f"a student of {self.title} cannot be exported to ONNX: it is no graph from {', '.join(self.inputs)} to logits"
            )

    def check_classes(
        self,
        outputs: Outputs,
        classes: Sequence[str],
        names: Sequence[str] | None = None,
        whose: str = "teacher",
    ) -> None:
        """ValueError where the logits, or the class ``names`` of the net that has them, do not agree with the data's ``classes``."""
        if "logits" not in outputs:
            return
        count = outputs["logits"].shape[-1]
        if count != len(classes):
            raise ValueError(
                f"the {whose} gives {count} logits, the data has {len(classes)} classes: {_some(classes)}"
            )
        if names is None or tuple(names) == tuple(classes):
            return
        where, theirs, ours = next(
            ((n, a, b) for n, (a, b) in enumerate(zip(names, classes, strict=False)) if a != b),
            (0, "", ""),
        )
        what = "in another order" if sorted(names) == sorted(classes) else "not the same"
        raise ValueError(
            f"the classes of {whose} and data are {what}: class {where} is '{theirs}' for the {whose} and '{ours}' in the data"
        )

    def output_warning(self, outputs: Outputs, batch: Batch) -> str:
        """Sentence on outputs of a trained net that suggest a mistake in the recipe; else empty."""
        return ""

    def can_score(self, outputs: Outputs, classes: Sequence[str]) -> bool:
        """Whether these outputs can be judged by this task's metrics: all its roles, and logits of the data's classes."""
        return all(role in outputs for role in self.roles) and (
            "logits" not in self.roles or outputs["logits"].shape[-1] == len(classes)
        )

    def to_batch(self, given: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """A batch for the shipped student from what its user has: a batch, or its one input. ``shape``: of one input that it was trained on.

        Raises ValueError where something is missing or not as in training.
        """
        if not isinstance(given, Mapping) and len(self.inputs) > 1:
            raise ValueError(
                f"a student of {self.title} is asked with a dict of {', '.join(self.inputs)}, not a {type(given).__name__}"
            )
        batch = dict(given) if isinstance(given, Mapping) else {self.inputs[0]: given}
        self.check_inputs(batch)
        return batch

    def iter_outputs(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None
    ) -> Iterator[tuple[Batch, Outputs, Outputs]]:
        """Each batch that is not empty on the net's device, with what net and teacher say; in eval mode, leaving no trace.

        Raises ValueError where there is none.
        """
        net = net if isinstance(net, (Net, Teacher)) else Net(net, type(self).call)
        device = next((p.device for p in net.parameters()), torch.device("cpu"))
        found = False
        with side_effect_free(nn.ModuleList([net] if teacher is None else [net, teacher])):
            for batch in map(self.as_dict, batches):
                if batch_size(batch):
                    found, batch = True, to_device(batch, device)
                    yield batch, net(batch), {} if teacher is None else teacher(batch)
        if not found:
            raise ValueError("there are no batches to evaluate on")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on ``device``."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }


def _some(classes: Sequence[str]) -> str:
    return ", ".join(classes[:5]) + (" ..." if len(classes) > 5 else "")
