"""Toys: corgi, cat, rabbit, mouse, pig, duck."""

from splat_esd.zoo.world.palette import (
    CARROT,
    CREAM,
    GINGER,
    GOLD,
    GREY,
    INK,
    PINK,
    ROSE,
    SLATE,
    WHITE,
)
from splat_esd.zoo.world.primitives import ball, cone, pair, ring
from splat_esd.zoo.world.toy import Toy, dyed, eyes, on


def corgi() -> Toy:
    head = ball((0.22, 0, 0.15), (0.32, 0.37, 0.30), GINGER)
    body = ball((-0.20, 0, -0.25), (0.44, 0.28, 0.25), GINGER)
    spot = on(head, 0.155, 0.19)
    parts = [
        *dyed(
            [
                head,
                body,
                *pair(cone((0.16, 0.25, 0.42), (0.08, 0.17, 0.22), GINGER, roll=-0.3, top=0.2)),
            ]
        ),
        *pair(cone((0.21, 0.25, 0.41), (0.05, 0.115, 0.16), PINK, roll=-0.3, top=0.2)),
        ball((0.12, 0, -0.24), (0.24, 0.25, 0.24), WHITE),
        ball((0.47, 0, 0.04), (0.17, 0.19, 0.13), WHITE),
        ball((0.27, 0, 0.18), (0.29, 0.065, 0.28), WHITE),
        ball((0.62, 0, 0.10), (0.06, 0.075, 0.055), INK),
        ball((0.60, 0, -0.02), (0.05, 0.05, 0.03), ROSE),
        *eyes(spot, 0.062),
        *pair(cone((0.10, 0.15, -0.50), (0.095, 0.095, 0.14), WHITE)),
        *pair(cone((-0.42, 0.16, -0.50), (0.10, 0.10, 0.14), WHITE)),
        *pair(ball((-0.53, 0.11, -0.26), (0.13, 0.13, 0.17), CREAM)),
        ball((-0.63, 0, -0.07), (0.08, 0.07, 0.08), WHITE),
    ]
    return Toy(
        parts,
        hat=(0.18, 0, 0.42),
        brow=0.17,
        eyes=spot,
        lens=0.13,
        ear=(0.16, 0.37, 0.19),
        neck=ring((0.14, 0, -0.10), (0.30, 0.30, 0.075), WHITE, pitch=-0.25),
        chin=(0.45, 0, -0.14),
        chest=ball((0.04, 0, -0.24), (0.29, 0.29, 0.37), WHITE, pitch=-1.2),
    )


def cat() -> Toy:
    head = ball((0.16, 0, 0.16), (0.31, 0.38, 0.29), GREY)
    body = ball((-0.10, 0, -0.32), (0.32, 0.29, 0.33), GREY)
    spot = on(head, 0.165, 0.19)
    parts = [
        *dyed([head, body]),
        *dyed(pair(cone((0.12, 0.24, 0.44), (0.07, 0.14, 0.17), GREY, roll=-0.35, top=0.1))),
        *pair(cone((0.165, 0.235, 0.42), (0.05, 0.085, 0.12), PINK, roll=-0.35, top=0.1)),
        ball((0.05, 0, -0.30), (0.22, 0.2, 0.24), WHITE),
        *pair(ball((0.42, 0.065, 0.055), (0.09, 0.095, 0.075), WHITE)),
        ball((0.50, 0, 0.105), (0.035, 0.05, 0.035), ROSE),
        *eyes(spot, 0.066, (0.20, 0.45, 0.20)),
        ball((0.145, 0, 0.175), (0.305, 0.03, 0.285), SLATE),
        *pair(ball((0.145, 0.10, 0.17), (0.296, 0.028, 0.277), SLATE)),
        ball((-0.12, 0, -0.15), (0.28, 0.255, 0.035), SLATE),
        ball((-0.12, 0, -0.30), (0.32, 0.295, 0.04), SLATE),
        *dyed(pair(cone((0.16, 0.11, -0.48), (0.085, 0.085, 0.16), GREY))),
        *pair(ball((0.20, 0.11, -0.60), (0.12, 0.095, 0.065), WHITE)),
        *dyed(pair(ball((-0.10, 0.22, -0.52), (0.22, 0.13, 0.14), GREY))),
        *dyed([ball((-0.42, 0, -0.50), (0.14, 0.08, 0.08), GREY, pitch=-0.4)]),
        *dyed([ball((-0.53, 0, -0.30), (0.075, 0.075, 0.22), GREY, pitch=0.1)]),
        ball((-0.53, 0, -0.07), (0.08, 0.08, 0.10), SLATE),
    ]
    return Toy(
        parts,
        hat=(0.12, 0, 0.42),
        brow=0.16,
        eyes=spot,
        lens=0.135,
        ear=(0.10, 0.38, 0.19),
        neck=ring((0.02, 0, -0.12), (0.28, 0.28, 0.075), WHITE, pitch=-0.1),
        chin=(0.32, 0, -0.14),
        chest=ball((-0.06, 0, -0.32), (0.33, 0.29, 0.31), WHITE),
    )


