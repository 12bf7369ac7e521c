from __future__ import annotations

import torch

from instil.objectives.relations.affinity_mimicking import AffinityMimicking
from instil.objectives.relations.contrastive_relation import ContrastiveRelation
from instil.testing import sample_outputs


def test_it_is_affinity_mimicking_under_its_own_name() -> None:
    student, teacher, batch = sample_outputs(task="image_text")
    assert torch.equal(
        ContrastiveRelation()(student, teacher, batch), AffinityMimicking()(student, teacher, batch)
    )
    assert ContrastiveRelation.card.title.startswith("CLIP-KD")
    assert ContrastiveRelation.card.couples
