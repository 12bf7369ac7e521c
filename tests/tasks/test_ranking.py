"""Ranking: bi-encoders and cross-encoders, missing passages, pseudo-labels, wrong inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Net
from instil.export.onnx import to_onnx
from instil.export.session import Session
from instil.functional.ranking import PADDED_SCORE
from instil.networks.cross_encoder import cross_encoder
from instil.networks.recorded_scores import recorded_scores
from instil.networks.text_transformer import text_transformer
from instil.tasks.bases.ranking_call import call, is_cross_encoder, join_texts
from instil.tasks.ranking import Ranking
from instil.tasks.sentence_embedding import embed
from instil.teachers.frozen import Frozen
from tests.tasks.samples import ranked_passages


def bi_encoder() -> nn.Module:
    torch.manual_seed(0)
    return text_transformer(1, 9, length=5, width=8, depth=1).eval()


def test_scores_of_a_bi_encoder_are_cosines_of_each_pair() -> None:
    model, batch = bi_encoder(), ranked_passages()
    outputs = call(model, batch)
    query = embed(model, batch["input_ids"], batch["attention_mask"])["sentence_embedding"]
    for column in range(3):
        ids, mask = (batch[f"passage_{key}"][:, column] for key in ("input_ids", "attention_mask"))
        passage = embed(model, ids, mask)["sentence_embedding"]
        expected = 20 * F.cosine_similarity(query, passage)
        torch.testing.assert_close(outputs["logits"][:, column], expected)
    only_query = {key: batch[key] for key in ("input_ids", "attention_mask")}
    assert list(call(model, only_query)) == ["query_embedding"]


def test_a_cross_encoder_reads_query_and_passage_as_one_text() -> None:
    torch.manual_seed(0)
    model, batch = cross_encoder(9, length=5, width=8).eval(), ranked_passages()
    scores = call(model, batch)["logits"]
    for row, column in ((1, 0), (2, 3)):
        query = batch["input_ids"][row][batch["attention_mask"][row] > 0]
        mask = batch["passage_attention_mask"][row, column]
        passage = batch["passage_input_ids"][row, column][mask > 0]
        joined = model(torch.cat([query, passage])[None])["logits"]
        torch.testing.assert_close(scores[row, column], joined[0, 0])


def test_joined_texts_have_no_padding_between_them() -> None:
    first = {"input_ids": torch.tensor([[1, 2, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
    second = {"input_ids": torch.tensor([[3, 0]]), "attention_mask": torch.tensor([[1, 0]])}
    joined = join_texts(first, second)
    assert joined["input_ids"][0, :3].tolist() == [1, 2, 3]
    assert joined["attention_mask"].tolist() == [[1, 1, 1, 0, 0]]


def test_a_classifier_of_transformers_with_one_label_is_a_cross_encoder() -> None:
    transformers = pytest.importorskip("transformers")
    options = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(**options, intermediate_size=8, num_labels=1)
    model = transformers.BertForSequenceClassification(config).eval()
    assert is_cross_encoder(model)
    assert call(model, ranked_passages())["logits"].shape == (12, 4)
    two = transformers.BertConfig(**options, intermediate_size=8, num_labels=2)
    assert not is_cross_encoder(transformers.BertForSequenceClassification(two))


@pytest.mark.parametrize("build", [bi_encoder, lambda: cross_encoder(9, length=5, width=8)])
def test_a_missing_passage_has_the_padded_score_and_no_gradient(build: object) -> None:
    assert callable(build)
    model, batch = build(), ranked_passages()
    scores = call(model, batch)["logits"]
    is_missing = batch["label"] == -100
    assert (scores[is_missing] == PADDED_SCORE).all()
    scores.log_softmax(-1)[:, 0].sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_pseudo_labels_are_the_teachers_best_passage() -> None:
    label = torch.tensor([[0.0, 2.0, -100], [-100, -100, -100]])
    scores = torch.tensor([[9.0, 0.0, PADDED_SCORE], [1.0, 3.0, PADDED_SCORE]])
    result = Ranking().pseudo_labels({"logits": scores}, label)
    assert result.tolist() == [[0, 2, -100], [0, 1, -100]]


class Scores(nn.Module):
    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = batch["scores"]
        return scores


def scores_call(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    return {"logits": model(batch)}


def test_metrics_of_scores() -> None:
    net = Net(Scores(), scores_call)
    batch = {
        "scores": torch.tensor([[3.0, 2.0, 0.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]),
        "label": torch.tensor([[0.0, 1.0, -100], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]]),
    }
    metrics, _ = Ranking(k=1).evaluate(net, [batch], Frozen(net))
    assert metrics == {
        "ndcg": 0.5,
        "recall": 0.5,
        "mrr": 0.75,
        "accuracy": 0.5,
        "agreement": 1.0,
    }
    with pytest.raises(ValueError, match="1 of 2 queries have scores that are not finite"):
        Ranking().evaluate(net, [batch | {"scores": batch["scores"].log()}])
    with pytest.raises(ValueError, match="no query to evaluate on has a relevant candidate"):
        Ranking().evaluate(net, [batch | {"label": torch.zeros(3, 3)}])


def test_recorded_scores_are_those_of_the_data() -> None:
    batch = ranked_passages() | {"teacher_scores": torch.ones(12, 4)}
    assert torch.equal(call(recorded_scores(), batch)["logits"], batch["teacher_scores"])
    with pytest.raises(ValueError, match=r"Set data\.scores"):
        call(recorded_scores(), ranked_passages())


def test_labels_and_passages_that_do_not_fit_are_refused() -> None:
    batch = ranked_passages()
    with pytest.raises(ValueError, match=r"needs grades \(queries, candidates\)"):
        Ranking().check_data(batch | {"label": torch.zeros(12, dtype=torch.int64)})
    with pytest.raises(ValueError, match="Expected one for each passage"):
        Ranking().check_data(batch | {"label": batch["label"][:, :2]})
    with pytest.raises(ValueError, match="labels are graded, not 'single'"):
        Ranking("single")


def test_an_exported_encoder_embeds_all_texts() -> None:
    model, batch = bi_encoder(), ranked_passages()
    outputs = Ranking().call_exported(lambda part: call(model, _query(part)), batch)
    torch.testing.assert_close(outputs["logits"], call(model, batch)["logits"])


def test_the_onnx_file_of_a_cross_encoder_scores_joined_pairs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task, batch = Ranking(), ranked_passages()
    net = Net(cross_encoder(9, length=5, width=8).eval(), call)
    example, roles = task.export_example(net, batch)
    assert roles == ("logits",)
    assert len(example["input_ids"]) == batch["label"].numel()
    to_onnx(net, example, tmp_path / "student.onnx", task.export_inputs, roles=roles)
    outputs = task.call_exported(Session(tmp_path / "student.onnx", roles), batch)
    torch.testing.assert_close(outputs["logits"], net(batch)["logits"], rtol=1e-4, atol=1e-4)
    encoder = Net(bi_encoder(), call)
    assert task.export_example(encoder, batch) == (batch, ("query_embedding",))


def _query(batch: Batch) -> Batch:
    return {key: batch[key] for key in ("input_ids", "attention_mask")}
