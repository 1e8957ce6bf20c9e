"""The splats: what the optimiser, the checkpoints and the PLY hold, and what a renderer reads."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from splat_esd.geometry import SH_C0, quat_multiply, rotate_sh, rotmat_to_quat


@dataclass(eq=False)
class Gaussians:
    """N anisotropic Gaussians, stored before their activations.

    Mutable, because densification replaces the tensors; all five must keep the same N.

    Arguments:
        means: Centres in the world [N, 3].
        quats: Rotations (w, x, y, z) [N, 4]; normalised where they are used.
        log_scales: Logarithms of the standard deviations along the local axes [N, 3].
        logit_opacities: Logits of the opacities [N].
        sh: Spherical harmonics of the colour [N, K, 3], K = 1, 4, 9 or 16.
    Raises:
        ValueError: If a shape does not fit.
    References:
        3D Gaussian Splatting (Kerbl et al., 2023). https://arxiv.org/abs/2308.04079
    """

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    log_scales: Float[Tensor, "N 3"]
    logit_opacities: Float[Tensor, " N"]
    sh: Float[Tensor, "N K 3"]

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Makes sure that the five tensors still fit together after some were replaced.

        Raises:
            ValueError: If a shape does not fit.
        """
        n = len(self.means) if self.means.ndim else 0
        shapes = {"means": (3,), "quats": (4,), "log_scales": (3,), "logit_opacities": ()}
        for name, trailing in shapes.items():
            shape = tuple(getattr(self, name).shape)
            if shape != (n, *trailing):
                wanted = ", ".join(["N", *map(str, trailing)])
                raise ValueError(
                    f"{name}: expected shape [{wanted}] with N = {n} (from means), "
                    f"got {list(shape)}."
                )
        shape = tuple(self.sh.shape)
        if len(shape) != 3 or shape[0] != n or shape[1] not in (1, 4, 9, 16) or shape[2] != 3:
            raise ValueError(
                f"sh: expected shape [N, K, 3] with N = {n} (from means) and K = 1, 4, 9 or 16, "
                f"got {list(shape)}."
            )

    @property
    def scales(self) -> Float[Tensor, "N 3"]:
        """Standard deviations:  exp(log_scales)."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Float[Tensor, " N"]:
        """Opacities in (0, 1):  sigmoid(logit_opacities)."""
        return self.logit_opacities.sigmoid()

    @property
    def colors(self) -> Float[Tensor, "N 3"]:
        """Colours that no view changes, the degree 0 alone:  max(0.5 + C0 sh_0, 0)."""
        return (0.5 + SH_C0 * self.sh[:, 0]).clamp_min(0)

    @property
    def sh_degree(self) -> int:
        return math.isqrt(self.sh.shape[1]) - 1

    @property
    def device(self) -> torch.device:
        return self.means.device

    def __len__(self) -> int:
        return len(self.means)

    def parameters(self) -> dict[str, Tensor]:
        """Maps the names of the five stored tensors to the tensors themselves, in their order."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def select(self, which: Bool[Tensor, " N"] | Int[Tensor, " M"]) -> "Gaussians":
        """Keeps the Gaussians that a mask marks, or those at the given indices, in that order."""
        return Gaussians(**{name: value[which] for name, value in self.parameters().items()})

    def detach(self) -> "Gaussians":
        """Shares the tensors and forgets how they were computed."""
        return Gaussians(**{name: value.detach() for name, value in self.parameters().items()})

    def to(self, device: torch.device | str) -> "Gaussians":
        """Moves all tensors to a device."""
        return Gaussians(**{name: value.to(device) for name, value in self.parameters().items()})

    def rotate(self, rotation: Float[Tensor, "3 3"]) -> "Gaussians":
        """Turns the splats as one rigid body, colours included:  p' = R p."""
        rotation = rotation.to(self.means)
        return replace(
            self,
            means=self.means @ rotation.T,
            quats=quat_multiply(rotmat_to_quat(rotation), self.quats),
            sh=rotate_sh(self.sh, rotation),
        )

    @staticmethod
    def cat(parts: Sequence["Gaussians"]) -> "Gaussians":
        """Joins splats into one.

        Raises:
            ValueError: If there are none, or their spherical harmonics differ in degree.
        """
        degrees = {part.sh_degree for part in parts}
        if len(degrees) != 1:
            raise ValueError(
                "cat: expected one or more Gaussians of the same degree of spherical harmonics, "
                f"got degrees {[part.sh_degree for part in parts]}."
            )
        names = parts[0].parameters()
        return Gaussians(
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        )
