"""Triangles without a GPU: what is nearest is seen, and where on it, as geometry says."""

import math

import numpy as np
import pytest
import torch

from splat_esd.cameras import turntable
from splat_esd.mesh.raycast import rasterize_mesh

K = np.array([[20.0, 0, 16], [0, 20, 16], [0, 0, 1]])


def view(points, faces, **more):
    return rasterize_mesh(
        np.array(points, float), np.array(faces), np.eye(4), K, width=32, height=32, **more
    )


def brute_force(points, faces, size):
    """Returns face and depth of every pixel, by one ray after the other (Moller and Trumbore)."""
    rows, columns = np.mgrid[:size, :size] + 0.5
    rays = np.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1], np.ones_like(rows)])
    seen, depth = np.full(size * size, -1), np.full(size * size, np.inf)
    for pixel, ray in enumerate(rays.reshape(3, -1).T):
        for face, (a, b, c) in enumerate(points[faces]):
            normal = np.cross(b - a, c - a)
            if normal @ ray >= 0:
                continue
            along = normal @ a / (normal @ ray)
            at = along * ray
            sides = [np.cross(v - u, at - u) @ normal >= 0 for u, v in ((a, b), (b, c), (c, a))]
            if all(sides) and 0 < along < depth[pixel]:
                seen[pixel], depth[pixel] = face, along
    return seen, depth


def test_a_heap_of_triangles_looks_as_ray_by_ray():
    rng = np.random.default_rng(0)
    middle = rng.uniform((-1, -1, 2), (1, 1, 4), (40, 1, 3))
    points = (middle + rng.normal(0, 0.6, (40, 3, 3))).reshape(-1, 3)
    faces = np.arange(120).reshape(-1, 3)
    hits = view(points, faces)
    seen, depth = brute_force(points, faces, 32)
    drawn = np.full(32 * 32, -1)
    drawn[hits.pixels] = hits.faces
    assert (drawn == seen).mean() > 0.998  # a pixel on an edge may fall to either side
    assert (seen >= 0).sum() > 300
    same = hits.faces == seen[hits.pixels]
    np.testing.assert_allclose(hits.depth[same], depth[hits.pixels[same]], rtol=1e-5)


def test_weights_find_the_point_that_the_pixel_sees_in_perspective():
    points = np.array([[-2.0, -1, 2], [2, -1, 6], [0, 2, 3]])
    hits = view(points, [[0, 2, 1]])
    at = (points[[0, 2, 1]] * hits.weights[..., None]).sum(1)
    np.testing.assert_allclose(at[:, 2], hits.depth, rtol=1e-5)
    column, row = at[:, 0] / at[:, 2] * 20 + 16, at[:, 1] / at[:, 2] * 20 + 16
    np.testing.assert_allclose(column, hits.pixels % 32 + 0.5, atol=1e-4)
    np.testing.assert_allclose(row, hits.pixels // 32 + 0.5, atol=1e-4)


def test_the_back_of_a_triangle_is_seen_only_when_asked_for():
    points = [[-1.0, -1, 3], [1, -1, 3], [0, 1, 3]]
    front, behind = [[0, 2, 1]], [[0, 1, 2]]
    assert len(view(points, front).pixels) > 50
    assert not len(view(points, behind).pixels)
    assert len(view(points, behind, back=True).pixels) == len(view(points, front).pixels)


@pytest.mark.parametrize("z", [-3.0, 0.0])
def test_what_is_not_before_the_camera_is_not_seen(z: float):
    points = [[-1.0, -1, z], [0, 1, z], [1, -1, 3]]
    assert not len(view(points, [[0, 1, 2], [0, 2, 1]], back=True).pixels)


def test_a_square_of_two_triangles_has_neither_gap_nor_overlap():
    points = [[-0.6, -0.6, 2], [0.6, -0.6, 2], [0.6, 0.6, 2], [-0.6, 0.6, 2]]
    hits = view(points, [[0, 3, 2], [0, 2, 1]])
    assert len(hits.pixels) == 12 * 12
    assert len(np.unique(hits.pixels)) == 12 * 12


def test_a_sphere_covers_the_disc_that_the_camera_sees():
    turn, tilt = np.mgrid[0 : 2 * np.pi : 97j, 0 : np.pi : 49j]
    points = np.stack([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)], -1)
    index = np.arange(97 * 49).reshape(97, 49)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack([a, d, c], -1), np.stack([a, c, b], -1)]).reshape(-1, 3)
    camera = turntable(1, elevation=0.3, distance=3.0, fovy=0.9, width=128, height=128)
    matrices = camera.viewmats[0].double().numpy(), camera.Ks[0].double().numpy()
    hits = rasterize_mesh(points.reshape(-1, 3), faces, *matrices, width=128, height=128)
    radius = 64 / math.tan(0.45) * math.tan(math.asin(1 / 3))
    assert len(hits.pixels) == pytest.approx(math.pi * radius**2, rel=0.01)
    assert hits.depth.min() == pytest.approx(2.0, abs=0.01)
    assert torch.tensor(hits.weights).sum(1).allclose(torch.ones(1).to(torch.tensor(hits.weights)))
