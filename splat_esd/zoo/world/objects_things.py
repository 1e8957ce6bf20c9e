"""Toys without a face: mushroom, cactus, tree, house, car, rocket, teapot, chair, cake."""

import math

from splat_esd.zoo.world.palette import (
    BROWN,
    CARROT,
    CREAM,
    GOLD,
    GREY,
    INK,
    PINK,
    ROSE,
    SKY,
    SLATE,
    UMBER,
    WHITE,
)
from splat_esd.zoo.world.primitives import ball, box, cone, dome, pair, ring
from splat_esd.zoo.world.toy import Toy, dyed

_QUARTER = math.pi / 2
_RED = (0.87, 0.24, 0.22)


def _around(count: int, radius: float, z: float, *, start: float = 0.0) -> list[tuple]:
    """Returns points on a circle around the vertical."""
    turns = [start + 2 * math.pi * k / count for k in range(count)]
    return [(radius * math.cos(t), radius * math.sin(t), z) for t in turns]


def mushroom() -> Toy:
    parts = [
        *dyed([dome((0, 0, 0.03), (0.60, 0.60, 0.52), _RED)]),
        cone((0, 0, -0.09), (0.48, 0.48, 0.05), CREAM),
        cone((0, 0, -0.34), (0.27, 0.27, 0.30), WHITE, top=0.8),
        ball((0, 0, -0.53), (0.32, 0.32, 0.13), WHITE),
        ball((0, 0, 0.54), (0.14, 0.14, 0.045), WHITE),
        *[ball(p, (0.105, 0.105, 0.095), WHITE) for p in _around(5, 0.40, 0.38)],
        *[ball(p, (0.08, 0.08, 0.085), WHITE) for p in _around(5, 0.555, 0.10, start=0.63)],
    ]
    return Toy(
        parts,
        hat=(0, 0, 0.52),
        brow=0.19,
        eyes=(0.54, 0.15, 0.17),
        lens=0.135,
        ear=(0.10, 0.60, 0.17),
        neck=ring((0, 0, -0.22), (0.35, 0.35, 0.085), WHITE),
        chin=(0.36, 0, -0.24),
        chest=dome((0, 0, 0.03), (0.60, 0.60, 0.52), WHITE),
    )


def cactus() -> Toy:
    green = (0.38, 0.66, 0.36)
    parts = [
        *dyed([ball((0, 0, 0.06), (0.25, 0.25, 0.46), green)]),
        *dyed([ball((0, 0.34, 0.0), (0.11, 0.20, 0.11), green)]),
        *dyed([ball((0, 0.47, 0.14), (0.115, 0.115, 0.23), green)]),
        *dyed([ball((0, -0.33, 0.10), (0.10, 0.18, 0.10), green)]),
        *dyed([ball((0, -0.45, 0.22), (0.105, 0.105, 0.20), green)]),
        *[
            ball((x * 0.8, y * 0.8, z), 0.028, CREAM)
            for z, start in ((0.30, 0.0), (0.12, 0.4), (-0.06, 0.0))
            for x, y, _ in _around(7, 0.29 - 0.18 * max(z - 0.1, 0), z, start=start)
        ],
        *[ball(p, (0.09, 0.09, 0.055), PINK) for p in _around(5, 0.09, 0.52)],
        ball((0, 0, 0.54), 0.055, GOLD),
        cone((0, 0, -0.46), (0.30, 0.30, 0.19), (0.83, 0.47, 0.30), pitch=math.pi, top=0.75),
        cone((0, 0, -0.30), (0.33, 0.33, 0.07), (0.88, 0.53, 0.35)),
        ball((0, 0, -0.25), (0.27, 0.27, 0.06), UMBER),
    ]
    return Toy(
        parts,
        hat=(0, 0, 0.48),
        brow=0.17,
        eyes=(0.26, 0.13, 0.24),
        lens=0.12,
        ear=(0.0, 0.27, 0.24),
        neck=ring((0, 0, -0.10), (0.33, 0.33, 0.085), WHITE),
        chin=(0.30, 0, -0.06),
        chest=ball((0, 0, 0.06), (0.25, 0.25, 0.44), WHITE),
    )


def tree() -> Toy:
    green = (0.30, 0.58, 0.32)
    parts = [
        cone((0, 0, -0.50), (0.15, 0.15, 0.17), BROWN),
        *dyed([cone((0, 0, -0.18), (0.54, 0.54, 0.23), green, top=0.3)]),
        *dyed([cone((0, 0, 0.14), (0.43, 0.43, 0.22), green, top=0.3)]),
        *dyed([cone((0, 0, 0.44), (0.32, 0.32, 0.24), green, top=0.05)]),
        *[ball(p, 0.058, _RED) for p in _around(6, 0.485, -0.29)],
        *[ball(p, 0.058, GOLD) for p in _around(5, 0.38, 0.04, start=0.5)],
        *[ball(p, 0.052, _RED) for p in _around(4, 0.265, 0.33, start=0.2)],
    ]
    return Toy(
        parts,
        hat=(0, 0, 0.50),
        brow=0.17,
        eyes=(0.38, 0.14, 0.12),
        lens=0.13,
        ear=(0.0, 0.40, 0.12),
        neck=ring((0, 0, -0.01), (0.46, 0.46, 0.085), WHITE),
        chin=(0.47, 0, -0.06),
        chest=ball((0, 0, -0.14), (0.46, 0.46, 0.48), WHITE),
    )


