"""Diffusion models of images."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Net, Outputs, Teacher, side_effect_free
from instil.data.splits import Splits
from instil.functional.sample_quality import frechet_distance, precision_recall_coverage
from instil.generation.sampler_table import sampler_table
from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import check_denoiser, denoiser_call, denoiser_of
from instil.tasks.bases.image_features import ImageFeatures, classifier_features, pixel_features
from instil.tasks.bases.image_sampler import ImageSampler, real_images, sample_picture
from instil.tasks.bases.task import Evaluation, LabelKind, Task

NUM_SHOWN = 32
"""Number of images in the grid of a report."""
Features = Literal["auto", "classifier", "pixels"]


class Diffusion(Task):
    """Generation of images by a diffusion model.

    Networks are built by ``networks:denoiser``. Labels are class indices (N,), -100 for none; only
    a conditional model reads them. There are no pseudo-labels, since the label loss compares with
    the image itself.

    Args:
        kind: kind of the labels: ``single`` or ``none``.
        features: features of the metrics.
        num_samples: number of generated images; None: the number of real ones.
        neighbours: number of neighbours of precision, recall and coverage.
    """

    card = Card(
        "Denoising Diffusion Probabilistic Models",
        "https://arxiv.org/abs/2006.11239",
        "NeurIPS",
        2020,
        tasks=("diffusion",),
        labels=("single", "none"),
    )
    title = "diffusion"
    names = ("image", "label")
    inputs = ("image",)
    roles = ("denoised",)
    label_objectives = ("denoising",)
    kinds = ("single", "none")
    method_tasks = ("diffusion",)
    headline = "frechet_distance"
    higher_is_better = False
    secondary = ("precision", "recall", "coverage", "steps", "seconds_per_image")
    baselines: ClassVar = {"single": ("alone",), "none": ("alone",)}
    compares_teacher = False
    draws_noise = True
    export_roles = ("denoised",)
    call = staticmethod(denoiser_call)

    def __init__(
        self,
        kind: LabelKind = "single",
        features: Annotated[
            Features,
            Doc(
                "features in which generated and real images are compared: classifier (a small CNN "
                "trained on the labelled training images), pixels, or auto (classifier if images "
                "have labels)"
            ),
        ] = "auto",
        num_samples: Annotated[
            Annotated[int, Ge(2)] | None,
            Doc("number of generated images; null: the number of real ones"),
        ] = None,
        neighbours: Annotated[
            int, Ge(1), Doc("number of neighbours of precision, recall and coverage")
        ] = 5,
    ):
        super().__init__(kind)
        self.feature_kind = features
        self.num_samples = num_samples
        self.neighbours = neighbours
        self._splits: Splits | None = None
        self._features: ImageFeatures | None = None
        self._exported: Denoiser | None = None

    def set_data(self, splits: Splits) -> None:
        """Receive the data of the recipe, on which the classifier of the metrics is trained."""
        self._splits = splits
        if self.feature_kind == "classifier" and not splits.train.has_label.any():
            raise ValueError(
                "features: the images have no labels to train a classifier on. Expected labelled "
                "images. Set task.features: pixels"
            )

    @property
    def features(self) -> ImageFeatures:
        """Features of the metrics; the classifier is trained at the first use."""
        if self._features is None:
            splits = self._splits
            has_labels = splits is not None and bool(splits.train.has_label.any())
            if has_labels and splits is not None and self.feature_kind != "pixels":
                self._features = classifier_features(splits.train)
            else:
                self._features = pixel_features()
        return self._features

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        image = batch["image"]
        if image.ndim != 4 or not image.is_floating_point():
            raise ValueError(
                f"image: wrong form. Expected floating-point images (N, C, H, W), got "
                f"{image.dtype} of the shape {tuple(image.shape)}"
            )
        # The comparison is negated, so that NaN is refused too.
        if not (image.min() >= 0 and image.max() <= 1):
            raise ValueError(
                f"image: wrong range. Expected values in [0, 1], got {float(image.min()):g} to "
                f"{float(image.max()):g}. The model scales them to [-1, 1] itself"
            )

    def check_model(self, model: nn.Module, facts: Mapping[str, Any]) -> None:
        check_denoiser(model)

    def pseudo_labels(self, outputs: Outputs, label: Tensor) -> Tensor:
        """Raise ValueError: a diffusion model has no labels to fill in."""
        raise ValueError(
            "pseudo_labels: the task diffusion learns from images, not from labels. Expected the "
            "baseline alone"
        )

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compare generated images with those of the batches.

        The noise of the images is the same in every evaluation. Metrics:

        - ``frechet_distance`` of the features, lower is better;
        - ``precision``, ``recall``, ``density`` and ``coverage``;
        - ``steps``: number of sampling steps.

        Details: ``features``, the name of the features; ``samples`` and ``real_samples``, PNG
        pictures of generated and real images in base64.

        Args:
            net: network to evaluate.
            batches: batches of the test data; samples with ``valid`` False are ignored.
            teacher: not read.

        Raises:
            ValueError: for fewer than two images, or generated images that are not finite.
        """
        real, label = real_images(map(self.as_dict, batches))
        sampler = self.sampler(net)
        count = self.num_samples or len(real)
        images = sampler.generate(count, tuple(real.shape[1:]), label)
        features = self.features
        generated, reference = features(images), features(real)
        metrics = {"frechet_distance": frechet_distance(generated, reference).item()}
        metrics |= precision_recall_coverage(generated, reference, self.neighbours)
        metrics["steps"] = float(sampler.denoiser.steps)
        details = {
            "features": features.name,
            "samples": sample_picture(images[:NUM_SHOWN]),
            "real_samples": sample_picture(real[:NUM_SHOWN]),
        }
        return metrics, details

    def evaluate_generation(
        self, net: nn.Module, samples: Any, teacher: nn.Module | None = None
    ) -> Evaluation:
        """Measure the sampling time, and the teacher with the steps of the student.

        Metrics: ``seconds_per_image``; ``teacher_same_steps``, the Fréchet distance of the teacher
        with the number of steps of the student.

        Args:
            net: network to evaluate.
            samples: test samples.
            teacher: teacher of a student; None for the teacher itself.
        """
        batch = samples.__getitems__(range(min(len(samples), self.eval_batch_size)))
        real, label = real_images([batch])
        sampler = self.sampler(net)
        shape = tuple(real.shape[1:])
        start = time.perf_counter()
        sampler.generate(len(real), shape, label)
        metrics = {"seconds_per_image": (time.perf_counter() - start) / len(real)}
        if teacher is not None:
            real, label = real_images([samples.__getitems__(range(len(samples)))])
            few_steps = self.sampler(teacher, steps=sampler.denoiser.steps)
            images = few_steps.generate(self.num_samples or len(real), shape, label)
            distance = frechet_distance(self.features(images), self.features(real))
            metrics["teacher_same_steps"] = distance.item()
        return metrics, {}

    def sampler(self, net: nn.Module, steps: int | None = None) -> ImageSampler:
        """Sampler of a network, or of the exported step of one.

        Args:
            net: ``Net`` or teacher with a ``Denoiser``; or the graph of ``export_example``.
            steps: number of steps; None: that of the denoiser.
        """
        model = net.model if isinstance(net, Net) else net
        is_graph = not isinstance(model, (Denoiser, Teacher)) and self._exported is not None
        if is_graph and isinstance(net, Net) and self._exported is not None:
            return ImageSampler(self._exported, net, steps)
        return ImageSampler(denoiser_of(net), None, steps)

    def graph_inputs(self, net: Net) -> tuple[str, ...]:
        """Return the inputs of one sampling step, with the class and numbers that it reads."""
        denoiser = denoiser_of(net)
        label = ("label",) if denoiser.num_classes else ()
        return ("noisy", "time", *label, *denoiser.scalars)

    def graph_metadata(self, net: Net) -> dict[str, str]:
        """Return ``sampler``, from which ``OnnxSampler`` draws images."""
        return {"sampler": json.dumps(sampler_table(denoiser_of(net)))}

    def export_example(self, net: Net, batch: Batch) -> tuple[Batch, tuple[str, ...]]:
        """Return the inputs of one sampling step, such as noisy images and times."""
        denoiser = denoiser_of(net)
        self._exported = denoiser
        with side_effect_free(net):
            sample = denoiser.draw(batch)
        example: Batch = {"noisy": sample.noisy, "time": sample.time}
        if sample.label is not None:
            example["label"] = torch.where(sample.label < 0, denoiser.num_classes, sample.label)
        scalars = {
            "guidance": torch.full_like(sample.time, denoiser.guidance),
            "end_time": sample.time / 2,
        }
        example |= {name: scalars[name] for name in denoiser.scalars}
        return example, self.export_roles
