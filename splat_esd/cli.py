"""The command line: which command is meant, and what a failure says and returns.

Exit codes: 0 done, 1 a bug here, 2 a mistake in what was asked, 3 this machine cannot do it,
130 interrupted, 141 the reader of the output has gone.
Everything heavy is imported by the command that needs it, so help and mistakes answer at once.
"""

import io
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from splat_esd.errors import EnvironmentProblem, SplatError, UsageError

HELP = """\
splat-esd turns words into a 3D Gaussian splat.

  splat-esd prompt="a corgi"                 make it; everything lands in outputs/
  splat-esd prompt="a corgi" quality=draft   a first look
  splat-esd doctor                           what this machine can run

Commands
  generate KEY=VALUE...    make a splat (may be left out, as above)
  export from=RUN_OR_PLY   write files from a run or a .ply (export --help)
  view RUN_OR_PLY          look at it in the browser
  compare A B...           several runs or .ply side by side, on one page
  evaluate RUN...          faces counted, quality, variety, fidelity (evaluate --help)
  study FILE_OR_NAME       prompts x methods x seeds, and one report (study --help)
  toy                      the equation in two dimensions, against its closed form (toy --help)
  doctor                   what this machine can run, and why not the rest
  bench raster | mesh     how fast the CPU rasteriser is here; how good meshes are
  zoo train|judge|exam     train the small built-in prior again, or its judge; examine it

Settings are written KEY=VALUE. The ones to know:
  prompt="..."             what to make; any text, taken as it is
  negative_prompt="..."    what to stay away from
  quality=normal           draft | normal | high
  seed=0                   another number, another splat; null picks one
  seeds=4 keep=best        several, ranked; the best is named
  prior=auto               zoo (built in, toys, CPU) | sd21 | sd15 (Stable Diffusion, GPU)
  guidance=esd             esd | vsd | sds
  guidance.lambda=0.5      0 is vsd; more keeps the views apart (no face on every side)
  steps=null               length of the run; null takes the quality's
  device=auto              cpu | cuda
  out=outputs              where runs are put
  resume=FOLDER            go on with a run that was stopped
  viewer=true              watch it grow in the browser

Also cameras.*, rasterizer.*, init.* (init=ply init.path=start.ply), density.*, optim.*,
regularize.*, export.*, mesh.*, log.*: every key stands, with its meaning, in
  {conf}
"""

EXPORT_HELP = """\
splat-esd export from=RUN_OR_PLY [out=FOLDER] [formats=[ply,...]] [export.KEY=VALUE...]

  splat-esd export from=RUN formats=[turntable] export.size=512
  splat-esd export from=cat.ply out=cat formats=[ply] export.up=z

  from                folder of a run, or a splat .ply
  out=FOLDER          where the files go; a folder export/ beside the splat if left out
  formats=[...]       ply | splat | spz | gltf (.glb): the splat, for other programs
                      glb | obj | stl: a mesh with its texture (stl: without)
                      turntable, strip (.mp4 and .webp) | sheet (.png) | viewer (.html)
  export.up="-y"      axis that points up in .ply and .splat: "-y" (splat viewers) | y | z
  export.full_ply=true     62 floats a splat, for old viewers
  export.frames=60    views in the turntable
  export.size=256     width and height of turntable and sheet, in pixels
  export.transparent=true  no background in turntable.webp and sheet.png
  mesh.faces=50000    triangles of the mesh, at most
  mesh.texture=1024   width and height of its texture, in pixels
"""

VIEW_HELP = """\
splat-esd view RUN_OR_PLY

Opens a run's splat, or any splat .ply, in the browser; served on this machine only.
"""

COMPARE_HELP = """\
splat-esd compare RUN_OR_PLY RUN_OR_PLY... [out=compare.html]

Writes one page: the splats side by side under one camera, how they grew, turntables, sheets,
scores of splat-esd evaluate, settings. Everything is inside; it opens from disk.
"""

EVALUATE_HELP = """\
splat-esd evaluate RUN... [classifier=FOLDER] [clip=FOLDER]

Renders 24 views around each run's splat, prints a table and writes evaluation.json into the run.

  free, faces, arc    Janus: a face is two or more neighbouring views judged to be taken within 60
                      degrees of the front; free means exactly one, over at most 180 degrees
  right               what the views from the front show of what was asked for
  IQ, IV, IV-IQ       inception quality (lower is sharper), variety (higher is more varied), and
                      what view and class tell of each other, in nats
  PSNR, SSIM          beside the real thing, turned so that both agree best
  CLIP                100 times the mean cosine of views and prompt

Runs of the zoo prior are judged by the zoo's judge. For others, and for CLIP:
  classifier=FOLDER   an image classifier in transformers' layout; gives IQ and IV
  clip=FOLDER         a CLIP in transformers' layout
"""

