"""Toys: frog, penguin, owl, snowman, robot."""

from splat_esd.zoo.world.palette import (
    BROWN,
    CARROT,
    CREAM,
    GOLD,
    INK,
    LEAF,
    PINK,
    SKY,
    SLATE,
    TAN,
    UMBER,
    WHITE,
)
from splat_esd.zoo.world.primitives import ball, box, cone, pair, ring
from splat_esd.zoo.world.toy import Toy, dyed, eyes, on


def frog() -> Toy:
    pale = (0.83, 0.92, 0.62)
    head = ball((0.06, 0, 0.06), (0.36, 0.46, 0.26), LEAF)
    body = ball((-0.08, 0, -0.32), (0.36, 0.36, 0.30), LEAF)
    parts = [
        *dyed([head, body]),
        ball((0.10, 0, -0.32), (0.24, 0.26, 0.25), pale),
        ball((0.12, 0, -0.02), (0.31, 0.38, 0.17), pale),
        ball((0.28, 0, 0.02), (0.15, 0.27, 0.025), (0.62, 0.22, 0.24)),
        *dyed(pair(ball((0.10, 0.24, 0.32), (0.15, 0.15, 0.15), LEAF))),
        *eyes((0.19, 0.245, 0.345), 0.075),
        *pair(ball((0.405, 0.06, 0.12), 0.022, SLATE)),
        *dyed(pair(cone((0.20, 0.24, -0.46), (0.08, 0.08, 0.16), LEAF))),
        *pair(ball((0.27, 0.26, -0.61), (0.15, 0.13, 0.05), pale)),
        *dyed(pair(ball((-0.12, 0.36, -0.44), (0.28, 0.14, 0.17), LEAF, pitch=0.25))),
        *pair(ball((-0.04, 0.44, -0.61), (0.20, 0.12, 0.05), pale)),
        *pair(ball((-0.36, 0.13, -0.16), (0.07, 0.08, 0.08), (0.24, 0.50, 0.22))),
        ball((-0.43, 0, -0.34), (0.06, 0.10, 0.10), (0.24, 0.50, 0.22)),
    ]
    return Toy(
        parts,
        hat=(0.02, 0, 0.30),
        brow=0.16,
        eyes=(0.26, 0.245, 0.345),
        lens=0.145,
        ear=(0.08, 0.40, 0.34),
        neck=ring((-0.02, 0, -0.18), (0.38, 0.39, 0.075), WHITE),
        chin=(0.37, 0, -0.20),
        chest=ball((-0.08, 0, -0.30), (0.37, 0.37, 0.31), WHITE),
    )


def penguin() -> Toy:
    coat = (0.20, 0.24, 0.33)
    body = ball((0, 0, -0.22), (0.35, 0.37, 0.42), coat)
    head = ball((0.04, 0, 0.26), (0.29, 0.31, 0.27), coat)
    spot = on(head, 0.115, 0.30, out=0.02)
    parts = [
        *dyed([body, head]),
        ball((0.10, 0, -0.24), (0.29, 0.29, 0.36), WHITE),
        *pair(ball((0.20, 0.105, 0.26), (0.14, 0.125, 0.16), WHITE)),
        cone((0.39, 0, 0.20), (0.09, 0.11, 0.13), CARROT, pitch=-1.571, top=0.15),
        *eyes(spot, 0.056, rim=None),
        *pair(ball((0.265, 0.195, 0.155), (0.04, 0.055, 0.04), PINK)),
        *dyed(pair(ball((0.02, 0.42, -0.20), (0.14, 0.06, 0.27), coat, roll=0.35))),
        *pair(ball((0.12, 0.17, -0.61), (0.21, 0.14, 0.06), CARROT)),
        *dyed([ball((-0.34, 0, -0.52), (0.16, 0.13, 0.07), coat, pitch=0.5)]),
    ]
    return Toy(
        parts,
        hat=(0.03, 0, 0.50),
        brow=0.17,
        eyes=spot,
        lens=0.12,
        ear=(0.00, 0.30, 0.30),
        neck=ring((0.02, 0, 0.04), (0.34, 0.35, 0.08), WHITE),
        chin=(0.36, 0, 0.01),
        chest=ball((0, 0, -0.20), (0.36, 0.38, 0.40), WHITE),
    )


def owl() -> Toy:
    coat = (0.55, 0.38, 0.24)
    body = ball((-0.02, 0, -0.22), (0.36, 0.38, 0.42), coat)
    head = ball((0.0, 0, 0.20), (0.34, 0.39, 0.29), coat)
    parts = [
        *dyed([body, head]),
        ball((0.10, 0, -0.26), (0.27, 0.28, 0.33), CREAM),
        *[
            ball((0.34 - 0.04 * abs(row - 1), y, -0.16 - 0.13 * row), (0.04, 0.05, 0.035), TAN)
            for row in range(3)
            for y in ((-0.12, 0, 0.12) if row % 2 else (-0.07, 0.07))
        ],
        *pair(ball((0.25, 0.165, 0.22), (0.08, 0.18, 0.18), CREAM)),
        *pair(ball((0.31, 0.155, 0.22), (0.05, 0.125, 0.125), GOLD)),
        *eyes((0.345, 0.15, 0.22), 0.075, rim=None),
        cone((0.37, 0, 0.14), (0.06, 0.06, 0.09), CARROT, pitch=-2.2, top=0.1),
        *dyed(pair(cone((0.04, 0.26, 0.46), (0.08, 0.10, 0.14), coat, roll=-0.45, top=0.1))),
        *dyed(pair(ball((-0.04, 0.37, -0.22), (0.24, 0.09, 0.30), coat, roll=0.1, pitch=-0.2))),
        *pair(ball((0.16, 0.15, -0.62), (0.13, 0.11, 0.05), CARROT)),
        ball((-0.38, 0, -0.46), (0.17, 0.16, 0.06), UMBER, pitch=0.7),
        *pair(ball((-0.19, 0.39, -0.38), (0.14, 0.07, 0.14), UMBER, roll=0.1, pitch=-0.2)),
    ]
    return Toy(
        parts,
        hat=(0.0, 0, 0.46),
        brow=0.17,
        eyes=(0.36, 0.155, 0.22),
        lens=0.16,
        ear=(0.05, 0.38, 0.22),
        neck=ring((0.0, 0, -0.03), (0.40, 0.41, 0.075), WHITE),
        chin=(0.40, 0, -0.06),
        chest=ball((-0.02, 0, -0.22), (0.37, 0.39, 0.40), WHITE),
    )


