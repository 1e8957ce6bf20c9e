"""Toys: panda, bear, lion, fox, elephant, monkey."""

from splat_esd.zoo.world.palette import BROWN, CREAM, GREY, INK, PINK, SLATE, TAN, UMBER, WHITE
from splat_esd.zoo.world.primitives import ball, cone, pair, ring
from splat_esd.zoo.world.toy import Toy, dyed, eyes, on


def panda() -> Toy:
    head = ball((0.04, 0, 0.18), (0.34, 0.40, 0.32), WHITE)
    body = ball((-0.04, 0, -0.34), (0.33, 0.36, 0.32), WHITE)
    spot = on(head, 0.155, 0.19)
    parts = [
        *dyed([head, body]),
        ball((-0.04, 0, -0.16), (0.325, 0.355, 0.12), INK),
        *pair(ball((0.0, 0.31, 0.43), (0.09, 0.13, 0.13), INK)),
        *pair(ball(on(head, 0.165, 0.17, out=-0.05), (0.075, 0.105, 0.13), INK, roll=0.5)),
        *eyes((spot[0] + 0.01, *spot[1:]), 0.052),
        ball((0.35, 0, 0.06), (0.11, 0.14, 0.10), WHITE),
        ball((0.455, 0, 0.10), (0.045, 0.065, 0.045), INK),
        *pair(ball((0.18, 0.33, -0.24), (0.20, 0.10, 0.11), INK, pitch=-0.5, yaw=-0.4)),
        *pair(ball((0.20, 0.22, -0.54), (0.22, 0.14, 0.13), INK)),
        *pair(ball((0.40, 0.23, -0.53), (0.035, 0.085, 0.085), GREY)),
        ball((-0.37, 0, -0.48), 0.10, WHITE),
    ]
    return Toy(
        parts,
        hat=(0.03, 0, 0.47),
        brow=0.18,
        eyes=spot,
        lens=0.135,
        ear=(0.00, 0.40, 0.19),
        neck=ring((0, 0, -0.10), (0.33, 0.35, 0.08), WHITE),
        chin=(0.34, 0, -0.13),
        chest=ball((-0.04, 0, -0.33), (0.34, 0.365, 0.32), WHITE),
    )


def bear() -> Toy:
    head = ball((0.04, 0, 0.18), (0.33, 0.38, 0.31), BROWN)
    body = ball((-0.04, 0, -0.34), (0.32, 0.34, 0.32), BROWN)
    spot = on(head, 0.15, 0.24)
    parts = [
        *dyed([head, body]),
        *dyed(pair(ball((0.02, 0.31, 0.42), (0.08, 0.13, 0.13), BROWN))),
        *pair(ball((0.075, 0.31, 0.42), (0.05, 0.08, 0.08), TAN)),
        ball((0.10, 0, -0.35), (0.24, 0.24, 0.24), TAN),
        ball((0.36, 0, 0.08), (0.13, 0.16, 0.12), TAN),
        ball((0.48, 0, 0.13), (0.045, 0.07, 0.05), INK),
        *eyes(spot, 0.06),
        *dyed(pair(ball((0.16, 0.33, -0.26), (0.19, 0.10, 0.11), BROWN, pitch=-0.5, yaw=-0.4))),
        *dyed(pair(ball((0.20, 0.22, -0.54), (0.22, 0.14, 0.13), BROWN))),
        *pair(ball((0.40, 0.23, -0.53), (0.035, 0.085, 0.085), TAN)),
        *dyed([ball((-0.37, 0, -0.50), 0.10, BROWN)]),
    ]
    return Toy(
        parts,
        hat=(0.03, 0, 0.46),
        brow=0.18,
        eyes=spot,
        lens=0.13,
        ear=(0.00, 0.37, 0.24),
        neck=ring((0, 0, -0.10), (0.33, 0.34, 0.08), WHITE),
        chin=(0.34, 0, -0.13),
        chest=ball((-0.04, 0, -0.33), (0.33, 0.35, 0.32), WHITE),
    )


