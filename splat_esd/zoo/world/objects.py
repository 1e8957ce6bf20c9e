"""The toys of the zoo: front towards +x, left +y, up +z, about 1.3 in height and length.

A toy is data. To add one, write a function that returns it and name it in `OBJECTS`.
"""

from collections.abc import Callable

from splat_esd.zoo.world.objects_more import frog, owl, penguin, robot, snowman
from splat_esd.zoo.world.objects_pets import cat, corgi, duck, mouse, pig, rabbit
from splat_esd.zoo.world.objects_things import (
    cactus,
    cake,
    car,
    chair,
    house,
    mushroom,
    rocket,
    teapot,
    tree,
)
from splat_esd.zoo.world.objects_wild import bear, elephant, fox, lion, monkey, panda
from splat_esd.zoo.world.toy import Toy

# Those with a face come first.
OBJECTS: dict[str, Callable[[], Toy]] = {
    toy.__name__: toy
    for toy in (
        *(corgi, panda, cat, duck, frog, owl, pig, rabbit, penguin),
        *(robot, snowman, lion, bear, elephant, monkey, fox, mouse),
        *(mushroom, cactus, house, car, teapot, rocket, tree, chair, cake),
    )
}
