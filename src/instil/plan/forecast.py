"""Forecast of the time and memory that a training needs."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Scheme
from instil.engine import Engine
from instil.engine.cpu_offload import offloaded_parameters
from instil.experiment.experiment import Experiment
from instil.experiment.training_options import num_training_steps
from instil.plan.memory.traced_step import peak_without_gradients, saved_bytes_of_step
from instil.plan.step_timer import seconds_per_step
from instil.training.step import train_step

NUM_TIMED_STEPS = 5


def forecast_training(
    experiment: Experiment, scheme: Scheme, engine: Engine, batch: Batch
) -> dict[str, float]:
    """Forecast duration and memory of a stage from a few training steps on this machine.

    Args:
        experiment: experiment of the stage.
        scheme: prepared scheme, in train mode. The steps train it.
        engine: engine on which ``setup`` was called with the scheme.
        batch: a micro-batch, with its clock.

    Returns:
        ``steps`` (number), ``seconds_per_step``, ``seconds`` (for all steps), ``bytes`` (peak of
        one step: weights, gradients, optimizer state, activations and buffers of losses, passes and
        update) and ``activation_bytes`` (tensors other than weights that are saved for a backward
        pass).
    """
    # The first step also allocates the state of the optimizers, so it is not timed.
    train_step(engine, scheme, [batch])
    activation_bytes = saved_bytes_of_step(engine, scheme, batch)
    with peak_without_gradients(scheme) as live:
        train_step(engine, scheme, [batch])
    accumulate = experiment.recipe.train.accumulate
    seconds = seconds_per_step(engine, scheme, batch, NUM_TIMED_STEPS) * accumulate
    weights: dict[int, int] = {}
    gradient_bytes = 0
    on_cpu = offloaded_parameters(scheme)
    for parameter in scheme.parameters():
        if parameter in on_cpu:
            continue
        weights |= _storage_bytes(parameter)
        if parameter.requires_grad:
            gradient_bytes += parameter.numel() * parameter.element_size()
    steps = num_training_steps(experiment)
    resident = sum(weights.values()) + gradient_bytes + _state_bytes(engine)
    return {
        "steps": steps,
        "seconds_per_step": seconds,
        "seconds": seconds * steps,
        "bytes": resident + max(live.peak, activation_bytes),
        "activation_bytes": activation_bytes,
    }


def _storage_bytes(tensor: Tensor) -> dict[int, int]:
    """Address and size of the storage; views of one storage have the same address."""
    storage = tensor.untyped_storage()
    return {storage.data_ptr(): storage.nbytes()}


def _state_bytes(engine: Engine) -> int:
    """Bytes of the state of all optimizers."""
    total = 0
    for optimizer in engine.optimizers.values():
        for state in optimizer.state.values():
            tensors = [value for value in state.values() if isinstance(value, Tensor)]
            total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return total