def lion() -> Toy:
    mane = (0.62, 0.34, 0.14)
    fur = (0.95, 0.72, 0.35)
    head = ball((0.20, 0, 0.14), (0.29, 0.31, 0.28), fur)
    spot = on(head, 0.135, 0.19)
    parts = [
        head,
        *dyed([ball((-0.14, 0, -0.34), (0.34, 0.28, 0.30), fur)]),
        *dyed([ball((0.04, 0, 0.14), (0.24, 0.46, 0.44), mane)]),
        *pair(ball((0.16, 0.27, 0.43), (0.07, 0.10, 0.10), fur)),
        *pair(ball((0.42, 0.07, 0.04), (0.10, 0.10, 0.085), CREAM)),
        ball((0.50, 0, 0.11), (0.045, 0.07, 0.05), UMBER),
        *eyes(spot, 0.058),
        ball((0.06, 0, -0.32), (0.20, 0.20, 0.24), CREAM),
        *dyed(pair(cone((0.14, 0.13, -0.48), (0.095, 0.095, 0.17), fur))),
        *pair(ball((0.19, 0.13, -0.60), (0.13, 0.11, 0.065), CREAM)),
        *dyed(pair(ball((-0.12, 0.24, -0.53), (0.23, 0.13, 0.13), fur))),
        *dyed([ball((-0.48, 0, -0.46), (0.18, 0.05, 0.05), fur, pitch=-0.5)]),
        *dyed([ball((-0.64, 0, -0.32), (0.09, 0.09, 0.12), mane)]),
    ]
    return Toy(
        parts,
        hat=(0.08, 0, 0.52),
        brow=0.18,
        eyes=spot,
        lens=0.125,
        ear=(0.16, 0.31, 0.19),
        neck=ring((0.02, 0, -0.23), (0.34, 0.34, 0.085), WHITE, pitch=-0.1),
        chin=(0.36, 0, -0.22),
        chest=ball((-0.10, 0, -0.34), (0.35, 0.29, 0.31), WHITE),
    )


def fox() -> Toy:
    fur = (0.91, 0.44, 0.16)
    head = ball((0.20, 0, 0.14), (0.30, 0.37, 0.28), fur)
    body = ball((-0.12, 0, -0.34), (0.30, 0.26, 0.31), fur)
    spot = on(head, 0.15, 0.19)
    parts = [
        *dyed([head, body]),
        *dyed(pair(cone((0.15, 0.24, 0.46), (0.07, 0.14, 0.22), fur, roll=-0.3, top=0.05))),
        *pair(cone((0.20, 0.235, 0.43), (0.045, 0.085, 0.14), INK, roll=-0.3, top=0.05)),
        *pair(ball((0.355, 0.175, 0.03), (0.135, 0.175, 0.10), WHITE, roll=0.15)),
        cone((0.52, 0, 0.05), (0.11, 0.14, 0.13), WHITE, pitch=-1.571, top=0.35),
        ball((0.655, 0, 0.08), 0.06, INK),
        *eyes(spot, 0.058),
        ball((0.04, 0, -0.28), (0.20, 0.19, 0.25), WHITE),
        *dyed(pair(cone((0.12, 0.11, -0.46), (0.08, 0.08, 0.16), fur))),
        *pair(cone((0.13, 0.11, -0.59), (0.09, 0.085, 0.07), UMBER)),
        *dyed(pair(ball((-0.12, 0.20, -0.52), (0.20, 0.12, 0.13), fur))),
        *dyed([ball((-0.52, 0, -0.43), (0.27, 0.14, 0.15), fur, pitch=-0.45)]),
        ball((-0.70, 0, -0.345), (0.13, 0.108, 0.115), WHITE, pitch=-0.45),
    ]
    return Toy(
        parts,
        hat=(0.16, 0, 0.40),
        brow=0.16,
        eyes=spot,
        lens=0.125,
        ear=(0.15, 0.37, 0.19),
        neck=ring((0.02, 0, -0.11), (0.27, 0.27, 0.075), WHITE, pitch=-0.15),
        chin=(0.32, 0, -0.14),
        chest=ball((-0.10, 0, -0.33), (0.32, 0.27, 0.31), WHITE),
    )


