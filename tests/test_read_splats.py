"""Splat files of other programs: each kind gives the right splats, or one line."""

import gzip
import math
import re
import struct
import zipfile
from dataclasses import replace

import gsplat
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plyfile import PlyData
from test_ply import assert_same, rewrite, some

from splat_esd.config.schema import ImportConfig
from splat_esd.errors import SplatError, UsageError
from splat_esd.formats.compressed_ply import write_compressed
from splat_esd.formats.frame import viewing_frame
from splat_esd.formats.gltf import write_gltf
from splat_esd.formats.ply import write_elements, write_ply
from splat_esd.formats.precision import losses
from splat_esd.formats.read import put_back, read_splats
from splat_esd.formats.splat import write_splat
from splat_esd.formats.spz import pack_spz, write_spz
from splat_esd.formats.spz_read import decode_spz
from splat_esd.gaussians import Gaussians
from splat_esd.geometry import SH_C0, up_rotation

WRITERS = {
    "splat.ply": write_ply,
    "splat.compressed.ply": write_compressed,
    "splat.splat": write_splat,
    "splat.spz": write_spz,
    "four.spz": lambda splats, path: write_spz(splats, path, version=4),
    "splat.glb": write_gltf,
}


def object_like(n: int = 300, degree: int = 0) -> Gaussians:
    """Returns splats as wide as a fifteenth of the object, of which colours fit every format."""
    splats = some(n, degree)
    return replace(
        splats,
        means=splats.means / 4,
        log_scales=splats.log_scales / 10 - 2.7,
        sh=splats.sh / 5,
    )


def columns(path) -> dict[str, np.ndarray]:
    """Returns the columns of 40 splats, as they stand in a PLY."""
    rows = PlyData.read(str(write_ply(object_like(40), path)), mmap=False)["vertex"].data
    return {name: rows[name].copy() for name in rows.dtype.names if name[0] != "n"}


def written(path, table: dict[str, np.ndarray], comments: tuple[str, ...] = ()):
    rows = np.empty(len(next(iter(table.values()))), [(n, v.dtype) for n, v in table.items()])
    for name, values in table.items():
        rows[name] = values
    write_elements({"vertex": rows}, path, comments=list(comments))
    return path


def renamed(table, names):
    return {names.get(name, name): values for name, values in table.items()}


def infinite(table):
    table["opacity"][:3] = np.inf, -np.inf, np.inf
    table["scale_0"][5] = -np.inf
    return table


def in_colors(table):
    for i, name in enumerate(("red", "green", "blue")):
        table[name] = np.round(255 * (0.5 + SH_C0 * table.pop(f"f_dc_{i}"))).astype("u1")
    return table


def linear(table):
    table["opacity"] = 1 / (1 + np.exp(-table["opacity"]))
    return table | {f"scale_{i}": np.exp(table[f"scale_{i}"]) for i in range(3)}


def of_bytes(table):
    opacity = 1 / (1 + np.exp(-table.pop("opacity")))
    return table | {"alpha": np.round(255 * opacity).astype("u1")}


QUATS = {f"rot_{i}": f"q{'wxyz'[i]}" for i in range(4)}
SPELLINGS = {
    "prefixed by CloudCompare": lambda t: renamed(
        t, {n: f"scalar_{n}" for n in t if n not in "xyz"}
    ),
    "in capitals": lambda t: {name.upper(): values for name, values in t.items()},
    "quaternions by letter": lambda t: renamed(t, QUATS),
    "gsplat's names": lambda t: renamed(t, {f"scale_{i}": f"scales_{i}" for i in range(3)}),
    "in double": lambda t: {name: values.astype("f8") for name, values in t.items()},
    "in reverse": lambda t: dict(reversed(t.items())),
    "colours for harmonics": in_colors,
    "opacities and sizes as such": linear,
    "alpha in bytes": of_bytes,
    "with strange columns": lambda t: (
        t | {"label": np.arange(40, dtype="i4"), "f_semantic_0": np.ones(40)}
    ),
}


