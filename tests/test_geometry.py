import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splat_esd.geometry import (
    intrinsics,
    look_at,
    quat_multiply,
    quat_to_rotmat,
    rotate_sh,
    rotmat_to_quat,
    sh_basis,
    spherical,
    up_rotation,
)

same_every_time = settings(derandomize=True, deadline=None, max_examples=60)
numbers = st.floats(-1, 1, width=32)
quaternions = (
    st.tuples(numbers, numbers, numbers, numbers)
    .filter(lambda q: sum(x * x for x in q) > 1e-4)
    .map(lambda q: torch.nn.functional.normalize(torch.tensor(q, dtype=torch.float64), dim=0))
)


@same_every_time
@given(quaternions)
def test_a_quaternion_gives_a_rotation(quat):
    R = quat_to_rotmat(quat)
    torch.testing.assert_close(R @ R.T, torch.eye(3, dtype=R.dtype), atol=1e-12, rtol=0)
    assert torch.linalg.det(R).item() == pytest.approx(1, abs=1e-12)


@same_every_time
@given(quaternions)
def test_a_quaternion_survives_the_way_through_a_matrix_up_to_its_sign(quat):
    back = rotmat_to_quat(quat_to_rotmat(quat))
    assert back[0] >= 0
    assert abs((back @ quat).item()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_half_turn_survives_the_way_through_a_matrix(axis):
    quat = torch.zeros(4)
    quat[1 + axis] = 1
    torch.testing.assert_close(rotmat_to_quat(quat_to_rotmat(quat)), quat)


@same_every_time
@given(quaternions, quaternions)
def test_the_product_of_quaternions_is_the_product_of_rotations(a, b):
    product = quat_to_rotmat(quat_multiply(a, b))
    torch.testing.assert_close(product, quat_to_rotmat(a) @ quat_to_rotmat(b), atol=1e-12, rtol=0)


def test_w_comes_first_and_rotations_turn_counter_clockwise():
    quarter_about_z = torch.tensor([math.cos(math.pi / 4), 0, 0, math.sin(math.pi / 4)])
    x, y = torch.eye(3)[:2]
    torch.testing.assert_close(quat_to_rotmat(quarter_about_z) @ x, y)


def test_the_length_of_a_quaternion_does_not_matter_and_a_zero_one_turns_nothing():
    quat = torch.tensor([0.3, -0.2, 0.9, 0.1])
    torch.testing.assert_close(quat_to_rotmat(5 * quat), quat_to_rotmat(quat))
    assert torch.equal(quat_to_rotmat(torch.zeros(4)), torch.eye(3))


def test_azimuth_starts_at_the_front_and_runs_counter_clockwise():
    azimuth = torch.tensor([0, math.pi / 2, math.pi, 0])
    elevation = torch.tensor([0, 0, 0, math.pi / 2])
    expected = torch.tensor([[2.0, 0, 0], [0, 2, 0], [-2, 0, 0], [0, 0, 2]])
    at = spherical(azimuth, elevation, torch.full((4,), 2.0))
    torch.testing.assert_close(at, expected, atol=1e-6, rtol=0)


def test_look_at_puts_the_target_on_the_optical_axis_at_its_distance():
    generator = torch.Generator().manual_seed(0)
    eye = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    target = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    viewmats = look_at(eye, target)
    R, t = viewmats[:, :3, :3], viewmats[:, :3, 3]
    identity = torch.eye(3, dtype=R.dtype).expand(50, 3, 3)
    torch.testing.assert_close(R @ R.mT, identity)
    torch.testing.assert_close(torch.linalg.det(R), torch.ones(50, dtype=R.dtype))
    seen = (R @ target[..., None]).squeeze(-1) + t
    distance = (target - eye).norm(dim=-1)
    torch.testing.assert_close(seen, distance[:, None] * torch.tensor([0, 0, 1.0]).double())
    assert (R[:, 0, 2].abs() < 1e-12).all(), "the horizon is level: no roll"
    assert (R[:, 1, 2] < 0).all(), "y points down in the image"


def test_look_at_has_an_answer_straight_from_above_and_below():
    viewmats = look_at(torch.tensor([[0.0, 0, 2], [0, 0, -2]]))
    near = look_at(torch.tensor([[1e-3, 0, 2], [1e-3, 0, -2]]))
    torch.testing.assert_close(viewmats, near, atol=2e-3, rtol=0)


def test_a_camera_on_its_target_is_refused():
    with pytest.raises(ValueError, match="eye and target must differ"):
        look_at(torch.zeros(1, 3))


def test_the_vertical_field_of_view_ends_at_the_edge_of_the_image():
    fovy = torch.tensor([0.8])
    K = intrinsics(fovy, 64, 48)[0]
    top = torch.tensor([0, -math.tan(0.4), 1])
    u, v, w = K @ top
    assert (u / w).item() == pytest.approx(32)
    assert (v / w).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("fovy", [0.0, -1.0, math.pi, 49.1, float("nan")])
def test_a_field_of_view_in_degrees_is_refused(fovy):
    with pytest.raises(ValueError, match=r"fovy must lie in \(0, pi\) radians"):
        intrinsics(torch.tensor([fovy]), 64, 64)


def test_the_spherical_harmonics_are_orthonormal():
    points = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0))
    Y = sh_basis(points.double(), 3)
    gram = 4 * math.pi * Y.T @ Y / len(Y)
    torch.testing.assert_close(gram, torch.eye(16, dtype=gram.dtype), atol=0.03, rtol=0)


def test_the_first_band_has_the_signs_of_3d_gaussian_splatting():
    x, y, z = torch.tensor([2.0, -3.0, 5.0]) / math.sqrt(38)
    c1 = math.sqrt(3 / (4 * math.pi))
    expected = torch.stack([-c1 * y, c1 * z, -c1 * x])
    torch.testing.assert_close(sh_basis(torch.tensor([2.0, -3.0, 5.0]), 1)[1:], expected)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_turned_harmonics_look_in_turned_directions_as_before(degree):
    generator = torch.Generator().manual_seed(1)
    sh = torch.randn(5, (degree + 1) ** 2, 3, generator=generator)
    directions = torch.randn(40, 3, generator=generator)
    R = quat_to_rotmat(torch.randn(4, generator=generator))
    before = torch.einsum("dk,nkc->ndc", sh_basis(directions, degree), sh)
    after = torch.einsum("dk,nkc->ndc", sh_basis(directions @ R.T, degree), rotate_sh(sh, R))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_a_half_turn_about_x_flips_the_known_coefficients():
    signs = torch.tensor([1.0, -1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1])
    half = torch.diag(torch.tensor([1.0, -1, -1]))
    turned = rotate_sh(torch.ones(1, 16, 3), half)
    torch.testing.assert_close(turned, signs[None, :, None].expand(1, 16, 3))


@pytest.mark.parametrize(
    ("up", "upwards", "front"),
    [("z", (0, 0, 1), (1, 0, 0)), ("y", (0, 1, 0), (0, 0, 1)), ("-y", (0, -1, 0), (0, 0, -1))],
)
def test_up_says_where_the_world_goes(up, upwards, front):
    R = up_rotation(up)
    assert torch.linalg.det(R) == 1
    assert (R @ torch.tensor([0.0, 0, 1])).tolist() == list(upwards)
    assert (R @ torch.tensor([1.0, 0, 0])).tolist() == list(front)


def test_an_unknown_up_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="up must be one of z, y, -y, got 'x'"):
        up_rotation("x")
