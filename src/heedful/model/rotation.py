"""Queries and keys turned by their position, so that their product depends on how far apart they are.

Not in the paper, whose sinusoids were hoped to make that easy to learn (section 3.5): rotary position embeddings of Su
et al. 2021, with the paper's angles. Compiled attention turns them itself, by the same table: fused_attention.py.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Rotation(nn.Module):
    """Turn numbers i and i + K/2 of each head together, by position / 10000^(2i/K)."""

    def __init__(self, d_k: int) -> None:
        super().__init__()
        self.d_k = d_k
        self.turns_L2K: Tensor
        self.register_buffer("turns_L2K", self._make(256), persistent=False)

    def forward(self, x_BHLK: Float[Tensor, "*batch L K"], start: int = 0) -> Float[Tensor, "*batch L K"]:
        """Turn queries or keys that stand at positions `start` onwards."""
        cosine_LK, sine_LK = self.turns(start + x_BHLK.size(-2))[start:].to(x_BHLK.dtype).unbind(1)
        return x_BHLK * cosine_LK + x_BHLK.roll(self.d_k // 2, -1) * sine_LK

    def turns(self, length: int) -> Float[Tensor, "L 2 K"]:
        """Return the cosines of the first `length` positions, and the sines with the sign that they multiply by."""
        turns_L2K = self.turns_L2K  # another thread may put a shorter one in its place
        if length > len(turns_L2K):  # longer than any text so far: make it at least twice as long
            with torch.inference_mode(False):  # training may need next what a search asks for first
                turns_L2K = self._make(max(length, 2 * len(turns_L2K))).to(turns_L2K)
            self.turns_L2K = turns_L2K
        return turns_L2K[:length]

    def _make(self, length: int) -> Tensor:
        position_L1 = torch.arange(length, dtype=torch.float64)[:, None]
        angle_LI = position_L1 / 10000 ** (torch.arange(0, self.d_k, 2, dtype=torch.float64) / self.d_k)
        cosine_LI, sine_LI = angle_LI.cos(), angle_LI.sin()
        return torch.stack([torch.cat([cosine_LI, cosine_LI], 1), torch.cat([-sine_LI, sine_LI], 1)], dim=1).float()