def elephant() -> Toy:
    head = ball((0.22, 0, 0.14), (0.30, 0.32, 0.31), GREY)
    body = ball((-0.18, 0, -0.14), (0.42, 0.35, 0.34), GREY)
    spot = on(head, 0.15, 0.20)
    parts = [
        *dyed([head, body]),
        *dyed(pair(ball((0.12, 0.42, 0.16), (0.07, 0.25, 0.28), GREY, yaw=-0.35))),
        *pair(ball((0.17, 0.42, 0.15), (0.05, 0.19, 0.21), PINK, yaw=-0.35)),
        *dyed([ball((0.50, 0, 0.04), (0.14, 0.12, 0.14), GREY)]),
        *dyed([ball((0.58, 0, -0.12), (0.10, 0.10, 0.16), GREY)]),
        *dyed([ball((0.62, 0, -0.27), (0.09, 0.09, 0.11), GREY)]),
        *dyed([ball((0.70, 0, -0.33), (0.10, 0.085, 0.075), GREY, pitch=0.5)]),
        *pair(cone((0.52, 0.13, -0.10), (0.04, 0.04, 0.12), WHITE, pitch=-2.4, top=0.3)),
        *eyes(spot, 0.058),
        *dyed(pair(cone((0.08, 0.19, -0.47), (0.13, 0.13, 0.18), GREY))),
        *dyed(pair(cone((-0.40, 0.19, -0.47), (0.13, 0.13, 0.18), GREY))),
        *pair(ball((0.18, 0.19, -0.61), (0.05, 0.10, 0.04), WHITE)),
        ball((-0.62, 0, -0.16), (0.03, 0.03, 0.18), SLATE, pitch=-0.2),
        ball((-0.59, 0, -0.34), (0.05, 0.05, 0.07), SLATE),
    ]
    return Toy(
        parts,
        hat=(0.18, 0, 0.42),
        brow=0.18,
        eyes=spot,
        lens=0.125,
        ear=(0.16, 0.32, 0.20),
        neck=ring((0.05, 0, -0.08), (0.39, 0.38, 0.085), WHITE, pitch=-0.75),
        chin=(0.38, 0, -0.26),
        chest=ball((-0.08, 0, -0.14), (0.36, 0.36, 0.41), WHITE, pitch=-1.2),
    )


def monkey() -> Toy:
    fur = (0.48, 0.29, 0.17)
    head = ball((0.04, 0, 0.18), (0.31, 0.35, 0.31), fur)
    body = ball((-0.04, 0, -0.34), (0.26, 0.27, 0.30), fur)
    spot = on(head, 0.115, 0.22)
    parts = [
        *dyed([head, body]),
        *pair(ball((0.25, 0.105, 0.22), (0.11, 0.14, 0.15), TAN)),
        ball((0.28, 0, 0.06), (0.15, 0.24, 0.15), TAN),
        *pair(ball((0.425, 0.03, 0.12), (0.02, 0.02, 0.02), UMBER)),
        ball((0.40, 0, 0.02), (0.035, 0.11, 0.022), (0.60, 0.22, 0.20)),
        *dyed(pair(ball((0.02, 0.40, 0.18), (0.07, 0.14, 0.15), fur))),
        *pair(ball((0.07, 0.40, 0.18), (0.04, 0.09, 0.10), TAN)),
        *eyes((spot[0] + 0.04, *spot[1:]), 0.056),
        ball((0.08, 0, -0.34), (0.19, 0.19, 0.22), TAN),
        *dyed(pair(ball((0.10, 0.31, -0.28), (0.10, 0.09, 0.20), fur, roll=0.5))),
        *pair(ball((0.14, 0.40, -0.43), (0.09, 0.08, 0.08), TAN)),
        *dyed(pair(ball((0.12, 0.20, -0.54), (0.20, 0.11, 0.11), fur))),
        *pair(ball((0.29, 0.21, -0.58), (0.11, 0.10, 0.07), TAN)),
        *dyed([ring((-0.46, 0, -0.38), (0.24, 0.24, 0.05), fur, roll=1.571)]),
    ]
    return Toy(
        parts,
        hat=(0.03, 0, 0.46),
        brow=0.18,
        eyes=spot,
        lens=0.115,
        ear=(0.02, 0.36, 0.22),
        neck=ring((0, 0, -0.11), (0.29, 0.29, 0.075), WHITE),
        chin=(0.30, 0, -0.14),
        chest=ball((-0.04, 0, -0.34), (0.27, 0.28, 0.30), WHITE),
    )