STUDY_HELP = """\
splat-esd study FILE_OR_NAME [KEY=VALUE...]

  splat-esd study janus                      the file conf/experiment/janus.yaml
  splat-esd study janus seeds=2 steps=50     a first look
  splat-esd study mine.yaml processes=4

Makes every prompt with every method and every seed, each in a folder of its own
(OUT/PROMPT/METHOD/sSEED), evaluates them, and ends in OUT/report.html and OUT/results.json. What
is there is not made again, what was stopped goes on, what fails stops nothing else: give the same
command again. What a run says is in its log.txt.

  prompts=[...]        what is made
  methods              in the file: a name, and the settings that set it apart
  seeds=8              how many, from 0 on; or a list
  common               in the file: settings of all runs. All other KEY=VALUE are added to them
  out=FOLDER           studies/NAME if left out
  processes=null       runs at once; null: as many as cores and memory allow, one with a GPU
  launcher=joblib      processes of this machine; submitit: jobs of a Slurm cluster
  submitit.KEY=VALUE   cluster (slurm | local) and what submitit's AutoExecutor takes:
                       gpus_per_node=1, timeout_min=120, slurm_partition=gpu, ...
  classifier=FOLDER    for inception scores of other priors than the zoo's; clip=FOLDER: a CLIP
"""

TOY_HELP = """\
splat-esd toy [KEY=VALUE...]

SDS, VSD and ESD in two dimensions, where all scores are known: how much of a Gaussian's variance
each keeps, and what the views around an object show whose prior prefers the front. Takes about a
minute; writes toy.json and toy.png.

  out=toy             folder
  seed=0              of the noise
  lambdas=[0,0.25,0.5,0.75,1]    of ESD; 0 is VSD, and SDS comes in any case
  peaks=[0.25,0.5,1,2,4,8]       how much the prior prefers the front
  steps=null          of each descent; null takes as many as the numbers need
"""

DOCTOR_HELP = """\
splat-esd doctor

Tells what this machine can run, and what is missing for the rest. Uses no network.
"""

BENCH_HELP = """\
splat-esd bench raster [KEY=VALUE...]

Times the CPU rasteriser on seeded scenes, against PyTorch and against what the processor can do.
Takes about five minutes; leave the machine alone meanwhile.

  quick=true      seconds: shows that it works, and says little
  only=table      one section: table | costs | curve | busy; all if left out
  threads=1       of table, costs and curve; more than one are timed by the wall clock
  out=FILE.json   where to write every figure

splat-esd bench mesh [RUN_OR_PLY ...] [KEY=VALUE...]

Makes a mesh of every splat named and of three toys whose true surface is known; prints how like
the splat each is, how far from the truth, and what it cost. About half a minute each.

  toys=false      leave out the toys
  mesh.KEY=VALUE  as for export
  out=FILE.json   where to write every figure
"""

ZOO_HELP = """\
splat-esd zoo train [KEY=VALUE...]
splat-esd zoo judge [KEY=VALUE...]
splat-esd zoo exam [KEY=VALUE...]

train: trains the small built-in prior again, from its toys.
judge: trains the network that tells what a picture shows; metrics ask it, generation never does.
exam: asks the judge about what the prior draws; report, contact sheet.
The first two go on where they were stopped.
"""

OUT_OF_MEMORY = "out of memory; try cameras.batch_size=1, quality=draft or a smaller density.cap."
BUG = "this is a bug in splat-esd; please report it with the lines above."


def run() -> NoReturn:
    """The program: `main` on the arguments given, its code returned to the shell."""
    # Must be set before torch is loaded. OpenMP's threads spin while they wait: long, and one other
    # program here makes a step six times slower; never, and a step alone takes twice as long.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    for stream in (sys.stdout, sys.stderr):
        # A prompt may hold characters that an old terminal has not.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Runs one command and returns its exit code; every failure ends in one line, no traceback."""
    try:
        return _dispatch(list(argv))
    except KeyboardInterrupt:
        return _failed("interrupted.", 130)
    except BrokenPipeError:
        # The reader of stdout has gone (`| head`); python must not flush into the void at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except SplatError as error:
        return _failed(str(error), error.exit_code)
    except ValueError as error:
        return _failed(str(error), UsageError.exit_code)
    except OSError as error:
        return _failed(_about_files(error), EnvironmentProblem.exit_code)
    except Exception as error:
        if type(error).__name__ in ("OutOfMemoryError", "MemoryError"):
            return _failed(OUT_OF_MEMORY, EnvironmentProblem.exit_code)
        if not _wants_traceback():
            traceback.print_exception(error)
        return _failed(BUG, 1)


def _dispatch(argv: list[str]) -> int:
    if not argv:
        argv = ["generate"]
    if argv[0] in ("-h", "--help", "help"):
        return _show(_HELP.get(argv[1], HELP) if len(argv) > 1 else HELP)
    if argv[0] in ("--version", "version"):
        return _show(f"splat-esd {_version()}\n")
    if argv[0] in _COMMANDS:
        name, arguments = argv[0], argv[1:]
    elif argv[0].isidentifier():
        raise UsageError(_no_command(argv))
    else:
        name, arguments = "generate", argv
    if any(argument in ("-h", "--help") for argument in arguments):
        return _show(_HELP[name])
    return _COMMANDS[name](arguments)


