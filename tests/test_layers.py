"""Holds the architecture: imports go down only, and every foreign library has its door."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "splat_esd"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# The map of the package, from the bottom up. A room may import lower layers only, so the rooms of
# one layer do not know each other.
LAYERS = [
    {"errors", "paths", "browser"},
    {"console", "distributed"},
    {"geometry", "config"},
    {"cameras", "gaussians"},
    {"diffusion", "rasterize", "formats"},
    {"gsplat_cpu", "rectify", "entropy"},
    {"guidance", "densify", "optim", "regularize", "initialize", "leash", "facing", "specks"},
    {"mesh", "zoo", "plots", "distillation"},
    {"export", "train"},
    {"runs"},
    {"metrics", "asset"},
    {"bench", "plane"},
    {"study", "ui"},
    {"cli"},
    {"__main__", "__init__"},
]
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
MUST_NOT_KNOW = {
    "guidance": {"gaussians", "rasterize"},
    "zoo": set(RANK)
    - {"errors", "paths", "config", "geometry", "cameras", "diffusion", "zoo", "distributed"},
}
# Every library that the package imports, and the only modules that may.
DOORS = {
    "diffusers": {"diffusion.loading", "diffusion.lora", "diffusion.adapters"}
    | {"diffusion.multiview", "diffusion.single_file"}
    | {"bench.rehearse"}
    | {"zoo.prior.models", "zoo.prior.history"}
    | {"zoo.judge.evaluate_prior"},
    "transformers": {"diffusion.loading", "zoo.prior.models", "metrics.networks"},
    "peft": {"diffusion.lora", "zoo.prior.models"},
    "gsplat": {"rasterize.cuda", "densify", "gsplat_cpu.install", "formats.compressed_ply"},
    "plyfile": {"formats.ply"},
    "zstandard": {"formats.spz"},
    "trimesh": {"mesh.textured", "formats.points"},
    "skimage": {"mesh.surface", "mesh.fidelity", "metrics.fidelity"},
    "xatlas": {"mesh.atlas"},
    "fast_simplification": {"mesh.decimate"},
    "viser": {"export.live_viewer"},
    "rich": {"console"},
    "matplotlib": {"plots"},
    "jinja2": {"study.report"},
    "joblib": {"study.launch", "bench.machine"},
    "submitit": {"study.launch"},
    "ray": {"study.on_ray"},
    "hydra": {"config.overrides"},
    "omegaconf": {"config.overrides"},
    "yaml": {"config.yaml_file", "config.load"},
    "pydantic": {"config.schema", "config.load", "config.validation", "config.reference"}
    | {"config.commands", "config.experiment"},
    "huggingface_hub": {"diffusion.locate", "config.load"},
    "safetensors": {
        "zoo.judge.network",
        "zoo.judge.train",
        "diffusion.adapters",
        "diffusion.locate",
        "diffusion.single_file",
    },
    "imageio_ffmpeg": {"export.turntable", "cli.doctor"},
    "PIL": {"export.turntable", "mesh.textured", "study.job", "study.sheet"}
    | {"zoo.world.gallery", "zoo.prior.history", "zoo.judge.evaluate_prior"},
    "scipy": {"initialize", "specks", "mesh.decimate", "mesh.surface", "mesh.texture"}
    | {"mesh.charts", "mesh.flatten"}
    | {"study.statistics", "bench.reference_shapes"},
}
EVERYWHERE = {"torch", "numpy", "jaxtyping", "splat_esd"} | sys.stdlib_module_names
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
    """Names what is imported, our own modules as far as they exist: splat_esd.formats.ply."""
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
        if other == part:
            continue
        assert RANK[other] < RANK[part], f"{module} imports {target}, which is not below it"
        assert other not in MUST_NOT_KNOW.get(part, ()), f"{module} must not know {target}"


def test_the_judge_is_asked_by_metrics_only():
    """What generates must not learn what it will be judged by."""
    allowed = {"metrics", "bench", "study", "cli"}
    for module, path in MODULES.items():
        if module.split(".")[0] in allowed or module.startswith("zoo.judge"):
            continue
        known = imports(ast.walk(ast.parse(path.read_text())))
        assert not {name for name in known if name.startswith("splat_esd.zoo.judge")}, module


@pytest.mark.parametrize("module", MODULES)
def test_every_foreign_library_has_its_door(module):
    tree = ast.parse(MODULES[module].read_text())
    for library in {name.split(".")[0] for name in imports(ast.walk(tree))}:
        if library not in EVERYWHERE:
            assert library in DOORS, f"{module} imports {library}: name its door"
            assert module in DOORS[library], f"{library} is not for {module}"
    at_once = {name.split(".")[0] for name in imports(tree.body)}
    assert not at_once & SLOW, "slow libraries are imported in the function that needs them"


def test_every_library_that_is_imported_is_declared():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *extras["slurm"], *extras["ray"]]
    names = {re.split(r"[<>=!~ \[]", line)[0].lower().replace("_", "-") for line in declared}
    homes = metadata.packages_distributions()
    for path in MODULES.values():
        for library in {
            name.split(".")[0] for name in imports(ast.walk(ast.parse(path.read_text())))
        }:
            if library not in sys.stdlib_module_names and library != "splat_esd":
                wanted = {home.lower().replace("_", "-") for home in homes.get(library, [library])}
                assert wanted & names, f"{path.name} imports {library}, which pyproject.toml lacks"


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
