"""Repeated blocks of networks."""

from instil.engine.blocks import repeated_blocks
from instil.networks.sequence_parts import TransformerBlock
from instil.plan.memory.sharded_units import units_of
from instil.schemes.offline.offline import Offline
from instil.teachers.ensemble import Ensemble
from tests.engine.sharded_on_ranks import texts


def test_blocks_of_an_ensemble() -> None:
    teacher = Ensemble([texts(8, 0), texts(16, 1)])
    blocks = list(repeated_blocks(teacher))
    assert [type(block) for block in blocks] == [TransformerBlock] * 4
    widths = [block.norm1.weight.numel() for block in blocks]
    assert widths == [8, 8, 16, 16]
    # A process that gathers a unit has one block, and not a whole member.
    scheme = Offline(texts(8, 0), teacher, {})
    dtypes = {parameter: parameter.dtype for parameter in scheme.parameters()}
    units = [unit for unit in units_of(scheme, dtypes) if not unit.is_root]
    member = sum(parameter.nbytes for parameter in teacher.members[1].parameters())
    assert len(units) == 2 + 4
    assert 2 * max(unit.size for unit in units) < member