def rabbit() -> Toy:
    fur = (0.80, 0.70, 0.60)
    head = ball((0.06, 0, 0.10), (0.31, 0.35, 0.29), fur)
    body = ball((-0.04, 0, -0.36), (0.30, 0.31, 0.30), fur)
    spot = on(head, 0.15, 0.13)
    parts = [
        *dyed([head, body]),
        *dyed(pair(ball((0.00, 0.15, 0.52), (0.075, 0.11, 0.28), fur, roll=-0.18))),
        *pair(ball((0.05, 0.15, 0.52), (0.045, 0.07, 0.21), PINK, roll=-0.18)),
        ball((0.10, 0, -0.36), (0.22, 0.23, 0.24), CREAM),
        *pair(ball((0.32, 0.065, 0.01), (0.09, 0.09, 0.075), CREAM)),
        ball((0.41, 0, 0.06), (0.035, 0.05, 0.035), ROSE),
        ball((0.37, 0, -0.075), (0.03, 0.055, 0.055), WHITE),
        *eyes(spot, 0.064),
        *dyed(pair(ball((0.17, 0.26, -0.24), (0.15, 0.085, 0.085), fur, pitch=-0.3, yaw=-0.4))),
        *pair(ball((0.16, 0.18, -0.60), (0.20, 0.115, 0.075), CREAM)),
        ball((-0.36, 0, -0.46), 0.13, WHITE),
    ]
    return Toy(
        parts,
        hat=(0.06, 0, 0.37),
        brow=0.15,
        eyes=spot,
        lens=0.13,
        ear=(0.02, 0.35, 0.13),
        neck=ring((0.00, 0, -0.15), (0.31, 0.31, 0.075), WHITE),
        chin=(0.31, 0, -0.17),
        chest=ball((-0.04, 0, -0.36), (0.30, 0.31, 0.29), WHITE),
    )


def mouse() -> Toy:
    fur = (0.70, 0.66, 0.68)
    head = ball((0.10, 0, 0.08), (0.32, 0.34, 0.28), fur)
    body = ball((-0.06, 0, -0.36), (0.30, 0.31, 0.30), fur)
    spot = on(head, 0.15, 0.12)
    parts = [
        *dyed([head, body]),
        *dyed(pair(ball((0.02, 0.36, 0.36), (0.07, 0.22, 0.22), fur))),
        *pair(ball((0.06, 0.36, 0.36), (0.05, 0.165, 0.165), PINK)),
        ball((0.08, 0, -0.36), (0.22, 0.23, 0.24), WHITE),
        *dyed([ball((0.40, 0, 0.02), (0.16, 0.14, 0.12), fur)]),
        ball((0.55, 0, 0.04), 0.06, ROSE),
        *eyes(spot, 0.064),
        *pair(ball((0.20, 0.22, -0.26), (0.12, 0.07, 0.07), PINK, pitch=0.2, yaw=-0.4)),
        *pair(ball((0.13, 0.17, -0.61), (0.18, 0.11, 0.065), PINK)),
        ball((-0.42, 0, -0.57), (0.24, 0.05, 0.05), PINK),
        ball((-0.68, 0, -0.46), (0.05, 0.05, 0.17), PINK, pitch=0.35),
        ball((-0.69, 0, -0.25), (0.045, 0.045, 0.14), PINK, pitch=-0.3),
    ]
    return Toy(
        parts,
        hat=(0.08, 0, 0.34),
        brow=0.16,
        eyes=spot,
        lens=0.13,
        ear=(0.06, 0.34, 0.12),
        neck=ring((-0.01, 0, -0.16), (0.31, 0.31, 0.075), WHITE),
        chin=(0.31, 0, -0.17),
        chest=ball((-0.06, 0, -0.36), (0.31, 0.31, 0.30), WHITE),
    )


