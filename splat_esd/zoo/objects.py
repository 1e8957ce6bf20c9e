"""The toys of the zoo: each a few dozen coloured ellipsoids, front towards +x, left +y, up +z.

A toy is data. To add one, write a function that returns its parts and name it in `TOYS`.
"""

from dataclasses import dataclass

import numpy as np

Triple = tuple[float | int, float | int, float | int]
Color = Triple

BLACK: Color = (0.08, 0.07, 0.08)
WHITE: Color = (0.96, 0.95, 0.92)
ORANGE: Color = (0.90, 0.52, 0.18)
CREAM: Color = (0.98, 0.90, 0.74)
PINK: Color = (0.95, 0.60, 0.62)
GREY: Color = (0.50, 0.52, 0.58)
DARK_GREY: Color = (0.30, 0.31, 0.36)
YELLOW: Color = (0.98, 0.84, 0.18)
CARROT: Color = (0.97, 0.46, 0.08)
GREEN: Color = (0.36, 0.72, 0.24)
LIGHT_GREEN: Color = (0.78, 0.90, 0.52)
RED: Color = (0.84, 0.14, 0.16)
BROWN: Color = (0.40, 0.24, 0.12)


@dataclass(frozen=True)
class Part:
    """An ellipsoid: centre [3], radii [3] along its own axes, colour, pitch (nose up) and roll
    (radians).
    """

    center: Triple
    radii: Triple
    color: Color
    pitch: float = 0.0
    roll: float = 0.0

    def rotation(self) -> np.ndarray:
        """Returns own axes -> world [3, 3]: roll about x, then pitch about y."""
        cp, sp = np.cos(self.pitch), np.sin(self.pitch)
        cr, sr = np.cos(self.roll), np.sin(self.roll)
        pitch = np.array([[cp, 0, -sp], [0, 1, 0], [sp, 0, cp]])
        roll = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
        return pitch @ roll


def pair(center, radii, color, *, pitch: float = 0.0, roll: float = 0.0) -> list[Part]:
    """Returns a part and its mirror image across the xz plane."""
    x, y, z = center
    left = Part((x, y, z), radii, color, pitch, roll)
    right = Part((x, -y, z), radii, color, pitch, -roll)
    return [left, right]


def _eyes(x: float, y: float, z: float, size: float, color: Color = BLACK) -> list[Part]:
    glint = pair((x + 0.75 * size, y - 0.2 * size, z + 0.5 * size), (0.35 * size,) * 3, WHITE)
    return pair((x, y, z), (size,) * 3, color) + glint


def corgi() -> list[Part]:
    return [
        Part((-0.12, 0, -0.10), (0.46, 0.24, 0.22), ORANGE),
        Part((-0.52, 0, -0.08), (0.16, 0.20, 0.20), CREAM),
        Part((-0.62, 0, 0.08), (0.10, 0.07, 0.07), ORANGE, pitch=-0.5),
        Part((0.27, 0, -0.12), (0.17, 0.19, 0.24), WHITE),
        Part((0.24, 0, 0.08), (0.17, 0.17, 0.22), ORANGE),
        Part((0.36, 0, 0.28), (0.24, 0.25, 0.22), ORANGE),
        Part((0.50, 0, 0.32), (0.12, 0.06, 0.17), WHITE),
        Part((0.56, 0, 0.19), (0.17, 0.14, 0.11), WHITE),
        Part((0.72, 0, 0.23), (0.06, 0.07, 0.05), BLACK),
        Part((0.62, 0, 0.10), (0.08, 0.06, 0.03), PINK),
        *_eyes(0.53, 0.125, 0.33, 0.058),
        *pair((0.28, 0.19, 0.55), (0.06, 0.10, 0.20), ORANGE, roll=-0.28),
        *pair((0.325, 0.185, 0.53), (0.03, 0.065, 0.14), PINK, roll=-0.28),
        *pair((0.22, 0.15, -0.38), (0.10, 0.09, 0.20), ORANGE),
        *pair((0.24, 0.15, -0.54), (0.12, 0.09, 0.07), WHITE),
        *pair((-0.42, 0.15, -0.38), (0.12, 0.09, 0.20), ORANGE),
        *pair((-0.40, 0.15, -0.54), (0.12, 0.09, 0.07), WHITE),
    ]


