"""The configuration: every file composes, every mistake is named, every prompt comes through."""

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from splat_esd.cli.help import HELP
from splat_esd.config import load as config_module
from splat_esd.config.load import (
    FROM_PRIOR,
    Config,
    ExportJob,
    changes_since,
    load_config,
    load_export,
)
from splat_esd.config.reference import keys, markdown
from splat_esd.config.schema import (
    DensityConfig,
    GuidanceConfig,
    InitConfig,
    LoraConfig,
    PriorConfig,
    QualityConfig,
)
from splat_esd.errors import ConfigError
from splat_esd.paths import CONF

CHOICES = sorted(
    (path.parent.name, path.stem)
    for path in CONF.glob("*/[!_]*.yaml")
    if path.parent.name != "experiment"
)
NEEDS_FILE = {("init", "ply"), ("init", "points"), ("init", "refine")}

# What a shell hands over: any text that UTF-8 can hold, without NUL.
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
prompts = words.filter(lambda text: text.strip())


def load(*overrides: str) -> Config:
    return load_config(["prompt=a corgi", "prior=zoo", *overrides])


def message(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(list(overrides))
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_file_composes_and_survives_its_own_yaml(group: str, choice: str):
    overrides = [f"{group}={choice}"]
    if (group, choice) in NEEDS_FILE:
        overrides.append("init.path=start.ply")
    config = load(*overrides)
    assert Config.from_yaml(config.to_yaml()) == config


def test_every_key_of_every_file_has_a_comment():
    for path in CONF.rglob("*.yaml"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("#"), path
        if path.parent != CONF and "defaults:" not in lines and path.parent.name != "quality":
            bare = [line for line in lines if ":" in line and "#" not in line]
            assert all(
                line.endswith(":")
                or line.split(":")[0] in ("name", "kind", "strategy", "backend", "defaults")
                for line in bare
            )


@settings(derandomize=True, deadline=None, max_examples=200)
@given(prompts)
@example("a corgi, wearing a (blue) hat = cat's [x] {y: 1} # ! \\ \" `")
@example("costs $5 or ${oc.env:HOME} or ${prompt} or $(id)")
@example("two\nlines\ttab\r\x1b[31mred\x85\u2028\ufeff")
@example("null")
@example("1e3")
@example("柯基犬 🐕 é e\u0301")
@example("'quoted'")
@example("choice(a,b)")
@example("  padded  ")
def test_a_prompt_comes_through_exactly(prompt: str):
    config = load_config([f"prompt={prompt}", f"negative_prompt={prompt}", "prior=zoo"])
    assert config.prompt == prompt
    assert config.negative_prompt == prompt
    again = Config.from_yaml(config.to_yaml())
    assert again == config


@settings(derandomize=True, deadline=None, max_examples=100)
@given(prompts.filter(lambda text: not text.startswith("~") and text != "null"))
@example("my runs, (new) = $HOME ${x}/a b'c")
def test_a_path_comes_through_exactly(path: str):
    config = load(f"out={path}", "init=ply", f"init.path={path}", f"prior.path={path}")
    assert config.out == Path(path)
    assert config.init.path == Path(path)
    # A folder that is here is named so that it is found from elsewhere too.
    assert config.prior.path == (str(Path(path).absolute()) if Path(path).exists() else path)


def test_a_path_may_start_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("out=~/runs").out == tmp_path / "runs"


def test_the_folder_of_a_prior_is_found_again_from_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "my prior").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("prior.path=my prior").prior.path == str(tmp_path / "my prior")
    assert load("prior.path=owner/name").prior.path == "owner/name"


def test_perp_neg_needs_the_prompts_of_the_views():
    assert load("guidance.perp_neg.enabled=true").guidance.perp_neg.enabled
    said = message(
        "prompt=x", "prior=zoo", "guidance.perp_neg.enabled=true", "prior.view_prompts=false"
    )
    assert said == "guidance.perp_neg.enabled needs prior.view_prompts=true."


def test_the_last_of_two_values_holds():
    assert load("seed=1", "seed=2", "prompt=first", "prompt=second").seed == 2


def test_values_are_read_in_hydras_grammar():
    config = load(
        "cameras.elevation=[0, 30]", "guidance.lora={rank: 8}", "seed=null", "viewer=true"
    )
    assert config.cameras.elevation == (0, 30)
    assert config.guidance.lora.rank == 8
    assert config.guidance.lora.steps == 1
    assert config.seed is None
    assert config.viewer


def test_a_choice_keeps_the_values_set_beside_it_in_any_order():
    assert load("guidance.lora.rank=8", "guidance=vsd").guidance.lora.rank == 8
    assert load("guidance=vsd").guidance.lam == 0


def test_quality_sets_steps_and_steps_outrank_it():
    assert load("quality=draft").steps < load().steps < load("quality=high").steps
    assert load("quality=high", "steps=7").steps == 7


def test_the_splats_rates_fall_as_the_root_of_the_priors_steps():
    asked = ("optim.sh=[0.04,0.01]", "prior.steps_factor=16")
    assert load(*asked).learning_rates["sh"] == pytest.approx((0.01, 0.0025))


def test_the_guidance_scale_is_its_own_or_the_priors():
    assert load("prior=sd21").guidance.cfg_scale == 7.5
    assert load("prior=sd21", "guidance=sds").guidance.cfg_scale == 100
    assert load("prior=sd21", "guidance.cfg_scale=2").guidance.cfg_scale == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("guidance.lamda=0.5", "unknown key guidance.lamda; did you mean guidance.lambda?"),
        ("lambda=0.5", "unknown key lambda; did you mean guidance.lambda?"),
        ("prior.lambda=0.5", "unknown key prior.lambda; did you mean guidance.lambda?"),
        ("guidance.lam=0.5", "unknown key guidance.lam; did you mean guidance.lambda?"),
        ("promt=x", "unknown key promt; did you mean prompt?"),
        ("from=x", "unknown key from; "),
        ("zzzz.qqqq=1", "unknown key zzzz; the keys stand in splat-esd --help."),
        ("seed.a=1", "unknown key seed.a: seed holds one value, no keys."),
        ("guidance.lambda=3.0", "guidance.lambda must lie in [0, 1], got 3.0;"),
        ("guidance.lambda=-0.1", "guidance.lambda must lie in [0, 4], got -0.1."),
        ("guidance.lambda=nan", "guidance.lambda must be a finite number, got nan."),
        ("guidance.lambda=half", "guidance.lambda must be a number, got 'half'."),
        ("guidance.lambda=true", "guidance.lambda must be a number, got True."),
        ("guidance.grad_clamp=0", "guidance.grad_clamp must lie in (0, inf), got 0.0."),
        ("guidance.t_min=0.6", "guidance.t_max_end must lie above guidance.t_min = 0.6, got 0.5."),
        ("guidance.lora=4", "guidance.lora must be a section of keys, got 4."),
        ("steps=0", "steps must lie in [1, inf), got 0."),
        ("steps=1e3", "steps must be an integer, got 1000.0."),
        ("seed=-1", "seed must lie in [0, 4294967295], got -1."),
        ("seed=1,2", "seed takes one value, got 1,2; start a run for each."),
        ("viewer=yes", "viewer must be true or false, got 'yes'."),
        ("out=", "out must name a path, got nothing."),
        ("out=null", "out must be a path, got None."),
        ("cameras.elevation=[1,2,3]", "cameras.elevation has the wrong number of values."),
        ("cameras.elevation=[1]", "cameras.elevation has the wrong number of values."),
        ("cameras.elevation=[1,100]", "cameras.elevation must lie in [-90, 90], got 100.0."),
        ("cameras.elevation=[3,1]", "cameras.elevation must be [lowest, highest], got [3.0, 1.0]."),
        (
            "cameras.elevation=5",
            "cameras.elevation must be a list in brackets, as [1, 2], got 5.",
        ),
        ("export.size=100", "export.size must be a multiple of 16, got 100."),
        (
            "export.formats=[ply,vewer]",
            "export.formats must be one of ply, compressed, splat, spz, gltf, usda,",
        ),
        (
            "device=cud",
            "device must be one of auto, cpu, cuda, got 'cud'; did you mean device=cuda?",
        ),
        (
            "guidance=ved",
            "guidance has no choice 'ved', only csd, esd, sdi, sds, vsd; did you mean guidance=vsd",
        ),
        ("guidance.name=sds", "guidance.name cannot be set by itself; write guidance=sds"),
        ("init=ply", "init=ply needs a file: init.path=cloud.ply."),
        ("init.path=a.ply", "init.path needs init=ply (a splat) or init=points (a point cloud)."),
        ("cameras.distance=[0.5,2]", "cameras.distance must lie above 1"),
        ("density.start=0.9", "density.start must not lie above density.stop = 0.6, got 0.9."),
        ("seed=[1", "cannot read seed=[1; quote text, and close every bracket."),
        ("+seed=1", "'+seed=1': keys are neither added nor removed here; write key=value."),
        ("--seed=1", "unknown option --seed=1; settings are written key=value"),
        ("a red car", """'a red car' is no setting; did you mean prompt="a red car"?"""),
        ("a b=c", "'a b' is no key; settings are written key=value."),
        ("prompt= \t", "prompt is empty; say what to make"),
        ("prompt=\udcff", "prompt is not valid UTF-8"),
    ],
)
def test_a_mistake_is_named_with_the_way_out(override: str, expected: str):
    said = message("prompt=a corgi", "prior=zoo", override)
    assert said.startswith(expected)
    assert "\n" not in said


