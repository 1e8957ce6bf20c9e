"""Janus: how many faces an asset has, counted from what a judge says of views all around it."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

AROUND = 24  # views on a circle
FACING = math.radians(60.0)  # seen from nearer to the front than this, a face shows
SURE = 0.5  # least sharpness of a judged azimuth that counts
WIDEST = 180.0  # degrees over which one face may show


@dataclass(frozen=True)
class Faces:
    """What was counted: `free` of Janus or not, how many faces, over how many degrees the widest
    shows, whether the sides come in mirrored order, the index of the view in the middle of the
    widest face (of all views if none shows a face), and the judged azimuth of each view in
    degrees, None where the judge is not sure.
    """

    free: bool
    count: int
    arc: float
    mirrored: bool
    front: int
    judged: list[float | None]


def count_faces(
    azimuth: Float[Tensor, " K"], sharpness: Float[Tensor, " K"], *, has_front: bool = True
) -> Faces:
    """Counts the faces of an asset from the judged azimuths of K views, evenly around it.

    The rule: a view shows a face if it is judged, with a sharpness of at least SURE, to be taken
    within FACING of the front. A face is a run of two or more such views, a gap of one view
    bridged. The asset is free of Janus if it has exactly one face, over no more than WIDEST
    degrees. Where the asset's camera stood is of no account: it may face anywhere.

    Arguments:
        azimuth: In radians; `sharpness` in [0, 1].
        has_front: False for what looks alike from all sides: it has no face to count and is free.
    """
    sure = sharpness >= SURE
    places = 2 * math.pi * torch.arange(len(azimuth)) / len(azimuth)
    judged = [
        round(math.degrees(a), 1) if s else None
        for a, s in zip(azimuth.tolist(), sure.tolist(), strict=True)
    ]
    if not has_front:
        return Faces(free=True, count=0, arc=0.0, mirrored=False, front=0, judged=judged)
    turn = torch.remainder(azimuth + math.pi, 2 * math.pi).sub(math.pi).abs()
    runs = _runs(_bridged(sure & (turn < FACING)))
    faces = [run for run in runs if len(run) > 1]
    step = 360.0 / len(azimuth)
    widest = max(faces, key=len, default=[int(turn.argmin())])
    arc = step * len(widest) if faces else 0.0
    free = len(faces) == 1 and arc <= WIDEST
    front = widest[len(widest) // 2]
    return Faces(free, len(faces), arc, _mirrored(azimuth[sure], places[sure]), front, judged)


def _mirrored(azimuth: Float[Tensor, " K"], places: Float[Tensor, " K"]) -> bool:
    """Tells whether the judged azimuths a run against the places p of the cameras rather than
    with them:  |sum exp i(a + p)| > |sum exp i(a - p)|.  Such a body stands backwards and has its
    face painted on its back: one face, and still wrong.
    """
    with_them = torch.polar(torch.ones_like(azimuth), azimuth - places).sum().abs()
    against = torch.polar(torch.ones_like(azimuth), azimuth + places).sum().abs()
    return bool(against > with_them)


def _bridged(shows: Bool[Tensor, " K"]) -> Bool[Tensor, " K"]:
    """Closes gaps of one view."""
    return shows | (shows.roll(1) & shows.roll(-1))


def _runs(shows: Bool[Tensor, " K"]) -> list[list[int]]:
    """Returns the runs of True around the circle, as indices in order."""
    flags = shows.tolist()
    if all(flags):
        return [list(range(len(flags)))]
    start = flags.index(False)
    runs: list[list[int]] = [[]]
    for i in range(start, start + len(flags)):
        if flags[i % len(flags)]:
            runs[-1].append(i % len(flags))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
