"""Sampler of images from the ONNX file of one step, with NumPy and onnxruntime only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = "NDArray[np.float32]"


class OnnxSampler:
    """Sampler of a diffusion model that was exported to ONNX.

    The file has the schedule, the solver and the number of steps of the student in its metadata.
    This module imports neither PyTorch nor other parts of instil: it can be copied to a device.

    Args:
        path: file ``student.onnx`` of a run of the task ``diffusion``.

    Raises:
        ValueError: for the file of another task.
    """

    def __init__(self, path: str | Path):
        import onnxruntime  # type: ignore[import-untyped, unused-ignore]

        self.session: Any = onnxruntime.InferenceSession(
            str(path), providers=["CPUExecutionProvider"]
        )
        metadata = self.session.get_modelmeta().custom_metadata_map
        if "sampler" not in metadata:
            raise ValueError(
                f"{path}: the file has no sampler. Expected the ONNX file of a diffusion model, "
                f"got one of the task {metadata.get('task', 'unknown')}"
            )
        self.table: dict[str, Any] = json.loads(metadata["sampler"])
        self.shape: tuple[int, ...] = tuple(json.loads(metadata["input_shape"]))

    def __call__(self, count: int, label: NDArray[np.int64] | None = None, seed: int = 0) -> Array:
        """Generate images.

        Args:
            count: number of images.
            label: classes (N,); None: no class.
            seed: seed of the noise, which is not that of PyTorch.

        Returns:
            (N, C, H, W) in [0, 1].
        """
        generator = np.random.default_rng(seed)
        noise = generator.standard_normal((count, *self.shape), dtype=np.float32)
        return self.from_noise(noise, label, generator)

    def from_noise(
        self,
        noise: Array,
        label: NDArray[np.int64] | None = None,
        generator: np.random.Generator | None = None,
    ) -> Array:
        """Generate images from standard normal noise.

        Args:
            noise: (N, C, H, W).
            label: classes (N,); None: no class.
            generator: random numbers of the solver ``consistency``; None: those of seed 0.

        Returns:
            (N, C, H, W) in [0, 1].
        """
        generator = generator or np.random.default_rng(0)
        steps = len(self.table["time"]) - 1
        noisy = np.float32(self.table["sigma"][0]) * noise
        previous: Array | None = None
        for i in range(steps):
            denoised = self._denoise(noisy, i, i + 1, label)
            solver = self.table["solver"]
            if solver in ("euler", "heun"):
                noisy = self._in_time(noisy, denoised, i, label)
                continue
            if solver == "consistency":
                fresh = generator.standard_normal(noise.shape, dtype=np.float32)
                noisy = self._of("alpha", i + 1) * denoised + self._of("sigma", i + 1) * fresh
                continue
            used = denoised
            if solver == "dpm_solver" and previous is not None and i < steps - 1:
                used = denoised + self._extrapolation(i) * (denoised - previous)
            eps = (noisy - self._of("alpha", i) * used) / self._of("sigma", i)
            noisy = self._of("alpha", i + 1) * used + self._of("sigma", i + 1) * eps
            previous = denoised
        images: Array = np.clip((noisy + 1) / 2, 0, 1)
        return images

    def _denoise(self, noisy: Array, i: int, end: int, label: NDArray[np.int64] | None) -> Array:
        """Clean images at step ``i`` of a step to ``end``, with classifier-free guidance."""
        numbers = {"time": self.table["time"][i], "end_time": self.table["time"][end]}
        numbers["guidance"] = self.table["guidance"]
        # Files of earlier versions have no numbers besides the time.
        scalars = self.table.get("scalars", [])
        inputs: dict[str, Any] = {
            name: np.full(len(noisy), numbers[name], dtype=np.float32)
            for name in ("time", *scalars)
        }
        inputs["noisy"] = noisy.astype(np.float32)
        num_classes = self.table["num_classes"]
        if not num_classes:
            return self._run(inputs)
        none = np.full(len(noisy), num_classes, dtype=np.int64)
        classes = none if label is None else np.where(label < 0, num_classes, label)
        denoised = self._run(inputs | {"label": classes.astype(np.int64)})
        # A network that reads the weight of the guidance returns guided images.
        if not self.table["guidance"] or "guidance" in scalars:
            return denoised
        weight = np.float32(self.table["guidance"])
        unguided = self._run(inputs | {"label": none})
        result: Array = denoised + weight * (denoised - unguided)
        return result

    def _run(self, inputs: dict[str, Any]) -> Array:
        (denoised,) = self.session.run(["denoised"], inputs)
        result: Array = denoised
        return result

    def _of(self, name: str, i: int) -> Any:
        return np.float32(self.table[name][i])

    def _velocity(self, noisy: Array, denoised: Array, i: int) -> Array:
        eps = (noisy - self._of("alpha", i) * denoised) / self._of("sigma", i)
        velocity: Array = self._of("alpha_rate", i) * denoised + self._of("sigma_rate", i) * eps
        return velocity

    def _in_time(
        self, noisy: Array, denoised: Array, i: int, label: NDArray[np.int64] | None
    ) -> Array:
        """One step of ``euler`` or ``heun``."""
        length = self._of("time", i + 1) - self._of("time", i)
        velocity = self._velocity(noisy, denoised, i)
        after: Array = noisy + length * velocity
        if self.table["solver"] == "heun" and self.table["time"][i + 1] > 0:
            corrected = self._velocity(after, self._denoise(after, i + 1, i + 1, label), i + 1)
            after = noisy + length * (velocity + corrected) / 2
        return after

    def _extrapolation(self, i: int) -> Any:
        """Factor of the last difference in DPM-Solver++ (2M)."""
        with np.errstate(divide="ignore"):
            log_snr = np.log(
                np.array(self.table["alpha"]) / np.array(self.table["sigma"]).clip(1e-12)
            )
        numerator = log_snr[i + 1] - log_snr[i]
        denominator = 2 * (log_snr[i] - log_snr[i - 1])
        return np.float32(numerator / denominator if np.isfinite(denominator) else 0)
