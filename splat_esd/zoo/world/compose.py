"""From what is asked for to the parts that show it."""

from dataclasses import replace
from functools import cache

import numpy as np

from splat_esd.zoo.world.accessories import ACCESSORIES
from splat_esd.zoo.world.captions import Composition
from splat_esd.zoo.world.objects import OBJECTS
from splat_esd.zoo.world.palette import COLORS
from splat_esd.zoo.world.primitives import Part
from splat_esd.zoo.world.surface import mesh

RADIUS = 0.78  # of the ball around the origin that every composition just fits into


def build(composition: Composition) -> list[Part]:
    """Returns the parts of a composition; the dyed ones take the colours that are asked for.

    It stands in the middle and as large as `RADIUS` allows, whatever it wears.
    """
    parts, worn = _made(composition.object, composition.accessory)
    return _paint(parts, composition.color) + _paint(worn, composition.accessory_color)


@cache
def _made(object: str, accessory: str | None) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Returns the parts of an object and of what it wears, in place and in natural colours."""
    toy = OBJECTS[object]()
    worn = [] if accessory is None else ACCESSORIES[accessory](toy)
    vertices = mesh([*toy.parts, *worn])[0]
    # Left and right stay as they are: the toys are mirrored across y = 0.
    middle = (vertices.min(0) + vertices.max(0)) / 2 * (1, 0, 1)
    scale = RADIUS / np.linalg.norm(vertices - middle, axis=-1).max()
    placed, placed_worn = (
        tuple(_placed(part, middle, float(scale)) for part in parts) for parts in (toy.parts, worn)
    )
    return placed, placed_worn


def _placed(part: Part, middle: np.ndarray, scale: float) -> Part:
    center = (float(c - m) * scale for c, m in zip(part.center, middle, strict=True))
    return replace(part, center=tuple(center), radii=tuple(scale * r for r in part.radii))


def _paint(parts: tuple[Part, ...], color: str | None) -> list[Part]:
    if color is None:
        return list(parts)
    return [replace(part, color=COLORS[color]) if part.dyed else part for part in parts]
