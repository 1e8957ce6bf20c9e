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
from typing import NoReturn

from splat_esd.cli.help import HELP
from splat_esd.errors import EnvironmentProblem, SplatError, UsageError, did_you_mean

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
    """Runs one command and returns its exit code; every failure but a bug ends in one line."""
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
        return _show(HELP.get(argv[1] if len(argv) > 1 else "generate", HELP["generate"]))
    if argv[0] in ("--version", "version"):
        return _show(f"splat-esd {_version()}\n")
    if argv[0] in _COMMANDS:
        name, arguments = argv[0], argv[1:]
    elif argv[0].isidentifier():
        raise UsageError(_no_command(argv))
    else:
        name, arguments = "generate", argv
    if any(argument in ("-h", "--help") for argument in arguments):
        return _show(HELP[name])
    return _COMMANDS[name](arguments)


def _generate(arguments: list[str]) -> int:
    from splat_esd.config.load import load_config

    config = load_config(arguments)
    if config.seeds > 1 or config.keep == "best":
        from splat_esd.study.seeds import generate_seeds

        generate_seeds(config)
        return 0
    from splat_esd.runs.generate import generate

    generate(config)
    return 0


def _export(arguments: list[str]) -> int:
    from splat_esd.config.load import load_export

    job = load_export(arguments)
    from splat_esd.formats.ply import read_ply, splat_file

    source = splat_file(job.source)
    out = source.parent / "export" if job.out is None else job.out
    from splat_esd.console import files_table
    from splat_esd.export.bundle import write_files
    from splat_esd.runs.summary import describe

    files_table(write_files(read_ply(source), out, job.export, job.mesh, describe(source)))
    return 0


def _view(arguments: list[str]) -> int:
    if len(arguments) != 1:
        raise UsageError(f"view takes one run folder or .ply, got {len(arguments)} arguments.")
    from splat_esd.formats.ply import splat_file

    source = splat_file(arguments[0])
    from splat_esd.console import note
    from splat_esd.export.live_viewer import view

    viewer = view(source)
    note(f"{source} is shown at {viewer.url} on this machine; Ctrl-C stops.")
    try:
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    finally:
        viewer.stop()
    return 0


def _compare(arguments: list[str]) -> int:
    from splat_esd.cli.compare import main as compare

    compare(arguments)
    return 0


def _evaluate(arguments: list[str]) -> int:
    from splat_esd.metrics.evaluate import main as evaluate

    evaluate(arguments)
    return 0


def _study(arguments: list[str]) -> int:
    from splat_esd.study.run import main as study

    study(arguments)
    return 0


def _toy(arguments: list[str]) -> int:
    from splat_esd.plane.run import main as toy

    toy(arguments)
    return 0


def _doctor(arguments: list[str]) -> int:
    if arguments:
        raise UsageError(f"doctor takes no arguments, got {' '.join(arguments)}.")
    from splat_esd.cli.doctor import examine

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
        from splat_esd.zoo.prior.train import main
    elif arguments[:1] == ["judge"]:
        from splat_esd.zoo.judge.train import main
    elif arguments[:1] == ["exam"]:
        from splat_esd.zoo.judge.evaluate_prior import main
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


def _no_command(argv: list[str]) -> str:
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
