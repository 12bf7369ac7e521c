"""Alignment of images and texts in one embedding space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Net, Outputs, Teacher
from instil.data.splits import Splits
from instil.networks.dense_embeddings import dense_embedding, has_dense_embedding
from instil.roles import LazyOutputs
from instil.tasks.bases.class_prompts import (
    ClassPrompts,
    PromptNamesOption,
    TemplatesOption,
    check_templates,
)
from instil.tasks.bases.image_text_scores import (
    confusion_details,
    normalized,
    recalls,
    similarity_to_classes,
    text_indices,
)
from instil.tasks.bases.task import Evaluation, LabelKind, Task
from instil.tasks.classification import preprocess

TRANSFORMERS_ROLES = {"image_embeds": "image_embedding", "text_embeds": "text_embedding"}
"""Names of the embeddings in transformers, each with its role."""


def call(
    model: nn.Module,
    batch: Batch,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Outputs:
    """Compute the outputs of an image-text model, which is called like CLIP of transformers.

    Args:
        model: a model that maps ``pixel_values`` and ``input_ids`` to two embeddings.
        batch: ``image`` (N, C, H, W) in [0, 1], ``input_ids`` and optionally ``attention_mask``
            (N, L); images are resized and normalised for this model.
        size: side, or height and width, of the model's images; None for no resizing.
        mean: mean of each channel.
        std: standard deviation of each channel.

    Returns:
        ``image_embedding`` and ``text_embedding`` (N, D), of length 1 only if the model normalises
        them, and ``logit_scale`` (1,), exponentiated. ``dense_embedding`` (N, D, h, w) is computed
        if it is read, for models that have one.
    """
    image = preprocess(batch["image"], size, mean, std)
    mask = {"attention_mask": batch["attention_mask"]} if "attention_mask" in batch else {}
    result: Mapping[str, Any] = model(input_ids=batch["input_ids"], pixel_values=image, **mask)
    outputs = {
        TRANSFORMERS_ROLES.get(role, role): result[role]
        for role in ("image_embedding", "text_embedding", *TRANSFORMERS_ROLES)
        if result.get(role) is not None
    }
    scale = result.get("logit_scale")
    if scale is None:
        # Models of transformers have the logarithm of the scale as a parameter.
        scale = model.get_parameter("logit_scale").exp()
    outputs["logit_scale"] = scale.reshape(1)
    if not has_dense_embedding(model):
        return outputs
    return LazyOutputs(outputs, {"dense_embedding": lambda: dense_embedding(model, image)})


class ImageText(Task):
    """Alignment of images and texts.

    A batch has pairs of ``image`` (N, C, H, W) and ``input_ids``, ``attention_mask`` (N, L).
    ``picture`` (N,), if a batch has it, is equal for rows with one image. ``label`` (N,) is the
    class of the image for the zero-shot accuracy, -100 for none. Data without
    classes have no such accuracy; then ``image_recall`` is the headline.

    Args:
        kind: kind of the labels: ``single``.

    Raises:
        ValueError: for templates without one ``{}``, or ``prompt_names`` without templates.
    """

    card = Card(
        "Image-text alignment",
        "https://arxiv.org/abs/2103.00020",
        "ICML",
        2021,
        tasks=("image_text",),
    )
    title = "image-text alignment"
    names = ("image", "input_ids", "attention_mask", "label")
    inputs = ("image", "input_ids")
    roles = ("image_embedding", "text_embedding")
    label_objectives = ("contrastive",)
    exports = False
    further_headlines: ClassVar = ("image_recall", "text_recall")
    call = staticmethod(call)

    def __init__(
        self,
        kind: LabelKind = "single",
        templates: TemplatesOption = None,
        prompt_names: PromptNamesOption = None,
    ):
        super().__init__(kind)
        check_templates(templates, prompt_names)
        self.templates = templates
        self.prompt_names = prompt_names
        self.prompts: ClassPrompts | None = None

    def set_data(self, splits: Splits) -> None:
        """Build the prompts of the classes with the tokenizer of the data.

        Raises:
            ValueError: for classes, names or a tokenizer that do not fit the templates.
        """
        if not splits.classes and self.headline == "accuracy":
            self.headline = "image_recall"
        if self.templates is not None:
            encode = getattr(splits.train, "encode_texts", None)
            self.prompts = ClassPrompts(splits.classes, self.templates, self.prompt_names, encode)

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute metrics and details of an image-text model in eval mode.

        Metrics:

        - ``accuracy`` of the zero-shot class: the closest class embedding, see ``ClassPrompts``
          and ``zero_shot``;
        - ``top5_accuracy``: share of the images whose class is among the five closest, with
          templates and more than five classes;
        - ``image_recall``: share of the texts whose closest image is their own (recall at 1);
        - ``text_recall``: share of the images whose closest text is their own;
        - ``agreement`` with the teacher in the zero-shot class.

        Details: ``confusion`` of the zero-shot classes.

        Args:
            net: network to evaluate.
            batches: batches of the test data.
            teacher: teacher for ``agreement``, if there is one.

        Raises:
            ValueError: if no image of data with classes is labelled, or an embedding is not finite.
        """
        columns = self._collect(net, batches, teacher)
        label = columns["label"]
        image = normalized(columns["image_embedding"])
        text = normalized(columns["text_embedding"])
        is_labelled = label != UNLABELLED
        metrics: dict[str, float] = {}
        details: dict[str, Any] = {}
        if is_labelled.any():
            ranked = self._ranked_classes(columns, "")
            hits = (ranked == label[:, None])[is_labelled].double()
            metrics["accuracy"] = hits[:, 0].mean().item()
            if self.prompts is not None and ranked.shape[1] > 5:
                metrics["top5_accuracy"] = hits[:, :5].sum(1).mean().item()
            details = confusion_details(ranked[is_labelled, 0], label[is_labelled])
            if self._has_teacher_classes(columns):
                agrees = ranked[:, 0] == self._ranked_classes(columns, "teacher ")[:, 0]
                metrics["agreement"] = agrees.double().mean().item()
        elif self.headline == "accuracy":
            raise ValueError("no image to evaluate on has a label")
        text_index = text_indices(columns["ids"])
        return metrics | recalls(image, text, text_index, columns.get("picture")), details

    def _has_teacher_classes(self, columns: Mapping[str, Tensor]) -> bool:
        role = "text_embedding" if self.prompts is None else "class_embedding"
        return f"teacher {role}" in columns

    def _ranked_classes(self, columns: Mapping[str, Tensor], side: str) -> Tensor:
        """Classes (N, C) of each image, in the order of the similarity."""
        image = normalized(columns[f"{side}image_embedding"])
        if self.prompts is None:
            text = normalized(columns[f"{side}text_embedding"])
            similarity = similarity_to_classes(image, text, columns["label"])
        else:
            similarity = image @ columns[f"{side}class_embedding"].T
        # Stable: of classes that are equally close, the first one is predicted.
        return similarity.argsort(dim=1, descending=True, stable=True)

    def _collect(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None
    ) -> dict[str, Tensor]:
        """Labels, token ids and embeddings of all batches, and embeddings of the classes."""
        collected: dict[str, list[Tensor]] = {}
        classes: dict[str, Tensor | None] = {}
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            parts = {"label": batch["label"], "ids": batch["input_ids"]}
            if "picture" in batch:
                parts["picture"] = batch["picture"]
            for role in self.roles:
                parts[role] = outputs[role]
                if role in teacher_outputs:
                    parts[f"teacher {role}"] = teacher_outputs[role]
            for key, value in parts.items():
                collected.setdefault(key, []).append(value.detach().cpu())
            # Here the networks are in eval mode and compute no gradients.
            if self.prompts is not None and not classes:
                caller = net if isinstance(net, (Net, Teacher)) else Net(net, call)
                classes["class_embedding"] = self.prompts.embedding(caller, batch)
                if teacher is not None:
                    classes["teacher class_embedding"] = self.prompts.embedding(teacher, batch)
        columns = {key: torch.cat(parts) for key, parts in collected.items()}
        return columns | {key: value for key, value in classes.items() if value is not None}
