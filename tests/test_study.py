"""A study from its file to its report: strict, resumable, and no failure stops another run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageSequence

from splat_esd.bench.machine import cores
from splat_esd.bench.reference_shapes import as_splat
from splat_esd.cli import main as cli
from splat_esd.config.experiment import find_file, load_experiment, read_study
from splat_esd.config.schema import MeshConfig
from splat_esd.errors import ConfigError, EnvironmentProblem, UsageError
from splat_esd.export.images import render_turntable
from splat_esd.formats.ply import write_ply
from splat_esd.formats.read import open_splats
from splat_esd.mesh.textured import make_mesh, read_glb, write_glb, write_meshes
from splat_esd.paths import CONF
from splat_esd.study import job as job_module
from splat_esd.study import launch as launch_module
from splat_esd.study import run as run_module
from splat_esd.study.experiment import cells, in_shard
from splat_esd.study.job import check, is_done
from splat_esd.study.launch import KILLED, launch, processes
from splat_esd.study.run import main
from splat_esd.study.sheet import SHEET, TURNING, _mesh_turned, _tiled, _turned, write_sheets
from splat_esd.study.summary import summarise

TINY = """\
prompts: [a corgi, a cat]
methods:
  sds: [guidance=sds]
  esd-0.5: [guidance.lambda=0.5]
seeds: [3]
common:
  - prior=sd15
  - prior.path={prior}
  - steps=4
  - cameras.batch_size=1
  - init.count=60
  - export.formats=[ply]
  - density=none
  - log.checkpoint_every=2