@pytest.mark.parametrize("how", SPELLINGS)
def test_every_spelling_of_a_splat_gives_that_splat(how: str, tmp_path):
    table = columns(tmp_path / "plain.ply")
    plain = read_splats(tmp_path / "plain.ply").gaussians
    back = read_splats(written(tmp_path / "a.ply", SPELLINGS[how](table))).gaussians
    for name, value in plain.parameters().items():
        coarse = {"colours for harmonics": 8e-3, "alpha in bytes": 3e-2}.get(how, 1e-5)
        torch.testing.assert_close(back.parameters()[name], value, atol=coarse, rtol=1e-5)


def test_strange_columns_are_named_as_dropped(tmp_path):
    table = columns(tmp_path / "plain.ply")
    found = read_splats(written(tmp_path / "a.ply", table | {"label": np.arange(40, dtype="i4")}))
    assert any("were dropped: label." in note for note in found.notes)


def test_meaningful_infinities_are_kept(tmp_path):
    path = written(tmp_path / "a.ply", infinite(columns(tmp_path / "plain.ply")))
    splats = read_splats(path).gaussians
    assert splats.logit_opacities[:3].tolist() == [20, -20, 20]
    assert splats.log_scales[5, 0] == -20
    assert len(splats) == 40


def test_the_filter_of_mip_splatting_is_applied(tmp_path):
    table = columns(tmp_path / "plain.ply")
    table["filter_3D"] = np.full(40, 0.06, "f4")
    before = read_splats(tmp_path / "plain.ply").gaussians
    after = read_splats(written(tmp_path / "a.ply", table)).gaussians
    wide = (before.scales**2 + 0.06**2).sqrt()
    torch.testing.assert_close(after.scales, wide)
    opacities = before.opacities * before.scales.prod(1) / wide.prod(1)
    torch.testing.assert_close(after.opacities, opacities, atol=1e-6, rtol=1e-4)


def test_a_flat_splat_gets_a_small_third_scale(tmp_path):
    table = columns(tmp_path / "plain.ply")
    del table["scale_2"]
    found = read_splats(written(tmp_path / "a.ply", table))
    scales = found.gaussians.scales
    assert (scales[:, 2] < 2e-3 * scales[:, :2].amin(1)).all() and (scales[:, 2] > 0).all()
    assert any("no scale_2" in note for note in found.notes)


@pytest.mark.parametrize(("kept", "degree"), [(44, 2), (45, 3), (43, 2), (20, 0), (1, 0)])
def test_harmonics_that_are_not_whole_are_cut_to_a_whole_degree(kept: int, degree: int, tmp_path):
    splats = some(20, degree=3)
    path = write_ply(splats, tmp_path / "a.ply")
    rewrite(path, comments=["splat_esd up=-y"], drop=[f"f_rest_{i}" for i in range(kept, 45)])
    found = read_splats(path)
    assert found.gaussians.sh_degree <= degree
    count = found.gaussians.sh.shape[1]
    torch.testing.assert_close(found.gaussians.sh, splats.sh[:, :count], atol=1e-5, rtol=1e-5)
    assert kept == 45 or any("cut to" in note for note in found.notes)


