"""Holds the architecture: imports go down only, and every foreign library has its door."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "splat_esd"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# From the bottom up; parts of one layer do not know each other.
LAYERS = [
    {"errors", "help", "paths"},
    {"geometry", "overrides"},
    {"cameras", "gaussians", "settings", "validation"},
    {"diffusion", "rasterize"},
    {"config"},
    {"guidance", "densify", "optim", "regularize", "initialize"},
    {"export", "checkpoint", "zoo", "run_folder", "kernels_for_gsplat"},
    {"metrics", "console", "plots", "results"},
    {"train"},
    {"live"},
    {"generate", "evaluate", "compare", "bench", "doctor", "toy"},
    {"best", "study"},
    {"cli"},
    {"__main__", "__init__"},
]
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
MAY_LOOK_UP = {("initialize", "export.ply")}  # where splats start from a file
MUST_NOT_KNOW = {
    "guidance": {"gaussians", "rasterize"},
    "zoo": set(RANK) - {"errors", "paths", "geometry", "cameras", "diffusion", "zoo"},
}
DOORS = {
    "diffusers": {"diffusion.prior", "zoo.models", "zoo.history", "zoo.exam"},
    "peft": {"diffusion.lora"},
    "gsplat": {"rasterize.cuda", "densify", "kernels_for_gsplat"},
    "plyfile": {"export.ply"},
    "trimesh": {"export.mesh"},
    "skimage": {"export.surface", "export.fidelity", "metrics.fidelity"},
    "xatlas": {"export.atlas"},
    "fast_simplification": {"export.decimate"},
    "viser": {"export.viewer"},
    "rich": {"console"},
    "matplotlib": {"plots"},
    "joblib": {"study.launch"},
    "submitit": {"study.launch"},
    "hydra": {"overrides", "config", "cli"},
    "omegaconf": {"overrides", "config", "cli"},
}
SLOW = {
    "diffusers",
    "transformers",
    "peft",
    "gsplat",
    "viser",
    "hydra",
    "trimesh",
    "skimage",
    "imageio_ffmpeg",
}


def imports(nodes) -> set[str]:
    """Names what is imported, our own modules as far as they exist: splat_esd.export.ply."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            deeper = {f"{node.module}.{alias.name}" for alias in node.names}
            known = {name for name in deeper if name.removeprefix("splat_esd.") in MODULES}
            found |= known or {node.module}
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module):
    part = module.split(".")[0]
    assert part in RANK, f"give {part} a place in LAYERS"
    for name in imports(ast.walk(ast.parse(MODULES[module].read_text()))):
        if not name.startswith("splat_esd."):
            continue
        target = name.removeprefix("splat_esd.")
        other = target.split(".")[0]
        if other == part or (module, target) in MAY_LOOK_UP:
            continue
        assert RANK[other] < RANK[part], f"{module} imports {target}, which is not below it"
        assert other not in MUST_NOT_KNOW.get(part, ()), f"{module} must not know {target}"


def test_the_judge_is_asked_by_metrics_only():
    """What generates must not learn what it will be judged by."""
    allowed = {"cli", "best", "evaluate", "compare", "bench", "metrics"}
    for module, path in MODULES.items():
        if module.split(".")[0] in allowed or module.startswith(("zoo.judge", "zoo.exam")):
            continue
        known = imports(ast.walk(ast.parse(path.read_text())))
        assert not {name for name in known if name.startswith("splat_esd.zoo.judge")}, module


@pytest.mark.parametrize("module", MODULES)
def test_every_foreign_library_has_its_door(module):
    tree = ast.parse(MODULES[module].read_text())
    for library in {name.split(".")[0] for name in imports(ast.walk(tree))}:
        assert module in DOORS.get(library, {module}), f"{library} is not for {module}"
    at_once = {name.split(".")[0] for name in imports(tree.body)}
    assert not at_once & SLOW, "slow libraries are imported in the function that needs them"


def test_the_package_is_imported_without_torch():
    code = "import sys, splat_esd; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent).returncode == 0


def test_the_nouns_are_reached_from_the_top():
    import splat_esd
    from splat_esd.cameras import Cameras
    from splat_esd.gaussians import Gaussians

    assert splat_esd.Gaussians is Gaussians
    assert splat_esd.Cameras is Cameras
    with pytest.raises(AttributeError, match="has no attribute 'Gaussian'"):
        splat_esd.Gaussian  # noqa: B018
