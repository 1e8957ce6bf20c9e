import math

import pytest
import torch

from splat_esd.gaussians import Gaussians
from splat_esd.geometry import quat_to_rotmat


def some(n: int = 6, k: int = 4, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"means": (n, 3), "quats": (n, 4), "log_scales": (n, 3), "logit_opacities": (n,)}
    stored = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return Gaussians(**stored, sh=torch.randn(n, k, 3, generator=generator))


def test_the_names_say_the_space():
    splats = some()
    torch.testing.assert_close(splats.scales.log(), splats.log_scales)
    torch.testing.assert_close(splats.opacities.logit(), splats.logit_opacities)


def test_a_color_is_the_constant_harmonic_and_never_negative():
    splats = some(2, 1)
    splats.sh = torch.tensor([[[0.0, 1, -9]], [[1, 1, 1]]])
    c0 = 1 / math.sqrt(4 * math.pi)
    expected = torch.tensor([[0.5, 0.5 + c0, 0], [0.5 + c0] * 3])
    torch.testing.assert_close(splats.colors, expected)


@pytest.mark.parametrize(("k", "degree"), [(1, 0), (4, 1), (9, 2), (16, 3)])
def test_the_degree_follows_from_the_coefficients(k, degree):
    assert some(3, k).sh_degree == degree


@pytest.mark.parametrize(
    ("field", "shape", "message"),
    [
        (
            "quats",
            (6, 3),
            r"quats: expected shape \[N, 4\] with N = 6 \(from means\), got \[6, 3\]",
        ),
        ("logit_opacities", (5,), r"logit_opacities: expected shape \[N\] with N = 6 .*got \[5\]"),
        ("log_scales", (6,), r"log_scales: expected shape \[N, 3\] .*got \[6\]"),
        ("means", (6, 2), r"means: expected shape \[N, 3\] .*got \[6, 2\]"),
        ("means", (), r"means: expected shape \[N, 3\] .*got \[\]"),
        ("sh", (6, 5, 3), r"sh: expected shape \[N, K, 3\] .*K = 1, 4, 9 or 16, got \[6, 5, 3\]"),
        ("sh", (6, 3), r"sh: expected shape .*got \[6, 3\]"),
    ],
)
def test_a_shape_that_does_not_fit_is_named(field, shape, message):
    splats = some()
    setattr(splats, field, torch.zeros(shape))
    with pytest.raises(ValueError, match=message):
        splats.check()


def test_a_mask_and_its_indices_select_the_same_splats():
    splats = some()
    mask = torch.tensor([True, False, False, True, True, False])
    by_mask, by_index = splats.select(mask), splats.select(mask.nonzero()[:, 0])
    assert len(by_mask) == 3
    for name, value in by_mask.parameters().items():
        assert torch.equal(value, by_index.parameters()[name])
        assert torch.equal(value, splats.parameters()[name][mask])


def test_parts_join_in_order():
    splats = some()
    joined = Gaussians.cat([splats.select(torch.arange(2)), splats.select(torch.arange(2, 6))])
    assert all(torch.equal(v, joined.parameters()[k]) for k, v in splats.parameters().items())


def test_parts_of_different_degrees_do_not_join():
    with pytest.raises(ValueError, match=r"same degree .* got degrees \[0, 1\]"):
        Gaussians.cat([some(2, 1), some(2, 4)])


def test_no_parts_do_not_join():
    with pytest.raises(ValueError, match="expected one or more"):
        Gaussians.cat([])


def test_the_parameters_are_the_five_stored_tensors_themselves():
    splats = some()
    names = ["means", "quats", "log_scales", "logit_opacities", "sh"]
    assert list(splats.parameters()) == names
    assert all(splats.parameters()[name] is getattr(splats, name) for name in names)


def test_detached_splats_share_memory_and_take_no_gradient():
    splats = some()
    splats.means.requires_grad_()
    detached = splats.detach()
    assert not detached.means.requires_grad
    assert detached.means.data_ptr() == splats.means.data_ptr()


def test_a_rotation_turns_every_covariance_with_its_centre():
    splats = some()
    R = quat_to_rotmat(torch.tensor([0.2, -0.5, 0.7, 0.4]))
    turned = splats.rotate(R)
    torch.testing.assert_close(turned.means, splats.means @ R.T)
    torch.testing.assert_close(_covariances(turned), R @ _covariances(splats) @ R.T)
    assert torch.equal(turned.logit_opacities, splats.logit_opacities)


def test_a_rotation_and_its_inverse_leave_the_splats_alone():
    splats = some(k=16)
    R = quat_to_rotmat(torch.tensor([0.2, -0.5, 0.7, 0.4]))
    back = splats.rotate(R).rotate(R.T)
    for name, value in splats.parameters().items():
        torch.testing.assert_close(back.parameters()[name], value, atol=1e-5, rtol=1e-5)


def test_the_gradient_flows_to_what_is_stored():
    splats = some()
    for value in splats.parameters().values():
        value.requires_grad_()
    (splats.scales.sum() + splats.opacities.sum() + splats.colors.sum()).backward()
    assert all(splats.parameters()[n].grad is not None for n in ("log_scales", "sh"))


def _covariances(splats: Gaussians) -> torch.Tensor:
    axes = quat_to_rotmat(splats.quats) * splats.scales[:, None, :]
    return axes @ axes.mT
