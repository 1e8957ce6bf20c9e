"""What a toy can wear: each a few parts fitted to its anchors, the main ones dyed."""

import math
from collections.abc import Callable
from dataclasses import replace

from splat_esd.zoo.world.palette import COLORS, GOLD, INK, WHITE, Triple
from splat_esd.zoo.world.primitives import Part, ball, box, cone, pair, ring, rod
from splat_esd.zoo.world.toy import Toy, dyed

_HALF_PI = math.pi / 2
JEWEL = (0.93, 0.42, 0.50)


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
    r, (x, y, z) = 1.2 * toy.brow, toy.hat
    turns = [2 * math.pi * k / 5 for k in range(5)]
    around = [(x + 0.88 * r * math.cos(t), y + 0.88 * r * math.sin(t)) for t in turns]
    spike = (0.085, 0.085, 0.12)
    return [
        *dyed([cone((x, y, z + 0.05), (r, r, 0.08), GOLD)]),
        *dyed([cone((u, v, z + 0.15), spike, GOLD, top=0.2) for u, v in around]),
        *[ball((u, v, z + 0.265), 0.042, JEWEL) for u, v in around],
        *[
            ball(
                (x + 0.97 * r * math.cos(t + 0.628), y + 0.97 * r * math.sin(t + 0.628), z + 0.05),
                0.045,
                JEWEL,
            )
            for t in turns
        ],
    ]


def scarf(toy: Toy) -> list[Part]:
    wool, tail = (0.80, 0.24, 0.26), (0.055, 0.11, 0.20)
    x, _, z = toy.chin
    return dyed(
        [
            replace(toy.neck, color=wool),
            ball((x - 0.01, 0.11, z), (0.11, 0.12, 0.11), wool),
            box((x, 0.15, z - 0.20), tail, wool, roll=0.15),
        ]
    )


def bow_tie(toy: Toy) -> list[Part]:
    silk = (0.80, 0.22, 0.30)
    x, _, z = toy.chin
    wing = cone((x + 0.02, 0.18, z), (0.17, 0.085, 0.17), silk, roll=_HALF_PI, top=0.3)
    return dyed([*pair(wing), ball((x + 0.04, 0, z), (0.085, 0.08, 0.085), silk)])


def glasses(toy: Toy) -> list[Part]:
    x, y, z = toy.eyes
    x, r = x + 0.06, toy.lens
    return dyed(
        [
            *pair(ring((x, y, z), (r + 0.025, r + 0.025, 0.038), INK, pitch=-_HALF_PI)),
            rod((x, 0.05, z + 0.03), (x, -0.05, z + 0.03), 0.036, INK),
            *pair(rod((x - 0.01, y + r, z + 0.02), toy.ear, 0.034, INK)),
        ]
    )


def backpack(toy: Toy) -> list[Part]:
    chest, cloth = toy.chest, (0.36, 0.52, 0.40)
    a, b, c = chest.radii

    def fixed(part: Part) -> Part:
        """Places a part given in the chest's axes."""
        moved = chest.rotation() @ part.center + chest.center
        return replace(part, center=tuple(map(float, moved)), pitch=chest.pitch + part.pitch)

    is_round = chest.shape in ("ellipsoid", "dome")
    round_off = math.sqrt(1 - 0.5**2) if is_round else 1.0
    strap = (a * round_off + 0.04, 0.085, c * round_off + 0.04)
    shape = chest.shape if is_round else "box"
    straps = [Part(shape, (0, side * 0.5 * b, 0), strap, cloth) for side in (1, -1)]
    bag = [
        box((-a - 0.08, 0, 0.04), (0.12, 0.22, 0.21), cloth),
        ball((-a - 0.08, 0, 0.19), (0.135, 0.21, 0.12), cloth),
    ]
    pocket = box((-a - 0.19, 0, -0.04), (0.05, 0.15, 0.10), WHITE)
    return [*dyed([fixed(p) for p in (*straps, *bag)]), fixed(pocket)]


ACCESSORIES: dict[str, Callable[[Toy], list[Part]]] = {
    "top hat": top_hat,
    "scarf": scarf,
    "crown": crown,
    "backpack": backpack,
    "glasses": glasses,
    "bow tie": bow_tie,
}