def _generate(arguments: list[str]) -> int:
    from splat_esd.config import load_config

    config = load_config(arguments)
    if config.seeds > 1 or config.keep == "best":
        from splat_esd.best import generate_seeds

        generate_seeds(config)
        return 0
    from splat_esd.generate import generate

    generate(config)
    return 0


def _export(arguments: list[str]) -> int:
    from splat_esd.config import load_export

    job = load_export(arguments)
    source = _splat_of(job.source)
    out = source.parent / "export" if job.out is None else job.out
    from splat_esd.console import files_table
    from splat_esd.export.bundle import write_files
    from splat_esd.export.ply import read_ply
    from splat_esd.results import about

    files_table(write_files(read_ply(source), out, job.export, job.mesh, about(source)))
    return 0


def _view(arguments: list[str]) -> int:
    if len(arguments) != 1:
        raise UsageError(f"view takes one run folder or .ply, got {len(arguments)} arguments.")
    source = _splat_of(Path(arguments[0]).expanduser())
    from splat_esd.console import note
    from splat_esd.export.viewer import view

    viewer = view(source)
    note(f"{source} is shown at {viewer.url} on this machine; Ctrl-C stops.")
    try:
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    finally:
        viewer.stop()
    return 0


def _compare(arguments: list[str]) -> int:
    from splat_esd.compare import main as compare

    compare(arguments)
    return 0


def _evaluate(arguments: list[str]) -> int:
    from splat_esd.evaluate import main as evaluate

    evaluate(arguments)
    return 0


def _study(arguments: list[str]) -> int:
    from splat_esd.study.run import main as study

    study(arguments)
    return 0


def _toy(arguments: list[str]) -> int:
    from splat_esd.toy.run import main as toy

    toy(arguments)
    return 0


def _doctor(arguments: list[str]) -> int:
    if arguments:
        raise UsageError(f"doctor takes no arguments, got {' '.join(arguments)}.")
    from splat_esd.doctor import examine

    return examine()


def _bench(arguments: list[str]) -> int:
    if arguments[:1] == ["raster"]:
        from splat_esd.bench.raster import main as bench
    elif arguments[:1] == ["mesh"]:
        from splat_esd.bench.mesh import main as bench
    else:
        raise UsageError("bench measures raster or mesh: splat-esd bench raster; see bench --help.")
    bench(arguments[1:])
    return 0


def _zoo(arguments: list[str]) -> int:
    if arguments[:1] == ["train"]:
        from splat_esd.zoo.train import main
    elif arguments[:1] == ["judge"]:
        from splat_esd.zoo.judge_train import main
    elif arguments[:1] == ["exam"]:
        from splat_esd.zoo.exam import main
    else:
        raise UsageError("zoo needs to know what to do: splat-esd zoo train, judge or exam.")
    main(arguments[1:])
    return 0


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "generate": _generate,
    "export": _export,
    "view": _view,
    "compare": _compare,
    "evaluate": _evaluate,
    "study": _study,
    "toy": _toy,
    "doctor": _doctor,
    "bench": _bench,
    "zoo": _zoo,
}

_HELP = {
    "generate": HELP,
    "export": EXPORT_HELP,
    "view": VIEW_HELP,
    "compare": COMPARE_HELP,
    "evaluate": EVALUATE_HELP,
    "study": STUDY_HELP,
    "toy": TOY_HELP,
    "doctor": DOCTOR_HELP,
    "bench": BENCH_HELP,
    "zoo": ZOO_HELP,
}


def _splat_of(path: Path) -> Path:
    """Returns the .ply a run folder or a file name stands for."""
    splat = path / "splat.ply" if path.is_dir() else path
    if splat.is_file():
        return splat
    if path.is_dir():
        raise UsageError(f"{path} holds no splat.ply; go on with the run by resume={path}")
    raise UsageError(f"there is no file or folder {path}.")


def _no_command(argv: list[str]) -> str:
    from splat_esd.overrides import did_you_mean

    words = " ".join(word for word in argv if "=" not in word)
    hint = did_you_mean(argv[0], _COMMANDS) or f'; did you mean splat-esd prompt="{words}"?'
    return f"no command {argv[0]!r}{hint}"


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("splat-esd")
    except PackageNotFoundError:
        return "(not installed: run from its folder)"


def _show(text: str) -> int:
    from splat_esd.paths import CONF

    sys.stdout.write(text.replace("{conf}", str(CONF)))
    sys.stdout.flush()
    return 0


def _wants_traceback() -> bool:
    return os.environ.get("SPLAT_ESD_TRACEBACK") == "1"


def _about_files(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}." if error.filename else f"{reason}."


def _failed(message: str, code: int) -> int:
    from splat_esd.console import error

    if _wants_traceback():
        traceback.print_exc()
    error(message)
    return code
