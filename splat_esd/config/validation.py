"""Validates data against a pydantic model; turns errors into one-line messages."""

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from splat_esd.errors import ConfigError, did_you_mean, nearest

Section = TypeVar("Section", bound=BaseModel)


def validate(
    model: type[Section], data: dict[str, Any], *, source: str = "", command: str = ""
) -> Section:
    """Returns the checked section; `source` names the file in the messages, `command` the help.

    Raises:
        ConfigError: With one line for each thing that is wrong.
    """
    prefix = f"{source}: " if source else ""
    try:
        text = json.dumps(data, default=str)
    except (ValueError, TypeError, RecursionError):
        raise ConfigError(f"{prefix}the keys are nested too deeply, or are no text.") from None
    try:
        return model.model_validate_json(text, by_alias=True, by_name=False)
    except ValidationError as error:
        lines: dict[str, str] = {}
        for problem in error.errors(include_url=False):
            key = ".".join(part for part in problem["loc"] if isinstance(part, str))
            lines.setdefault(key, _explain(model, key, problem, command))
        raise ConfigError("\n".join(prefix + line for line in lines.values())) from None


_EXPECTED = {
    "int": "an integer",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "tuple": "a list in brackets, as [1, 2]",
    "model": "a section of keys",
    "dict": "a section of keys",
}


def _explain(model: type[BaseModel], key: str, problem: Any, command: str) -> str:
    """Returns pydantic's problem as one line that names the key and what was wanted."""
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(model, key, command)
    if isinstance(value, dict) and value and kind.endswith(("_type", "literal_error")):
        return f"unknown key {key}.{next(iter(value))}: {key} holds one value, no keys."
    if kind == "value_error":
        return f"{key} {context['error']}"
    if kind == "missing" and isinstance(problem["loc"][-1], str):
        return f"{key} is missing."
    if kind in ("missing", "too_long", "too_short"):
        return f"{key} has the wrong number of values."
    if kind == "literal_error":
        choices = [word.strip("'") for word in re.split(", | or ", context["expected"])]
        hint = did_you_mean(str(value), choices, prefix=f"{key}=")
        return f"{key} must be one of {', '.join(choices)}, got {value!r}{hint or '.'}"
    expected = _EXPECTED.get(kind.split("_")[0], "another value")
    return f"{key} must be {expected}, got {value!r}."


def _unknown(model: type[BaseModel], key: str, command: str) -> str:
    """Returns the message for a key that is not there, with the nearest one that is."""
    # A key is also known by its last part, so that `lamda` and `prior.lambda` find their way.
    known = {name.split(".")[-1]: name for name in _keys(model)}
    known |= {name: name for name in _keys(model)}
    last = key.split(".")[-1]
    near = last if last in known else nearest(key, known) or nearest(last, known)
    where = " ".join(["splat-esd", *command.split()[:1], "--help"])
    hint = f"did you mean {known[near]}?" if near else f"the keys stand in {where}."
    return f"unknown key {key}; {hint}"


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yields every dotted key of a section, as it is written."""
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        yield key
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, key + ".")
