"""The command line: which command is meant, and what a failure says and returns.

Exit codes: 0 done, 1 a bug here, 2 a mistake in what was asked, 3 this machine cannot do it,
130 interrupted, 141 the reader of the output has gone.
Everything heavy is imported by the command that needs it, so help and mistakes answer at once.
"""

import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, NoReturn

from splat_esd.cli.commands import COMMANDS
from splat_esd.cli.environment import prepare
from splat_esd.cli.help import HELP
from splat_esd.errors import EnvironmentProblem, SplatError, UsageError, did_you_mean
from splat_esd.runs.launcher import leads

INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it
OUT_OF_MEMORY = "out of memory; try cameras.batch_size=1, quality=draft or a smaller density.cap."
BUG = "this is a bug in splat-esd; please report it with the lines above."


def run() -> NoReturn:
    """The program: `main` on the arguments given, its code returned to the shell."""
    prepare()
    for stream in (sys.stdout, sys.stderr):
        # A prompt may hold characters that an old terminal has not.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with _quiet_unless_first():
        code = main(sys.argv[1:])
    if code == INTERRUPTED:
        # One more of the same Ctrl-C must not kill what is only closing its files.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            _close(stream)
    if not leads():
        os._exit(code)  # gloo's threads, taken down, have aborted a follower whose work was done
    sys.exit(code)


@contextmanager
def _quiet_unless_first() -> Iterator[None]:
    """Leaves speaking to the first of the processes that a launcher started."""
    with ExitStack() as streams:
        if not leads():
            nowhere = streams.enter_context(open(os.devnull, "w", encoding="utf-8"))
            streams.enter_context(redirect_stdout(nowhere))
            streams.enter_context(redirect_stderr(nowhere))
        yield


def main(argv: Sequence[str]) -> int:
    """Runs one command and returns its exit code; every failure but a bug ends in one line."""
    try:
        return _dispatch(list(argv))
    except KeyboardInterrupt as error:
        return _failed("interrupted.", getattr(error, "exit_code", INTERRUPTED), wanted=True)
    except BrokenPipeError:
        # The reader of stdout has gone (`| head`); python must not flush into the void at exit.
        _close(sys.stdout)
        return 141
    except SplatError as error:
        return _failed(str(error), error.exit_code)
    except OSError as error:
        return _failed(_about_files(error), EnvironmentProblem.exit_code)
    except Exception as error:
        if type(error).__name__ in ("OutOfMemoryError", "MemoryError"):
            return _failed(OUT_OF_MEMORY, EnvironmentProblem.exit_code)
        if not _wants_traceback():
            with suppress(OSError):
                traceback.print_exception(error)
        return _failed(BUG, 1)


def _close(stream: Any) -> None:
    """Lets what a stream still holds go nowhere, so that python does not stumble at exit."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _dispatch(argv: list[str]) -> int:
    if not argv:
        argv = ["generate"]
    if argv[0] in ("-h", "--help", "help"):
        return _show(HELP.get(argv[1] if len(argv) > 1 else "generate", HELP["generate"]))
    if argv[0] in ("--version", "version"):
        return _show(f"splat-esd {_version()}\n")
    name, arguments = _split(argv)
    if any(argument in ("-h", "--help") for argument in arguments):
        return _show(HELP[name.split()[0]])
    if name not in COMMANDS:
        ways = " | ".join(key for key in COMMANDS if key.startswith(f"{name} "))
        raise UsageError(f"{name} needs to know what to do: {ways}; see splat-esd {name} --help.")
    command = COMMANDS[name]
    asked = command.read(arguments)
    return command.run(asked) or 0


def _split(argv: list[str]) -> tuple[str, list[str]]:
    """Returns the command, of one word or two, and its arguments; without a command: generate."""
    pair = " ".join(argv[:2])
    if pair in COMMANDS:
        return pair, argv[2:]
    if argv[0] in HELP:
        return argv[0], argv[1:]
    if argv[0].isidentifier():
        raise UsageError(_no_command(argv))
    return "generate", argv


def _no_command(argv: list[str]) -> str:
    words = " ".join(word for word in argv if "=" not in word)
    hint = did_you_mean(argv[0], HELP) or f'; did you mean splat-esd prompt="{words}"?'
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


def _failed(message: str, code: int, *, wanted: bool = False) -> int:
    from splat_esd import console

    if _wants_traceback():
        traceback.print_exc()
    (console.note if wanted else console.error)(message)
    return code
