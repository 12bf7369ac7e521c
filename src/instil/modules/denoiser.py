"""Diffusion model: a network with its parameterisation, noise schedule and sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from instil.cards import suggestion
from instil.core import UNLABELLED, Batch, Outputs
from instil.functional.diffusion.noise_schedule import check_steps
from instil.functional.diffusion.parameterisations import parameterisation as find_parameterisation
from instil.functional.diffusion.parts import PartSpec
from instil.functional.diffusion.schedules import noise_schedule
from instil.functional.diffusion.steps import guided
from instil.functional.diffusion.times import time_distribution
from instil.functional.keyed_random import keyed_uniform
from instil.functional.noise import box_muller
from instil.modules.denoiser_network import DenoiserNetwork
from instil.modules.noisy_sample import NoisySample, to_model_range

SCALARS = ("guidance", "end_time")
"""Names of numbers (N,) that a network may read besides the time."""
SOLVERS = ("ddim", "euler", "heun", "dpm_solver", "consistency")
"""Names of the solvers of a sampler."""
SAMPLING = ("steps", "solver", "guidance")
"""Options of the sampler."""
CONFIGURABLE = (
    "parameterisation",
    "schedule",
    "times",
    "label_dropout",
    "steps",
    "solver",
    "guidance",
)
"""Options of a ``Denoiser`` that can change after it is built."""


class Denoiser(nn.Module):
    """Network that predicts the clean image, by a parameterisation and a noise schedule.

    Args:
        network: network ``(noisy, time)``, ``(noisy, time, label)``, or a model of diffusers
            (``timestep``, ``class_labels``). It may read the ``SCALARS`` as keyword arguments,
            whose names are its attribute ``scalars``.
        parameterisation: ``eps``, ``x0``, ``v``, ``flow``, ``edm`` or ``consistency``; or a dict of
            ``type`` and the options of its class, as for the schedule and the times.
        schedule: ``cosine``, ``flow``, ``linear``, ``betas`` or ``karras``.
        times: distribution of training times: ``uniform``, ``log_normal``, ``logit_normal`` or
            ``grid``.
        num_classes: number of classes that the network reads, without the class for no label,
            which has the index ``num_classes``; 0: the model is unconditional.
        label_dropout: share of training samples whose label is replaced by the class for no label.
        steps: number of sampling steps.
        solver: solver of the sampler, one of ``SOLVERS``.
        guidance: weight of classifier-free guidance in sampling; 0: none.

    Raises:
        ValueError: for an unknown name, fewer than one step, guidance without classes, and a
            parameterisation that is undefined at the noise end of the schedule.
    """

    def __init__(
        self,
        network: nn.Module,
        parameterisation: PartSpec = "v",
        schedule: PartSpec = "cosine",
        times: PartSpec = "uniform",
        num_classes: int = 0,
        label_dropout: float = 0.1,
        steps: int = 32,
        solver: str = "ddim",
        guidance: float = 0.0,
    ):
        super().__init__()
        self.network = DenoiserNetwork(network, num_classes)
        self.num_classes = num_classes
        self.reconfigure(
            parameterisation=parameterisation,
            schedule=schedule,
            times=times,
            label_dropout=label_dropout,
            steps=steps,
            solver=solver,
            guidance=guidance,
        )

    def reconfigure(self, **options: Any) -> None:
        """Change options of a built denoiser, such as those of a student that copies its teacher.

        Args:
            **options: arguments of the class except ``network`` and ``num_classes``.

        Raises:
            ValueError: as for the class.
        """
        names = dict.fromkeys(CONFIGURABLE)
        if unknown := [name for name in options if name not in names]:
            raise ValueError(
                f"options.{unknown[0]}: a built denoiser has no such option. Expected one of "
                f"{', '.join(names)}"
            )
        self.options = {**getattr(self, "options", {}), **options}
        self.parameterisation = find_parameterisation(self.options["parameterisation"])
        self.schedule = noise_schedule(self.options["schedule"])
        self.times = time_distribution(self.options["times"])
        self.label_dropout = float(self.options["label_dropout"])
        self.steps = int(self.options["steps"])
        self.solver = str(self.options["solver"])
        self.guidance = float(self.options["guidance"])
        self._check()

    def settings(self) -> dict[str, Any]:
        """Options of the sampler, which a scheme may have changed and a file keeps."""
        return {name: self.options[name] for name in SAMPLING}

    def load_settings(self, settings: Mapping[str, Any]) -> None:
        """Take the options of the sampler from a file."""
        self.reconfigure(**{name: settings[name] for name in SAMPLING if name in settings})

    def _check(self) -> None:
        check_steps(self.steps)
        if self.solver not in SOLVERS:
            hint = suggestion(self.solver, SOLVERS)
            raise ValueError(f"solver: unknown solver '{self.solver}'.{hint}")
        self.check_guidance(self.guidance)
        if not 0 <= self.label_dropout < 1:
            raise ValueError(
                f"label_dropout: not a share. Expected at least 0 and less than 1, got "
                f"{self.label_dropout:g}"
            )
        if self.parameterisation.needs_signal and self.schedule.ends_in_noise:
            raise ValueError(
                f"parameterisation: {self.parameterisation.name} is undefined at the noise end of "
                f"the schedule {self.schedule.name}, where no signal is left. Expected x0, v, "
                "flow or edm. Choose one of them, or another schedule"
            )

    def check_guidance(self, guidance: Any) -> None:
        """Check that the model can be guided.

        Raises:
            ValueError: for guidance other than 0 of a model without classes.
        """
        if not self.num_classes and (isinstance(guidance, Tensor) or guidance):
            raise ValueError(
                "guidance: the model reads no label, so it has no unconditional prediction. "
                "Expected 0. Set conditional: true and train on labelled images"
            )

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of the numbers that the network reads besides the time."""
        return self.network.scalars

    def forward(
        self, noisy: Tensor, time: Tensor, label: Tensor | None = None, **scalars: Tensor
    ) -> Outputs:
        """Denoise images.

        Args:
            noisy: noisy images (N, C, H, W).
            time: times of the schedule, (N,) or a scalar.
            label: classes (N,); -100, or None, for no class. Ignored without classes.
            **scalars: numbers (N,), or scalars, of ``SCALARS`` that the network reads.

        Returns:
            ``denoised``, the clean images, and ``prediction``, the output of the network.
        """
        time = time.to(noisy.dtype).expand(len(noisy))
        alpha, sigma = self.schedule.coefficients(time, noisy)
        scaled = self.parameterisation.scale_input(noisy, alpha, sigma)
        scalars = {name: value.expand(len(noisy)) for name, value in scalars.items()}
        if "end_time" in scalars:
            scalars["end_time"] = self.network_time(scalars["end_time"].to(noisy.dtype))
        network_time = self.network_time(time)
        prediction = self.network(scaled, network_time, self._classes(label, noisy), scalars)
        denoised = self.parameterisation.denoised(prediction, noisy, alpha, sigma)
        return {"denoised": denoised, "prediction": prediction}

    def network_time(self, time: Tensor) -> Tensor:
        """Time that the network reads."""
        if not self.parameterisation.reads_noise_level:
            return self.schedule.network_time(time)
        ratio = self.schedule.sigma(time) / self.schedule.alpha(time)
        # Bounds of the log-SNR of 20, as of the cosine schedule: a ratio may be 0 or infinite.
        return 250 * ratio.log().clamp(-10, 10)

    def denoise(
        self,
        noisy: Tensor,
        time: Tensor,
        label: Tensor | None = None,
        guidance: Tensor | float = 0.0,
        **scalars: Tensor,
    ) -> Tensor:
        """Clean images (N, C, H, W), with classifier-free guidance.

        A network that reads ``guidance`` receives it as a number. Others run a second time without
        label, unless the guidance is the number 0.

        Args:
            noisy: noisy images (N, C, H, W).
            time: times of the schedule, (N,) or a scalar.
            label: classes (N,); -100, or None, for no class.
            guidance: weight of the guidance, a number or (N,).
            **scalars: see ``forward``.

        Raises:
            ValueError: for guidance of a model without classes.
        """
        self.check_guidance(guidance)
        if "guidance" in self.scalars:
            scalars["guidance"] = torch.as_tensor(guidance, device=noisy.device).to(noisy.dtype)
        denoised: Tensor = self(noisy, time, label, **scalars)["denoised"]
        is_guided = isinstance(guidance, Tensor) or guidance != 0
        if "guidance" in self.scalars or not is_guided:
            return denoised
        unconditional: Tensor = self(noisy, time, None, **scalars)["denoised"]
        return guided(denoised, unconditional, guidance)

    def draw(self, batch: Batch, stream: str = "diffusion") -> NoisySample:
        """Noisy images of a training batch, which depend on seed, step and sample only.

        Args:
            batch: ``image`` (N, C, H, W) in [0, 1], ``index`` and, for a conditional model,
                ``label`` (N,).
            stream: name of the random stream. Two denoisers with the same options draw the same
                noise and times from one stream.
        """
        clean = to_model_range(batch["image"])
        time = self.times.sample(keyed_uniform(batch, 1, f"{stream}.time")[:, 0], self.schedule)
        noise = box_muller(batch, tuple(clean.shape[1:]), f"{stream}.noise").to(clean.dtype)
        label: Tensor | None = None
        if self.num_classes:
            is_dropped = keyed_uniform(batch, 1, f"{stream}.label")[:, 0] < self.label_dropout
            label = batch["label"].masked_fill(is_dropped, UNLABELLED)
        noisy = self.schedule.add_noise(clean, noise, time)
        return NoisySample(clean, noise, time, noisy, label)

    def _classes(self, label: Tensor | None, noisy: Tensor) -> Tensor | None:
        """Class indices that the network reads, ``num_classes`` for no label."""
        if not self.num_classes:
            return None
        if label is None:
            return torch.full((len(noisy),), self.num_classes, device=noisy.device)
        return torch.where(label < 0, self.num_classes, label)
