"""The colours of the zoo: those that can be asked for, and those that toys have by nature."""

Triple = tuple[float | int, float | int, float | int]
Color = Triple

# Told apart under sun and shade: hues at least 25 degrees apart, black and white within reach of
# shading, nothing fully saturated.
COLORS: dict[str, Color] = {
    "red": (0.86, 0.20, 0.20),
    "orange": (0.97, 0.53, 0.13),
    "yellow": (0.99, 0.85, 0.27),
    "green": (0.33, 0.68, 0.32),
    "blue": (0.22, 0.47, 0.88),
    "purple": (0.57, 0.32, 0.76),
    "white": (0.96, 0.95, 0.92),
    "black": (0.17, 0.17, 0.20),
}

INK: Color = (0.05, 0.045, 0.06)  # eyes and noses, darker than any paint
WHITE: Color = (0.97, 0.96, 0.93)
CREAM: Color = (0.98, 0.91, 0.77)
PINK: Color = (0.96, 0.63, 0.66)
ROSE: Color = (0.93, 0.42, 0.45)
GREY: Color = (0.60, 0.62, 0.68)
SLATE: Color = (0.33, 0.35, 0.41)
BROWN: Color = (0.52, 0.33, 0.19)
UMBER: Color = (0.34, 0.20, 0.12)
TAN: Color = (0.88, 0.68, 0.45)
GINGER: Color = (0.90, 0.55, 0.22)
GOLD: Color = (0.96, 0.76, 0.26)
CARROT: Color = (0.98, 0.52, 0.12)
LEAF: Color = (0.42, 0.70, 0.33)
SKY: Color = (0.62, 0.83, 0.95)
