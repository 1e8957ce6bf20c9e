"""What a toy can wear: each a few parts fitted to its anchors, the main ones dyed."""

import math
from collections.abc import Callable
from dataclasses import replace

from splat_esd.zoo.palette import COLORS, GOLD, INK, WHITE, Triple
from splat_esd.zoo.primitives import Part, ball, box, cone, pair, ring
from splat_esd.zoo.toy import Toy, dyed

_HALF_PI = math.pi / 2


def _above(point: Triple, height: float) -> Triple:
    return (point[0], point[1], point[2] + height)


def top_hat(toy: Toy) -> list[Part]:
    r, felt = toy.brow, COLORS["black"]
    return [
        *dyed([cone(_above(toy.hat, 0.01), (1.5 * r, 1.5 * r, 0.035), felt)]),
        *dyed([cone(_above(toy.hat, 0.17), (r, r, 0.17), felt)]),
        cone(_above(toy.hat, 0.075), (1.04 * r, 1.04 * r, 0.045), (0.80, 0.25, 0.28)),
    ]


def crown(toy: Toy) -> list[Part]:
    r = 1.15 * toy.brow
    turns = [2 * math.pi * k / 6 for k in range(6)]
    points = [(toy.hat[0] + 0.9 * r * math.cos(t), 0.9 * r * math.sin(t)) for t in turns]
    return [
        *dyed([cone(_above(toy.hat, 0.05), (r, r, 0.08), GOLD)]),
        *dyed(
            [cone((x, y, toy.hat[2] + 0.15), (0.09, 0.09, 0.11), GOLD, top=0.1) for x, y in points]
        ),
        *[ball((x, y, toy.hat[2] + 0.25), 0.038, WHITE) for x, y in points],
    ]


def scarf(toy: Toy) -> list[Part]:
    wool = (0.80, 0.24, 0.26)
    x, _, z = toy.chin
    return dyed(
        [
            replace(toy.neck, color=wool),
            ball((x - 0.02, 0.10, z), (0.08, 0.09, 0.08), wool),
            box((x - 0.01, 0.13, z - 0.17), (0.04, 0.075, 0.16), wool, roll=0.15),
        ]
    )


def bow_tie(toy: Toy) -> list[Part]:
    silk = (0.80, 0.22, 0.30)
    x, _, z = toy.chin
    wing = cone((x, 0.11, z), (0.09, 0.05, 0.10), silk, roll=_HALF_PI, top=0.35)
    return dyed([*pair(wing), ball((x + 0.01, 0, z), (0.055, 0.05, 0.055), silk)])


def glasses(toy: Toy) -> list[Part]:
    x, y, z = toy.eyes
    x, r = x + 0.06, toy.lens
    bridge = max(y - r, 0.02) + 0.02
    return dyed(
        [
            *pair(ring((x, y, z), (r + 0.015, r + 0.015, 0.028), INK, pitch=-_HALF_PI)),
            cone((x, 0, z + 0.02), (0.024, 0.024, bridge), INK, roll=_HALF_PI),
            *pair(box((x - 0.15, y + r, z + 0.02), (0.16, 0.022, 0.026), INK)),
        ]
    )


def backpack(toy: Toy) -> list[Part]:
    chest, cloth = toy.chest, (0.36, 0.52, 0.40)
    a, b, c = chest.radii

    def fixed(part: Part) -> Part:
        """Places a part given in the chest's axes."""
        moved = chest.rotation() @ part.center + chest.center
        return replace(part, center=tuple(map(float, moved)), pitch=chest.pitch + part.pitch)

    round_off = math.sqrt(1 - 0.5**2) if chest.shape == "ellipsoid" else 1.0
    strap = (a * round_off + 0.025, 0.045, c * round_off + 0.025)
    shape = "ellipsoid" if chest.shape == "ellipsoid" else "box"
    straps = [Part(shape, (0, side * 0.5 * b, 0), strap, cloth) for side in (1, -1)]
    bag = [
        box((-a - 0.10, 0, 0.0), (0.14, 0.22, 0.22), cloth),
        ball((-a - 0.10, 0, 0.16), (0.15, 0.21, 0.12), cloth),
    ]
    pocket = box((-a - 0.23, 0, -0.07), (0.05, 0.15, 0.11), WHITE)
    return [*dyed([fixed(p) for p in (*straps, *bag)]), fixed(pocket)]


ACCESSORIES: dict[str, Callable[[Toy], list[Part]]] = {
    "top hat": top_hat,
    "scarf": scarf,
    "crown": crown,
    "backpack": backpack,
    "glasses": glasses,
    "bow tie": bow_tie,
}