@pytest.mark.parametrize("name", WRITERS)
def test_every_container_is_read_by_its_content(name: str, tmp_path):
    splats = object_like()
    path = WRITERS[name](splats, tmp_path / name)
    moved = path.rename(tmp_path / "download")  # no suffix says what it is
    back = read_splats(moved).gaussians
    assert len(back) == len(splats)
    order = torch.cdist(splats.means, back.means).argmin(1)
    torch.testing.assert_close(back.means[order], splats.means, atol=2e-3, rtol=0)
    torch.testing.assert_close(back.log_scales[order], splats.log_scales, atol=0.04, rtol=0)
    torch.testing.assert_close(back.opacities[order], splats.opacities, atol=3e-3, rtol=0)
    torch.testing.assert_close(back.sh[order], splats.sh, atol=0.015, rtol=0)
    unit = back.quats[order] / back.quats[order].norm(dim=1, keepdim=True)
    assert ((unit * splats.quats).sum(1).abs() > 0.999).all()


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("name", WRITERS)
def test_a_round_trip_keeps_what_the_format_can_hold(name: str, size: float, tmp_path):
    splats = object_like()
    splats = replace(
        splats, means=splats.means * size, log_scales=splats.log_scales + math.log(size)
    )
    back = read_splats(WRITERS[name](splats, tmp_path / name)).gaussians
    order = torch.cdist(splats.means.double(), back.means.double()).argmin(1)
    far = splats.means.abs().max().item()
    steps = {"splat.compressed.ply": 1.5 * far / 1023, "splat.spz": 2.5e-4, "four.spz": 2.5e-4}
    step = min(steps.get(name, 0.0), far / 1000) + 2e-6 * far
    assert (back.means[order] - splats.means).abs().max() <= step
    if "spz" not in name or size > 1e-2:  # log scales of .spz end at -10
        torch.testing.assert_close(back.log_scales[order], splats.log_scales, atol=0.04, rtol=0)
    else:
        assert any("scales below" in line for line in losses(splats, "spz"))


@pytest.mark.parametrize("name", WRITERS)
def test_500_km_off_the_origin_a_round_trip_is_as_near_as_the_warning_says(name: str, tmp_path):
    splats, off = object_like(), torch.tensor([5e5, 0, 0], dtype=torch.float64)
    splats = replace(splats, means=splats.means.double() + off)
    form = {"splat.compressed.ply": "compressed", "splat.glb": "gltf"}.get(name, name[-3:])
    warned = losses(splats, "splat" if name == "splat.splat" else form)[0]
    step = float(re.search(r"steps of ([\d.e-]+)", warned)[1])
    found = read_splats(WRITERS[name](splats, tmp_path / name))
    back = found.in_place().means
    order = torch.cdist(splats.means - off, back - off).argmin(1)
    assert (back[order] - splats.means).abs().max() <= 0.52 * step
    assert any("off its origin" in note for note in found.notes)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_far_off_the_origin_double_is_kept_and_float_is_told(dtype: str, tmp_path):
    table = columns(tmp_path / "plain.ply")
    plain = read_splats(tmp_path / "plain.ply").gaussians
    table["x"] = (table["x"].astype("f8") + 500_000).astype(dtype)
    found = read_splats(written(tmp_path / "a.ply", table))
    middle = found.gaussians.means - found.gaussians.means.median(0).values
    wanted = plain.means - plain.means.median(0).values
    assert (middle - wanted).abs().max() < (1e-5 if dtype == "f8" else 0.05)
    assert any("steps of 0.031" in note for note in found.notes) == (dtype == "f4")
    whole = put_back(found.gaussians, found.placement).means @ up_rotation("-y").double().T
    assert (whole[:, 0] - torch.from_numpy(table["x"].astype("f8"))).abs().max() < 1e-5
    assert any("import.fit=true" in line for line in losses(found.in_place(), "ply"))


@pytest.mark.parametrize(("comment", "up"), [("Vertical Axis: z", "z"), ("Vertical Axis: y", "y")])
def test_the_file_is_believed_about_its_axis(comment: str, up: str, tmp_path):
    table = columns(tmp_path / "plain.ply")
    said = read_splats(written(tmp_path / "a.ply", table, (comment,)))
    asked = read_splats(written(tmp_path / "b.ply", table), ImportConfig(up=up))
    assert_same(said.gaussians, asked.gaussians)
    axis = torch.from_numpy(table[up])
    torch.testing.assert_close(said.gaussians.means[:, 2], axis)
    assumed = read_splats(tmp_path / "b.ply")
    assert any("taken as y down" in note for note in assumed.notes)
    assert not any("taken as" in note for note in said.notes)


