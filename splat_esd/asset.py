"""An asset in Python: load one or generate one, look at it, write it in another format."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from splat_esd.cameras import orbit_cameras
from splat_esd.config.load import load_config
from splat_esd.config.reference import written
from splat_esd.config.schema import MeshConfig
from splat_esd.diffusion.vocabulary import check_prompt
from splat_esd.errors import UsageError
from splat_esd.export.images import DISTANCE, FOVY, portrait_frame, to_images
from splat_esd.export.page import with_final, write_page
from splat_esd.formats.find import splat_file
from splat_esd.formats.ply import write_ply
from splat_esd.formats.read import open_splats
from splat_esd.formats.splat import write_splat
from splat_esd.formats.spz import write_spz
from splat_esd.gaussians import Gaussians
from splat_esd.mesh.textured import WRITERS, make_mesh, stood
from splat_esd.rasterize import rasterize
from splat_esd.runs.generate import generate as generate_run
from splat_esd.runs.summary import describe

_SPLATS = {".ply": write_ply, ".splat": write_splat, ".spz": write_spz}


@dataclass(frozen=True, eq=False)
class Asset:
    """A splat and where it lies.

    Arguments:
        path: The .ply it was read from; `path.parent` is the run's folder, if it is one of a run.
        gaussians: The splats.
    """

    path: Path
    gaussians: Gaussians

    def render(
        self, *, azimuth: float | int = 0, elevation: float | int = 15, size: int = 512
    ) -> UInt8[np.ndarray, "S S 3"]:
        """Returns a picture over light grey, the object filling three quarters of it.

        Arguments:
            azimuth: Degrees, counter-clockwise from above; 0 looks at the front.
            elevation: Degrees above the horizon.
            size: Width and height in pixels.
        """
        placed = portrait_frame(self.gaussians).place(self.gaussians.detach())
        turn, rise = torch.tensor([[azimuth], [elevation]], dtype=torch.float32).deg2rad()
        away, fovy = torch.tensor([DISTANCE]), torch.tensor([FOVY])
        cameras = orbit_cameras(turn, rise, away, fovy, width=size, height=size)
        seen = rasterize(placed, cameras.to(placed.device))
        return to_images(seen).over_grey()[0].numpy()

    def export(self, path: Path | str, **mesh: Any) -> Path:
        """Writes the asset in the format of the ending: .ply, .splat, .spz (the splat), .glb,
        .obj, .stl (a mesh), .html (a page).

        Arguments:
            mesh: Keys of `mesh`, as in faces=5000.
        Raises:
            UsageError: If the ending is none of these, or there is no surface for a mesh.
        """
        path = Path(path)
        ending = path.suffix.lower()
        if ending in _SPLATS:
            return _SPLATS[ending](self.gaussians, path)
        if ending.removeprefix(".") in WRITERS:
            write, *_ = WRITERS[ending.removeprefix(".")]
            settings = MeshConfig(**mesh)
            made = stood(make_mesh(self.gaussians, settings), settings)
            return write(replace(made, name=describe(self.path).facts.get("prompt", "splat")), path)
        if ending == ".html":
            about = with_final(describe(self.path), self.gaussians)
            return write_page([about], path, title=about.title)
        known = ", ".join([*_SPLATS, *(f".{name}" for name in WRITERS), ".html"])
        raise UsageError(f"export: {path.name} must end in one of {known}.")


def load(path: Path | str) -> Asset:
    """Reads a run's folder, or any splat .ply.

    Raises:
        UsageError: If there are no splats in it.
    """
    splat = splat_file(path)
    return Asset(splat, open_splats(splat))


def generate(
    prompt: str, *, callback: Callable[[int, dict[str, Any]], None] | None = None, **settings: Any
) -> Asset:
    """Makes an asset as `splat-esd generate` does, with the same settings.

    Arguments:
        callback: Called after each step with the number of steps done and its statistics.
        settings: As on the command line: quality="draft", seed=3, guidance="sds",
            **{"guidance.lambda": 1.0}.
    Raises:
        UsageError: If a setting or the prompt is wrong.
        EnvironmentProblem: If device, disk or network fail; what was computed is kept.
    """
    given = [f"{name}={written(value)}" for name, value in settings.items()]
    config = load_config([f"prompt={prompt}", *given])
    check_prompt(config)
    return load(generate_run(config, on_step=callback))
