"""No call of a native binding crashes, hangs or reads what is not its own."""

import pytest
import torch
from campaign import calls

from splat_esd.gsplat_cpu.install import (
    intersect_offset,
    intersect_tile,
    rasterize_to_pixels_3dgs_fwd,
)
from splat_esd.gsplat_cpu.rasterization import rasterization
from splat_esd.rasterize.autograd import kernels


def drawn(**changes):
    given = {**calls.CALLS["rasterization"][1](), **changes}
    return rasterization(**given)[0]


def blended(**changes):
    return rasterize_to_pixels_3dgs_fwd(**{**calls.CALLS["rasterize_to_pixels"][1](), **changes})


def tiled(**changes):
    return intersect_tile(**{**calls.CALLS["intersect_tile"][1](), **changes})


@pytest.mark.parametrize("shape", [(1, 3), (3,), (2, 1), (0, 3), (), (3, 3), (2, 4)], ids=str)
@pytest.mark.parametrize("packed", [False, True])
def test_a_background_of_another_shape_is_refused_by_name(shape, packed):
    with pytest.raises(ValueError, match=r"backgrounds: expected shape \[2, 3\]"):
        drawn(backgrounds=torch.rand(shape), packed=packed)


def test_a_background_of_the_right_shape_shows_through_in_every_camera():
    backgrounds = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    image = drawn(backgrounds=backgrounds, opacities=torch.zeros(calls.N))
    assert torch.equal(image, backgrounds[:, None, None].expand_as(image))


WRONG = [
    ("colors", torch.zeros(calls.N, 0)),
    ("colors", None),
    ("means", [[0.0, 0.0, 0.0]]),
    ("viewmats", torch.zeros(())),
    ("width", 0),
    ("width", -5),
    ("height", 2**31 - 1),
    ("width", 2**63),
    ("tile_size", 0),
    ("near_plane", None),
    ("opacities", torch.rand(calls.N).double()),
    ("Ks", torch.eye(3)),
    ("sh_degree", "x"),
    ("render_mode", 3),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda x: f"{type(x).__name__} {x}"[:16])
def test_a_wrong_argument_is_a_value_error_that_names_it(name, value):
    with pytest.raises(ValueError, match=name):
        drawn(**{name: value})


@pytest.mark.parametrize("ids", [[-1], [2**31 - 1], [calls.C * calls.N]])
def test_ids_out_of_range_are_refused(ids):
    flatten_ids = torch.zeros(30, dtype=torch.int32)
    flatten_ids[:1] = torch.tensor(ids, dtype=torch.int32)
    with pytest.raises(ValueError, match="flatten_ids: must lie in"):
        blended(flatten_ids=flatten_ids)


@pytest.mark.parametrize("at", [-1, 31, 2**31 - 1])
def test_offsets_out_of_range_are_refused(at):
    offsets = torch.zeros(2, 2, 3, dtype=torch.int32)
    offsets[1, 1, 1] = at
    with pytest.raises(ValueError, match="offsets: must ascend"):
        blended(offsets=offsets)


def test_offsets_that_are_empty_or_too_short_are_refused():
    for shape in ((0, 2, 3), (2, 1, 3), (2, 0, 0)):
        with pytest.raises(ValueError, match=r"offsets|backgrounds"):
            blended(offsets=torch.zeros(shape, dtype=torch.int32))


@pytest.mark.parametrize("name", ["tile_width", "tile_height", "tile_size"])
def test_a_size_of_tiles_below_one_ends_at_once(name):
    for size in (-1, 0, -(2**31)):
        with pytest.raises(ValueError, match=name):
            tiled(**{name: size})


def test_more_tiles_than_can_be_counted_are_refused():
    with pytest.raises(ValueError, match="more than"):
        tiled(tile_width=65535, tile_height=65535)
    with pytest.raises(ValueError, match="more than"):
        intersect_offset(torch.zeros(0, dtype=torch.long), 2, 65535, 65535)


def test_images_beyond_memory_are_refused_before_it_is_asked_for():
    with pytest.raises(MemoryError, match="GiB"):
        drawn(width=70000, height=70000)


def test_huge_splats_beyond_memory_are_refused_before_it_is_asked_for():
    count, tiles = 2_000_000, 4096
    flat = {"means2d": torch.zeros(1, count, 2), "depths": torch.ones(1, count)}
    with pytest.raises(MemoryError, match="pairs of a splat and a tile"):
        tiled(
            **flat, radii=torch.full((1, count, 2), 2**30).int(), n_images=1, tile_size=16,
            tile_width=tiles, tile_height=tiles,
        )  # fmt: skip


def test_what_is_written_must_be_there_whole():
    made = calls.CALLS["kernels.spherical_harmonics"][1]()
    for colors in (torch.zeros(calls.N - 1, 3), torch.zeros(3, calls.N).mT, torch.zeros(calls.N)):
        with pytest.raises(ValueError, match="colors"):
            kernels.spherical_harmonics(*(made | {"colors": colors}).values())


@pytest.mark.parametrize("name", sorted(calls.CALLS))
def test_the_call_that_is_spoiled_is_right_before(name):
    call, make = calls.CALLS[name]
    call(**make())


@pytest.mark.parametrize("name", sorted(calls.CALLS))
def test_malformed_calls_are_survived(name):
    failed = [x for x in calls.run_calls(6, 100, [name]) if x.failure]
    assert not failed
