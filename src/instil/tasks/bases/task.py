"""Base class of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
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
from instil.data.item_data import stack_items
from instil.data.samples import Samples
from instil.data.splits import Splits
from instil.engine.cpu_offload import device_of
from instil.items import to_device
from instil.tasks.bases.checks import check_class_names, check_objectives
from instil.tasks.bases.extra_metrics import Evaluation as Evaluation
from instil.tasks.bases.extra_metrics import ExtraMetrics

LabelKind = Annotated[str, Doc("kind of the labels, one of the kinds of the task")]


class Task(ExtraMetrics):
    """Base class of tasks: how a model is called, evaluated and checked against the data.

    Args:
        kind: kind of the labels, one of ``kinds``.

    Attributes:
        card: title, source and tests of the task.
        roles: outputs that ``evaluate`` reads.
        teacher_eval_roles: outputs of the teacher that ``evaluate`` reads; empty for ``roles``.
        label_objectives: objectives of a teacher, and of a student without a teacher.
        kinds: kinds of labels that the task supports.
        method_tasks: further tasks whose objectives and schemes a search tries for this one.
        decision_roles: outputs of the teacher that ``decisions`` keeps; empty for ``roles``.
        baselines: for each kind of labels, the arms that a gain must exceed.
        exports: whether a student is a graph, as ONNX needs it.
        object_outputs: outputs of that graph if it reads one image and finds any number of objects.
        compares_teacher: whether ``evaluate`` compares a student with its teacher.
        has_token_outputs: whether outputs are distributions over the tokens of a tokenizer.
        draws_noise: whether outputs depend on noise that is drawn in every step.
        export_inputs: inputs of that graph; empty for ``inputs``.
        export_roles: outputs of that graph; empty for ``roles``.
        eval_batch_size: number of samples per batch in evaluation.
        call: ``(model, batch) -> outputs``.
        label_hint: advice in the message for labels out of range.
    """

    card: ClassVar[Card]
    roles: tuple[str, ...] = ("logits",)
    teacher_eval_roles: ClassVar[tuple[str, ...]] = ()
    decision_roles: ClassVar[tuple[str, ...]] = ()
    label_objectives: tuple[str, ...] = ("cross_entropy",)
    kinds: ClassVar[tuple[str, ...]] = ("single",)
    method_tasks: ClassVar[tuple[str, ...]] = ("classification",)
    baselines: ClassVar[Mapping[str, tuple[str, ...]]] = {"single": ("alone",)}
    exports: bool = True
    object_outputs: tuple[str, ...] = ()
    compares_teacher: bool = True
    has_token_outputs: ClassVar[bool] = False
    draws_noise: ClassVar[bool] = False
    export_inputs: ClassVar[tuple[str, ...]] = ()
    export_roles: ClassVar[tuple[str, ...]] = ()
    eval_batch_size: ClassVar[int] = 256
    call: ClassVar[Callable[..., Outputs]]
    label_hint: ClassVar[str] = ""

    def __init__(self, kind: LabelKind = "single"):
        if kind not in self.kinds:
            *others, last = self.kinds
            expected = f"{', '.join(others)} or {last}" if others else last
            raise ValueError(f"labels are {expected}, not '{kind}'")
        self.kind = kind

    def set_classes(self, classes: Sequence[str]) -> None:
        """Receive the class names of the data; most tasks do not need them."""

    def set_data(self, splits: Splits) -> None:
        """Receive the data of the recipe; only tasks with metrics fitted on them need it."""

    def evaluate_generation(
        self, net: nn.Module, samples: Any, teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute metrics and details of generated outputs; empty for tasks without generation."""
        return {}, {}

    def evaluate_answers(self, net: nn.Module, samples: Any) -> dict[str, float]:
        """Compute metrics of generated answers, such as a headline; empty for tasks without them.

        Args:
            net: network to evaluate.
            samples: samples of one split.
        """
        return {}

    def collate(self, items: Sequence[Batch]) -> Batch:
        """Join the inputs of samples to those of a batch, for data of the class ``ItemData``.

        By default tensors of one shape are stacked. A task with ragged inputs pads them here.

        Args:
            items: inputs of each sample, by batch key.

        Raises:
            ValueError: for tensors of different shapes.
        """
        return stack_items(items)

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """Raise ValueError for an objective that is undefined for this kind of labels."""
        check_objectives(objectives, self.kind, self.title)

    def check_data(self, batch: Batch) -> None:
        """Raise ValueError for a training batch without the inputs or labels of this task."""
        self.check_inputs(batch)

    def check_evaluated(self, samples: Samples, name: str) -> None:
        """Raise ValueError for data of the split ``name`` that this task cannot evaluate on."""

    def check_model(self, model: nn.Module, facts: Mapping[str, Any]) -> None:
        """Raise ValueError for a model that cannot read data of these ``facts``."""

    def check_export(self) -> None:
        """Raise ValueError if a student of this task cannot be exported to ONNX."""
        if not self.exports:
            raise ValueError(
                f"a student of {self.title} cannot be exported to ONNX: it is not a graph from "
                f"{', '.join(self.inputs)} to {', '.join(self.roles)}"
            )

    def graph_inputs(self, net: Net) -> tuple[str, ...]:
        """Return the inputs of the exported graph of a student."""
        return self.export_inputs or self.inputs

    def graph_metadata(self, net: Net) -> dict[str, str]:
        """Return entries that a task adds to the metadata of an exported graph."""
        return {}

    def export_example(self, net: Net, batch: Batch) -> tuple[Batch, tuple[str, ...]]:
        """Return an example of the inputs of the exported graph, and the names of its outputs.

        Args:
            net: the student.
            batch: batch of the data.
        """
        return batch, self.export_roles or self.roles

    def call_exported(self, graph: Callable[[Batch], Outputs], batch: Batch) -> Outputs:
        """Return the outputs that ``evaluate`` reads, from an exported student.

        Args:
            graph: function from a batch with ``export_inputs`` to outputs by role.
            batch: batch of the data.
        """
        return graph(batch)

    def check_classes(
        self,
        outputs: Outputs,
        classes: Sequence[str],
        names: Sequence[str] | None = None,
        whose: str = "teacher",
    ) -> None:
        """Raise ValueError for a network of other classes; arguments of ``check_class_names``."""
        check_class_names(outputs, classes, names, whose)

    def output_warning(self, outputs: Outputs, batch: Batch) -> str:
        """Return a sentence on outputs of a trained network that suggest a mistake, else ``""``."""
        return ""

    def decisions(self, outputs: Outputs) -> Outputs:
        """Return what ``pseudo_labels`` reads of the teacher's outputs.

        The outputs for all training samples are in memory. A task with large outputs, such as one
        row of logits per pixel, replaces them by the decisions.

        Args:
            outputs: teacher outputs of a batch.
        """
        return outputs

    def pseudo_labels(self, outputs: Outputs, label: Tensor) -> Tensor:
        """Fill in the labels of unlabelled samples with the teacher's decisions.

        Args:
            outputs: result of ``decisions``; by default with ``logits`` (N, ..., C).
            label: labels; unlabelled items are -100.

        Returns:
            Labels of the same shape and type: the most likely class, or each class with a
            positive logit if a sample may have several.
        """
        logits = outputs["logits"].to(label.device)
        is_single = self.kind in ("single", "token")
        decisions = logits.argmax(-1) if is_single else (logits > 0).to(label)
        return torch.where(label == UNLABELLED, decisions, label)

    def can_score(self, outputs: Outputs, classes: Sequence[str]) -> bool:
        """Whether these metrics are defined: all roles, and one logit per class of the data."""
        has_roles = all(role in outputs for role in self.roles)
        has_classes = "logits" in self.roles and len(classes) > 0
        return has_roles and (not has_classes or outputs["logits"].shape[-1] == len(classes))

    def iter_outputs(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None
    ) -> Iterator[tuple[Batch, Outputs, Outputs]]:
        """Run network and teacher in eval mode; modes and the random state are restored.

        Args:
            net: network to evaluate; a plain module is called by ``call``.
            batches: dicts, or tuples of ``names``; empty ones are skipped.
            teacher: teacher, if there is one.

        Yields:
            Batch on the device of the network, outputs of the network, outputs of the teacher
            (empty without a teacher).

        Raises:
            ValueError: if all batches are empty.
        """
        net = net if isinstance(net, (Net, Teacher)) else Net(net, type(self).call)
        device = device_of(net)
        is_empty = True
        with side_effect_free(nn.ModuleList([net] if teacher is None else [net, teacher])):
            for batch in map(self.as_dict, batches):
                if not batch_size(batch):
                    continue
                is_empty = False
                batch = to_device(batch, device)
                outputs = net(batch)
                self.observe(outputs, batch)
                yield batch, outputs, {} if teacher is None else teacher(batch)
        if is_empty:
            raise ValueError("there are no batches to evaluate on")
