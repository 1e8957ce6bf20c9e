"""Which file a path stands for, and what is in it, by its first bytes."""

import re
from pathlib import Path

from splat_esd.errors import UsageError

SPLAT = "splat.ply"  # the asset in a run's folder
_SUFFIXES = (".ply", ".spz", ".splat", ".glb", ".pt", ".ckpt")
_READ = ".ply (plain and compressed), .spz, .splat, .glb with KHR_gaussian_splatting, gsplat's .pt"
_WAY_OUT = "convert it first: splat-transform {path} splat.ply (npm install -g "
_WAY_OUT += "@playcanvas/splat-transform)"


def splat_file(path: Path | str) -> Path:
    """Returns the splat file that a path stands for: the file itself, or that of a folder.

    A folder is a run (splat.ply), a model of the first 3DGS code (point_cloud/iteration_*), a
    result of gsplat (ckpts/*.pt), or one that holds a single splat file.

    Raises:
        UsageError: If there is no such file, or the folder holds no splat or several.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise UsageError(f"there is no file or folder {path}.")
    if (path / SPLAT).is_file():
        return path / SPLAT
    for pattern in ("point_cloud/iteration_*/point_cloud.ply", "iteration_*/point_cloud.ply"):
        if found := list(path.glob(pattern)):
            return max(found, key=lambda file: _number(file.parent.name))
    if (path / "point_cloud.ply").is_file():
        return path / "point_cloud.ply"
    for pattern in ("ckpts/*.pt", "ply/*.ply"):
        if found := list(path.glob(pattern)):
            return max(found, key=lambda file: (_number(file.name), file.name))
    if (path / "config.yaml").is_file():
        raise UsageError(f"{path} holds no {SPLAT}; go on with the run by resume={path}")
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found[:5])
        raise UsageError(f"{path} holds {len(found)} files that may be meant ({names}); name one.")
    raise UsageError(
        f"{path} holds no {SPLAT} and no other splat file; if it is a run, go on with resume={path}"
    )


def kind_of(path: Path) -> str:
    """Returns ply | spz | gltf | checkpoint | splat, by content; .splat, which has no mark, last.

    Raises:
        UsageError: If the file is none of these; with the way out for known others.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    suffix = path.suffix.lower()
    if not head:
        raise UsageError(f"{path} is not a splat file: it is empty.")
    if head[:4] in (b"ply\n", b"ply\r"):
        return "ply"
    if head[:2] == b"\x1f\x8b" or head[:4] == b"NGSP":
        return "spz"
    if head[:4] == b"glTF":
        return "gltf"
    if head[:4] == b"PK\x03\x04":
        return _archive(path)
    if head.startswith(b"version https://git-lfs"):
        raise UsageError(f"{path} is a pointer of git-lfs, not the file: git lfs pull fetches it.")
    if suffix == ".ksplat":
        raise UsageError(f"{path} is a .ksplat, which is not read here; {_out(path)}.")
    if head.lstrip()[:1] in (b"{", b"[") or suffix in (".sog", ".gltf"):
        name = "SOG's description" if b'"means"' in head else "text in JSON"
        tail = "pack it into one .glb" if suffix == ".gltf" else _out(path)
        raise UsageError(f"{path} is {name}, which is not read here; {tail}.")
    from splat_esd.formats.splat import looks_like_splat

    if suffix == ".splat" or (looks_like_splat(head) and path.stat().st_size % 32 == 0):
        return "splat"
    if suffix in (".pt", ".ckpt", ".pth") and head[:1] == b"\x80":
        return "checkpoint"
    if suffix == ".ply":
        raise UsageError(f"{path} is not a PLY file: it does not begin with the line 'ply'.")
    raise UsageError(f"{path} is no splat file that is known here; read are {_READ}.")


def _archive(path: Path) -> str:
    """Tells the zip archives apart: a checkpoint of torch, SOG, anything else."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise UsageError(f"{path} is cut short or damaged: {error}.") from error
    if any(name.endswith("data.pkl") for name in names):
        return "checkpoint"
    if "meta.json" in names:
        raise UsageError(f"{path} is a .sog, which is not read here; {_out(path)}.")
    raise UsageError(f"{path} is a zip archive; unpack it and name the splat file in it.")


def _out(path: Path) -> str:
    return _WAY_OUT.format(path=path)


def _number(text: str) -> int:
    digits = re.findall(r"\d+", text)
    return int(digits[0]) if digits else -1
