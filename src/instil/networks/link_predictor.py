"""Link predictor: an encoder of nodes and a decoder of pairs."""

from __future__ import annotations

import inspect
from typing import Literal

from torch import Tensor, nn

from instil.cards import Fraction, NonNegativeInt, PositiveInt
from instil.functional.graph import pair_embeddings
from instil.networks.gcn import GCN
from instil.networks.mlp import MLP
from instil.networks.sage import SAGE

Encoder = Literal["sage", "gcn", "mlp"]
Decoder = Literal["dot", "mlp"]
ENCODERS = ("sage", "gcn", "mlp")
DECODERS = ("dot", "mlp")


class LinkPredictor(nn.Module):
    """Scores of pairs of nodes, from their embeddings.

    The decoder is the inner product (Kipf & Welling 2016), or a perceptron on the elementwise
    product of the embeddings (Hu et al. 2020, OGB). Both are symmetric.

    Args:
        encoder: maps ``x`` (n, F), and optionally ``edge_index`` (2, E), to embeddings (n, E). It
            may be a model of PyTorch Geometric.
        width: width of the embeddings, for the decoder ``mlp``.
        decoder: ``dot`` or ``mlp``.

    Attributes:
        reads_edges: whether the encoder reads edges.

    Raises:
        ValueError: for another decoder.
    """

    def __init__(self, encoder: nn.Module, width: int, decoder: str = "dot"):
        super().__init__()
        if decoder not in DECODERS:
            raise ValueError(
                f"decoder: '{decoder}' is unknown. Expected one of {', '.join(DECODERS)}"
            )
        self.encoder = encoder
        self.reads_edges = "edge_index" in inspect.signature(encoder.forward).parameters
        self.decoder: nn.Module | None = None
        if decoder == "mlp":
            self.decoder = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(
        self, x: Tensor, pair_position: Tensor, edge_index: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute ``logits`` (N, D), ``query_embedding`` (N, E), ``candidate_embedding`` (N, D, E).

        Args:
            x: features (n, F).
            pair_position: (N, 1 + D), rows of each anchor and its candidates.
            edge_index: (2, E), source and target; for encoders that read edges.
        """
        embedding = self.encoder(x, edge_index) if self.reads_edges else self.encoder(x)
        anchor, candidates = pair_embeddings(embedding, pair_position)
        products = anchor[:, None] * candidates
        logits = products.sum(-1) if self.decoder is None else self.decoder(products)[..., 0]
        return {
            "logits": logits,
            "query_embedding": anchor,
            "candidate_embedding": candidates,
        }


def link_predictor(
    features: PositiveInt,
    encoder: Encoder = "sage",
    width: PositiveInt = 64,
    depth: NonNegativeInt = 2,
    dropout: Fraction = 0.0,
    decoder: Decoder = "dot",
) -> nn.Module:
    """Build a link predictor of a graph network or a perceptron.

    Args:
        features: number of features of a node.
        encoder: ``sage`` and ``gcn`` read edges, ``mlp`` does not.
        width: width of the hidden layers and the embeddings.
        depth: number of hidden layers; a graph network sees this number of hops.
        dropout: share of the hidden outputs of a graph network that training sets to zero.
        decoder: ``dot`` for the inner product, ``mlp`` for a perceptron on the elementwise
            product.

    Raises:
        ValueError: for another encoder or decoder.
    """
    if encoder not in ENCODERS:
        raise ValueError(f"encoder: '{encoder}' is unknown. Expected one of {', '.join(ENCODERS)}")
    if encoder == "mlp":
        return LinkPredictor(MLP(width, features, width, depth), width, decoder)
    graph_network = SAGE if encoder == "sage" else GCN
    return LinkPredictor(graph_network(width, features, width, depth, dropout), width, decoder)