processes: 1
"""


@pytest.fixture
def study(tmp_path, tiny_sd):
    """An experiment file of 2 x 2 x 1 runs of a few steps, and where it puts them."""
    return written(tmp_path, tiny_sd)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_sd):
    """The same, done; not to be changed."""
    arguments, out = written(tmp_path_factory.mktemp("finished"), tiny_sd)
    main(read_study(arguments))
    return arguments, out


def written(folder, prior):
    file = folder / "tiny.yaml"
    file.write_text(TINY.format(prior=prior))
    return [str(file), f"out={folder / 'out'}"], folder / "out"


def load(arguments, *more):
    return load_experiment(find_file(arguments[0]), [*arguments[1:], *more])


def splats(out):
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("splat.ply"))}


def test_a_study_makes_every_run_in_its_place_and_one_report(finished, capsys):
    arguments, out = finished
    assert cli.main(["study", *arguments]) == 0
    assert list(splats(out)) == [
        f"{prompt}/{method}/s3/splat.ply"
        for prompt in ("a-cat", "a-corgi")
        for method in ("esd-0.5", "sds")
    ]
    results = json.loads((out / "results.json").read_text())
    assert [c["status"] for c in results["cells"]] == ["done"] * 4
    assert results["experiment"]["seeds"] == [3] and results["command"].startswith(
        "splat-esd study"
    )
    assert results["file"].startswith("prompts:") and "torch" in results["versions"]
    shown = capsys.readouterr()
    assert "| esd-0.5 | 2 of 2 |" in shown.out
    assert "step 4/4" in (out / "a-cat" / "sds" / "s3" / "log.txt").read_text()


def test_shards_part_the_runs_and_the_report_gathers_them(finished, monkeypatch):
    arguments, out = finished
    every = cells(read_study(arguments))
    parts = [[c.name for c in every if in_shard(c, f"{k}/3")] for k in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(c.name for c in every)
    started = []
    monkeypatch.setattr(run_module, "launch", lambda todo, _: started.append(todo) or [])
    (out / "report.html").unlink()
    main(read_study([*arguments, "shard=2/3"]))
    assert not (out / "report.html").exists(), "a part has no report of its own"
    assert main(read_study([arguments[0], "report", *arguments[1:]])).is_file()
    assert started == [], "what is there is not made again, and a report makes nothing"


def test_the_prompts_may_be_the_lines_of_a_file(study, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red cat\n\n  a blue dog \n")
    (file, *rest), _ = study
    assert read_study([file, f"prompts=@{prompts}", *rest]).prompts == ("a red cat", "a blue dog")
    with pytest.raises(ConfigError, match=r"prompts names the file none\.txt, which cannot be"):
        read_study([file, "prompts=@none.txt"])


def test_two_workers_on_one_folder_make_every_run_once_and_a_killed_ones_claim_is_taken_over(
    study,
):
    arguments, out = study
    command = [sys.executable, "-m", "splat_esd", "study", *arguments]
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not list(out.rglob("*.claim/.lock")):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    two = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=300)[1].decode() for process in two]
    assert [process.returncode for process in two] == [0, 0], said
    for cell in cells(read_study(arguments)):
        assert (cell.folder / "log.txt").read_text().count("done in") == 1, cell.name
    assert not list(out.rglob("*.claim"))


@pytest.mark.parametrize("shard", ["0/4", "5/4", "x", "1/0"])
def test_a_wrong_shard_is_refused(study, shard):
    with pytest.raises(ConfigError, match="shard must be K/N with K from 1 to N"):
        read_study([study[0][0], f"shard={shard}"])


def test_the_same_command_makes_nothing_twice(finished, monkeypatch):
    arguments, out = finished
    monkeypatch.setattr(job_module, "generate", lambda config: pytest.fail("made again"))
    monkeypatch.setattr(job_module, "evaluate_run", lambda *a, **k: pytest.fail("judged again"))
    assert main(read_study(arguments)) == out / "report.html"


def test_a_study_stopped_in_a_run_goes_on_to_the_same_bits(study, finished, monkeypatch):
    arguments, out = study
    from splat_esd.runs import processes

    real, calls = processes.train_step, []

    def stopped(run, step):
        calls.append(step)
        if len(calls) == 7:  # in the third step of the second run
            raise KeyboardInterrupt
        return real(run, step)

    monkeypatch.setattr(processes, "train_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        main(read_study(arguments))
    states = [c["status"] for c in json.loads((out / "results.json").read_text())["cells"]]
    assert states == ["done", "missing", "missing", "missing"]
    monkeypatch.setattr(processes, "train_step", lambda r, s: calls.append(s) or real(r, s))
    calls.clear()
    main(read_study(arguments))
    assert calls == [2, 3, 0, 1, 2, 3, 0, 1, 2, 3]
    assert splats(out) == splats(finished[1])


def test_a_failing_run_is_listed_and_the_others_go_on(study, monkeypatch):
    arguments, out = study
    real = job_module.generate

    def failing(config):
        if config.prompt == "a cat" and config.guidance.name == "sds":
            raise RuntimeError("a <b>strange</b> thing happened")
        return real(config)

    monkeypatch.setattr(job_module, "generate", failing)
    with pytest.raises(EnvironmentProblem, match=r"1 of 4 runs failed.*same command"):
        main(read_study(arguments))
    found = {c["folder"]: c for c in json.loads((out / "results.json").read_text())["cells"]}
    assert found["a-cat/sds/s3"]["status"] == "failed"
    assert sum(c["status"] == "done" for c in found.values()) == 3
    page = (out / "report.html").read_text()
    assert "a &lt;b&gt;strange&lt;/b&gt; thing happened" in page
    assert "Traceback" in (out / "a-cat/sds/s3/log.txt").read_text()
    monkeypatch.setattr(job_module, "generate", real)
    main(read_study(arguments))
    assert len(splats(out)) == 4


def test_a_prompt_the_prior_does_not_know_fails_alone(tmp_path):
    """With the real embedded prior, whose words are few."""
    file = tmp_path / "words.yaml"
    file.write_text(TINY.replace("a cat", "a zeppelin").replace("  - prior.path={prior}\n", ""))
    experiment = load(
        [str(file), f"out={tmp_path}"], "prior=zoo", "methods={sds: ['guidance=sds']}"
    )
    worker = launch_module.Worker(threads=1, classifier=None, clip=None)
    assert "zeppelin" in worker(cells(experiment)[1])


def test_processes_make_the_same_bits_and_a_killed_one_takes_no_other_along(
    study, finished, monkeypatch
):
    arguments, out = study
    experiment = load(arguments, "processes=2")
    # As many threads as the one process had: on a CPU their number is part of the bits.
    worker = Killer(threads=cores(), classifier=None, clip=None, victim="a-cat/sds/s3")
    monkeypatch.setattr(launch_module, "Worker", lambda *given: worker)
    ended = {cell.name: error for cell, error in launch(cells(experiment), experiment)}
    assert ended.pop("a-cat/sds/s3") == KILLED
    assert len(ended) == 3 and not any(ended.values())
    kept = {name: text for name, text in splats(finished[1]).items() if "cat/sds" not in name}
    assert splats(out) == kept


@dataclass(frozen=True)
class Killer(job_module.Worker):
    """A job whose process dies at one of its cells, as the kernel ends who takes all memory."""

    victim: str

    def __call__(self, cell):
        if cell.name == self.victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(cell)


def test_the_same_file_runs_through_submitit(study, tmp_path):
    pytest.importorskip("submitit")
    arguments, out = study
    more = ["launcher=submitit", "submitit.cluster=local", "submitit.timeout_min=5"]
    main(read_study([*arguments, *more, "processes=1"]))
    states = [c["status"] for c in json.loads((out / "results.json").read_text())["cells"]]
    assert states == ["done"] * 4
    assert list((out / "submitit").glob("*_result.pkl"))


def test_submitit_hears_of_a_wrong_setting_and_of_a_cluster_that_is_not_there(study):
    pytest.importorskip("submitit")
    arguments, _ = study
    for settings, says in (
        (
            ["submitit.cluster=local", "submitit.slurm_partitoin=gpu"],
            "Unknown argument 'partitoin'",
        ),
        (["submitit.cluster=slurm"], "srun"),
    ):
        with pytest.raises(UsageError, match=f"submitit: .*{says}"):
            main(read_study([*arguments, "launcher=submitit", *settings]))


def test_a_folder_with_another_run_in_it_is_refused_before_anything_runs(finished):
    arguments, out = finished
    before = splats(out)
    with pytest.raises(UsageError, match=r"holds a run with steps 4, not 5; choose another out="):
        main(read_study([*arguments, "steps=5"]))
    assert splats(out) == before
    for cell in cells(load(arguments, "device=cpu", "log.every=7")):
        check(cell)  # where it runs and what it says changes nothing
        assert is_done(cell)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["step=5"], "method sds: unknown key step; did you mean steps?"),
        (["proceses=2"], "unknown key proceses; did you mean processes?"),
        (["guidance.lambda=3"], r"method sds: .*guidance.lambda"),
        (["seed=3"], "seed is not for a method to set"),
        (["seeds=[1,1]"], "seeds holds 1 twice"),
        (["seeds=[]"], "seeds has the wrong number of values"),
        (["methods=3"], "methods must give each method a name and a list of settings: methods: "),
        (['methods={"a/b": []}'], "cannot read methods"),
        (["prompts=[a cat, A CAT]"], "would share the folder a-cat"),
        (["launcher=slurm"], "launcher must be one of joblib, submitit"),
        (["launcher=submitit", "prior=auto"], "name the prior"),
    ],
)
def test_every_mistake_is_named_before_anything_runs(study, given, says):
    arguments, out = study
    with pytest.raises(ConfigError, match=says):
        cells(load(arguments, *given))
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prompts: [a", "is not readable as YAML, line"),
        ("prompts: [a]\nseeds: 1\n", "methods is missing"),
        ("prompts: [a]\nmethods: {a/b: []}\nseeds: 1\n", "methods has the name 'a/b'"),
        ("prompts: [a]\nmethods: {a: []}\nseeds: 1\nspeed: 3\n", "unknown key speed"),
        ("prompts: [a]\nmethods: {a: [guidance=esx]}\nseeds: 1\n", "method a: guidance has no"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path, text, says):
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        cells(load_experiment(file, []))


def test_a_file_may_start_from_another(tmp_path):
    (tmp_path / "base.yaml").write_text("prompts: [a cat]\nmethods: {a: []}\nseeds: 4\n")
    (tmp_path / "more.yaml").write_text("defaults: [base, _self_]\nseeds: [7]\ncommon: [steps=3]\n")
    experiment = load_experiment(tmp_path / "more.yaml", ["prior=zoo"])
    assert experiment.seeds == (7,) and experiment.prompts == ("a cat",)
    assert str(experiment.out) == "studies/more"
    (cell,) = cells(experiment)
    assert cell.config.steps == 3 and cell.config.seed == 7


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(UsageError, match="no experiment file jannus; did you mean janus"):
        find_file("jannus")
    assert cli.main(["study"]) == 2


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_experiment_is_right(path):
    experiment = load_experiment(path, [])
    size = len(experiment.prompts) * len(experiment.methods) * len(experiment.seeds)
    folders = [cell.folder for cell in cells(experiment)]
    assert len(set(folders)) == size


def test_cores_are_shared_among_processes(study):
    arguments, _ = study
    assert processes(load(arguments, "processes=7"), 3) == 3
    assert processes(load(arguments, "processes=null"), 1) == 1


def record(method, lam, seed, free, information=1.0, prompt="a cat", right=True, faces=3):
    evaluation = {
        "janus": {"free": free, "faces": 1 if free else faces, "mirrored": seed < 2},
        "right": {"object": right, "color": True, "accessory": True},
        "inception": {"quality": 0.5, "variety": 0.5 + information, "information": information},
        "fidelity": {"psnr": 18.0 + seed, "ssim": 0.8},
        "consistency": 0.9,
        "clip": None,
    }
    return {
        "prompt": prompt, "method": method, "seed": seed, "lambda": lam, "status": "done",
        "folder": f"a-cat/{method}/s{seed}", "error": None, "seconds": 60.0, "gaussians": 9,
        "evaluation": evaluation,
    }  # fmt: skip


def test_the_summary_counts_tests_and_finds_the_trend(study):
    experiment = load(
        study[0], "prompts=[a cat]", "seeds=10",
        "methods={sds: ['guidance=sds'], vsd: ['guidance=vsd'], esd: []}",
    )  # fmt: skip
    records = [record("sds", None, s, False, 0.2, faces=s % 3) for s in range(10)]
    records += [record("vsd", 0.0, s, s < 3, 0.5 + 0.01 * s) for s in range(10)]
    records += [record("esd", 0.5, s, s < 9, 1.0 + 0.01 * s, right=s < 5) for s in range(9)]
    records.append(record("esd", 0.5, 9, False) | {"status": "failed", "evaluation": None})
    found = summarise(records, experiment)
    sds, vsd, esd = found["methods"]
    assert (sds["free"]["count"], vsd["free"]["count"], esd["free"]["count"]) == (0, 3, 9)
    assert (sds["two_faced"]["count"], sds["faceless"]["count"]) == (6, 4)
    assert (esd["two_faced"]["count"], esd["faceless"]["count"]) == (0, 0)
    assert (sds["mirrored"]["count"], esd["mirrored"]["of"]) == (2, 9)
    assert (esd["done"], esd["failed"], esd["free"]["of"], esd["right"]["count"]) == (9, 1, 9, 5)
    assert sds["free"]["high"] == pytest.approx(0.2775, abs=1e-3)  # Wilson's 0 of 10
    assert vsd["means"]["information"]["mean"] == pytest.approx(0.545)
    assert vsd["means"]["clip"] is None
    pair = next(p for p in found["pairs"] if (p["a"], p["b"]) == ("vsd", "esd"))
    assert pair["p"] == pytest.approx(0.00310, abs=1e-4) and pair["p_holm"] > pair["p"]
    assert pair["difference"] == pytest.approx(0.7)
    assert [t["metric"] for t in found["trends"]] == ["free", "information", "psnr"]
    assert found["trends"][0]["low"] > 0  # 0.7 more of 19 runs
    assert found["trends"][0]["of"] == 19  # SDS has no lambda


def test_the_figure_stands_alone_and_in_the_report(study, monkeypatch):
    experiment = load(study[0], "prompts=[a cat]", "seeds=2")
    records = [record("sds", None, s, False, 0.2) for s in range(2)]
    records += [record("esd-0.5", 0.5, s, True) for s in range(2)]
    monkeypatch.setattr(run_module, "gather", lambda *_: records)
    monkeypatch.setattr(run_module, "write_sheets", lambda *_: None)
    report, _ = run_module.write_results(Path(study[0][0]), experiment, [], {}, command="x")
    figure = report.with_name("methods.svg").read_text()
    assert figure in report.read_text()
    names = "".join(ElementTree.fromstring(figure).itertext())
    assert "esd-0.5" in names and "free of Janus" in names


class Page(HTMLParser):
    """Collects what a page would load, and whether its tags close."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.loads += [v for k, v in attributes if k in ("src", "href", "xlink:href", "data")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_asks_no_network_and_shows_every_run(finished):
    page = (finished[1] / "report.html").read_text()
    parsed = Page(page)
    assert parsed.open == []
    linked = [url for url in parsed.loads if not url.startswith(("data:", "#"))]
    assert len(linked) == 4, "each turntable leads to its run"
    assert all((finished[1] / url).exists() for url in linked)
    assert not re.search(r"@import|url\((?!#)", page)
    assert page.count("data:image/webp;base64,") == 4
    assert "<h3>a corgi</h3>" in page and "seed 3" in page


