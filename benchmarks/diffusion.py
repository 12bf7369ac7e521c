"""Quality against sampling steps of every method of diffusion distillation, on 8x8 digits.

python benchmarks/diffusion.py [ROW ...] [--seeds 5] [--work FOLDER] [--json FILE]

A teacher per seed is trained by denoising score matching: a U-Net of width 16 with the schedule
and the parameterisation flow. Every method starts from its weights, and each training has the same
number of optimizer steps of the student, with the same batches, learning rate and moving average.
The distance is the Frechet distance between generated and test images in the features of a small
classifier, which is trained on the training images. Options are the defaults of the schemes, except
for the share ``different`` of mean_flow and the settings of the critics, which were chosen on the
test images of seed 0.

Rows in addition to the methods: ``teacher``, with the same number of sampling steps; ``teacher
trained on``, for the steps of a student; ``student alone``, the network of the student trained from
random weights for the steps of a student.

Results of a method and a seed are kept in the work folder; a run that stops goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from instil import recipe
from instil.core import Net, Objective, Objectives, Scheme
from instil.engine import Optimization
from instil.experiment.experiment import Experiment
from instil.files.atomic import atomic
from instil.functional.sample_quality import frechet_distance, precision_recall_coverage
from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import denoiser_call, denoiser_of
from instil.networks.unet import unet
from instil.objectives.labels.denoising import Denoising
from instil.objectives.logits.denoised_matching import DenoisedMatching
from instil.schemes.diffusion.consistency_distillation import ConsistencyDistillation
from instil.schemes.diffusion.consistency_training import ConsistencyTraining
from instil.schemes.diffusion.dmd import DMD
from instil.schemes.diffusion.dmd2 import DMD2
from instil.schemes.diffusion.easy_consistency import EasyConsistency
from instil.schemes.diffusion.f_distill import FDistill
from instil.schemes.diffusion.ladd import LADD
from instil.schemes.diffusion.mean_flow import MeanFlow
from instil.schemes.diffusion.ode_regression import OdeRegression
from instil.schemes.diffusion.progressive import Progressive
from instil.schemes.diffusion.reflow import Reflow
from instil.schemes.diffusion.scm import SCM
from instil.schemes.offline.offline import Offline
from instil.tasks.bases.image_sampler import ImageSampler
from instil.teachers.frozen import Frozen
from instil.training.fit import Training, fit

WIDTH, BATCH_SIZE = 16, 64
TEACHER_STEPS, STUDENT_STEPS = 2000, 600
TEACHER_SAMPLING, ALL_STEPS = 32, (1, 2, 4, 8, 16, 32)
HALVINGS = (16, 8, 4, 2, 1)
NUM_IMAGES = 1024
"""Generated images of an evaluation."""

Make = Callable[[Net, Frozen], Scheme]
"""``(student with the weights of the teacher, teacher) -> scheme``."""


def denoiser() -> Net:
    """Return an untrained network."""
    network = unet(1, width=WIDTH, scalars=("end_time",))
    model = Denoiser(network, parameterisation="flow", schedule="flow", steps=TEACHER_SAMPLING)
    return Net(model, denoiser_call, {"features": ["network.model.stages.1"]})


def l2() -> dict[str, Objective]:
    return {"matching": DenoisedMatching()}


def huber() -> dict[str, Objective]:
    return {"matching": DenoisedMatching("huber", 0.01)}


METHODS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "reflow": (lambda s, t: Reflow(s, t, l2(), num_pairs=2048), (1, 2, 4, 8)),
    "ode_regression": (lambda s, t: OdeRegression(s, t, l2(), num_pairs=2048), (1,)),
    "consistency_distillation": (
        lambda s, t: ConsistencyDistillation(s, t, huber()),
        (1, 2, 4),
    ),
    "consistency_training": (lambda s, t: ConsistencyTraining(s, huber()), (1, 2, 4)),
    "easy_consistency": (lambda s, t: EasyConsistency(s, huber()), (1, 2, 4)),
    "scm": (lambda s, t: SCM(s, t, l2()), (1, 2, 4)),
    "mean_flow": (lambda s, t: MeanFlow(s, t, l2(), different=0.75), (1, 2, 4)),
    "dmd": (lambda s, t: DMD(s, t, l2(), num_pairs=2048), (1,)),
    "dmd2": (lambda s, t: DMD2(s, t, l2(), fool=0.03, fake_updates=2), (1,)),
    "f_distill": (lambda s, t: FDistill(s, t, l2(), fool=0.03, fake_updates=2), (1,)),
}
"""Scheme and numbers of sampling steps of each method with one stage."""
ROWS = ("teacher", "teacher trained on", "student alone", "progressive", *METHODS, "ladd")


class Measurement:
    """Trainings and evaluations of one seed.

    Args:
        seed: seed of the teacher and of all students.
        work: folder of results and weights.
    """

    def __init__(self, seed: int, work: Path):
        self.seed = seed
        self.work = work
        config = {
            "task": "diffusion",
            "data": {"name": "digits", "batch_size": BATCH_SIZE},
            "student": "denoiser",
            "objectives": {"denoising": {}},
        }
        self.experiment = Experiment.from_recipe(recipe.build(config))
        self.task = self.experiment.task
        self.test = self._all_images(self.experiment.splits.test)
        self.reference = self.task.features(self.test)

    @staticmethod
    def _all_images(samples: Any) -> torch.Tensor:
        images: torch.Tensor = samples.__getitems__(range(len(samples)))["image"]
        return images

    def batches(self, steps: int) -> list[dict[str, torch.Tensor]]:
        """Return random batches of the training images, the same for all methods."""
        generator = torch.Generator().manual_seed(self.seed)
        samples = self.experiment.splits.train
        rows = torch.randint(len(samples), (steps, BATCH_SIZE), generator=generator)
        images = self._all_images(samples)
        return [{"image": images[row], "index": row} for row in rows]

    def train(
        self,
        scheme: Scheme,
        steps: int,
        rate: float | dict[str, float] = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> tuple[Net, float]:
        """Train a scheme; return the net and the processor time in seconds."""
        rates = rate if isinstance(rate, dict) else dict.fromkeys(scheme.learners, rate)
        optimizers = {
            name: Optimization("adam", {"lr": value, "betas": betas})
            for name, value in rates.items()
        }
        training = Training(
            steps=steps, optimizers=optimizers, average=0.99, seed=self.seed, device="cpu"
        )
        torch.manual_seed(self.seed)
        start = time.process_time()
        result = fit(scheme, self.batches(steps), training)
        return result.net, time.process_time() - start

    def quality(self, net: Net, steps: int) -> dict[str, float]:
        """Return the metrics of a net with a number of sampling steps."""
        images = ImageSampler(denoiser_of(net), steps=steps).generate(
            NUM_IMAGES, self.test.shape[1:]
        )
        features = self.task.features(images)
        distance = frechet_distance(features, self.reference).item()
        metrics = precision_recall_coverage(features, self.reference, 5)
        return {"frechet_distance": distance} | dict(metrics)

    def teacher(self) -> Net:
        """Return the teacher, trained in the first call of the seed."""
        net = denoiser()
        path = self.work / f"teacher-{self.seed}.safetensors"
        if not path.exists():
            torch.manual_seed(self.seed)
            net = denoiser()
            scheme = Offline(net, None, {"denoising": Denoising()})
            net, _ = self.train(scheme, TEACHER_STEPS, 2e-3)
            with atomic(path) as temporary:
                save_file(net.model.state_dict(), temporary)
        net.model.load_state_dict(load_file(path))
        return net.eval()

    def measure(self, row: str) -> dict[str, Any]:
        """Return processor time and quality by sampling steps of a row."""
        teacher = self.teacher()
        if row == "teacher":
            return self._qualities(teacher, ALL_STEPS, 0.0)
        if row == "progressive":
            return self._progressive(teacher)
        if row == "ladd":
            return self._ladd(teacher)
        student = copy.deepcopy(teacher).train()
        if row in METHODS:
            make, steps = METHODS[row]
            net, seconds = self.train(make(student, Frozen(teacher)), STUDENT_STEPS)
            return self._qualities(net, steps, seconds)
        if row == "student alone":
            torch.manual_seed(self.seed)
            student = denoiser()
        scheme = Offline(student, None, {"denoising": Denoising()})
        net, seconds = self.train(scheme, STUDENT_STEPS)
        return self._qualities(net, ALL_STEPS, seconds)

    def _qualities(self, net: Net, steps: tuple[int, ...], seconds: float) -> dict[str, Any]:
        quality = {str(count): self.quality(net, count) for count in steps}
        return {"seconds": seconds, "quality": quality}

    def _ladd(self, teacher: Net) -> dict[str, Any]:
        """Train by ode_regression and by ladd, each for half of the steps."""
        student = copy.deepcopy(teacher).train()
        regression = OdeRegression(student, Frozen(teacher), l2(), num_pairs=2048)
        net, seconds = self.train(regression, STUDENT_STEPS // 2)
        levels = [f"network.model.stages.{level}" for level in range(3)]
        critic = Frozen(Net(teacher.model, denoiser_call, {"features": levels}))
        objectives = Objectives(l2(), {"matching": 1e-6})
        scheme = LADD(net.train().requires_grad_(True), critic, objectives, form="non_saturating")
        rates = {"student": 1e-4, "critic": 1e-3}
        net, more = self.train(scheme, STUDENT_STEPS // 2, rates, (0.0, 0.99))
        return self._qualities(net, (1,), seconds + more)

    def _progressive(self, teacher: Net) -> dict[str, Any]:
        """Halve the steps in stages that share the steps of the training."""
        quality: dict[str, Any] = {}
        total, net = 0.0, teacher
        for steps in HALVINGS:
            student = copy.deepcopy(net).train()
            scheme = Progressive(student, Frozen(net), l2(), steps=steps)
            net, seconds = self.train(scheme, STUDENT_STEPS // len(HALVINGS))
            total += seconds
            quality[str(steps)] = self.quality(net, steps)
        return {"seconds": total, "quality": quality}


def summary(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return mean and standard deviation over the seeds by row and number of steps."""
    table = []
    for row in ROWS:
        seeds = [entry for key, entry in results.items() if key.rpartition("/")[0] == row]
        counts = seeds[0]["quality"] if seeds else {}
        for count in counts:
            line: dict[str, Any] = {"method": row, "steps": int(count), "seeds": len(seeds)}
            for name in ("frechet_distance", "precision", "recall", "coverage"):
                values = [entry["quality"][count][name] for entry in seeds]
                line[name] = statistics.mean(values)
                line[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
            line["seconds"] = statistics.mean(entry["seconds"] for entry in seeds)
            table.append(line)
    return table


def main() -> None:
    """Measure the rows that have no result yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("diffusion-benchmark"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for seed in range(arguments.seeds):
        measurement: Measurement | None = None
        for row in arguments.rows or ROWS:
            path = arguments.work / f"{row.replace(' ', '_')}-{seed}.json"
            if path.exists():
                continue
            measurement = measurement or Measurement(seed, arguments.work)
            result: dict[str, Any] = {"row": row, "seed": seed, **measurement.measure(row)}
            with atomic(path) as temporary:
                Path(temporary).write_text(json.dumps(result, indent=1), encoding="utf-8")
            distances = {k: round(v["frechet_distance"], 2) for k, v in result["quality"].items()}
            print(f"{row} {seed} {result['seconds']:.0f} s {distances}", flush=True)
    results = {}
    for path in sorted(arguments.work.glob("*.json")):
        entry = json.loads(path.read_text(encoding="utf-8"))
        results[f"{entry['row']}/{entry['seed']}"] = entry
    table = summary(results)
    for line in table:
        print(f"{line['method']:26} {line['steps']:3} {line['frechet_distance']:8.3f}")
    if arguments.json:
        settings = {
            "width": WIDTH,
            "batch_size": BATCH_SIZE,
            "teacher_steps": TEACHER_STEPS,
            "student_steps": STUDENT_STEPS,
            "num_images": NUM_IMAGES,
        }
        text = json.dumps({"settings": settings, "rows": table}, indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