def snowman() -> Toy:
    head = ball((0, 0, 0.28), (0.27, 0.27, 0.25), WHITE)
    middle = ball((0, 0, -0.04), (0.33, 0.33, 0.27), WHITE)
    base = ball((0, 0, -0.40), (0.42, 0.42, 0.30), WHITE)
    spot = on(head, 0.11, 0.34)
    parts = [
        *dyed([head, middle, base]),
        cone((0.38, 0, 0.26), (0.065, 0.065, 0.17), CARROT, pitch=-1.571, top=0.1),
        *eyes((spot[0] - 0.02, *spot[1:]), 0.052),
        *pair(ball(on(head, 0.11, 0.185), 0.026, INK)),
        *pair(ball(on(head, 0.045, 0.15), 0.026, INK)),
        *[ball(on(middle, 0, z), 0.045, INK) for z in (0.06, -0.08)],
        ball(on(base, 0, -0.34), 0.045, INK),
        *pair(cone((0, 0.43, 0.07), (0.035, 0.035, 0.20), BROWN, roll=-0.9)),
        *pair(cone((0, 0.56, 0.22), (0.026, 0.026, 0.08), BROWN, roll=-0.2)),
        *pair(cone((0, 0.60, 0.15), (0.026, 0.026, 0.08), BROWN, roll=-1.6)),
    ]
    return Toy(
        parts,
        hat=(0, 0, 0.50),
        brow=0.17,
        eyes=spot,
        lens=0.11,
        ear=(0.00, 0.27, 0.34),
        neck=ring((0, 0, 0.10), (0.31, 0.31, 0.075), WHITE),
        chin=(0.31, 0, 0.07),
        chest=ball((0, 0, -0.05), (0.34, 0.34, 0.28), WHITE),
    )


def robot() -> Toy:
    steel = (0.66, 0.72, 0.78)
    parts = [
        *dyed([box((0.02, 0, 0.20), (0.27, 0.36, 0.26), steel)]),
        *dyed([box((-0.02, 0, -0.30), (0.24, 0.30, 0.24), steel)]),
        box((0.20, 0, 0.20), (0.12, 0.29, 0.19), SLATE),
        *pair(ball((0.31, 0.13, 0.24), (0.04, 0.085, 0.085), SKY)),
        *pair(ball((0.345, 0.14, 0.27), (0.02, 0.03, 0.03), WHITE)),
        box((0.31, 0, 0.09), (0.025, 0.12, 0.028), GOLD),
        cone((0, 0, 0.49), (0.03, 0.03, 0.07), SLATE),
        ball((0, 0, 0.59), 0.07, (0.90, 0.28, 0.26)),
        *pair(cone((0.02, 0.40, 0.20), (0.11, 0.11, 0.06), SLATE, roll=1.571)),
        cone((-0.01, 0, -0.06), (0.14, 0.14, 0.06), SLATE),
        box((0.20, 0, -0.28), (0.05, 0.19, 0.13), WHITE),
        ball((0.25, 0.09, -0.25), 0.045, (0.90, 0.28, 0.26)),
        ball((0.25, -0.09, -0.25), 0.045, LEAF),
        box((0.25, 0, -0.35), (0.02, 0.13, 0.025), SLATE),
        *pair(ball((0, 0.35, -0.16), 0.085, SLATE)),
        *dyed(pair(cone((0.06, 0.41, -0.32), (0.075, 0.075, 0.16), steel, pitch=-0.25, roll=0.1))),
        *pair(ball((0.10, 0.42, -0.48), 0.085, SLATE)),
        *pair(cone((0, 0.15, -0.54), (0.09, 0.09, 0.08), SLATE)),
        *dyed(pair(box((0.05, 0.16, -0.61), (0.18, 0.13, 0.06), steel))),
        box((-0.26, 0, -0.26), (0.05, 0.17, 0.15), SLATE),
        *pair(cone((-0.28, 0.08, -0.26), (0.045, 0.045, 0.10), GOLD)),
    ]
    return Toy(
        parts,
        hat=(0, 0, 0.46),
        brow=0.19,
        eyes=(0.35, 0.13, 0.24),
        lens=0.12,
        ear=(0.05, 0.38, 0.24),
        neck=ring((0, 0, -0.07), (0.30, 0.32, 0.085), WHITE),
        chin=(0.31, 0, -0.09),
        chest=box((-0.02, 0, -0.30), (0.24, 0.30, 0.24), WHITE),
    )
