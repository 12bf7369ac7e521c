"""Quality against sampling steps of every method of diffusion distillation, on digits.

python benchmarks/diffusion.py [ROW ...] [--setting digits|digits_long|mnist|mnist_long]
                               [--data FOLDER] [--seeds 5] [--work FOLDER] [--json FILE]

A teacher is trained by denoising score matching: a U-Net with the schedule and the parameterisation
flow. Every method starts from its weights, and each training has the same number of optimizer steps
of the student, with the same batches, learning rate and moving average. The distance is the Frechet
distance between generated and test images in the features of a small classifier, which is trained
on the training images.

- ``digits``: 8 x 8 pixels, without classes, one teacher per seed. Options are the defaults of the
  schemes. Exceptions are the share ``different`` of mean_flow and the settings of critics and
  second networks, which were chosen on the test images of seed 0, and the two updates of dmd.
- ``digits_long``: the same with 10,000 steps for the teacher and for a student.
- ``mnist``: 28 x 28 pixels and classes, one teacher for all seeds. FOLDER has ``mnist10k.npz``
  (``images`` uint8 (10000, 28, 28) and ``labels``; rows 0 to 6999 train, to 7999 validation, then
  test). It has the options of ``digits``, and further methods for guided and adversarial students.
- ``mnist_long``: the same teacher, with 4,000 steps for a student, more pairs and a longer average.

Rows in addition to the methods: ``teacher``, with the same number of sampling steps; ``teacher
trained on``, for the steps of a student; ``student alone``, the network of the student trained from
random weights for the steps of a student; ``guided teacher``, with the guidance of its students.

Results of a method and a seed are kept in the work folder; a run that stops goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from instil import recipe
from instil.core import Net, Objective, Objectives, Scheme
from instil.engine import Optimization
from instil.experiment.experiment import Experiment
from instil.files.atomic import atomic
from instil.files.json_files import write_json
from instil.functional.sample_quality import frechet_distance, precision_recall_coverage
from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import denoiser_call, denoiser_of
from instil.networks.cnn import CNN
from instil.networks.unet import unet
from instil.objectives.labels.denoising import Denoising
from instil.objectives.logits.denoised_matching import DenoisedMatching
from instil.schemes.diffusion.add import ADD
from instil.schemes.diffusion.consistency_distillation import ConsistencyDistillation
from instil.schemes.diffusion.consistency_training import ConsistencyTraining
from instil.schemes.diffusion.dmd import DMD
from instil.schemes.diffusion.dmd2 import DMD2
from instil.schemes.diffusion.easy_consistency import EasyConsistency
from instil.schemes.diffusion.f_distill import FDistill
from instil.schemes.diffusion.guidance_distillation import GuidanceDistillation
from instil.schemes.diffusion.ladd import LADD
from instil.schemes.diffusion.lcm import LCM
from instil.schemes.diffusion.mean_flow import MeanFlow
from instil.schemes.diffusion.ode_regression import OdeRegression
from instil.schemes.diffusion.on_policy_diffusion import OnPolicyDiffusion
from instil.schemes.diffusion.progressive import Progressive
from instil.schemes.diffusion.reflow import Reflow
from instil.schemes.diffusion.scm import SCM
from instil.schemes.offline.offline import Offline
from instil.tasks.bases.image_sampler import ImageSampler
from instil.teachers.frozen import Frozen
from instil.training.fit import Training, fit

TEACHER_SAMPLING, ALL_STEPS = 32, (1, 2, 4, 8, 16, 32)
HALVINGS = {"progressive": (16, 8, 4, 2, 1), "progressive to 4": (16, 8, 4)}
"""Numbers of steps of the stages, by row. The stages share the steps of a training."""
GUIDANCE = 1.0
"""Weight of the guidance of ``guided teacher`` and of the methods with a guided teacher."""
AVERAGE = 0.99
"""Decay of the moving average of the weights."""


@dataclass(frozen=True)
class Setting:
    """Sizes and lengths of a benchmark.

    Args:
        width: width of the U-Net.
        levels: levels of the U-Net.
        classes: number of classes that the networks read; 0: none.
        batch_size: number of images in a step.
        teacher_steps: optimizer steps of the teacher.
        student_steps: optimizer steps of a student.
        num_images: generated images of an evaluation.
        num_pairs: recorded pairs of reflow, ode_regression and dmd.
        pair_steps: sampling steps of a pair; None: those of the teacher.
        shares_teacher: whether all seeds have the teacher of seed 0.
        average: decay of the moving average of the weights of a student; that of a teacher is
            ``AVERAGE``.
    """

    width: int = 16
    levels: int = 2
    classes: int = 0
    batch_size: int = 64
    teacher_steps: int = 2000
    student_steps: int = 600
    num_images: int = 1024
    num_pairs: int = 2048
    pair_steps: int | None = None
    shares_teacher: bool = False
    average: float = AVERAGE


SETTINGS = {
    "digits": Setting(),
    "digits_long": Setting(teacher_steps=10_000, student_steps=10_000),
    "mnist": Setting(12, 3, 10, 32, 4000, 400, 1000, 1024, 16, True),
    "mnist_long": Setting(12, 3, 10, 32, 4000, 4000, 1000, 4096, 16, True, 0.999),
}
"""Settings by name."""
Make = Callable[[Net, Frozen, Setting], Scheme]
"""``(student with the weights of the teacher, teacher, setting) -> scheme``."""


def denoiser(setting: Setting) -> Net:
    """Return an untrained network."""
    network = unet(1, setting.classes, setting.width, setting.levels, scalars=("end_time",))
    model = Denoiser(network, "flow", "flow", num_classes=setting.classes, steps=TEACHER_SAMPLING)
    return Net(model, denoiser_call, {"features": [f"network.model.stages.{setting.levels - 1}"]})


def l2() -> dict[str, Objective]:
    return {"matching": DenoisedMatching()}


def huber() -> dict[str, Objective]:
    return {"matching": DenoisedMatching("huber", 0.01)}


def reflow(student: Net, teacher: Frozen, setting: Setting) -> Scheme:
    return Reflow(student, teacher, l2(), setting.num_pairs, setting.pair_steps)


def ode_regression(student: Net, teacher: Frozen, setting: Setting) -> Scheme:
    return OdeRegression(student, teacher, l2(), setting.num_pairs, setting.pair_steps)


def dmd(student: Net, teacher: Frozen, setting: Setting, guidance: float = 0.0) -> Scheme:
    pairs = {"num_pairs": setting.num_pairs, "pair_steps": setting.pair_steps}
    return DMD(student, teacher, l2(), fake_updates=2, guidance=guidance, **pairs)


METHODS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "reflow": (reflow, (1, 2, 4, 8)),
    "ode_regression": (ode_regression, (1,)),
    "consistency_distillation": (
        lambda s, t, _: ConsistencyDistillation(s, t, huber()),
        (1, 2, 4),
    ),
    "consistency_training": (lambda s, t, _: ConsistencyTraining(s, huber()), (1, 2, 4)),
    "easy_consistency": (lambda s, t, _: EasyConsistency(s, huber()), (1, 2, 4)),
    "scm": (lambda s, t, _: SCM(s, t, l2()), (1, 2, 4)),
    "mean_flow": (lambda s, t, _: MeanFlow(s, t, l2(), different=0.75), (1, 2, 4)),
    "dmd": (dmd, (1,)),
    "dmd2": (lambda s, t, _: DMD2(s, t, l2(), fool=0.03, fake_updates=2), (1,)),
    "f_distill": (lambda s, t, _: FDistill(s, t, l2(), fool=0.03, fake_updates=2), (1,)),
}
"""Scheme and numbers of sampling steps of each method with one stage."""
CONDITIONAL_METHODS: dict[str, tuple[Make, tuple[int, ...]]] = {
    "guidance_distillation": (
        lambda s, t, _: GuidanceDistillation(s, t, l2(), GUIDANCE, GUIDANCE),
        (4, 8, 32),
    ),
    "lcm": (lambda s, t, _: LCM(s, t, huber(), GUIDANCE, GUIDANCE), (1, 2, 4)),
    "guided dmd": (partial(dmd, guidance=GUIDANCE), (1,)),
    "on_policy_diffusion": (
        lambda s, t, _: OnPolicyDiffusion(s, t, l2(), steps=4, guidance=GUIDANCE),
        (4,),
    ),
}
"""Further methods of a setting with classes."""


TEACHER_ROWS = ("teacher", "guided teacher")
"""Rows without a training."""


def rows_of(setting: Setting) -> tuple[str, ...]:
    """Return the rows of a setting."""
    rows = ("teacher", "teacher trained on", "student alone", *HALVINGS, *METHODS, "ladd")
    return (*rows, "guided teacher", *CONDITIONAL_METHODS, "add") if setting.classes else rows


def write_mnist(source: Path, target: Path) -> None:
    """Write the images of the three splits as a file of the source ``npz``."""
    with np.load(source) as arrays:
        image, label = arrays["images"], arrays["labels"]
    split = np.repeat([0, 1, 2], [7000, 1000, 2000])
    np.savez(target, image=image, label=label, split=split)


class Measurement:
    """Trainings and evaluations of one seed.

    Args:
        seed: seed of the students, and of the teacher unless the seeds share one.
        work: folder of results and weights.
        setting: sizes and lengths.
        data: recipe section of the data.
    """

    def __init__(self, seed: int, work: Path, setting: Setting, data: dict[str, Any]):
        self.seed = seed
        self.work = work
        self.setting = setting
        config = {
            "task": "diffusion",
            "data": data | {"batch_size": setting.batch_size},
            "student": "denoiser",
            "objectives": {"denoising": {}},
        }
        self.experiment = Experiment.from_recipe(recipe.build(config))
        self.task = self.experiment.task
        self.test = self._whole(self.experiment.splits.test)
        self.train_data = self._whole(self.experiment.splits.train)
        self.reference = self.task.features(self.test["image"])

    def training_distance(self) -> float:
        """Return the distance of the training images to the test images."""
        features = self.task.features(self.train_data["image"])
        return float(frechet_distance(features, self.reference))

    @staticmethod
    def _whole(samples: Any) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = samples.__getitems__(range(len(samples)))
        return batch

    def batches(self, steps: int) -> list[dict[str, torch.Tensor]]:
        """Return random batches of the training images, the same for all methods."""
        generator = torch.Generator().manual_seed(self.seed)
        image, label = self.train_data["image"], self.train_data["label"]
        rows = torch.randint(len(image), (steps, self.setting.batch_size), generator=generator)
        return [{"image": image[row], "label": label[row], "index": row} for row in rows]

    def train(
        self,
        scheme: Scheme,
        steps: int,
        rate: float | dict[str, float] = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        average: float | None = None,
    ) -> tuple[Net, float]:
        """Train a scheme; return the net and the processor time in seconds."""
        rates = rate if isinstance(rate, dict) else dict.fromkeys(scheme.learners, rate)
        optimizers = {
            name: Optimization("adam", {"lr": value, "betas": betas})
            for name, value in rates.items()
        }
        training = Training(
            steps=steps,
            optimizers=optimizers,
            average=self.setting.average if average is None else average,
            seed=self.seed,
            device="cpu",
        )
        torch.manual_seed(self.seed)
        start = time.process_time()
        result = fit(scheme, self.batches(steps), training)
        return result.net, time.process_time() - start

    def quality(self, net: Net, steps: int) -> dict[str, float]:
        """Return the metrics of a net with a number of sampling steps."""
        label = self.test["label"] if self.setting.classes else None
        images = ImageSampler(denoiser_of(net), steps=steps).generate(
            self.setting.num_images, self.test["image"].shape[1:], label
        )
        features = self.task.features(images)
        distance = frechet_distance(features, self.reference).item()
        metrics = precision_recall_coverage(features, self.reference, 5)
        return {"frechet_distance": distance} | dict(metrics)

    def teacher(self) -> Net:
        """Return the teacher, trained in the first call that needs it."""
        net = denoiser(self.setting)
        seed = 0 if self.setting.shares_teacher else self.seed
        path = self.work / f"teacher-{seed}.safetensors"
        if not path.exists():
            torch.manual_seed(seed)
            net = denoiser(self.setting)
            scheme = Offline(net, None, {"denoising": Denoising()})
            net, _ = self.train(scheme, self.setting.teacher_steps, 2e-3, average=AVERAGE)
            with atomic(path) as temporary:
                save_file(net.model.state_dict(), temporary)
        net.model.load_state_dict(load_file(path))
        return net.eval()

    def measure(self, row: str) -> dict[str, Any]:
        """Return processor time and quality by sampling steps of a row."""
        teacher = self.teacher()
        if row == "teacher":
            return self._qualities(teacher, ALL_STEPS, 0.0)
        if row == "guided teacher":
            denoiser_of(teacher).reconfigure(guidance=GUIDANCE)
            return self._qualities(teacher, ALL_STEPS, 0.0)
        own = {"ladd": self._ladd, "add": self._add}
        if row in HALVINGS:
            return self._progressive(teacher, HALVINGS[row])
        if row in own:
            return own[row](teacher)
        student = copy.deepcopy(teacher).train()
        methods = METHODS | CONDITIONAL_METHODS
        if row in methods:
            make, steps = methods[row]
            scheme = make(student, Frozen(teacher), self.setting)
            net, seconds = self.train(scheme, self.setting.student_steps)
            return self._qualities(net, steps, seconds)
        if row == "student alone":
            torch.manual_seed(self.seed)
            student = denoiser(self.setting)
        scheme = Offline(student, None, {"denoising": Denoising()})
        net, seconds = self.train(scheme, self.setting.student_steps)
        return self._qualities(net, ALL_STEPS, seconds)

    def _qualities(self, net: Net, steps: tuple[int, ...], seconds: float) -> dict[str, Any]:
        quality = {str(count): self.quality(net, count) for count in steps}
        return {"seconds": seconds, "quality": quality}

    def _ladd(self, teacher: Net) -> dict[str, Any]:
        """Train by ode_regression and by ladd, each for half of the steps."""
        student = copy.deepcopy(teacher).train()
        regression = ode_regression(student, Frozen(teacher), self.setting)
        net, seconds = self.train(regression, self.setting.student_steps // 2)
        levels = [f"network.model.stages.{level}" for level in range(3)]
        critic = Frozen(Net(teacher.model, denoiser_call, {"features": levels}))
        objectives = Objectives(l2(), {"matching": 1e-6})
        scheme = LADD(net.train().requires_grad_(True), critic, objectives, form="non_saturating")
        rates = {"student": 1e-4, "critic": 1e-3}
        net, more = self.train(scheme, self.setting.student_steps // 2, rates, (0.0, 0.99))
        return self._qualities(net, (1,), seconds + more)

    def _add(self, teacher: Net) -> dict[str, Any]:
        """Train by add, with critics on the features of a classifier that no metric reads."""
        classifier = Net(self.critic_classifier(), taps={"features": ["stages.0", "stages.1"]})
        objectives = Objectives(l2(), {"matching": 2.5})
        student = copy.deepcopy(teacher).train()
        scheme = ADD(student, Frozen(teacher), objectives, classifier)
        rates = {"student": 1e-4, "critic": 1e-3}
        net, seconds = self.train(scheme, self.setting.student_steps, rates, (0.0, 0.99))
        return self._qualities(net, (1, 2, 4), seconds)

    def critic_classifier(self) -> CNN:
        """Return a classifier of the training images, trained in the first call."""
        torch.manual_seed(0)
        model = CNN(self.setting.classes, 1, 12, 2, 1, "none")
        path = self.work / "classifier.safetensors"
        if path.exists():
            model.load_state_dict(load_file(path))
            return model.eval()
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for batch in self.batches(1000):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(model(batch["image"]), batch["label"]))
            optimizer.step()
        with atomic(path) as temporary:
            save_file(model.state_dict(), temporary)
        return model.eval()

    def _progressive(self, teacher: Net, halvings: tuple[int, ...]) -> dict[str, Any]:
        """Halve the steps in stages that share the steps of the training."""
        quality: dict[str, Any] = {}
        total, net = 0.0, teacher
        for steps in halvings:
            student = copy.deepcopy(net).train()
            scheme = Progressive(student, Frozen(net), l2(), steps=steps)
            net, seconds = self.train(scheme, self.setting.student_steps // len(halvings))
            total += seconds
            quality[str(steps)] = self.quality(net, steps)
        return {"seconds": total, "quality": quality}


def summary(results: Mapping[str, Any], rows: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return mean and standard deviation over the seeds by row and number of steps."""
    table = []
    for row in rows:
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--setting", choices=SETTINGS, default="digits")
    parser.add_argument("--data", type=Path, help="folder with mnist10k.npz")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("diffusion-benchmark"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    setting = SETTINGS[arguments.setting]
    data: dict[str, Any] = {"name": "digits"}
    if arguments.setting.startswith("mnist"):
        if arguments.data is None:
            parser.error("--data: MNIST needs a folder with mnist10k.npz")
        file = arguments.work / "mnist.npz"
        write_mnist(arguments.data / "mnist10k.npz", file)
        data = {"name": "npz", "path": str(file.resolve())}
    for seed in range(arguments.seeds):
        measurement: Measurement | None = None
        for row in arguments.rows or rows_of(setting):
            path = arguments.work / f"{row.replace(' ', '_')}-{seed}.json"
            # A shared teacher has the same noise, and so the same images, for all seeds.
            is_repeated = seed > 0 and setting.shares_teacher and row in TEACHER_ROWS
            if path.exists() or is_repeated:
                continue
            measurement = measurement or Measurement(seed, arguments.work, setting, data)
            result: dict[str, Any] = {"row": row, "seed": seed, **measurement.measure(row)}
            with atomic(path) as temporary:
                Path(temporary).write_text(json.dumps(result, indent=1), encoding="utf-8")
            distances = {k: round(v["frechet_distance"], 2) for k, v in result["quality"].items()}
            print(f"{row} {seed} {result['seconds']:.0f} s {distances}", flush=True)
    measurement = Measurement(0, arguments.work, setting, data)
    write_table(arguments.work, setting, measurement.training_distance(), arguments.json)


def write_table(
    work: Path, setting: Setting, training_distance: float, target: Path | None
) -> None:
    """Print the summary of the results in a folder, and write it as JSON."""
    results = {}
    for path in sorted(work.glob("*-*.json")):
        entry = json.loads(path.read_text(encoding="utf-8"))
        results[f"{entry['row']}/{entry['seed']}"] = entry
    table = summary(results, rows_of(setting))
    for line in table:
        print(f"{line['method']:26} {line['steps']:3} {line['frechet_distance']:8.3f}")
    if target is not None:
        distance = {"training_distance": training_distance}
        write_json(target, {"settings": asdict(setting), **distance, "rows": table})


if __name__ == "__main__":
    main()
