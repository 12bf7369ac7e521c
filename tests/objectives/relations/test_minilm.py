from __future__ import annotations

import math

import numpy as np
import torch

from instil.objectives.relations.minilm import MiniLM
from instil.testing import sample_outputs


def test_is_attention_transfer_and_value_relation_transfer_of_the_last_layer() -> None:
    """Per head with torch's own attention: the identity as values gives the probabilities."""
    student, teacher, batch = sample_outputs(task="text_classification")
    objective = MiniLM(heads=4)
    objective.build(student, teacher)
    values = objective(student, teacher, batch)

    def probabilities(
        side: dict[str, torch.Tensor], first: str, second: str, n: int, head: int, length: int
    ) -> torch.Tensor:
        width = side[first][-1].shape[-1] // 4
        part = slice(head * width, (head + 1) * width)
        query, key = (side[role][-1][n, :length, part].double() for role in (first, second))
        return torch.nn.functional.scaled_dot_product_attention(
            query[None], key[None], torch.eye(length, dtype=torch.float64)[None]
        )[0]

    for n, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        expected = 0.0
        for first, second in (("queries", "keys"), ("values", "values")):
            for head in range(4):
                student_values, teacher_values = (
                    probabilities(side, first, second, n, head, length).numpy()
                    for side in (student, teacher)
                )
                expected += sum(
                    p * math.log(p / q)
                    for p, q in zip(teacher_values.ravel(), student_values.ravel(), strict=True)
                ) / (4 * length)
        assert np.isclose(values[n], expected, rtol=1e-4)
