"""Rotations, cameras' positions and spherical harmonics: the bottom layer, which knows no splats.

Conventions, everywhere in this package
    World: right-handed, z up, the object inside the unit ball.
    Azimuth 0 looks at the front: the camera stands on +x. Azimuth grows counter-clockwise seen
    from above, elevation grows upwards: a camera at distance r stands at
    r (cos el cos az, cos el sin az, sin el). Angles are radians in code, degrees in YAML.
    Cameras follow OpenCV: x right, y down, z forward. `viewmats` map world to camera, `c2w` back.
    Pixel (column i, row j) has its centre at (i + 0.5, j + 0.5). Images are [B, H, W, 3] in [0, 1].
    Quaternions are (w, x, y, z); rotation matrices act on columns, p' = R p.
    Spherical harmonics are the real ones of 3D Gaussian Splatting, evaluated in the direction from
    the camera to the splat: colour = max(0.5 + sum_k Y_k(direction) sh_k, 0), in sRGB.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SH_C0 = 0.28209479177387814


def quat_to_rotmat(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Turns quaternions into rotation matrices:  p' = q p q*  =  R p.

    Arguments:
        quats: (w, x, y, z) of any length; normalised here. A zero quaternion means no rotation.
    """
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def rotmat_to_quat(rotmats: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Turns rotation matrices into unit quaternions (w, x, y, z) with w >= 0.

    The four rows below are 4 q_k (w, x, y, z) for k = w, x, y, z; the one with the largest q_k is
    the best conditioned.

    References:
        Quaternion from Rotation Matrix (Shepperd, 1978).
    """
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = rotmats.flatten(-2).unbind(-1)
    rows = [
        1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01,
        m21 - m12, 1 + m00 - m11 - m22, m01 + m10, m02 + m20,
        m02 - m20, m01 + m10, 1 - m00 + m11 - m22, m12 + m21,
        m10 - m01, m02 + m20, m12 + m21, 1 - m00 - m11 + m22,
    ]  # fmt: skip
    candidates = torch.stack(rows, dim=-1).unflatten(-1, (4, 4))
    best = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1, keepdim=True)
    quats = torch.take_along_dim(candidates, best[..., None], dim=-2).squeeze(-2)
    return F.normalize(torch.where(quats[..., :1] < 0, -quats, quats), dim=-1)


def quat_multiply(
    a: Float[Tensor, "*#batch 4"], b: Float[Tensor, "*#batch 4"]
) -> Float[Tensor, "... 4"]:
    """Multiplies quaternions; the product a b turns by b first, then by a:  R(a b) = R(a) R(b)."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def spherical(
    azimuth: Float[Tensor, " B"], elevation: Float[Tensor, " B"], distance: Float[Tensor, " B"]
) -> Float[Tensor, "B 3"]:
    """Places points around the origin:  r (cos el cos az, cos el sin az, sin el), in radians."""
    across = elevation.cos()
    unit = torch.stack([across * azimuth.cos(), across * azimuth.sin(), elevation.sin()], dim=-1)
    return distance[:, None] * unit


def look_at(
    eye: Float[Tensor, "B 3"],
    target: Float[Tensor, "B 3"] | None = None,
    *,
    up: Float[Tensor, "B 3"] | None = None,
) -> Float[Tensor, "B 4 4"]:
    """Builds world-to-camera matrices:  V = [R | -R eye],  R = (right; down; forward) as rows.

    Arguments:
        eye: Where the cameras stand.
        target: What they look at; the origin by default.
        up: What points up in the image; world z by default. A camera that looks along world z sees
            the picture that azimuth 0 would show there.
    Raises:
        ValueError: If a camera stands on its target.
    """
    target = torch.zeros_like(eye) if target is None else target
    forward = target - eye
    if (forward.norm(dim=-1) == 0).any():
        raise ValueError("look_at: eye and target must differ; a camera stands on its target.")
    forward = F.normalize(forward, dim=-1)
    if up is None:
        pole = forward[:, :2].norm(dim=-1, keepdim=True) < 1e-6
        at_pole = forward[:, 2:] * forward.new_tensor([1.0, 0.0, 0.0])
        up = torch.where(pole, at_pole, forward.new_tensor([0.0, 0.0, 1.0]))
    right = F.normalize(torch.linalg.cross(forward, up), dim=-1)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-2)
    viewmats = torch.eye(4, dtype=eye.dtype, device=eye.device).repeat(len(eye), 1, 1)
    viewmats[:, :3, :3] = rotation
    viewmats[:, :3, 3] = -(rotation @ eye[..., None]).squeeze(-1)
    return viewmats


