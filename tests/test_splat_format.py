import numpy as np
import pytest
import torch
from test_ply import some

from splat_esd.errors import UsageError
from splat_esd.formats.splat import write_splat
from splat_esd.geometry import quat_to_rotmat, up_rotation


@pytest.mark.parametrize("up", ["-y", "y", "z"])
def test_each_splat_is_thirty_two_bytes_turned_as_asked(tmp_path, up):
    splats = some(50)
    content = write_splat(splats, tmp_path / "splat.splat", up=up).read_bytes()
    assert len(content) == 50 * 32
    rows = np.frombuffer(content, np.uint8).reshape(50, 32)
    floats = rows[:, :24].copy().view("<f4")
    turned = splats.rotate(up_rotation(up))
    np.testing.assert_allclose(floats[:, :3], turned.means, rtol=1e-6)
    np.testing.assert_allclose(floats[:, 3:], splats.scales, rtol=1e-6)
    rgba = torch.cat([splats.colors.clamp(0, 1), splats.opacities[:, None]], 1)
    np.testing.assert_allclose(rows[:, 24:28] / 255, rgba, atol=0.51 / 255)
    quats = torch.tensor((rows[:, 28:].astype(np.float32) - 128) / 128)
    shift = (quat_to_rotmat(quats) - quat_to_rotmat(turned.quats)).abs().max()
    assert shift < 0.03, "a byte holds a quaternion to about a degree"


def test_nothing_is_written_of_nothing_or_of_nan(tmp_path):
    with pytest.raises(UsageError, match="there are no splats to write"):
        write_splat(some().select(torch.zeros(20, dtype=torch.bool)), tmp_path / "a.splat")
    splats = some()
    splats.logit_opacities[3] = torch.inf
    with pytest.raises(UsageError, match="logit_opacities holds NaN or infinity"):
        write_splat(splats, tmp_path / "a.splat")
    assert not list(tmp_path.iterdir())