def house() -> Toy:
    parts = [
        *dyed([box((0, 0, -0.30), (0.40, 0.44, 0.30), CREAM)]),
        *dyed([box((0, 0, 0.0), (0.39, 0.31, 0.31), CREAM, roll=math.pi / 4)]),
        *dyed(pair(box((0, 0.26, 0.20), (0.52, 0.42, 0.055), _RED, roll=-math.pi / 4))),
        box((-0.20, 0.28, 0.42), (0.09, 0.09, 0.18), (0.66, 0.38, 0.30)),
        box((0.38, 0, -0.36), (0.05, 0.12, 0.24), BROWN),
        ball((0.44, 0.06, -0.38), 0.032, GOLD),
        ball((0.365, 0, 0.14), (0.05, 0.14, 0.14), WHITE),
        ball((0.385, 0, 0.14), (0.05, 0.10, 0.10), SKY),
        *pair(box((0.37, 0.28, -0.24), (0.045, 0.115, 0.125), WHITE)),
        *pair(box((0.38, 0.28, -0.24), (0.05, 0.08, 0.09), SKY)),
        *pair(box((0, 0.41, -0.25), (0.17, 0.045, 0.135), WHITE)),
        *pair(box((0, 0.42, -0.25), (0.13, 0.05, 0.095), SKY)),
        box((-0.37, 0, -0.23), (0.045, 0.21, 0.145), WHITE),
        box((-0.38, 0, -0.23), (0.05, 0.17, 0.105), SKY),
    ]
    return Toy(
        parts,
        hat=(0.06, 0, 0.50),
        brow=0.18,
        eyes=(0.42, 0.15, 0.08),
        lens=0.13,
        ear=(0.2, 0.30, 0.08),
        neck=box((0, 0, -0.10), (0.46, 0.50, 0.075), WHITE),
        chin=(0.46, 0, -0.08),
        chest=box((0, 0, -0.28), (0.40, 0.44, 0.30), WHITE),
    )


def car() -> Toy:
    teal = (0.25, 0.68, 0.66)
    parts = [
        *dyed([box((0, 0, -0.22), (0.66, 0.36, 0.17), teal)]),
        *dyed([box((-0.08, 0, 0.06), (0.38, 0.31, 0.22), teal, top=0.75)]),
        box((-0.08, 0, 0.07), (0.39, 0.25, 0.14), SKY, top=0.75),
        box((-0.08, 0, 0.07), (0.30, 0.32, 0.14), SKY, top=0.75),
        *[
            cone((x, y, -0.36), (0.17, 0.17, 0.08), INK, roll=_QUARTER)
            for x in (-0.38, 0.38)
            for y in (-0.33, 0.33)
        ],
        *[
            ball((x, y, -0.36), (0.09, 0.03, 0.09), WHITE)
            for x in (-0.38, 0.38)
            for y in (-0.41, 0.41)
        ],
        *pair(ball((0.64, 0.24, -0.17), (0.05, 0.08, 0.08), GOLD)),
        *pair(box((-0.65, 0.25, -0.17), (0.03, 0.07, 0.05), ROSE)),
        box((0.65, 0, -0.20), (0.03, 0.12, 0.05), SLATE),
        box((0.64, 0, -0.34), (0.06, 0.36, 0.045), GREY),
        box((-0.64, 0, -0.34), (0.06, 0.36, 0.045), GREY),
    ]
    return Toy(
        parts,
        hat=(-0.08, 0, 0.27),
        brow=0.18,
        eyes=(0.68, 0.22, -0.17),
        lens=0.135,
        ear=(0.40, 0.37, -0.10),
        neck=box((0, 0, -0.12), (0.70, 0.40, 0.07), WHITE),
        chin=(0.71, 0, -0.18),
        chest=box((-0.12, 0, -0.05), (0.34, 0.34, 0.30), WHITE),
    )