def pig() -> Toy:
    skin = (0.96, 0.68, 0.70)
    head = ball((0.22, 0, 0.06), (0.32, 0.37, 0.32), skin)
    body = ball((-0.18, 0, -0.17), (0.44, 0.37, 0.34), skin)
    spot = on(head, 0.17, 0.15)
    parts = [
        *dyed([head, body]),
        *dyed(
            pair(cone((0.24, 0.25, 0.36), (0.05, 0.12, 0.13), skin, pitch=-0.5, roll=-0.4, top=0.2))
        ),
        cone((0.55, 0, 0.02), (0.13, 0.17, 0.09), ROSE, pitch=-1.571, top=0.9),
        *pair(ball((0.63, 0.055, 0.02), (0.025, 0.032, 0.055), (0.50, 0.16, 0.22))),
        *eyes(spot, 0.062),
        *pair(ball(on(head, 0.24, -0.03, out=-0.03), (0.045, 0.075, 0.055), ROSE, yaw=0.6)),
        *dyed(pair(cone((0.10, 0.19, -0.48), (0.11, 0.11, 0.17), skin))),
        *pair(cone((0.10, 0.19, -0.61), (0.115, 0.115, 0.05), (0.55, 0.30, 0.32))),
        *dyed(pair(cone((-0.40, 0.19, -0.48), (0.11, 0.11, 0.17), skin))),
        *pair(cone((-0.40, 0.19, -0.61), (0.115, 0.115, 0.05), (0.55, 0.30, 0.32))),
        ring((-0.64, 0.02, -0.02), (0.085, 0.085, 0.032), ROSE, roll=1.2),
        ball((-0.62, 0, 0.09), (0.035, 0.035, 0.05), ROSE),
    ]
    return Toy(
        parts,
        hat=(0.18, 0, 0.35),
        brow=0.18,
        eyes=spot,
        lens=0.13,
        ear=(0.16, 0.37, 0.15),
        neck=ring((0.06, 0, -0.08), (0.39, 0.39, 0.08), WHITE, pitch=-0.5),
        chin=(0.43, 0, -0.27),
        chest=ball((-0.08, 0, -0.17), (0.37, 0.38, 0.41), WHITE, pitch=-1.2),
    )


def duck() -> Toy:
    head = ball((0.14, 0, 0.20), (0.29, 0.30, 0.28), GOLD)
    body = ball((-0.08, 0, -0.30), (0.42, 0.36, 0.30), GOLD)
    spot = on(head, 0.13, 0.27)
    parts = [
        *dyed([head, body]),
        *dyed([ball((-0.46, 0, -0.14), (0.20, 0.16, 0.10), GOLD, pitch=-0.8)]),
        *dyed([ball((0.08, 0, 0.47), (0.10, 0.05, 0.06), GOLD, pitch=-0.5)]),
        *pair(ball((-0.12, 0.35, -0.26), (0.26, 0.08, 0.16), WHITE, pitch=-0.25)),
        ball((0.46, 0, 0.14), (0.18, 0.19, 0.055), CARROT),
        ball((0.43, 0, 0.08), (0.14, 0.14, 0.045), (0.86, 0.36, 0.08)),
        *eyes(spot, 0.064),
        *pair(ball((0.08, 0.17, -0.60), (0.20, 0.14, 0.055), CARROT)),
    ]
    return Toy(
        parts,
        hat=(0.11, 0, 0.45),
        brow=0.16,
        eyes=spot,
        lens=0.125,
        ear=(0.10, 0.30, 0.27),
        neck=ring((0.08, 0, -0.05), (0.28, 0.28, 0.08), WHITE),
        chin=(0.36, 0, -0.07),
        chest=ball((-0.06, 0, -0.28), (0.40, 0.37, 0.31), WHITE, pitch=-0.3),
    )