def panda() -> list[Part]:
    return [
        Part((-0.04, 0, -0.20), (0.32, 0.36, 0.36), WHITE),
        Part((-0.04, 0, 0.02), (0.30, 0.35, 0.14), BLACK),
        Part((0.02, 0, 0.36), (0.30, 0.34, 0.29), WHITE),
        Part((0.28, 0, 0.27), (0.13, 0.15, 0.11), WHITE),
        Part((0.40, 0, 0.31), (0.05, 0.07, 0.045), BLACK),
        *pair((0.245, 0.135, 0.39), (0.075, 0.085, 0.105), BLACK, roll=0.5),
        *pair((0.315, 0.125, 0.40), (0.035, 0.04, 0.04), WHITE),
        *pair((0.335, 0.122, 0.40), (0.025, 0.025, 0.025), BLACK),
        *pair((-0.02, 0.26, 0.62), (0.07, 0.12, 0.12), BLACK),
        *pair((0.16, 0.33, -0.06), (0.22, 0.11, 0.12), BLACK, pitch=-0.6),
        *pair((0.22, 0.24, -0.48), (0.26, 0.14, 0.14), BLACK),
        *pair((0.47, 0.24, -0.46), (0.04, 0.09, 0.09), GREY),
        Part((-0.36, 0, -0.34), (0.09, 0.09, 0.09), WHITE),
    ]


def cat() -> list[Part]:
    return [
        Part((-0.10, 0, -0.16), (0.40, 0.20, 0.20), GREY),
        Part((0.20, 0, -0.12), (0.15, 0.16, 0.20), WHITE),
        Part((0.18, 0, 0.06), (0.14, 0.14, 0.18), GREY),
        Part((0.30, 0, 0.26), (0.22, 0.26, 0.21), GREY),
        Part((0.46, 0, 0.18), (0.09, 0.13, 0.08), WHITE),
        Part((0.55, 0, 0.215), (0.03, 0.04, 0.025), PINK),
        *_eyes(0.46, 0.115, 0.31, 0.06, GREEN),
        *pair((0.515, 0.115, 0.31), (0.014, 0.014, 0.045), BLACK),
        *pair((0.26, 0.17, 0.47), (0.06, 0.08, 0.13), GREY, roll=-0.3),
        *pair((0.30, 0.165, 0.46), (0.035, 0.05, 0.09), PINK, roll=-0.3),
        Part((-0.25, 0, 0.03), (0.05, 0.15, 0.03), DARK_GREY),
        Part((-0.08, 0, 0.035), (0.05, 0.15, 0.03), DARK_GREY),
        Part((-0.42, 0, -0.02), (0.05, 0.12, 0.04), DARK_GREY),
        *pair((0.18, 0.11, -0.42), (0.07, 0.07, 0.20), GREY),
        *pair((0.21, 0.11, -0.58), (0.10, 0.075, 0.06), WHITE),
        *pair((-0.36, 0.12, -0.42), (0.09, 0.07, 0.20), GREY),
        *pair((-0.33, 0.12, -0.58), (0.10, 0.075, 0.06), WHITE),
        Part((-0.54, 0, 0.02), (0.06, 0.06, 0.20), GREY, pitch=0.5),
        Part((-0.62, 0, 0.28), (0.055, 0.055, 0.17), GREY, pitch=0.1),
        Part((-0.62, 0, 0.44), (0.055, 0.055, 0.08), DARK_GREY),
    ]


def duck() -> list[Part]:
    return [
        Part((-0.08, 0, -0.22), (0.46, 0.34, 0.28), YELLOW),
        Part((-0.46, 0, -0.06), (0.18, 0.16, 0.10), YELLOW, pitch=-0.7),
        Part((-0.56, 0, 0.06), (0.10, 0.09, 0.06), YELLOW, pitch=-0.9),
        *pair((-0.12, 0.31, -0.16), (0.25, 0.07, 0.15), (0.94, 0.72, 0.10), pitch=-0.2),
        Part((0.20, 0, 0.02), (0.17, 0.17, 0.20), YELLOW),
        Part((0.26, 0, 0.32), (0.25, 0.24, 0.25), YELLOW),
        Part((0.54, 0, 0.28), (0.16, 0.13, 0.045), CARROT),
        Part((0.51, 0, 0.22), (0.12, 0.10, 0.035), (0.85, 0.34, 0.06)),
        *_eyes(0.43, 0.13, 0.40, 0.058),
        Part((0.20, 0, 0.58), (0.08, 0.04, 0.06), YELLOW, pitch=-0.6),
        *pair((0.08, 0.16, -0.53), (0.17, 0.11, 0.05), CARROT),
    ]


