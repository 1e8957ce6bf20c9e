"""From what is asked for to the parts that show it."""

from dataclasses import replace

from splat_esd.zoo.accessories import ACCESSORIES
from splat_esd.zoo.captions import Composition
from splat_esd.zoo.objects import OBJECTS
from splat_esd.zoo.palette import COLORS
from splat_esd.zoo.primitives import Part


def build(composition: Composition) -> list[Part]:
    """Returns the parts of a composition; the dyed ones take the colours that are asked for."""
    toy = OBJECTS[composition.object]()
    parts = _paint(toy.parts, composition.color)
    if composition.accessory is None:
        return parts
    worn = ACCESSORIES[composition.accessory](toy)
    return parts + _paint(worn, composition.accessory_color)


def _paint(parts: list[Part], color: str | None) -> list[Part]:
    if color is None:
        return parts
    return [replace(part, color=COLORS[color]) if part.dyed else part for part in parts]
