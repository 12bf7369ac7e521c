"""Teachers whose weights stay in the memory of the machine."""

from __future__ import annotations

from instil.core import Net, Teacher
from instil.engine import init_distributed, world_size
from instil.engine.cpu_offload import offload_blocks
from instil.recipe.sections import ModelConfig, TeacherConfig, TrainConfig


def offload_teacher(net: Net, config: ModelConfig) -> None:
    """Offload the blocks of a network, in place, if it is a teacher with ``cpu_offload``.

    All that moves the network to a device later leaves the blocks where they are.

    Args:
        net: network with its weights.
        config: section of the network.

    Raises:
        ValueError: for quantised weights, and for a network without repeated blocks.
    """
    if not (isinstance(config, TeacherConfig) and config.cpu_offload):
        return
    if getattr(net.model, "quantization_method", None) is not None:
        raise ValueError(
            "cpu_offload: quantised weights are read together with tables on the device. Expected "
            "weights of a floating-point type. Leave options.quantization_config or cpu_offload out"
        )
    if not offload_blocks(net):
        raise ValueError(
            f"cpu_offload: {type(net.model).__name__} has no repeated blocks. Expected a network "
            "with an nn.ModuleList or nn.Sequential of blocks, such as the layers of a "
            "transformer. Leave cpu_offload out"
        )


def move_teacher(teacher: Teacher, train: TrainConfig) -> Teacher:
    """Move a teacher that computes outside of a training to the device of this process.

    The whole teacher of a sharded training may not fit there, so that its blocks are offloaded.

    Args:
        teacher: the teacher; it is changed in place.
        train: options of the training.
    """
    if train.shard and world_size() > 1:
        offload_blocks(teacher)
    return teacher.to(init_distributed())
