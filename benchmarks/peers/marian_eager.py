"""Marian with eager attention: on short sequences and a CPU it trains faster than torch's fused one, its default."""

from heedful.model.settings import ModelConfig
from peers import marian

NAME = f"{marian.NAME}, eager attention"


class Peer(marian.Peer):
    """Marian, told how to attend."""

    def __init__(self, config: ModelConfig, vocabulary: int) -> None:
        super().__init__(config, vocabulary, "eager")
