"""Digits as scenes, texts, a graph and captioned images."""

from __future__ import annotations

import pytest
import torch

from instil.core import UNLABELLED
from instil.data.loader import Loader
from instil.data.sources.digit_boxes import NOISE, digit_boxes
from instil.data.sources.digit_captions import COLOURS, NAMES, caption, digit_captions
from instil.data.sources.digit_graph import Nodes, digit_graph
from instil.data.sources.digit_poses import digit_poses
from instil.data.sources.digit_scenes import digit_scenes
from instil.data.sources.digit_tokens import FIRST, PADDING, START, digit_tokens
from instil.data.sources.digits import digits
from instil.networks.gcn import gcn


def test_scenes_name_every_pixel() -> None:
    splits = digit_scenes(9, 12)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [9, 3, 3]
    assert splits.classes[:2] == ("background", "0")
    assert splits.train.facts == {"classes": 11, "channels": 1, "size": 12}
    batch = digit_scenes(60).train.__getitems__(range(60))
    assert batch["image"].shape == (60, 1, 16, 16)
    assert batch["image"].min() >= 0
    assert batch["image"].max() <= 1
    assert torch.equal(batch["valid"], batch["label"] != UNLABELLED)
    assert not batch["valid"].all(), "digits overlap somewhere"
    assert set(batch["label"].unique().tolist()) == {UNLABELLED, *range(11)}
    ink, ground = batch["label"] > 0, batch["label"] == 0
    assert batch["image"][:, 0][ink].min() >= 0.3 > batch["image"][:, 0][ground].max()
    present = torch.stack(
        [(batch["label"] == index).flatten(1).any(1) for index in range(1, 11)], 1
    ).sum(1)
    assert present.max() <= 3


def test_scenes_are_the_same_every_time() -> None:
    one, two = digit_scenes(6), digit_scenes(6)
    assert torch.equal(one.train.label, two.train.label)
    assert not torch.equal(one.validation.label, one.test.label)


@pytest.mark.parametrize(
    ("options", "smallest"), [({"scenes": 2}, 3), ({"most": 1}, 2), ({"size": 7}, 8)]
)
def test_impossible_scenes(options: dict[str, int], smallest: int) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: .*at least {smallest}"):
        digit_scenes(**options)


def test_texts_list_the_positions_of_the_ink() -> None:
    splits, source = digit_tokens(), digits()
    batch = splits.test.__getitems__(range(500))
    ids, image = batch["input_ids"], source.test.inputs(torch.arange(500))["image"].flatten(1)
    assert (ids[:, 0] == START).all()
    assert torch.equal(batch["attention_mask"], (ids != PADDING).long())
    for row in (0, 123, 499):
        places = [position - FIRST for position in ids[row, 1:].tolist() if position != PADDING]
        assert places == (image[row] >= 0.5).nonzero().flatten().tolist()
    assert ids.max() < splits.train.facts["vocabulary"]
    assert ids.shape[1] == splits.train.facts["length"]
    assert torch.equal(batch["label"], source.test.label)
    assert (batch["attention_mask"].sum(1) < ids.shape[1]).any()


def test_nodes_are_joined_to_those_like_them() -> None:
    splits = digit_graph(3)
    assert isinstance(splits.train, Nodes)
    source, target = splits.train.edges
    assert (source != target).all()
    assert len(splits.train.edges.unique(dim=1)[0]) == len(source)
    assert torch.equal(
        splits.train.edges.flip(0).unique(dim=1), splits.train.edges.unique(dim=1)
    ), "both ways"
    label = torch.cat([splits.train.label, splits.validation.label, splits.test.label])
    assert (label[source] == label[target]).double().mean() > 0.9
    assert torch.equal(splits.test.index, torch.arange(1297, 1797))


def test_the_output_for_a_node_does_not_depend_on_the_batch() -> None:
    splits = digit_graph()
    torch.manual_seed(0)
    facts = splits.train.facts
    net = gcn(facts["classes"], facts["features"], width=8).double()

    def node_outputs(rows: list[int]) -> torch.Tensor:
        batch = splits.train.__getitems__(rows)
        assert batch["valid"].tolist() == [True] * len(rows) + [False] * (
            len(batch["x"]) - len(rows)
        )
        assert (batch["label"][len(rows) :] == UNLABELLED).all()
        assert torch.equal(batch["index"][: len(rows)], splits.train.index[rows])
        return net(batch["x"].double(), batch["edge_index"])[: len(rows)]

    together = node_outputs([5, 900, 17, 3])
    torch.testing.assert_close(
        together, torch.cat([node_outputs([5, 900]), node_outputs([17]), node_outputs([3])])
    )
    assert splits.train.__getitems__([5])["x"].shape[0] < 100


