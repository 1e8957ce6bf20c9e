import gzip
import struct

import gsply
import numpy as np
import pytest
import torch
from test_ply import some

from splat_esd.errors import UsageError
from splat_esd.formats.spz import fractional_bits, pack_spz, write_spz
from splat_esd.geometry import up_rotation


def read(path):
    """Reads by gsply, whose quaternions are w x y z and whose scales and opacities are stored."""
    data = gsply.read_spz(path)
    rest = torch.tensor(data.shN) if data.shN is not None and data.shN.size else None
    return data, rest


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_foreign_reader_finds_the_splats_upright(tmp_path, degree):
    splats = some(200, degree=degree)
    splats.sh.clamp_(-0.99, 0.99)
    data, rest = read(write_spz(splats, tmp_path / "splat.spz"))
    turned = splats.rotate(up_rotation("y"))
    np.testing.assert_allclose(data.means, turned.means, atol=0.51 / 4096)
    np.testing.assert_allclose(data.scales, splats.log_scales, atol=0.51 / 16)
    opacities = 1 / (1 + np.exp(-data.opacities))
    np.testing.assert_allclose(opacities.ravel(), splats.opacities, atol=0.51 / 255)
    np.testing.assert_allclose(data.sh0.reshape(-1, 3), splats.sh[:, 0], atol=0.51 / 38.25)
    same = (torch.tensor(data.quats) * turned.quats).sum(1).abs()
    assert same.min() > 0.99999
    if degree:
        count = (degree + 1) ** 2 - 1
        np.testing.assert_allclose(
            rest[:, :count], turned.sh[:, 1:].clamp(-1, 127 / 128), atol=0.51 / 128
        )


def test_the_header_is_that_of_version_three(tmp_path):
    path = write_spz(some(7, degree=2), tmp_path / "splat.spz")
    body = gzip.decompress(path.read_bytes())
    assert struct.unpack("<4sIIBBBB", body[:16]) == (b"NGSP", 3, 7, 2, 12, 0, 0)
    assert len(body) == 16 + 7 * (9 + 1 + 3 + 3 + 4 + 24)


@pytest.mark.parametrize(("reach", "bits"), [(0.5, 12), (2047.9, 12), (2048.0, 11), (1e6, 3)])
def test_splats_far_away_are_kept_at_the_cost_of_precision(tmp_path, reach, bits):
    splats = some(3)
    splats.means[:] = torch.tensor([[reach, -reach, 0.25]])
    path = write_spz(splats, tmp_path / "splat.spz")
    assert gzip.decompress(path.read_bytes())[13] == bits
    data, _ = read(path)
    np.testing.assert_allclose(data.means[0], [-reach, 0.25, reach], atol=0.5 / 2**bits, rtol=1e-6)


def test_the_same_splats_make_the_same_bytes():
    assert pack_spz(some()) == pack_spz(some())


@pytest.mark.parametrize("largest", range(4))
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_whichever_part_of_a_quaternion_is_largest_is_left_out(tmp_path, largest, sign):
    splats = some(1, degree=0).rotate(up_rotation("y").T)
    splats.quats = torch.full((1, 4), 0.3)
    splats.quats[0, largest] = sign
    expected = splats.rotate(up_rotation("y")).quats
    data, _ = read(write_spz(splats, tmp_path / "splat.spz"))
    cosine = torch.tensor(data.quats) @ torch.nn.functional.normalize(expected, dim=1).T
    assert abs(cosine.item()) > 0.99999


def test_nothing_is_written_of_nothing_or_of_nan(tmp_path):
    with pytest.raises(UsageError, match="there are no splats to write"):
        write_spz(some().select(torch.zeros(20, dtype=torch.bool)), tmp_path / "splat.spz")
    splats = some()
    splats.means[3, 1] = torch.nan
    with pytest.raises(UsageError, match="means holds NaN or infinity"):
        write_spz(splats, tmp_path / "splat.spz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("version", [3, 4])
def test_both_versions_are_read_by_another_reader(version: int, tmp_path):
    splats = some(degree=3)
    path = write_spz(splats, tmp_path / "splat.spz", version=version)
    back = gsply.read_spz(path)
    turned = splats.rotate(up_rotation("y"))
    np.testing.assert_allclose(back.means, turned.means, atol=2**-12)
    np.testing.assert_allclose(back.scales, turned.log_scales, atol=1 / 31)
    np.testing.assert_allclose(back.sh0, turned.sh[:, 0].clamp(-3.33, 3.33), atol=0.014)


def test_a_small_scene_gets_more_bits():
    splats = some()
    bits = [fractional_bits(splats.means * size) for size in (1e-6, 1e-3, 0.01, 1.0, 1e4)]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] == 24 and bits[3] == 12
    for size in (1e-3, 1.0, 1e4):
        means = splats.means * size
        assert means.abs().max() * 2 ** fractional_bits(means) < 2**23
