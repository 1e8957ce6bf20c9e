"""The one door for YAML that a user hands over: bounded in size, depth and expansion."""

from pathlib import Path
from typing import Any

import yaml

from splat_esd.errors import ConfigError

BYTES_MAX = 256 << 10
NODES_MAX = 20_000  # with every alias written out
DEPTH_MAX = 40


def read_yaml_file(path: Path) -> Any:
    """Returns the data of a YAML file.

    Raises:
        ConfigError: If it is not UTF-8, too long, not YAML, or expands beyond the limits.
        OSError: If it cannot be opened.
    """
    if path.stat().st_size > BYTES_MAX:
        raise ConfigError(f"{path} is longer than {BYTES_MAX >> 10} KiB; settings are short.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text.") from None
    return read_yaml(text, source=str(path))


def read_yaml(text: str, *, source: str) -> Any:
    """Returns the data of a YAML text; nothing is expanded before it is counted.

    Arguments:
        source: The name of the file, for the message.
    Raises:
        ConfigError: If it is too long, not YAML, or expands beyond the limits.
    """
    if len(text) > BYTES_MAX:
        raise ConfigError(f"{source} is longer than {BYTES_MAX >> 10} KiB; settings are short.")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _weigh(node, {}, source, 0)
        return loader.construct_document(node)
    except ConfigError:
        raise
    except Exception as error:  # the parser's own, and what its constructors raise
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{source} is not readable as YAML{where}.") from None


def _weigh(node: yaml.Node, known: dict[int, int | None], source: str, depth: int) -> int:
    """Counts the nodes below one as if every alias were written out.

    Raises:
        ConfigError: If there are too many, or one is inside itself.
    """
    if depth > DEPTH_MAX:
        raise ConfigError(f"{source} is nested more than {DEPTH_MAX} levels deep.")
    if id(node) in known:
        weight = known[id(node)]
        if weight is None:
            raise ConfigError(f"{source} refers to itself, line {node.start_mark.line + 1}.")
        return weight
    known[id(node)] = None
    inner = [] if isinstance(node, yaml.ScalarNode) else node.value
    if isinstance(node, yaml.MappingNode):
        inner = [part for pair in node.value for part in pair]
    weight = 1
    for part in inner:
        weight += _weigh(part, known, source, depth + 1)
        if weight > NODES_MAX:
            raise ConfigError(f"{source} expands to more than {NODES_MAX} values.")
    known[id(node)] = weight
    return weight