def test_a_hub_id_as_choice_is_pointed_to_prior_path():
    assert "prior=sd21 prior.path=owner/name" in message("prompt=x", "prior=owner/name")


def test_two_mistakes_are_two_lines():
    assert message("prompt=x", "prior=zoo", "seed=-1", "steps=0").count("\n") == 1


def test_no_prompt_says_how_to_give_one():
    assert message() == 'no prompt: say what to make, as in splat-esd prompt="a corgi"'
    assert message("seed=1").startswith("no prompt")


def test_a_misspelt_prompt_is_not_reported_as_missing():
    assert message("promt=a corgi") == "unknown key promt; did you mean prompt?"


def test_sds_has_no_lambda_and_vsd_no_other():
    assert load("guidance=sds").guidance.lam is None
    assert "sds has no lambda" in message("prompt=x", "guidance=sds", "guidance.lambda=0.5")
    assert "vsd is lambda 0" in message("prompt=x", "guidance=vsd", "guidance.lambda=0.5")
    assert "SDS is guidance=sds" in message("prompt=x", "guidance.lambda=null")


def test_auto_prior_becomes_a_named_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(config_module, "choose_prior", lambda: "sd15")
    config = load_config(["prompt=x", "prior.cfg_scale=5"])
    assert (config.prior.name, config.prior.sds_cfg_scale) == ("sd15", 100)
    assert config.prior.cfg_scale == 5


