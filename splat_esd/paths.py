"""Where the configuration and the assets lie, in a wheel and in a checkout alike."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _shipped(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


CONF = _shipped("conf")
ASSETS = _shipped("assets")
