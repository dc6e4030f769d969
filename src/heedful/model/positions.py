"""What compiled steps want to know of positions, without torch: transformer.py and rotation.py say the same in torch.

`L` positions, `D` d_model, `K` d_k, `I` half of a width.
"""

import numpy as np

from heedful.errors import HeedfulError
from heedful.model.settings import ModelConfig


class Positions:
    """What search.cpp wants to know of positions: what is added to embeddings, and how queries and keys are turned.

    Made as far as texts have gone, and then at least twofold: asked for at every step. Equal to torch's by test.
    """

    def __init__(self, config: ModelConfig, learned_LD: np.ndarray | None) -> None:
        self._config, self._learned_LD = config, learned_LD
        self._d_k = config.d_k or config.d_model // config.heads
        self._rows_L = self._made(64 if learned_LD is None else len(learned_LD) - config.first_position)

    def rows(self, length: int) -> np.ndarray:
        """Return those of the first `length` positions, or of more  [L, D], with rotary ones [L, D + 2 K].

        Raises:
            HeedfulError: so many were not learned.
        """
        rows_L = self._rows_L  # another thread may put a shorter one in its place
        if length > len(rows_L):
            if self._learned_LD is not None:
                raise HeedfulError(f"{length} tokens, but the model learned {len(rows_L)} positions; split the text")
            rows_L = self._rows_L = self._made(max(length, 2 * len(rows_L)))
        return rows_L

    def _made(self, length: int) -> np.ndarray:
        config, first = self._config, self._config.first_position
        if self._learned_LD is not None:
            added_LD = self._learned_LD[first : first + length]
        elif config.positions == "sinusoidal":
            angle_LI = _angles(first, length, config.d_model)
            added_LD = np.stack([np.sin(angle_LI), np.cos(angle_LI)], axis=2).reshape(length, -1)[:, : config.d_model]
        else:
            added_LD = np.zeros((length, config.d_model))
        turns = list[np.ndarray]()
        if config.rotary:
            angle_LI = _angles(0, length, self._d_k)
            cosine_LI, sine_LI = np.cos(angle_LI), np.sin(angle_LI)
            turns = [cosine_LI, cosine_LI, -sine_LI, sine_LI]
        return np.concatenate([added_LD, *turns], axis=1, dtype=np.float32)


def _angles(first: int, length: int, width: int) -> np.ndarray:
    """Return position / 10000^(2i / width)  (section 3.5)."""
    return np.arange(first, first + length)[:, None] / 10000 ** (np.arange(0, width, 2) / width)