def rocket() -> Toy:
    parts = [
        *dyed([ball((0, 0, 0.02), (0.30, 0.30, 0.62), _RED)]),
        ball((0, 0, 0.34), (0.262, 0.262, 0.36), WHITE),
        cone((0, 0, -0.53), (0.20, 0.20, 0.06), SLATE),
        ball((0, 0, -0.60), (0.13, 0.13, 0.09), CARROT),
        ring((0.275, 0, 0.12), (0.155, 0.155, 0.042), GOLD, pitch=-_QUARTER),
        ball((0.25, 0, 0.12), (0.06, 0.12, 0.12), SKY),
        *[
            box((x, y, -0.42), (0.20, 0.05, 0.23), WHITE, yaw=math.atan2(y, x), top=0.25)
            for x, y, _ in _around(4, 0.29, 0.0, start=math.pi / 4)
        ],
    ]
    return Toy(
        parts,
        hat=(0, 0, 0.52),
        brow=0.18,
        eyes=(0.25, 0.13, 0.38),
        lens=0.12,
        ear=(0.0, 0.27, 0.38),
        neck=ring((0, 0, -0.14), (0.37, 0.37, 0.085), WHITE),
        chin=(0.38, 0, -0.14),
        chest=ball((0, 0, 0.0), (0.30, 0.30, 0.60), WHITE),
    )


def teapot() -> Toy:
    parts = [
        *dyed([ball((0, 0, -0.16), (0.44, 0.44, 0.38), SKY)]),
        *dyed([cone((0.50, 0, -0.10), (0.10, 0.10, 0.24), SKY, pitch=-0.8, top=0.6)]),
        *dyed([ring((-0.46, 0, -0.10), (0.24, 0.26, 0.06), SKY, roll=_QUARTER)]),
        *dyed([ball((0, 0, 0.18), (0.27, 0.27, 0.12), SKY)]),
        ring((0, 0, 0.14), (0.30, 0.30, 0.04), WHITE),
        ball((0, 0, 0.34), 0.09, WHITE),
        cone((0, 0, -0.52), (0.27, 0.27, 0.05), WHITE),
        *[ball(p, (0.06, 0.06, 0.06), WHITE) for p in _around(8, 0.41, -0.14, start=0.39)],
    ]
    return Toy(
        parts,
        hat=(0, 0, 0.27),
        brow=0.19,
        eyes=(0.39, 0.17, 0.02),
        lens=0.13,
        ear=(0.0, 0.45, 0.02),
        neck=ring((0, 0, 0.05), (0.44, 0.44, 0.085), WHITE),
        chin=(0.34, 0, 0.17),
        chest=ball((0, 0, -0.16), (0.44, 0.44, 0.38), WHITE),
    )


def chair() -> Toy:
    parts = [
        *dyed([box((0.02, 0, -0.16), (0.40, 0.40, 0.10), ROSE)]),
        *dyed([box((-0.32, 0, 0.22), (0.09, 0.38, 0.36), ROSE, pitch=0.12)]),
        *[
            cone((x, y, -0.44), (0.065, 0.065, 0.20), BROWN, pitch=math.pi, top=0.7)
            for x in (-0.28, 0.32)
            for y in (-0.30, 0.30)
        ],
        *pair(box((0.0, 0.40, 0.06), (0.30, 0.06, 0.05), BROWN)),
        *pair(box((0.24, 0.40, -0.04), (0.05, 0.05, 0.10), BROWN)),
        *[
            ball((-0.235, y, z), (0.03, 0.04, 0.04), WHITE)
            for y in (-0.17, 0.17)
            for z in (0.16, 0.38)
        ],
    ]
    return Toy(
        parts,
        hat=(-0.36, 0, 0.55),
        brow=0.17,
        eyes=(-0.22, 0.15, 0.33),
        lens=0.13,
        ear=(-0.34, 0.36, 0.33),
        neck=box((-0.345, 0, 0.38), (0.135, 0.42, 0.075), WHITE, pitch=0.12),
        chin=(-0.20, 0, 0.34),
        chest=box((-0.32, 0, 0.22), (0.09, 0.38, 0.36), WHITE, pitch=0.12),
    )


def cake() -> Toy:
    parts = [
        cone((0, 0, -0.55), (0.60, 0.60, 0.05), GREY),
        *dyed([cone((0, 0, -0.34), (0.50, 0.50, 0.18), PINK)]),
        *dyed([cone((0, 0, 0.02), (0.34, 0.34, 0.20), PINK)]),
        ring((0, 0, -0.16), (0.53, 0.53, 0.06), WHITE),
        ring((0, 0, 0.21), (0.36, 0.36, 0.055), WHITE),
        *[ball(p, 0.06, WHITE) for p in _around(12, 0.49, -0.46)],
        *[ball(p, 0.055, _RED) for p in _around(6, 0.25, 0.25)],
        cone((0, 0, 0.33), (0.05, 0.05, 0.13), SKY),
        ball((0, 0, 0.52), (0.055, 0.055, 0.085), GOLD),
    ]
    return Toy(
        parts,
        hat=(0, 0, 0.26),
        brow=0.20,
        eyes=(0.35, 0.15, 0.05),
        lens=0.125,
        ear=(0.0, 0.36, 0.05),
        neck=ring((0, 0, -0.31), (0.58, 0.58, 0.08), WHITE),
        chin=(0.59, 0, -0.24),
        chest=cone((0, 0, 0.0), (0.34, 0.34, 0.20), WHITE),
    )