def test_ctrl_c_stops_all_processes_and_the_command_goes_on(study):
    """As a terminal sends it: to the whole group of processes."""
    arguments, out = study
    command = [sys.executable, "-W", "ignore", "-m", "splat_esd", "study", *arguments]
    command += ["processes=2", "steps=4000", "seeds=1"]
    process = subprocess.Popen(
        command,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores Ctrl-C, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 400
        while not list(out.rglob("step-*.pt")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 130 and "go on with: splat-esd study" in said
        assert "Traceback" not in said
        states = {c["status"] for c in json.loads((out / "results.json").read_text())["cells"]}
        assert states == {"missing"}
        with pytest.raises(ProcessLookupError):
            for _ in range(600):
                os.killpg(process.pid, 0)  # nobody of the group is left
                time.sleep(0.1)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_the_broken_pool_is_the_one_that_joblib_raises():
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    assert issubclass(TerminatedWorkerError, BrokenProcessPool)


def test_one_picture_shows_every_asset_from_four_sides(finished):
    with Image.open(finished[1] / SHEET) as sheet:
        picture = np.asarray(sheet.convert("RGB"))
    strips = []
    for record in json.loads((finished[1] / "results.json").read_text())["cells"]:
        gaussians = open_splats(finished[1] / record["folder"] / "splat.ply")
        strips.append(np.hstack(render_turntable(gaussians, 4, size=96)[0].over_grey().numpy()))
    rows = [row.tobytes() for row in picture]
    assert all(any(strip[48].tobytes() in row for row in rows) for strip in strips)


def test_a_mesh_turns_beside_its_splat_as_the_splat_does(tmp_path):
    splats = as_splat("corgi", 3000)
    record = {"folder": "run", "prompt": "a corgi", "method": "esd", "seed": 0, "status": "done"}
    write_ply(splats, tmp_path / "run" / "splat.ply")
    write_sheets([record], tmp_path)
    with Image.open(tmp_path / TURNING) as alone:
        width = alone.width
    settings = MeshConfig(faces=2000, texture=128, height=7.0, origin="feet")
    folder = tmp_path / "run" / "export"
    folder.mkdir()
    write_meshes(splats, folder, settings, ["glb"])
    path = folder / "mesh.glb"
    write_sheets([record], tmp_path)
    with Image.open(tmp_path / TURNING) as both:
        assert both.width == 2 * width
    splat, drawn = _turned(record, tmp_path, 4, 96), _mesh_turned(record, path, tmp_path, 4, 96)
    same = [np.abs(a.astype(int) - b).mean() for a, b in zip(splat, drawn, strict=True)]
    other = [np.abs(a.astype(int) - b).mean() for a, b in zip(splat, drawn[::-1], strict=True)]
    assert max(same) < 6 and max(same) < 0.5 * min(other), "of 255 grey levels, each side its own"


def test_a_written_glb_is_read_back_with_its_colours(tmp_path):
    mesh = make_mesh(as_splat("corgi", 3000), MeshConfig(faces=2000, texture=128))
    surface, texture = read_glb(write_glb(mesh, tmp_path / "mesh.glb"))
    np.testing.assert_allclose(surface.points, mesh.surface.vertices, atol=1e-6)
    np.testing.assert_allclose(surface.uv, mesh.surface.uv, atol=1e-6)
    np.testing.assert_array_equal(np.rint(255 * texture), mesh.texture)


def test_few_assets_turn_side_by_side_and_many_do_not(finished, tmp_path):
    out = finished[1]
    records = json.loads((out / "results.json").read_text())["cells"]
    with Image.open(out / TURNING) as turning:  # alike frames are one that stays longer
        assert turning.n_frames > 12
        frames = [np.asarray(f.convert("RGB")).astype(int) for f in ImageSequence.Iterator(turning)]
    gaussians = open_splats(out / records[0]["folder"] / "splat.ply")
    views = render_turntable(gaussians, 36, size=160)[0].over_grey().numpy().astype(int)
    tile = slice(28, 188), slice(0, 160)  # the first asset, under its label
    for wanted in views[0], views[18]:
        away = min(np.abs(frame[tile] - wanted).mean() for frame in frames)
        assert away < 4, "but for what WebP takes away"
    for record in records[:1]:
        (tmp_path / record["folder"]).mkdir(parents=True)
        shutil.copy(out / record["folder"] / "splat.ply", tmp_path / record["folder"])
    write_sheets(records[:1] * 25, tmp_path)
    assert (tmp_path / SHEET).exists() and not (tmp_path / TURNING).exists()


def test_a_long_label_stays_above_its_own_asset():
    white = np.full((160, 160, 3), 255, np.uint8)
    label = "a white elephant wearing a purple bow tie\nesd-0.5   seed 0"
    sheet = np.asarray(_tiled([white, white], [label, "\n"], 2))
    assert sheet[:, :160].min() < 128, "it is there"
    assert (sheet[:, 160:] == 255).all(), "and reaches no neighbour"
