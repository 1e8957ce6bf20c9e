"""The compiled rasteriser of kernels/, for type checkers; its bindings check their arguments."""

from typing import Any

def __getattr__(name: str) -> Any: ...
