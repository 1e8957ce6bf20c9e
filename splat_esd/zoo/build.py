"""From what is asked for to the parts that show it."""

from dataclasses import replace
from typing import Protocol

from splat_esd.zoo.accessories import ACCESSORIES
from splat_esd.zoo.objects import OBJECTS
from splat_esd.zoo.palette import COLORS
from splat_esd.zoo.primitives import Part


class Asked(Protocol):
    """What a composition says: names of an object, an accessory and their colours, or None."""

    @property
    def object(self) -> str: ...
    @property
    def color(self) -> str | None: ...
    @property
    def accessory(self) -> str | None: ...
    @property
    def accessory_color(self) -> str | None: ...


def build(composition: Asked) -> list[Part]:
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