@pytest.mark.parametrize("crop", [(0.0, 0.0, 0.0, 0.2), (-0.2, -0.2, -0.2, 0.2, 0.2, 0.2), "auto"])
def test_a_crop_keeps_what_lies_in_it(crop, tmp_path):
    path = write_ply(object_like(), tmp_path / "a.ply")
    found = read_splats(path, ImportConfig(crop=crop))
    limit = 0.2 * (1 if len(crop) == 4 and crop != "auto" else 3**0.5) if crop != "auto" else 5
    assert 0 < len(found.gaussians) <= 300
    assert found.gaussians.means.norm(dim=1).max() <= limit
    assert any("import.crop" in note for note in found.notes)


def test_a_crop_that_keeps_nothing_says_where_the_splats_are(tmp_path):
    path = write_ply(object_like(), tmp_path / "a.ply")
    with pytest.raises(UsageError, match=r"import.crop keeps none .* most lie around \("):
        read_splats(path, ImportConfig(crop=(9.0, 9.0, 9.0, 1.0)))


def test_a_fitted_splat_lies_in_the_unit_ball_and_knows_the_way_back(tmp_path):
    splats = object_like()
    moved = replace(splats, means=30 * splats.means + 100, log_scales=splats.log_scales + 3.4)
    path = write_ply(moved, tmp_path / "a.ply")
    found = read_splats(path, ImportConfig(fit=True))
    assert found.gaussians.means.norm(dim=1).quantile(0.9) < 1
    torch.testing.assert_close(found.in_place().means.float(), moved.means, atol=1e-3, rtol=1e-5)
    assert viewing_frame(found.gaussians).radius == 1.0


def test_checkpoints_of_gsplat_are_read_without_running_code(tmp_path):
    splats = object_like(degree=3)
    state = {"means": splats.means, "scales": splats.log_scales, "quats": splats.quats}
    state |= {"opacities": splats.logit_opacities, "sh0": splats.sh[:, :1], "shN": splats.sh[:, 1:]}
    torch.save({"step": 9, "splats": state}, tmp_path / "ckpt.pt")
    back = read_splats(tmp_path / "ckpt.pt", ImportConfig(up="-y")).gaussians
    assert_same(splats, back.rotate(up_rotation("-y")))
    torch.save({"splats": print}, tmp_path / "code.pt")
    with pytest.raises(UsageError, match="could run code"):
        read_splats(tmp_path / "code.pt")


def test_what_gsplat_compresses_is_read(tmp_path):
    splats, path = object_like(600, degree=3), tmp_path / "a.ply"
    gsplat.export_splats(
        splats.means, splats.log_scales, splats.quats.clone(), splats.logit_opacities,
        splats.sh[:, :1], splats.sh[:, 1:], format="ply_compressed", save_to=str(path),
    )  # fmt: skip
    back = read_splats(tmp_path / "a.ply").gaussians.rotate(up_rotation("-y"))
    order = torch.cdist(splats.means, back.means).argmin(1)
    torch.testing.assert_close(back.means[order], splats.means, atol=2e-3, rtol=0)
    torch.testing.assert_close(back.sh[order], splats.sh, atol=0.02, rtol=0)


def test_a_model_folder_gives_its_last_iteration(tmp_path):
    for i, count in ((7000, 5), (30000, 9)):
        folder = tmp_path / "model" / "point_cloud" / f"iteration_{i}"
        folder.mkdir(parents=True)
        write_ply(object_like(count), folder / "point_cloud.ply")
    assert len(read_splats(tmp_path / "model").gaussians) == 9


def zipped(path, name: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "{}")


