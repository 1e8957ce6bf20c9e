"""What a toy is: its parts, and where things are worn; eyes and other features all toys share."""

from dataclasses import dataclass, replace

import numpy as np

from splat_esd.zoo.world.palette import INK, WHITE, Color, Triple
from splat_esd.zoo.world.primitives import Part, ball, pair


@dataclass(frozen=True)
class Toy:
    """A toy in its natural colours, and the places where accessories sit.

    Arguments:
        parts: What it is made of; front towards +x, left +y, up +z.
        hat: The point a hat stands on.
        brow: Radius of the head under the hat.
        eyes: Middle of the left lens of glasses; the right one mirrors it.
        lens: Radius of the lenses.
        ear: Where the left temple of glasses ends.
        neck: The ring or box a scarf is; only its shape is used.
        chin: Where a bow tie is tied.
        chest: The solid a backpack is strapped to; the pack sits at its own -x side.
    """

    parts: list[Part]
    hat: Triple
    brow: float
    eyes: Triple
    lens: float
    ear: Triple
    neck: Part
    chin: Triple
    chest: Part


def on(part: Part, y: float | int, z: float | int, *, out: float = 0.0) -> Triple:
    """Returns the point (x, y, z) on the front of an upright ellipsoid, moved `out` along +x."""
    (cx, cy, cz), (rx, ry, rz) = part.center, part.radii
    inside = 1 - ((y - cy) / ry) ** 2 - ((z - cz) / rz) ** 2
    return (cx + rx * float(np.sqrt(max(inside, 0.0))) + out, y, z)


def dyed(parts: list[Part]) -> list[Part]:
    """Returns parts that take the colour that is asked for."""
    return [replace(part, dyed=True) for part in parts]


def eyes(at: Triple, size: float, color: Color = INK, *, rim: Color | None = WHITE) -> list[Part]:
    """Returns two eyes, the left one at a point: a pale rim, a pupil `size` in radius, a glint."""
    x, y, z = at
    pupil = ball((x + 0.35 * size, y, z), (0.62 * size, size, size * 1.08), color)
    glint = ball((x + 0.85 * size, y - 0.22 * size, z + 0.42 * size), 0.36 * size, WHITE)
    white = [] if rim is None else pair(ball(at, (0.62 * size, 1.33 * size, 1.38 * size), rim))
    return [*white, *pair(pupil), *pair(glint)]
