"""fairseq 0.12.2, whose Transformer the laptop-size scores were published with, with the weights of a heedful model.

Its last release is of 2022 and asks for packages that pip no longer resolves. What of it runs is had by

    pip install --no-deps fairseq==0.12.2 hydra-core==1.0.7 omegaconf==2.0.6 antlr4-python3-runtime==4.8 bitarray

(pip before 24.1, a C++ compiler, some minutes), and, from Python 3.11 on, by what stands first below.
"""

import dataclasses
import functools
from argparse import Namespace
from typing import Any

import torch

from heedful.bundle import Bundle
from heedful.model.transformer import sinusoids
from heedful.text.vocabulary import BEGIN, END, PAD, UNKNOWN
from peers.m2m100 import renamed, take

_dataclass = dataclasses.dataclass


def _with_hash(cls: Any = None, **options: Any) -> Any:
    # Python 3.11 refuses defaults that have no hash, which its configuration is full of
    if cls is None:
        return functools.partial(_with_hash, **options)
    theirs = cls.__module__.startswith(("fairseq", "hydra"))
    return _dataclass(cls, **({"unsafe_hash": True} if theirs else {}) | options)


dataclasses.dataclass = _with_hash
try:
    import fairseq
    from fairseq.models.transformer import TransformerModel, base_architecture
    from fairseq.sequence_generator import SequenceGenerator
finally:
    dataclasses.dataclass = _dataclass

NAME = f"fairseq {fairseq.__version__}"


class Dictionary:
    """As much of a dictionary of fairseq's as search asks for."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def bos(self) -> int:
        """Return the number of the token that begins a sentence."""
        return BEGIN

    def eos(self) -> int:
        """Return the number of the token that ends one."""
        return END

    def pad(self) -> int:
        """Return the number of padding."""
        return PAD

    def unk(self) -> int:
        """Return the number of what is not known."""
        return UNKNOWN


def convert(bundle: Bundle) -> Any:
    """Return the same model as one of fairseq's."""
    ours, config = bundle.model, bundle.model.config
    sizes: dict[str, Any] = {}
    for stack in ("encoder", "decoder"):
        sizes |= {
            f"{stack}_layers": getattr(config, f"{stack}_layers"),
            f"{stack}_embed_dim": config.d_model,
            f"{stack}_ffn_embed_dim": config.d_ff,
            f"{stack}_attention_heads": config.heads,
            f"{stack}_normalize_before": config.normalization == "pre",
        }
    options = Namespace(**sizes, share_all_embeddings=True, share_decoder_input_output_embed=True)
    base_architecture(options)
    dictionary = Dictionary(bundle.vocabulary.sizes[1])
    task = Namespace(source_dictionary=dictionary, target_dictionary=dictionary)
    theirs = TransformerModel.build_model(options, task)
    weights = renamed(ours)
    for name in ("encoder.embed_tokens", "decoder.embed_tokens", "decoder.output_projection"):
        weights[f"{name}.weight"] = ours.output.weight.detach()
    for stack in ("encoder", "decoder"):
        places = getattr(theirs, stack).embed_positions  # its first position stands after the padding's
        places.weights[PAD + 1 :] = sinusoids(len(places.weights) - PAD - 1, config.d_model, config.first_position)
        weights[f"{stack}.version"] = torch.tensor([3.0])
        weights[f"{stack}.embed_positions._float_tensor"] = torch.zeros(1)
    take(theirs, weights)
    return theirs.eval()


def translate(
    model: Any, sources: list[list[int]], *, beam: int, batch: int, length_penalty: float, length: int
) -> list[list[int]]:
    """Translate ids to ids, sentences of similar length together, as its own command does."""
    most = {"max_len_a": 0, "max_len_b": length - 1} if length else {"max_len_a": 1, "max_len_b": 50}
    generator = SequenceGenerator(
        [model],
        Dictionary(model.encoder.embed_tokens.num_embeddings),
        beam_size=beam,
        min_len=length - 1 if length else 1,
        len_penalty=length_penalty,
        normalize_scores=beam > 1,
        **most,
    )
    order = sorted(range(len(sources)), key=lambda row: -len(sources[row]))
    found: list[list[int]] = [[] for _ in sources]
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        lengths = torch.tensor([len(sources[row]) for row in rows])
        padded = torch.full((len(rows), int(lengths.max())), PAD)
        for place, row in enumerate(rows):  # on the left, as fairseq wants it
            padded[place, padded.size(1) - len(sources[row]) :] = torch.tensor(sources[row])
        output = generator.generate(
            [model], {"net_input": {"src_tokens": padded, "src_lengths": lengths}}, bos_token=BEGIN
        )
        for row, hypotheses in zip(rows, output, strict=True):
            found[row] = hypotheses[0]["tokens"].tolist()
    return found