OLD = struct.pack("<4sIIBBBB", b"NGSP", 1, 1, 0, 12, 0, 0)
NO_SPLATS = {
    "a.ksplat": (lambda p: p.write_bytes(b"\0" * 4096), "is a .ksplat.*splat-transform"),
    "a.sog": (lambda p: zipped(p, "meta.json"), "is a .sog.*splat-transform"),
    "a.zip": (lambda p: zipped(p, "cat.jpg"), "is a zip archive"),
    "a.spz": (lambda p: p.write_bytes(gzip.compress(b"hello" * 9)), "is no .spz"),
    "one.spz": (lambda p: p.write_bytes(gzip.compress(OLD)), "version 1; versions 2, 3 and 4"),
    "a.ply": (lambda p: p.write_text("version https://git-lfs.github.com/spec"), "git lfs pull"),
    "a.json": (lambda p: p.write_text("{}"), "is text in JSON"),
    "a.txt": (lambda p: p.write_text("hello"), "no splat file that is known here"),
    "a.splat": (lambda p: p.write_bytes(b"\1" * 33), "33 bytes are not whole splats of 32"),
    "a.glb": (lambda p: p.write_bytes(b"glTF" + b"\0" * 40), "is cut short or damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_SPLATS)
def test_what_is_not_read_is_named_with_the_way_out(name: str, tmp_path):
    spoil, message = NO_SPLATS[name]
    spoil(tmp_path / name)
    with pytest.raises(UsageError, match=message) as raised:
        read_splats(tmp_path / name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("comment", ["Creado por José con 猫", "C:\\Users\\Jürgen\\katze.ply"])
@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "latin-1"])
def test_letters_in_a_comment_are_no_fault(comment: str, encoding: str, tmp_path):
    path = write_ply(object_like(), tmp_path / "a.ply")
    plain = read_splats(path).gaussians
    line = b"comment " + comment.encode(encoding, "replace") + b"\n"
    path.write_bytes(path.read_bytes().replace(b"element", line + b"element", 1))
    assert_same(plain, read_splats(path).gaussians)


def test_spz_2_with_its_three_byte_rotations_is_read():
    splats = object_like(50)
    data = gzip.decompress(pack_spz(splats))
    quats = decode_spz(pack_spz(splats), "a").quats
    quats = quats * np.where(quats[:, :1] < 0, -1, 1)
    head, rotations = data[:16], np.round(127.5 * quats[:, 1:] + 127.5).astype("u1").tobytes()
    old = head[:4] + struct.pack("<I", 2) + head[8:] + data[16 : 16 + 50 * 16] + rotations
    back = decode_spz(gzip.compress(old), "a")
    assert np.abs((back.quats * quats).sum(1)).min() > 0.995


MUTATIONS = st.lists(
    st.tuples(st.sampled_from(["byte", "cut", "word", "value", "drop"]), st.integers(0, 2**31)),
    min_size=1,
    max_size=4,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(which=st.sampled_from(sorted(WRITERS)), mutations=MUTATIONS)
def test_no_damage_ends_in_a_traceback_or_in_nonsense(which: str, mutations, tmp_path):
    path = WRITERS[which](object_like(30), tmp_path / which)
    data = bytearray(path.read_bytes())
    for kind, seed in mutations:
        at = seed % max(1, min(len(data), 400 if kind in ("byte", "word", "drop") else len(data)))
        if kind == "byte":
            data[at : at + 1] = bytes([seed % 256])
        elif kind == "cut":
            data = data[: at + 1]
        elif kind == "word":
            data[at : at + 4] = struct.pack("<I", seed)
        elif kind == "value":
            data[at : at + 4] = struct.pack("<f", (math.nan, math.inf, -math.inf, 1e38)[seed % 4])
        else:
            data[at : at + seed % 40] = b""
    path.write_bytes(bytes(data))
    try:
        found = read_splats(path)
    except SplatError as error:
        assert "\n" not in str(error)
        return
    for name, values in found.gaussians.parameters().items():
        assert values.isfinite().all(), name
