"""Points in regions where masks disagree, with a small model, and with SAM of transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from instil.core import Batch, Net, Objective, Outputs
from instil.functional.masks import best_masks
from instil.networks import factory
from instil.objectives.labels.segment_anything import SegmentAnything
from instil.objectives.logits.edge_sam import EdgeSAM
from instil.schemes.offline.prompt_loop import MASK_ROLES, PromptLoop
from instil.tasks.bases.prompted_call import prompted_call
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests import prompted
from tests.nets import net as classifier


def net(hidden: int, seed: int) -> Net:
    return Net(prompted.PromptNet(hidden, seed=seed), prompted_call)


def scheme(rounds: int = 2) -> PromptLoop:
    losses: dict[str, Objective] = {"edge_sam": EdgeSAM()}
    return PromptLoop(net(4, 1), Frozen(net(8, 2)), losses, rounds)


def alone() -> PromptLoop:
    return PromptLoop(net(4, 1), None, {"segment_anything": SegmentAnything()}, 1)


def with_masks() -> PromptLoop:
    losses: dict[str, Objective] = {"edge_sam": EdgeSAM()}
    return PromptLoop(net(4, 1), Frozen(net(8, 2)), losses, 2, "student")


@pytest.mark.parametrize("make", [scheme, alone, with_masks])
def test_contracts(make: type) -> None:
    check_scheme(make, lambda step: prompted.batch(24, step))


def clocked(step: int = 0) -> Batch:
    return prompted.batch() | {"step": torch.tensor(step), "seed": torch.tensor(0)}


def test_outputs_have_the_prompts_of_all_rounds_and_one_embedding() -> None:
    ours = scheme(rounds=2)
    calls: list[int] = []
    ours.student.model.vision_encoder.register_forward_hook(lambda *_: calls.append(1))
    student, teacher = ours.forward_both(clocked())
    for outputs in (student, teacher):
        assert outputs["mask_logits"].shape == (12, 6, 3, 4, 4)
        assert outputs["iou_scores"].shape == (12, 6, 3)
    assert len(calls) == 1
    plain = PromptLoop(net(4, 1), Frozen(net(8, 2)), {"edge_sam": EdgeSAM()}, 0)
    first, _ = plain.forward_both(clocked())
    assert torch.equal(first["mask_logits"], student["mask_logits"][:, :2])


def test_a_point_is_where_the_masks_differ_with_the_label_of_the_teacher() -> None:
    ours = scheme()
    seen = set()
    for step in range(8):
        batch = clocked(step)
        outputs = ours.student(batch), ours.teacher(batch)
        prompts = [{"box": batch["box"]}, {k: batch[k] for k in ("points", "point_labels")}]
        further = ours._with_points(tuple(prompts), outputs, batch, 0)
        scores = outputs[1]["iou_scores"]
        student, teacher = (best_masks(o["mask_logits"], scores) > 0 for o in outputs)
        for index, prompt in enumerate(further):
            point, label = prompt["points"][:, -1], prompt["point_labels"][:, -1]
            # Masks have 4 x 4 pixels, images 8 x 8.
            column, row = ((point + 0.5) / 2 - 0.5).round().long().T
            assert torch.equal((torch.stack([column, row], 1) + 0.5) * 2 - 0.5, point)
            for n in range(12):
                differs = student[n, index] != teacher[n, index]
                if not differs.any():
                    assert label[n] == -10
                    continue
                assert differs[row[n], column[n]]
                assert label[n] == teacher[n, index, row[n], column[n]].long()
                seen.add((n, index, int(row[n]), int(column[n])))
        assert further[0]["points"].shape == (12, 1, 2)
        assert further[1]["points"].shape == (12, 2, 2)
        assert torch.equal(further[1]["points"][:, 0], batch["points"][:, 0].float())
    # Points change between steps.
    assert len(seen) > 30


def test_without_a_teacher_points_are_where_the_mask_is_wrong() -> None:
    ours = alone()
    batch = clocked()
    student = ours.student(batch)
    prompts = ({"box": batch["box"]},)
    student = {key: value[:, :1] for key, value in student.items() if key != "dense_embedding"}
    further = ours._with_points(prompts, (student, {}), batch, 0)[0]
    label = batch["label"]
    for n in range(12):
        column, row = further["points"][n, 0].long().tolist()
        value = int(further["point_labels"][n, 0])
        assert value == (-10 if n % 3 == 1 else int(label[n, row, column]))


@pytest.mark.parametrize("source", ["student", "teacher"])
def test_both_sides_read_the_mask_of_the_round_before(source: str) -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    sides = []
    for _ in range(2):
        options = {"config": prompted.sam_config()}
        model = factory.build("transformers:AutoModelForMaskGeneration", options)
        sides.append(Net(model.eval(), prompted_call))
    losses: dict[str, Objective] = {"edge_sam": EdgeSAM()}
    ours = PromptLoop(sides[0], Frozen(sides[1]), losses, 1, source)  # type: ignore[arg-type]
    batch = clocked()
    outputs = ours.forward_both(batch)
    first = outputs[source == "teacher"]
    masks = best_masks(first["mask_logits"][:, :2], first["iou_scores"][:, :2])
    plain = PromptLoop(sides[0], Frozen(sides[1]), losses, 1)
    prompts = tuple({key: batch[key] for key in keys} for keys in GROUPS)
    further = plain._with_points(prompts, plain_outputs(outputs), batch, 0)
    for side, values in zip(sides, outputs, strict=True):
        model = side.model
        # The masks of SAM have the resolution that its prompt encoder reads.
        size = torch.tensor([16 / 8, 16 / 8])
        for index, prompt in enumerate(further):
            box = {}
            if "box" in prompt:
                corners = (prompt["box"].float().view(-1, 2, 2) + 0.5) * size - 0.5
                box = {"input_boxes": corners.flatten(1)[:, None]}
            expected = model(
                image_embeddings=values["dense_embedding"],
                input_points=((prompt["points"] + 0.5) * size - 0.5)[:, None],
                input_labels=prompt["point_labels"][:, None],
                input_masks=masks[:, index, None],
                **box,
            )
            torch.testing.assert_close(
                values["mask_logits"][:, 2 + index], expected.pred_masks[:, 0]
            )
    assert not torch.allclose(
        outputs[0]["mask_logits"], plain.forward_both(batch)[0]["mask_logits"]
    )


GROUPS = (("box",), ("points", "point_labels"))


def plain_outputs(outputs: tuple[Outputs, Outputs]) -> tuple[Outputs, Outputs]:
    """Outputs of the first round, with two prompts."""
    student, teacher = ({key: each[key][:, :2] for key in MASK_ROLES} for each in outputs)
    return student, teacher


def test_masks_of_other_models_and_of_no_teacher_are_refused() -> None:
    losses: dict[str, Objective] = {"segment_anything": SegmentAnything()}
    with pytest.raises(ValueError, match=r"^mask: there is no teacher\."):
        PromptLoop(net(4, 1), None, losses, 1, "teacher")
    with pytest.raises(ValueError, match=r"mask"):
        PromptLoop(net(4, 1), None, losses, 1, "both")  # type: ignore[arg-type]

    class NoMasks(prompted.PromptNet):
        def forward(self, image_embeddings: Any, **prompts: Any) -> Any:  # type: ignore[override]
            return super().forward(image_embeddings, **prompts)

    ours = PromptLoop(Net(NoMasks(4), prompted_call), None, losses, 1, "student")
    with pytest.raises(ValueError, match=r"^NoMasks reads no mask as a prompt\."):
        ours.forward_both(clocked())


def test_several_teachers_and_networks_without_masks_are_refused() -> None:
    losses: dict[str, Objective] = {"edge_sam": EdgeSAM()}
    with pytest.raises(ValueError, match="scheme: Ensemble has no mask decoder"):
        PromptLoop(net(4, 1), Ensemble([net(4, 2), net(4, 3)]), losses)
    plain = PromptLoop(classifier(4), Frozen(net(8, 2)), losses)
    with pytest.raises(ValueError, match=r"the student outputs .*\. Expected mask_logits"):
        plain.forward_both(clocked() | {"x": torch.zeros(12, 6)})
