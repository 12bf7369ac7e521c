"""Sentence embeddings: the call; recall, rank and correlation compared with loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import nn

from instil.core import Batch, Net, Outputs
from instil.networks.presets import taps_for
from instil.networks.text_transformer import text_transformer
from instil.objectives.features.embedding_regression import EmbeddingRegression
from instil.objectives.relations.rkd import RKD
from instil.tasks.sentence_embedding import SentenceEmbedding, call
from instil.teachers.frozen import Frozen
from tests.tasks.samples import text_pairs


def embeddings(_: nn.Module, batch: Batch) -> Outputs:
    return {"sentence_embedding": batch["first"], "partner_embedding": batch["second"]}


def noisy_embeddings(_: nn.Module, batch: Batch) -> Outputs:
    return {
        "sentence_embedding": batch["first"] + 0.5 * batch["noise"],
        "partner_embedding": batch["second"],
    }


def sample(size: int = 9) -> Batch:
    generator = torch.Generator().manual_seed(0)
    first, noise = torch.randn(2, size, 4, generator=generator)
    second = first + torch.randn(size, 4, generator=generator)
    return {"first": first, "second": second, "noise": noise, "label": torch.arange(size) % 3}


def test_metrics_equal_loops() -> None:
    batch = sample()
    metrics, _ = SentenceEmbedding().evaluate(
        Net(nn.Identity(), embeddings),
        [{k: v[:5] for k, v in batch.items()}, {k: v[5:] for k, v in batch.items()}],
    )
    table = [
        [float(F.cosine_similarity(a, b, dim=0)) for b in batch["second"]] for a in batch["first"]
    ]
    ranks = [
        1 + sum(value > row[n] for value in row)
        for side in (table, [list(c) for c in zip(*table, strict=True)])
        for n, row in enumerate(side)
    ]
    assert metrics["recall"] == pytest.approx(ranks.count(1) / len(ranks))
    assert metrics["mrr"] == pytest.approx(sum(1 / rank for rank in ranks) / len(ranks))
    nearest = [row.index(max(row)) for row in table]
    assert metrics["accuracy"] == pytest.approx(
        sum(n % 3 == index % 3 for index, n in enumerate(nearest)) / len(nearest)
    )
    assert 0 < metrics["recall"] < 1


def test_one_embedding_for_all_texts_finds_no_partner() -> None:
    batch = sample() | {"first": torch.ones(9, 4), "second": torch.ones(9, 4)}
    metrics, _ = SentenceEmbedding().evaluate(Net(nn.Identity(), embeddings), [batch])
    assert metrics["recall"] == 0
    assert metrics["mrr"] == pytest.approx(1 / 9)


def test_pairs_with_an_equal_text_are_left_out_of_the_ranking() -> None:
    batch = sample()
    batch["second"] = batch["first"].clone()
    batch["second"][1] = batch["second"][0]
    ids = torch.arange(9)[:, None].expand(9, 2)
    partner = ids.clone()
    partner[1] = partner[0]
    texts = {"input_ids": ids, "partner_input_ids": partner}
    net = Net(nn.Identity(), embeddings)
    # The second text is closer to another one than to its partner, the first one is not.
    assert SentenceEmbedding().evaluate(net, [batch])[0]["recall"] < 16 / 18
    assert SentenceEmbedding().evaluate(net, [batch | texts])[0]["recall"] >= 16 / 18


def test_rank_correlation_with_a_teacher() -> None:
    batch, teacher = sample(), Frozen(Net(nn.Identity(), noisy_embeddings))
    metrics, _ = SentenceEmbedding().evaluate(Net(nn.Identity(), embeddings), [batch], teacher)
    unit = [F.normalize(batch[key], dim=1) for key in ("first", "second")]
    other = F.normalize(batch["first"] + 0.5 * batch["noise"], dim=1)
    expected = spearmanr((unit[0] @ unit[1].T).flatten(), (other @ unit[1].T).flatten()).statistic
    assert metrics["spearman"] == pytest.approx(expected, abs=1e-5)
    same, _ = SentenceEmbedding().evaluate(
        Net(nn.Identity(), embeddings), [batch], Frozen(Net(nn.Identity(), embeddings))
    )
    assert (same["spearman"], same["agreement"]) == (pytest.approx(1), 1)


def test_padding_does_not_change_an_embedding() -> None:
    torch.manual_seed(0)
    model, batch = text_transformer(4, 9, length=5, width=8, depth=1).eval(), text_pairs()
    outputs = call(model, batch)
    spoiled = {
        key: torch.where(batch[f"{key[:-9]}attention_mask"] > 0, batch[key], 8)
        for key in ("input_ids", "partner_input_ids")
    }
    for role, value in call(model, batch | spoiled).items():
        if role.endswith("embedding"):
            torch.testing.assert_close(value, outputs[role])
    length = int(batch["attention_mask"][0].sum())
    alone = call(model, {"input_ids": batch["input_ids"][:1, :length]})
    torch.testing.assert_close(alone["sentence_embedding"], outputs["sentence_embedding"][:1])
    assert "partner_embedding" not in alone


def test_infinite_embeddings_and_missing_labels_raise() -> None:
    batch = sample()
    batch["second"][2, 0] = torch.nan
    with pytest.raises(ValueError, match="1 of 9 texts have embeddings that are not finite"):
        SentenceEmbedding().evaluate(Net(nn.Identity(), embeddings), [batch])
    with pytest.raises(ValueError, match="no pair to evaluate on has a label"):
        SentenceEmbedding().evaluate(
            Net(nn.Identity(), embeddings), [sample() | {"label": torch.full((9,), -100)}]
        )


def test_a_tapped_embedding_is_not_the_sentence_embedding() -> None:
    torch.manual_seed(0)
    model, batch = text_transformer(4, 9, length=5, width=8, depth=1).eval(), text_pairs()
    net = Net(model, call, taps_for(model))
    torch.testing.assert_close(
        net(batch)["sentence_embedding"], call(model, batch)["sentence_embedding"]
    )
    with pytest.raises(
        ValueError,
        match=r"objectives\.rkd: RKD reads the embedding of one item, and a sample of sentence "
        "embedding is two texts",
    ):
        SentenceEmbedding().check({"rkd": RKD()})
    # The tap is the second choice of this objective, after the embedding of a text.
    SentenceEmbedding().check({"regress": EmbeddingRegression()})
