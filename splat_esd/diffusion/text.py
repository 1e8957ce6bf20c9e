"""Embedded prompts as a denoiser reads them: a row per prompt, and some models' pooled vector."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Text:
    """A batch of embedded prompts.

    Arguments:
        embeds: One vector per token, for cross-attention.
        pooled: One vector per prompt, for the time embedding; None where the family has none.
        poses: The camera of each row, which a multi-view denoiser is told; None elsewhere.
    """

    embeds: Float[Tensor, "B L D"]
    pooled: Float[Tensor, "B P"] | None = None
    poses: Float[Tensor, "B 16"] | None = None

    def __len__(self) -> int:
        return len(self.embeds)

    def rows(self, index: slice | Int[Tensor, " B"]) -> "Text":
        """Returns the rows that a slice or a tensor of indices picks."""
        pooled = None if self.pooled is None else self.pooled[index]
        poses = None if self.poses is None else self.poses[index]
        return Text(self.embeds[index], pooled, poses)

    def expand(self, count: int) -> "Text":
        """Returns a single prompt's embedding for each of `count` views, without copying it."""
        pooled = None if self.pooled is None else self.pooled.expand(count, -1)
        return Text(self.embeds.expand(count, -1, -1), pooled)

    def seen_from(self, poses: Float[Tensor, "B 16"]) -> "Text":
        """Returns the same with a camera for each row."""
        return replace(self, poses=poses)

    def moved(self, by: Float[Tensor, "B D"]) -> "Text":
        """Returns the same with a vector added to all tokens of each row."""
        return replace(self, embeds=self.embeds + by[:, None].to(self.embeds.dtype))

    def blend(self, weights: Float[Tensor, "B V"]) -> "Text":
        """Returns weighted sums of the V rows:  sum_v w_bv row_v."""
        pooled = None if self.pooled is None else weights.to(self.pooled) @ self.pooled
        embeds = torch.einsum("bv,vld->bld", weights.to(self.embeds), self.embeds)
        return Text(embeds, pooled)


def concatenate(texts: Sequence[Text]) -> Text:
    """Returns the rows of all texts, in order; they come from one prior."""
    pooled = [text.pooled for text in texts if text.pooled is not None]
    embeds = torch.cat([text.embeds for text in texts])
    return Text(embeds, torch.cat(pooled) if pooled else None)