def test_auto_prior_is_the_zoo_without_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert config_module.choose_prior() == "zoo"


def test_auto_prior_is_stable_diffusion_on_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert config_module.choose_prior() == "sd21"


def test_auto_prior_with_a_path_asks_for_the_kind():
    assert "prior=sd21, sd15, sdxl or zoo" in message("prompt=x", "prior.path=somewhere")


def test_nobody_can_change_a_configuration_in_use():
    with pytest.raises(ValueError, match="frozen"):
        load().seed = 3


def test_the_yaml_uses_the_names_of_the_command_line():
    data = yaml.safe_load(load().to_yaml())
    assert data["guidance"]["lambda"] == 0.5
    assert data["cameras"]["elevation"] == [-10, 45]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no configuration"),
        ("- a", "holds no configuration"),
        ("a: [", "is not readable as YAML, line 1"),
        ("seed: 1", "prompt is missing"),
        ("prompt: x\nseed: -1", "seed must lie in"),
    ],
)
def test_a_damaged_config_file_is_named(text: str, expected: str):
    with pytest.raises(ConfigError, match=expected) as caught:
        Config.from_yaml(text, source="run/config.yaml")
    assert str(caught.value).startswith("run/config.yaml")


def test_an_earlier_versions_config_file_is_filled_from_the_defaults():
    data = yaml.safe_load(load("guidance.cfg_scale=4").to_yaml())
    del data["density"]["noise"], data["mesh"]
    data["guidance"]["lora"] |= {"rank": None, "alpha": 2}  # null was the prior's; alpha is gone
    text = yaml.safe_dump(data | {"colour": "red"})
    assert Config.from_yaml(text) == load("guidance.cfg_scale=4")
    said = changes_since(text)
    assert "colour is no longer a setting and is left out." in said
    assert "guidance.lora.alpha is no longer a setting and is left out." in said
    assert "density.noise was not a setting yet and is 0.0, the default." in said
    assert len(said) == 2 + 1 + len(load().mesh.model_dump())


