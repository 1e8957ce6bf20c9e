"""Our meshes in the programs they are made for."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from foreign_programs import CAMERA, HERE, SIZE, likeness, mascot, node, own_picture, picture, shoot

from splat_esd.config.schema import MeshConfig
from splat_esd.mesh.textured import make_mesh, write_glb, write_meshes

pytestmark = pytest.mark.foreign
BPY = Path(__file__).parent.parent / "build" / "bpy"
needs_blender = pytest.mark.skipif(
    not (BPY / "bpy").is_dir() and os.environ.get("FOREIGN") != "required", reason="no build/bpy"
)


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    """A folder with the mascot as mesh.glb, .obj and .stl."""
    folder = tmp_path_factory.mktemp("meshes")
    settings = MeshConfig(faces=20000, texture=512, watertight=True, sharpen=0)
    write_meshes(mascot(0), folder, settings, ["glb", "obj", "stl"])
    return folder


def test_the_validator_finds_no_error_and_no_warning_in_the_glb(meshes):
    told = json.loads(node("validate.mjs", meshes / "mesh.glb"))
    assert (told["numErrors"], told["numWarnings"]) == (0, 0), told["messages"]


def test_three_js_shows_the_textured_mesh_upright_and_facing_us(meshes, tmp_path):
    splats, query = mascot(0), CAMERA | {"file": "mesh.glb"}
    shot = tmp_path / "shot.png"
    told = shoot("pages/three.html", shot, data=str(meshes), query=query, actions=["window.found"])
    ((found,),) = told["returned"]
    assert found["textured"] and found["normals"] and found["space"] == "srgb"
    assert 1000 < found["triangles"] <= 20000
    seen, own = picture(shot), own_picture(splats)
    solid = (own < 0.9).any(-1) & (seen < 0.9).any(-1)
    assert solid.sum() > 0.75 * (own < 0.9).any(-1).sum(), "most of the splat is there"
    assert (seen[solid] - own[solid]).abs().mean() < 0.06, "neither black nor washed out"
    # The mascot's fur is no surface, so the likeness is that of its parts and their places.
    assert likeness(seen, own) > 0.8
    assert max(likeness(seen, own.flip(2)), likeness(seen, own.flip(1))) < 0.72


@needs_blender
def test_blender_opens_the_mesh_by_its_name_upright_in_its_colours(tmp_path):
    mesh = make_mesh(mascot(0), MeshConfig(faces=20000, texture=512, watertight=True, sharpen=0))
    file, shot = write_glb(replace(mesh, name="a mascot"), tmp_path / "m.glb"), tmp_path / "m.png"
    given = [BPY, file, shot, json.dumps(CAMERA | {"size": SIZE})]
    ran = subprocess.run(
        [sys.executable, HERE / "blender.py", *map(str, given)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(ran.stdout.strip().splitlines()[-1])
    assert (found["name"], found["texture"], found["smooth"]) == ("a mascot", [[512, 512]], True)
    assert found["faces"] == len(mesh.surface.faces)
    # Its hat is up, its nose in front (-y) and its ear to its left (+x).
    low, high = torch.tensor(found["low"]), torch.tensor(found["high"])
    torch.testing.assert_close(low, torch.tensor([-0.6, -0.72, -0.65]), atol=0.1, rtol=0)
    torch.testing.assert_close(high, torch.tensor([0.67, 0.55, 0.92]), atol=0.1, rtol=0)
    seen, own = picture(shot), own_picture(mascot(0))
    solid = (own < 0.9).any(-1) & (seen < 0.9).any(-1)
    assert solid.sum() > 0.75 * (own < 0.9).any(-1).sum()
    assert (seen[solid] - own[solid]).abs().mean() < 0.08, "neither black nor washed out"
    assert likeness(seen, own) > 0.8
    assert max(likeness(seen, own.flip(2)), likeness(seen, own.flip(1))) < 0.72


@pytest.mark.parametrize("name", ["mesh.glb", "mesh.obj", "mesh.stl"])
def test_assimp_reads_the_mesh_where_it_is(meshes, name):
    beside = [path for path in meshes.iterdir() if name == "mesh.obj" and path.name != name]
    (mesh,) = json.loads(node("read_mesh.mjs", meshes / name, *beside))
    low, high = torch.tensor(mesh["low"]), torch.tensor(mesh["high"])
    if name == "mesh.stl":  # z up, as in the programs that print
        low, high = low[[1, 2, 0]], high[[1, 2, 0]]
    else:
        assert mesh["texcoords"] == 2 * mesh["vertices"]
    assert mesh["normals"] == mesh["vertices"] and 1000 < mesh["faces"] <= 20000
    # Its hat is up, its nose in front (+z) and its ear to its left (+x).
    torch.testing.assert_close(low, torch.tensor([-0.6, -0.65, -0.55]), atol=0.1, rtol=0)
    torch.testing.assert_close(high, torch.tensor([0.67, 0.92, 0.72]), atol=0.1, rtol=0)
