"""Every command: what reads its arguments, and what runs it.

A new command is one model in `config/commands.py`, one line here and one text in `cli/help.py`.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from splat_esd.config.commands import (
    Arguments,
    BenchMeshArguments,
    BenchPhiArguments,
    BenchRasterArguments,
    BenchRefineArguments,
    BenchStepArguments,
    CompareArguments,
    DoctorArguments,
    EvaluateArguments,
    RehearseArguments,
    ToyArguments,
    ToysArguments,
    UiArguments,
    ViewArguments,
    ZooExamArguments,
    ZooJudgeArguments,
    ZooTrainArguments,
    read_arguments,
)
from splat_esd.config.experiment import read_study
from splat_esd.config.load import Config, ExportJob, load_config, load_export
from splat_esd.config.refine import RefineJob, load_refine
from splat_esd.diffusion.vocabulary import check_prompt
from splat_esd.errors import EnvironmentProblem, UsageError
from splat_esd.runs.launcher import leads, refuse_several


@dataclass(frozen=True)
class Command:
    """One command.

    Arguments:
        read: Turns the command line into what was asked for, a pydantic model.
        run: Does it; returns the exit code, or None for 0.
    """

    read: Callable[[Sequence[str]], Any]
    run: Callable[[Any], int | None]


def _generate(config: Config) -> None:
    from splat_esd.console import busy

    check_prompt(config)  # before torch is loaded: an unknown word is answered at once
    with busy("loading PyTorch"):
        from splat_esd.cli.outcome import already_made, tell_outcome
        from splat_esd.runs.generate import generate
        from splat_esd.study.seeds import generate_seeds
    if config.seeds > 1 or config.keep == "best":
        refuse_several("seeds and keep")
        generate_seeds(config)
    elif not already_made(config):
        folder = generate(config)
        if leads():
            tell_outcome(folder, config)


def _refine(job: RefineJob) -> None:
    check_prompt(job.config)
    from splat_esd.runs.front import with_front

    _generate(with_front(job))


def _export(job: ExportJob) -> None:
    from splat_esd.formats.find import splat_file

    source = splat_file(job.source)
    out = source.parent / "export" if job.out is None else job.out
    from splat_esd.console import files_table
    from splat_esd.export.bundle import refuse_source, write_files
    from splat_esd.formats.frame import UNIT_BALL
    from splat_esd.formats.read import read_splats, told
    from splat_esd.runs.summary import describe

    refuse_source(source, out, job.export)
    splats = told(read_splats(source, job.imported))
    placement = UNIT_BALL if job.imported.fit else splats.placement
    about = describe(source)
    files = write_files(
        splats.gaussians, out, job.export, job.mesh, about, placement=placement, in_place=True
    )
    files_table(files)


def _view(asked: ViewArguments) -> None:
    if len(asked.source) != 1:
        raise UsageError(
            f"view takes one run folder or splat file, got {len(asked.source)} arguments."
        )
    from splat_esd.formats.find import splat_file

    source = splat_file(asked.source[0])
    from splat_esd.browser import open_in_browser
    from splat_esd.console import note
    from splat_esd.export.live_viewer import view

    viewer = view(source, asked.imported)
    shown = "is shown in your browser," if open_in_browser(viewer.url) else "waits for a browser at"
    note(f"{source} {shown} {viewer.url} (this machine only); Ctrl-C stops.")
    try:
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    finally:
        viewer.stop()


def _toys(asked: ToysArguments) -> None:
    from splat_esd import console
    from splat_esd.diffusion.vocabulary import read_vocabulary
    from splat_esd.paths import ASSETS

    known = read_vocabulary(ASSETS / "zoo")
    if known is None:
        raise EnvironmentProblem(f"{ASSETS / 'zoo'} is not whole; reinstall splat-esd.")
    for group, names in known.groups.items():
        console.result(f"{len(names)} {group}: {', '.join(names)}")
    console.result('As in:  splat-esd prompt="a red corgi wearing a blue top hat"')
    if asked.out is not None:
        from splat_esd.zoo.world.gallery import write_gallery

        write_gallery(asked.out)
        console.files_table([(asked.out, "an image viewer")])


def _doctor(asked: DoctorArguments) -> int:
    if asked.run:
        from splat_esd.cli.doctor_run import examine_run

        return examine_run(asked.run[0])
    if asked.prior is not None:
        from splat_esd.cli.doctor_prior import examine_prior

        return examine_prior(asked)
    from splat_esd.cli.doctor import examine

    return examine()


def _command(name: str, model: type[Arguments], function: str) -> Command:
    """Returns a command whose function, `module:name`, is imported when it runs."""

    def run(asked: Any) -> int | None:
        module, _, attribute = function.partition(":")
        return getattr(import_module(f"splat_esd.{module}"), attribute)(asked)

    return Command(partial(read_arguments, model, command=name), run)


def _study(experiment: Any) -> None:
    from splat_esd.study.run import main

    refuse_several("study")
    main(experiment)


COMMANDS: dict[str, Command] = {
    "generate": Command(load_config, _generate),
    "refine": Command(load_refine, _refine),
    "export": Command(load_export, _export),
    "view": Command(partial(read_arguments, ViewArguments, command="view"), _view),
    "ui": _command("ui", UiArguments, "ui.main:main"),
    "compare": _command("compare", CompareArguments, "cli.compare:main"),
    "evaluate": _command("evaluate", EvaluateArguments, "metrics.evaluate:main"),
    "study": Command(read_study, _study),
    "toys": Command(partial(read_arguments, ToysArguments, command="toys"), _toys),
    "toy": _command("toy", ToyArguments, "plane.run:main"),
    "doctor": Command(partial(read_arguments, DoctorArguments, command="doctor"), _doctor),
    "rehearse": _command("rehearse", RehearseArguments, "bench.rehearse:main"),
    "bench raster": _command("bench raster", BenchRasterArguments, "bench.raster:main"),
    "bench step": _command("bench step", BenchStepArguments, "bench.step:main"),
    "bench phi": _command("bench phi", BenchPhiArguments, "bench.phi:main"),
    "bench refine": _command("bench refine", BenchRefineArguments, "bench.refine:main"),
    "bench mesh": _command("bench mesh", BenchMeshArguments, "bench.mesh:main"),
    "zoo train": _command("zoo train", ZooTrainArguments, "zoo.prior.train:main"),
    "zoo judge": _command("zoo judge", ZooJudgeArguments, "zoo.judge.train:main"),
    "zoo exam": _command("zoo exam", ZooExamArguments, "zoo.judge.evaluate_prior:main"),
}