def frog() -> list[Part]:
    return [
        Part((-0.10, 0, -0.20), (0.42, 0.34, 0.27), GREEN, pitch=0.25),
        Part((0.12, 0, -0.24), (0.26, 0.28, 0.22), LIGHT_GREEN),
        Part((0.20, 0, 0.10), (0.30, 0.38, 0.20), GREEN),
        Part((0.30, 0, 0.00), (0.24, 0.30, 0.12), LIGHT_GREEN),
        Part((0.42, 0, 0.06), (0.12, 0.24, 0.022), (0.55, 0.12, 0.14)),
        *pair((0.20, 0.22, 0.30), (0.14, 0.13, 0.14), GREEN),
        *pair((0.295, 0.235, 0.325), (0.07, 0.085, 0.085), WHITE),
        *pair((0.345, 0.24, 0.33), (0.035, 0.05, 0.055), BLACK),
        *pair((0.485, 0.06, 0.16), (0.02, 0.02, 0.02), BROWN),
        *pair((0.24, 0.32, -0.36), (0.08, 0.08, 0.20), GREEN),
        *pair((0.32, 0.34, -0.53), (0.14, 0.12, 0.04), LIGHT_GREEN),
        *pair((-0.26, 0.36, -0.32), (0.26, 0.12, 0.18), GREEN, pitch=0.3),
        *pair((-0.12, 0.44, -0.52), (0.24, 0.12, 0.05), LIGHT_GREEN),
        Part((-0.30, 0, 0.02), (0.09, 0.09, 0.05), (0.22, 0.52, 0.16), pitch=0.4),
        *pair((-0.22, 0.18, 0.02), (0.07, 0.07, 0.04), (0.22, 0.52, 0.16), roll=-0.4),
    ]


def snowman() -> list[Part]:
    return [
        Part((0, 0, -0.38), (0.35, 0.35, 0.31), WHITE),
        Part((0, 0, 0.02), (0.27, 0.27, 0.24), WHITE),
        Part((0, 0, 0.34), (0.21, 0.21, 0.20), WHITE),
        Part((0, 0, 0.20), (0.23, 0.23, 0.065), RED),
        Part((0.20, 0.12, 0.04), (0.06, 0.06, 0.17), RED, roll=0.15),
        Part((0.30, 0, 0.34), (0.17, 0.05, 0.05), CARROT),
        *pair((0.175, 0.085, 0.41), (0.04, 0.042, 0.045), BLACK),
        *pair((0.195, 0.065, 0.26), (0.022, 0.022, 0.022), BLACK),
        Part((0.205, 0, 0.25), (0.022, 0.022, 0.022), BLACK),
        Part((0.27, 0, 0.06), (0.04, 0.04, 0.04), BLACK),
        Part((0.265, 0, -0.06), (0.04, 0.04, 0.04), BLACK),
        Part((0.345, 0, -0.32), (0.04, 0.04, 0.04), BLACK),
        Part((0, 0, 0.50), (0.25, 0.25, 0.028), BLACK),
        Part((0, 0, 0.61), (0.16, 0.16, 0.15), BLACK),
        Part((0, 0, 0.545), (0.167, 0.167, 0.035), RED),
        *pair((0, 0.36, 0.08), (0.03, 0.19, 0.03), BROWN, roll=0.45),
        *pair((0, 0.52, 0.19), (0.022, 0.06, 0.022), BROWN, roll=1.2),
    ]


TOYS = {
    "cat": cat,
    "corgi": corgi,
    "duck": duck,
    "frog": frog,
    "panda": panda,
    "snowman": snowman,
}
