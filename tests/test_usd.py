import pytest
import torch
from pxr import Usd, UsdGeom, UsdVol
from test_ply import some

from splat_esd.errors import UsageError
from splat_esd.formats.usd import write_usd
from splat_esd.geometry import up_rotation


@pytest.mark.parametrize("degree", [0, 3])
def test_openusd_reads_the_splats_that_were_written(degree: int, tmp_path):
    splats = some(degree=degree)
    stage = Usd.Stage.Open(str(write_usd(splats, tmp_path / "splat.usda")))
    prim = stage.GetDefaultPrim()
    assert prim.IsA(UsdVol.ParticleField3DGaussianSplat)
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1
    turned = splats.rotate(up_rotation("y"))

    def get(name: str) -> torch.Tensor:
        return torch.tensor([list(row) for row in prim.GetAttribute(name).Get()])

    torch.testing.assert_close(get("positions"), turned.means)
    torch.testing.assert_close(get("scales"), splats.scales)
    torch.testing.assert_close(torch.tensor(prim.GetAttribute("opacities").Get()), splats.opacities)
    assert prim.GetAttribute("radiance:sphericalHarmonicsDegree").Get() == degree
    harmonics = get("radiance:sphericalHarmonicsCoefficients")
    torch.testing.assert_close(harmonics, turned.sh.flatten(0, 1))
    quats = torch.tensor(
        [[q.GetReal(), *q.GetImaginary()] for q in prim.GetAttribute("orientations").Get()]
    )
    torch.testing.assert_close((quats * turned.quats).sum(1).abs(), torch.ones(20))


def test_no_splats_are_refused(tmp_path):
    with pytest.raises(UsageError, match="there are no splats"):
        write_usd(some().select(torch.zeros(20, dtype=torch.bool)), tmp_path / "splat.usda")
