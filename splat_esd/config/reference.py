"""The tables of keys in `--help` and conf/README.md, made from the models of the settings.

`python -m splat_esd.config.reference > conf/README.md` writes the second anew.
"""

import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from splat_esd.config.load import FROM_PRIOR, Config
from splat_esd.paths import CONF

_WIDTH, _KEY_WIDTH = 80, 27
_HEAD = """\
# Every setting

*Made by `python -m splat_esd.config.reference > conf/README.md`; a test compares.*

`splat-esd prompt="a corgi" guidance=vsd cameras.batch_size=2` sets a group (`guidance`, a folder of
files here) and a key. The defaults stand in `splat_esd/config/schema.py`; a file here holds what it
changes. The same in Python: `Config(prompt="a corgi", cameras=CamerasConfig(batch_size=2))`.

A null in {null} means: what the prior recommends. config.yaml in the run's folder holds the number.

Many runs and one report, `splat-esd study NAME`: [experiment/README.md](experiment/README.md).
"""


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yields every dotted key of a model, its sections' too, with its field."""
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, f"{key}.")
        else:
            yield key, field


def help_table(model: type[BaseModel], names: Sequence[str] = ()) -> str:
    """Returns lines `key=default   what it means` for these keys of a model, or for all of them."""
    fields = dict(keys(model))
    lines = []
    for name in names or fields:
        field = fields[name]
        left = f"  {name}" if field.is_required() else f"  {name}={written(field.default)}"
        meaning = textwrap.wrap(field.description or "", _WIDTH - _KEY_WIDTH)
        if len(left) < _KEY_WIDTH - 1:
            lines.append(left.ljust(_KEY_WIDTH) + meaning.pop(0))
        else:
            lines.append(left)
        lines += [" " * _KEY_WIDTH + line for line in meaning]
    return "\n".join(lines)


def markdown() -> str:
    """Returns the text of conf/README.md: one table for the run, one for each of its sections."""
    null = ", ".join(f"`{name}`" for name in FROM_PRIOR)
    parts = [_HEAD.format(null=null)]
    own = [(n, f) for n, f in keys(Config) if n in Config.model_fields]
    parts.append(_section("The run", "", own))
    for name, field in Config.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            said = " ".join((kind.__doc__ or "").split())
            typed = field.alias or name
            parts.append(_section(typed, said + _choices(name), list(keys(kind, f"{typed}."))))
            if name == "prior":
                parts.append(_recipes())
    return "\n".join(parts)


def _section(title: str, said: str, rows: list[tuple[str, FieldInfo]]) -> str:
    lines = [f"## {title}", ""] + ([said, ""] if said else []) + ["| key | default | meaning |"]
    lines.append("|---|---|---|")
    for name, field in rows:
        default = "" if field.is_required() else f"`{written(field.default)}`"
        if name in FROM_PRIOR:
            default = "`null`"
        lines.append(
            f"| `{name}` | {default} | {(field.description or '').replace('|', '&#124;')} |"
        )
    return "\n".join(lines) + "\n"


def _recipes() -> str:
    """Returns what the large priors set and where it is from, which their files say beside it."""
    lines = ["### What a prior sets, and from where", "", "| file | key | value | from |"]
    lines.append("|---|---|---|---|")
    for file in sorted((CONF / "prior").glob("*.yaml")):
        for line in file.read_text(encoding="utf-8").splitlines():
            found = re.fullmatch(r"(\w+): (\S.*?)\s+# (.+)", line)
            if found:
                lines.append("| `{}` | `{}` | `{}` | {} |".format(file.stem, *found.groups()))
    return "\n".join(lines) + "\n"


def _choices(group: str) -> str:
    files = sorted((CONF / group).glob("[!_]*.yaml")) if (CONF / group).is_dir() else []
    if not files:
        return ""
    return "\n\n" + "\n".join(f"- `{group}={file.stem}`: {_first_comment(file)}" for file in files)


def _first_comment(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if not line.startswith("# @")).removeprefix("# ")


def written(value: Any) -> str:
    """Returns a value as it is typed after `key=`: 0.5, true, null, [1,2], text."""
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value).removesuffix(".0")


if __name__ == "__main__":
    sys.stdout.write(markdown())
