"""Specks: what hangs in the air beside the finished object, and is left out of it."""

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from splat_esd.gaussians import Gaussians

CELL = 0.075  # in world units, or three times the usual distance of neighbours where that is more
BESIDE = 1.8  # cells: those that share a corner are no farther apart
FAINT = 0.05  # opacity of splats that hold nothing together
BODY = 0.95  # of the surface: with less in one piece, pieces are meant


def without_specks(gaussians: Gaussians, share: float) -> Gaussians:
    """Leaves out pieces apart from the body that hold less than this share of all surface, and
    faint splats that are in no piece.

    Pieces are splats in cells that touch; the surface of a splat is its opacity times the product
    of its two longer scales. Where no piece is the body, all is kept.
    """
    if share == 0 or len(gaussians) < 2:
        return gaussians
    means = gaussians.means.detach().numpy().astype(np.float64)
    opacity = gaussians.opacities.detach().numpy()
    scales = np.sort(gaussians.scales.detach().numpy(), axis=1)
    surface = opacity * scales[:, 1] * scales[:, 2]
    solid = np.flatnonzero(opacity > FAINT)
    if len(solid) == 0:
        return gaussians
    piece = _pieces(means, solid)
    held = np.bincount(piece[piece >= 0], surface[piece >= 0])
    if held.max() < BODY * surface.sum():
        return gaussians
    kept = (piece >= 0) & (held[piece] >= share * surface.sum())
    return gaussians.select(torch.from_numpy(kept))


def _pieces(means: Float[ndarray, "N 3"], solid: Int[ndarray, " S"]) -> Int[ndarray, " N"]:
    """Numbers the piece of each splat; -1 for a faint one beside none."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    apart = KDTree(means).query(means, k=2)[0][:, 1]
    cells = np.floor(means / max(CELL, 3 * float(np.median(apart))))
    there, cell = np.unique(cells[solid], axis=0, return_inverse=True)
    tree = KDTree(there)
    pairs = tree.query_pairs(BESIDE, output_type="ndarray")
    touching = coo_array((np.ones(len(pairs)), pairs.T), (len(there),) * 2)
    _, number = connected_components(touching, directed=False)
    distance, nearest = tree.query(cells)
    piece = np.where(distance <= BESIDE, number[nearest], -1)
    piece[solid] = number[cell.ravel()]
    return piece.astype(np.int64)
