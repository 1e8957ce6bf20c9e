"""One reader for every splat file: by content, upright, and with a line for all that was mended."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from splat_esd import console
from splat_esd.config.schema import ImportConfig
from splat_esd.errors import UsageError
from splat_esd.formats.checkpoint import read_checkpoint
from splat_esd.formats.columns import from_columns, is_splats
from splat_esd.formats.compressed_ply import decode_compressed
from splat_esd.formats.find import kind_of, splat_file
from splat_esd.formats.frame import UNIT_BALL, Frame, frame_of_splats, viewing_frame
from splat_esd.formats.gltf_read import decode_gltf, glb_document, has_gltf_splats
from splat_esd.formats.ply import open_ply, placement_of, up_of
from splat_esd.formats.points import TEXTS, RawPoints
from splat_esd.formats.raw import RawSplats, clean
from splat_esd.formats.splat import decode_splat
from splat_esd.formats.spz_read import decode_spz
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import up_rotation

_FAR = 1024.0  # extents: farther off the origin float32 cannot place splats well
_AROUND = 3.0  # radii of the frame that import.crop=auto keeps
_FILLS = 0.75  # of the unit ball: what a fitted object reaches, as our own do
_COARSE = 0.1  # of the median size: positions in larger steps are worth a line
_PART = 1 << 18  # splats turned at once
_NAMES = {"-y": "y down", "y": "y up", "z": "z up"}


@dataclass(frozen=True, eq=False)
class ImportedSplats:
    """Splats of a file in this package's world.

    Arguments:
        gaussians: As they are used here.
        placement: Where they came from:  world = center + radius * mean.
        notes: What was assumed, dropped or cut: one line each.
        up: The axis that is up in the file; "ours" is z, with the front at +x.
    """

    gaussians: Gaussians
    placement: Frame
    notes: Sequence[str]
    up: str = "ours"

    def in_place(self) -> Gaussians:
        """Returns the splats where they came from, their means in double."""
        return put_back(self.gaussians, self.placement)

    def in_file(self, means: Float[torch.Tensor, "N 3"]) -> Float[ndarray, "N 3"]:
        """Returns where points of our world lie in the file, in its own axes."""
        world = self.placement.to_world(means.detach().double().cpu().numpy())
        return np.asarray(world @ _rotation(self.up).double().numpy())


def put_back(gaussians: Gaussians, placement: Frame) -> Gaussians:
    """Moves splats out of the unit ball, back to where they came from, in double."""
    if placement is UNIT_BALL:
        return gaussians
    center = torch.from_numpy(placement.center).to(gaussians.device)
    return replace(
        gaussians,
        means=center + placement.radius * gaussians.means.double(),
        log_scales=gaussians.log_scales + math.log(placement.radius),
    )


def open_splats(path: Path | str, settings: ImportConfig | None = None) -> Gaussians:
    """Reads splats and prints what was assumed, dropped or cut; see `read_splats`."""
    return told(read_splats(path, settings)).gaussians


def told(imported: ImportedSplats) -> ImportedSplats:
    """Prints what was assumed, dropped or cut."""
    for line in imported.notes:
        console.note(line)
    return imported


def read_splats(path: Path | str, settings: ImportConfig | None = None) -> ImportedSplats:
    """Reads the splats of a file or folder of any program, by its content.

    PLY in all spellings, compressed PLY, SPZ 2 to 4, .splat, checkpoints of gsplat and Nerfstudio,
    .glb with KHR_gaussian_splatting; a run's folder, or a model's folder of the first 3DGS code.

    Raises:
        UsageError: If there is no such file, or it holds no splats that can be read.
    """
    settings = ImportConfig() if settings is None else settings
    path = splat_file(path)
    raw = read_raw(path)
    try:
        clean(raw, path)
        up = _up(raw, settings)
        _crop(raw, settings, path)
        center = _offset(raw)
        gaussians = _turned(raw, center, up)
    except (ValueError, IndexError, OverflowError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as splats: {error}.") from error
    placement = _placement(raw, center, up)
    notes = raw.notes
    if settings.crop == "auto":
        gaussians = _cropped_around(gaussians, notes)
    if settings.fit:
        gaussians, placement = fitted(gaussians, placement, notes)
    return ImportedSplats(gaussians, placement, [f"{path.name}: {note}" for note in notes], up)


def fitted(gaussians: Gaussians, placement: Frame, notes: list[str]) -> tuple[Gaussians, Frame]:
    """Moves splats into the unit ball if they do not lie in it, and says so."""
    frame = viewing_frame(gaussians)
    if frame is UNIT_BALL:
        return gaussians, placement
    notes.append(
        f"moved into the unit ball from {_written(frame.center)}, radius {frame.radius:.4g}."
    )
    frame = Frame(frame.center, frame.radius / _FILLS)
    center = placement.center + placement.radius * frame.center
    return frame.place(gaussians), Frame(center, placement.radius * frame.radius)


def holds_splats(path: Path) -> bool:
    """Tells splat files from point clouds and meshes, without reading them whole."""
    suffix = path.suffix.lower()
    if not path.is_file() or suffix in TEXTS or suffix in (".npy", ".npz", ".obj", ".stl", ".off"):
        return False
    if path.name.lower() == "points3d.bin":
        return False
    kind = kind_of(path)
    if kind == "gltf":
        return has_gltf_splats(glb_document(path.read_bytes(), path)[0])
    return kind != "ply" or is_splats(open_ply(path)["vertex"].data.dtype.names)


def placed_points(
    raw: RawPoints, settings: ImportConfig, path: Path
) -> tuple[Float[torch.Tensor, "N 3"], Frame]:
    """Returns points in our axes, cropped, near the origin; and where they came from.

    Raises:
        UsageError: If the crop keeps none, or all are in one place.
    """
    up = raw.up if settings.up == "auto" else settings.up
    if isinstance(settings.crop, tuple):
        inside = within(raw.points, settings.crop)
        if not inside.any():
            raise UsageError(f"import.crop keeps none of {path}'s points.")
        raw.notes.append(f"import.crop dropped {len(inside) - int(inside.sum())} points.")
        raw.points = raw.points[inside]
        raw.colors = None if raw.colors is None else raw.colors[inside]
    if len(raw.points) > 1 and not np.ptp(raw.points, axis=0).any():
        raise UsageError(f"{path}: all {len(raw.points)} points are in one place.")
    center = np.median(raw.points, axis=0)
    extent = float(np.median(np.linalg.norm(raw.points - center, axis=1)))
    if np.linalg.norm(center) <= _FAR * extent:
        center = np.zeros(3)
    rotation = _rotation(up or "ours")
    points = torch.from_numpy((raw.points - center).astype(np.float32)) @ rotation.T
    turned = rotation.double().numpy() @ center
    if center.any():
        raw.notes.append(f"moved to the origin from {_written(center)}.")
    return points, Frame(turned, 1.0) if center.any() else UNIT_BALL


def read_raw(path: Path) -> RawSplats:
    """Reads a file's columns as they are.

    Raises:
        UsageError: If it holds no splats that can be read.
    """
    kind = kind_of(path)
    if kind == "ply":
        return _ply(path)
    if kind == "checkpoint":
        return read_checkpoint(path)
    decode = {"spz": decode_spz, "splat": decode_splat, "gltf": decode_gltf}[kind]
    try:
        return decode(path.read_bytes(), path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error


def _ply(path: Path) -> RawSplats:
    ply = open_ply(path)
    rows = ply["vertex"].data
    names = [name for name in rows.dtype.names if rows.dtype[name].kind in "fiu"]
    if any(name.startswith("packed_") for name in names):
        raw = decode_compressed(ply, path)
    elif is_splats(names):
        raw = from_columns(rows, names, path)
    else:
        kind = "a mesh" if "face" in ply else "a cloud of points"
        missing = [name for name in ("f_dc_0", "opacity", "scale_0", "rot_0") if name not in names]
        raise UsageError(
            f"{path} is {kind}, not splats: its vertices lack {', '.join(missing)}; "
            "init=points starts from it."
        )
    raw.up, raw.placement = up_of(path, ply.comments), placement_of(ply.comments)
    return raw


def _up(raw: RawSplats, settings: ImportConfig) -> str:
    if settings.up != "auto":
        return settings.up
    if not raw.up:
        raw.notes.append(f"taken as {_NAMES[raw.usual]}; import.up=y or z says otherwise.")
    return raw.up or raw.usual


def _rotation(up: str) -> Float[torch.Tensor, "3 3"]:
    """Returns what turns a file's axes into ours; others' z-up has its front at -y, ours at +x."""
    if up == "ours":
        return torch.eye(3)
    if up == "z":
        return torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    return up_rotation(up).T


def _crop(raw: RawSplats, settings: ImportConfig, path: Path) -> None:
    if not isinstance(settings.crop, tuple):
        return
    inside = within(raw.means.astype(np.float64), settings.crop)
    if not inside.any():
        middle = _written(np.median(raw.means.astype(np.float64), axis=0))
        raise UsageError(f"import.crop keeps none of {path}'s splats; most lie around {middle}.")
    raw.notes.append(f"import.crop dropped {len(raw) - int(inside.sum())} of {len(raw)} splats.")
    raw.select(inside)


def within(means: Float[ndarray, "N 3"], crop: tuple[float, ...]) -> Bool[ndarray, " N"]:
    """Marks the points inside a ball [x, y, z, radius] or a box [low x y z, high x y z]."""
    if len(crop) == 4:
        return np.linalg.norm(means - crop[:3], axis=1) <= crop[3]
    return np.asarray(((means >= crop[:3]) & (means <= crop[3:])).all(axis=1))


def _cropped_around(gaussians: Gaussians, notes: list[str]) -> Gaussians:
    kept = frame_of_splats(gaussians).near(gaussians, _AROUND)
    notes.append(f"import.crop=auto dropped {len(gaussians) - len(kept)} of {len(gaussians)}.")
    return kept


def _offset(raw: RawSplats) -> Float[ndarray, "3"]:
    """Returns what is subtracted in double before float32: nothing, if the origin is near."""
    step = max(1, len(raw) // 100_000)
    means = raw.means[::step].astype(np.float64)
    center = np.median(means, axis=0)
    extent = float(np.median(np.linalg.norm(means - center, axis=1)))
    away = float(np.linalg.norm(center))
    size = float(np.exp(np.median(raw.log_scales[::step])))
    if away <= _FAR * max(extent, size):
        return np.zeros(3)
    grain = float(np.spacing(np.float32(np.abs(center).max())))
    if raw.means.dtype == np.float32 and grain > _COARSE * size:
        raw.notes.append(
            f"lies {away:.4g} off its origin, where its float32 places splats in steps of "
            f"{grain:.2g}."
        )
    raw.notes.append(f"moved to the origin from {_written(np.round(center))}.")
    return np.round(center)


def _turned(raw: RawSplats, center: Float[ndarray, "3"], up: str) -> Gaussians:
    """Returns the splats in our axes, part by part: millions would not fit twice."""
    rotation, count = _rotation(up), len(raw)
    parts = {"quats": raw.quats, "log_scales": raw.log_scales, "sh": raw.sh}
    parts |= {"logit_opacities": raw.logit_opacities}
    whole = {n: torch.from_numpy(np.ascontiguousarray(v, np.float32)) for n, v in parts.items()}
    means = torch.empty(count, 3)
    for start in range(0, count, _PART):
        which = slice(start, start + _PART)
        shifted = raw.means[which] if not center.any() else raw.means[which] - center
        part = Gaussians(
            means=torch.from_numpy(np.ascontiguousarray(shifted, np.float32)),
            **{name: value[which] for name, value in whole.items()},
        ).rotate(rotation)
        means[which] = part.means
        whole["quats"][which], whole["sh"][which] = part.quats, part.sh
    return Gaussians(means=means, **whole)


def _placement(raw: RawSplats, center: Float[ndarray, "3"], up: str) -> Frame:
    if raw.placement is not None:
        return Frame(np.array(raw.placement[:3]), raw.placement[3])
    if not center.any():
        return UNIT_BALL
    return Frame(_rotation(up).double().numpy() @ center, 1.0)


def _written(point: Float[ndarray, "3"]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in point) + ")"