def intrinsics(fovy: Float[Tensor, " B"], width: int, height: int) -> Float[Tensor, "B 3 3"]:
    """Builds pinhole matrices with square pixels:  f = H / (2 tan(fovy / 2)),  c = (W, H) / 2.

    Arguments:
        fovy: Vertical fields of view in radians.
        width, height: Image size in pixels.
    Raises:
        ValueError: If a field of view lies outside (0, pi).
    """
    if not ((fovy > 0) & (fovy < math.pi)).all():
        raise ValueError(f"fovy must lie in (0, pi) radians, got {fovy.tolist()}.")
    focal = height / (2 * torch.tan(fovy / 2))
    Ks = torch.zeros(len(fovy), 3, 3, dtype=fovy.dtype, device=fovy.device)
    Ks[:, 0, 0] = Ks[:, 1, 1] = focal
    Ks[:, 0, 2], Ks[:, 1, 2], Ks[:, 2, 2] = width / 2, height / 2, 1
    return Ks


def sh_basis(directions: Float[Tensor, "*batch 3"], degree: int) -> Float[Tensor, "*batch K"]:
    """Evaluates the K = (degree + 1)^2 real spherical harmonics of 3D Gaussian Splatting.

    Arguments:
        directions: Vectors of any length; normalised here.
        degree: 0, 1, 2 or 3.
    Raises:
        ValueError: If the degree is not one of these.
    References:
        Efficient Spherical Harmonic Evaluation (Sloan, 2013). https://jcgt.org/published/0002/02/06/
    """
    if degree not in (0, 1, 2, 3):
        raise ValueError(f"degree of the spherical harmonics must be 0, 1, 2 or 3, got {degree}.")
    x, y, z = F.normalize(directions, dim=-1).unbind(-1)
    bands = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        bands += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        bands += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (3 * z * z - 1),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    if degree >= 3:
        bands += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (5 * z * z - 1),
            0.3731763325901154 * z * (5 * z * z - 3),
            -0.4570457994644658 * x * (5 * z * z - 1),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    return torch.stack(bands, dim=-1)


def rotate_sh(sh: Float[Tensor, "N K C"], rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "N K C"]:
    """Turns functions on the sphere:  f'(R d) = f(d), band by band  sh'_l = D_l(R) sh_l.

    D_l solves  Y_l(R d) D_l = Y_l(d)  over sample directions d; a band turns into itself, so the
    system is exact and least squares only picks the equations.

    Arguments:
        sh: Coefficients of `sh_basis`, K = (degree + 1)^2.
        rotation: R.
    """
    degree = math.isqrt(sh.shape[1]) - 1
    directions = torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = sh_basis(directions, degree)
    after = sh_basis(directions @ rotation.double().cpu().T, degree)
    turned = [sh[:, :1]]
    for low in (1, 4, 9)[:degree]:
        band = slice(low, low + 2 * math.isqrt(low) + 1)
        turn = torch.linalg.lstsq(after[:, band], before[:, band]).solution.to(sh.device)
        turned.append((turn @ sh[:, band].double()).to(sh.dtype))
    return torch.cat(turned, dim=1)


def up_rotation(up: str) -> Float[Tensor, "3 3"]:
    """Turns the world (z up, front +x) into what a file format or a viewer calls upright.

    "z": the world itself. "y": y up, the front faces +z, as in glTF. "-y": y down, the front faces
    -z towards a camera that looks along +z, as COLMAP and the first splat viewers have it.

    Raises:
        ValueError: If `up` is none of these.
    """
    axes = {
        "z": [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]],
        "y": [[0.0, 1, 0], [0, 0, 1], [1, 0, 0]],
        "-y": [[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]],
    }
    if up not in axes:
        raise ValueError(f"up must be one of {', '.join(axes)}, got {up!r}.")
    return torch.tensor(axes[up])
