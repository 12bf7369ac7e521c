"""A small encoder-decoder transformer (Vaswani et al. 2017), called like those of transformers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from instil.cards import NonNegativeInt, PositiveInt
from instil.generation.sequences import SpecialTokens
from instil.networks.sequence_parts import SequenceDecoder, SequenceEncoder


class EncoderDecoder(nn.Module):
    """``SequenceEncoder``, ``SequenceDecoder`` and a head that shares the decoder's embedding.

    Args:
        encoder: the encoder.
        decoder: the decoder.
        special_tokens: start, end and padding token of the decoder.
    """

    def __init__(
        self, encoder: SequenceEncoder, decoder: SequenceDecoder, special_tokens: SpecialTokens
    ):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.special_tokens = special_tokens
        vocabulary, width = decoder.tokens.weight.shape
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = decoder.tokens.weight

    def get_encoder(self) -> nn.Module:
        """Return the encoder."""
        return self.encoder

    def get_decoder(self) -> nn.Module:
        """Return the decoder."""
        return self.decoder

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embedding of the decoder's tokens."""
        return self.decoder.tokens

    def get_output_embeddings(self) -> nn.Linear:
        """Return the head."""
        return self.head

    def forward(
        self,
        decoder_input_ids: Tensor,
        attention_mask: Tensor | None = None,
        **inputs: Tensor,
    ) -> dict[str, Any]:
        """Compute ``logits`` (N, L, V) and the outputs of encoder and decoder.

        Args:
            decoder_input_ids: (N, L), the start token first.
            attention_mask: mask of the encoder's input, 0 for padding.
            inputs: input of the encoder by its key.
        """
        encoded = self.encoder(attention_mask=attention_mask, **inputs)
        state = encoded["last_hidden_state"]
        decoded = self.decoder(decoder_input_ids, state, encoded.get("attention_mask"))
        return {
            "logits": self.head(decoded["last_hidden_state"]),
            "encoder_last_hidden_state": state,
            "encoder_hidden_states": encoded["hidden_states"],
            "encoder_attentions": encoded["attentions"],
            "decoder_hidden_states": decoded["hidden_states"],
            "decoder_attentions": decoded["attentions"],
            "cross_attentions": decoded["cross_attentions"],
        }


def encoder_decoder(
    vocabulary: PositiveInt,
    start: NonNegativeInt = 0,
    end: NonNegativeInt = 1,
    pad: NonNegativeInt = 0,
    inputs: str = "input_ids",
    channels: PositiveInt = 1,
    width: PositiveInt = 32,
    depth: NonNegativeInt = 2,
    decoder_depth: NonNegativeInt | None = None,
    heads: PositiveInt = 2,
    patch: PositiveInt = 4,
) -> nn.Module:
    """Build an encoder-decoder: 63,360 parameters for 60 tokens at the defaults.

    Args:
        vocabulary: number of tokens of source and target together.
        start: first token of the decoder.
        end: token that ends a sequence.
        pad: token of padding in the decoder.
        inputs: input of the encoder: ``input_ids``, ``input_features`` or ``pixel_values``.
        channels: channels of features or images.
        width: width of the hidden states, a multiple of ``heads``.
        depth: number of blocks of the encoder.
        decoder_depth: number of blocks of the decoder; None: ``depth``.
        heads: number of attention heads.
        patch: side of an image patch in pixels.

    Raises:
        ValueError: if ``width`` is odd or not a multiple of ``heads``, or for an unknown input.
    """
    if width % heads or width % 2:
        raise ValueError(f"width: Expected an even multiple of heads ({heads}), got {width}")
    size = vocabulary if inputs == "input_ids" else channels
    encoder = SequenceEncoder(inputs, size, width, depth, heads, patch)
    decoder_depth = depth if decoder_depth is None else decoder_depth
    decoder = SequenceDecoder(vocabulary, width, decoder_depth, heads)
    return EncoderDecoder(encoder, decoder, SpecialTokens(start, (end,), pad))