def test_an_epoch_of_nodes_has_each_once_and_neighbours_together() -> None:
    train = digit_graph().train
    loader = Loader(train, 100, seed=1)
    rows = torch.cat(list(loader.micro_batch_indices()))
    assert sorted(rows.tolist()) == list(range(1000))
    loader.set_epoch(1)
    assert not torch.equal(rows, torch.cat(list(loader.micro_batch_indices())))

    def joined(nodes: torch.Tensor) -> int:
        batch = train.__getitems__(nodes)
        return int(batch["valid"][batch["edge_index"]].all(0).sum())

    assert joined(rows[:100]) > 2 * joined(
        torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:100]
    )


@pytest.mark.parametrize("options", [{"neighbours": 0}, {"hops": 0}])
def test_impossible_graphs(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: 0 is .*Expected"):
        digit_graph(**options)


def test_captions_describe_the_image() -> None:
    splits = digit_captions()
    batch = splits.train.__getitems__(range(1000))
    colours = torch.tensor(list(COLOURS.values()))
    for row in range(0, 1000, 111):
        words = caption(batch["input_ids"][row]).split()
        assert NAMES[int(batch["label"][row])] in words
        colour = next(index for index, name in enumerate(COLOURS) if name in words)
        image = batch["image"][row]
        torch.testing.assert_close(
            image, image.amax(0, keepdim=True) * colours[colour][:, None, None]
        )
    assert torch.equal(
        batch["attention_mask"].sum(1),
        torch.tensor([len(caption(ids).split()) for ids in batch["input_ids"]]),
    )
    assert splits.train.facts == {
        "classes": 10,
        "channels": 3,
        "size": 8,
        "vocabulary": 25,
        "length": 5,
    }
    assert not torch.equal(
        splits.test.inputs(torch.arange(10))["input_ids"], batch["input_ids"][:10]
    )


def test_poses_are_the_rotation_and_shift_of_the_digit() -> None:
    splits = digit_poses(16)
    assert (splits.kind, splits.classes) == ("real", ("angle", "right", "down"))
    assert splits.train.facts == {"classes": 3, "channels": 1, "size": 16}
    batch, source = (
        splits.train.__getitems__(range(1000)),
        digits().train.inputs(torch.arange(1000))["image"],
    )
    image, (angle, right, down) = batch["image"], batch["label"].T
    assert 0.99 < batch["label"].abs().max() <= 1
    assert torch.equal(digit_poses(16).train.label, splits.train.label)

    def middle(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the centre of the ink relative to the middle of the image, in pixels."""
        position = torch.arange(image.shape[-1]) - (image.shape[-1] - 1) / 2
        return (image * position).sum((1, 2, 3)) / image.sum((1, 2, 3)), (
            image * position[:, None]
        ).sum((1, 2, 3)) / image.sum((1, 2, 3))

    x, y = middle(source)
    turn = torch.deg2rad(60 * angle)
    torch.testing.assert_close(
        middle(image)[0], x * turn.cos() + y * turn.sin() + 4 * right, atol=0.5, rtol=0
    )
    torch.testing.assert_close(
        middle(image)[1], y * turn.cos() - x * turn.sin() + 4 * down, atol=0.5, rtol=0
    )


@pytest.mark.parametrize("options", [{"size": 9}, {"angle": 0}, {"angle": 181}])
def test_impossible_poses(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: .*Expected"):
        digit_poses(**options)


def test_boxes_hold_the_ink() -> None:
    splits = digit_boxes(18, 12)
    assert splits.train.facts == {"classes": 10, "channels": 1, "size": 18, "bins": 19}
    batch = splits.test.__getitems__(range(500))
    assert torch.equal(batch["label"], digits().test.label)
    assert batch["image"].shape == (500, 1, 18, 18)
    assert torch.equal(digit_boxes(18, 12).test.tensors["image"], batch["image"])
    for image, edges in zip(batch["image"][:, 0], batch["box"].long().tolist(), strict=True):
        left, top, right, bottom = edges
        row, column = (image >= NOISE).nonzero().T
        assert [column.min(), row.min(), column.max() + 1, row.max() + 1] == edges
        assert 0 <= left < right <= 18
        assert 0 <= top < bottom <= 18
    wide = batch["box"][:, 2] - batch["box"][:, 0]
    assert wide.min() < 5
    assert wide.max() > 10


@pytest.mark.parametrize("options", [{"largest": 7}, {"size": 12, "largest": 13}])
def test_impossible_boxes(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"^largest: .*Expected 8 <= largest <= size"):
        digit_boxes(**options)