def test_a_config_file_of_this_version_has_nothing_to_say():
    for asked in ([], ["guidance=sds"], ["prior=sd21", "init=ply", "init.path=a.ply"]):
        assert changes_since(load(*asked).to_yaml()) == []


def test_settings_are_made_in_python_as_on_the_command_line():
    made = Config(
        prompt="a corgi",
        quality=QualityConfig(name="draft", steps=220),
        guidance=GuidanceConfig(name="vsd", lam=0.0, lora=LoraConfig(rank=8)),
        prior=PriorConfig(cfg_scale=2.0),
        init=InitConfig(count=10000),
        density=DensityConfig(cap=15000),
    )
    asked = load("quality=draft", "guidance=vsd", "guidance.lora.rank=8", "prior.cfg_scale=2")
    assert made == asked
    assert (made.guidance.cfg_scale, made.steps) == (2.0, 220)


def test_the_default_of_every_key_obeys_its_own_type_and_range():
    made = Config(prompt="a corgi")
    assert Config.from_yaml(made.to_yaml()) == made == load()


@pytest.fixture
def stopped(tmp_path: Path) -> tuple[Config, Path]:
    """A run that was stopped: its configuration, and its folder."""
    config = load("seed=5", "guidance=vsd", "prompt=${a}, b")
    folder = tmp_path / "a run, stopped"
    folder.mkdir()
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    return config, folder


def test_a_resumed_run_has_its_own_configuration(stopped: tuple[Config, Path]):
    config, folder = stopped
    assert load_config([f"resume={folder}"]) == config.model_copy(update={"resume": folder})


def test_resume_takes_the_same_command_again(stopped: tuple[Config, Path]):
    config, folder = stopped
    command = ["seed=5", "guidance=vsd", "prompt=${a}, b", "prior=auto", f"resume={folder}"]
    assert load_config(command).prompt == config.prompt


def test_resume_may_show_and_write_differently(stopped: tuple[Config, Path]):
    _, folder = stopped
    changed = load_config(
        [f"resume={folder}", "viewer=true", "device=cpu", "log.every=1", "export.frames=8"]
    )
    assert changed.viewer
    assert changed.device == "cpu"
    assert changed.log.every == 1
    assert changed.export.frames == 8


@pytest.mark.parametrize(
    "override",
    ["steps=9", "seed=6", "prompt=other", "guidance=esd", "guidance.cfg_scale=2", "out=elsewhere"],
)
def test_resume_refuses_what_would_change_the_result(stopped: tuple[Config, Path], override: str):
    said = message(f"resume={stopped[1]}", override)
    assert said.startswith(f"{override.split('=')[0]} is ")
    assert "in the run to resume" in said


