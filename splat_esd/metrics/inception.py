"""Inception quality and variety of an asset's views, in nats, from any classifier's answers."""

from jaxtyping import Float
from torch import Tensor


def entropy(p: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch"]:
    """Returns H[p] = -sum_k p_k log p_k, with 0 log 0 = 0."""
    return -p.xlogy(p).sum(dim=-1)


def inception_scores(p: Float[Tensor, "C K"]) -> dict[str, float]:
    """Scores the views of one asset by a classifier's answers.

        IQ = E_c H[p(. | x_c)]      lower: each view is clearly something
        IV = H[E_c p(. | x_c)]      higher: the views are different things
        gain = (IV - IQ) / IQ;  information = IV - IQ, that of view and class

    Arguments:
        p: Class probabilities of each of C views; rows sum to 1.
    Raises:
        ValueError: If rows are not distributions.
    References:
        ESD (Wang et al., 2024), Sec. 5.2. https://arxiv.org/abs/2401.00909
    """
    if not len(p) or (p < 0).any() or ((p.sum(dim=1) - 1).abs() > 1e-4).any():
        raise ValueError(f"p: expected a distribution in each row, got {list(p.shape)} values.")
    quality, variety = entropy(p).mean().item(), entropy(p.mean(dim=0)).item()
    gain = (variety - quality) / quality if quality > 0 else float("inf")
    return {
        "quality": quality,
        "variety": variety,
        "gain": gain,
        "information": variety - quality,
    }