def test_resume_still_names_unknown_keys(stopped: tuple[Config, Path]):
    assert "did you mean seed?" in message(f"resume={stopped[1]}", "sede=5")


def test_resume_says_what_it_filled(stopped: tuple[Config, Path], capsys):
    path = stopped[1] / "config.yaml"
    path.write_text(path.read_text().replace("  noise: 0.0\n", "") + "colour: red\n")
    assert load_config([f"resume={stopped[1]}"]).density.noise == 0.0
    said = " ".join(capsys.readouterr().err.split())
    assert "density.noise was not a setting yet" in said
    assert "colour is no longer a setting" in said


def test_resume_needs_a_run(tmp_path: Path):
    assert "there is no config.yaml in it" in message(f"resume={tmp_path}")
    assert "there is no config.yaml in it" in message(f"resume={tmp_path / 'nowhere'}")


def test_export_takes_its_own_keys():
    job = load_export(["from=a b,c.ply", "formats=[sheet]", "export.up=z", "out=x=y"])
    assert (job.source, job.out) == (Path("a b,c.ply"), Path("x=y"))
    assert (job.export.formats, job.export.up) == (("sheet",), "z")
    assert load_export(["from=a.ply"]).out is None


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "nothing to export: say from=FOLDER_OF_A_RUN or from=FILE.ply"),
        (["from=a", "format=[ply]"], "unknown key format; did you mean export.formats?"),
        (
            ["from=a", "prior=zoo"],
            "export takes from, out, formats, import.*, export.* and mesh.*, got prior.",
        ),
        (
            ["from=a", "formats=[gif]"],
            "export.formats must be one of ply, compressed, splat, spz, gltf, usda,",
        ),
        (["from=a", "formats=ply"], "export.formats must be a list in brackets, as [1, 2]"),
    ],
)
def test_export_names_mistakes(overrides: list[str], expected: str):
    with pytest.raises(ConfigError) as caught:
        load_export(overrides)
    assert str(caught.value).startswith(expected)


def test_what_a_prior_needs_comes_with_it_unless_asked_otherwise():
    zoo, sd = load("prior=zoo"), load("prior=sd21")
    assert (zoo.guidance.cfg_scale, zoo.steps, zoo.prior.pullback) == (1.5, 500, "decoder")
    assert (sd.steps, sd.prior.pullback) == (4000, "encoder")
    assert not sd.guidance.perp_neg.enabled and not zoo.guidance.perp_neg.enabled
    assert (zoo.guidance.lora.rank, sd.guidance.lora.rank) == (16, 4)
    assert (zoo.guidance.lora.learning_rate, sd.guidance.lora.learning_rate) == (1e-3, 1e-4)
    assert load("guidance.lora.rank=2").guidance.lora.rank == 2
    assert load("prior.perp_neg=true").guidance.perp_neg.enabled
    assert not load("prior.perp_neg=true", "prior.view_prompts=false").guidance.perp_neg.enabled
    assert load("prior=sd21", "steps=7").steps == 7


def test_null_leaves_a_key_to_the_prior():
    nulls = [f"{name}=null" for name in FROM_PRIOR]
    assert load("prior=sd21", *nulls) == load("prior=sd21")


def test_the_reference_of_all_keys_is_up_to_date():
    assert (CONF / "README.md").read_text(encoding="utf-8") == markdown()


def test_every_key_says_what_it_means():
    for model in (Config, ExportJob):
        for name, field in keys(model):
            assert len(field.description or "") > 10, name


def test_help_prints_the_default_and_the_meaning_of_the_models():
    for name in ("seed", "out", "guidance.lambda"):
        field = dict(keys(Config))[name]
        assert f"  {name}={field.default}" in HELP["generate"]
        assert field.description.split(":")[0] in " ".join(HELP["generate"].split())
    assert "  mesh.faces=50000" in HELP["export"]
