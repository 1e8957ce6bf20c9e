"""Training and examination of the judge."""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splat_esd.config.commands import ZooJudgeArguments
from splat_esd.zoo.judge.augment import disturb, warp
from splat_esd.zoo.judge.network import BINS, CLASSES, SIZE, Judge, build_network, heads, labels
from splat_esd.zoo.prior.dataset import Bias, Photos, Shots, backgrounds, take_photos, world
from splat_esd.zoo.prior.loop import Clock, descend, load, log, save

FROM_ANYWHERE = Bias(
    front=0.0,
    sides=0.0,
    overhead=0.05,
    elevation=(-20.0, 60.0),
    distance=(2.2, 2.9),
    sun=0.7,  # else shadows would tell from where a cake is seen
    held_out=True,
)
AS_GENERATED = Bias(front=0.0, sides=0.0, overhead=0.0, held_out=True)
_WEIGHTS = torch.tensor([1.0, 1.0, 3.0, 1.0, 1.0])  # of the losses: what is worn is the hardest
EXAM, _EXAM_SEED = 2600, 987654321  # photos, and where they come from


def main(settings: ZooJudgeArguments) -> None:
    """Trains the judge; run it again on the same folder and it goes on where it stopped."""
    torch.set_num_threads(settings.threads)
    out = settings.out
    photos = take_photos(
        settings.photos,
        SIZE,
        seed=settings.seed,
        bias=FROM_ANYWHERE,
        folder=out / "work" / "photos",
        processes=settings.processes,
    )
    network, step = train(photos, settings, out / "work")
    card = {"classes": {head: list(names) for head, names in CLASSES.items()}, "world": world()}
    card |= {"steps": step, "batch": settings.batch, "minutes": settings.minutes}
    _write(out, network, card | {"exam": examine(Judge(network), EXAM)})


def train(photos: Photos, settings: ZooJudgeArguments, work: Path) -> tuple[nn.Module, int]:
    """Minimises the cross-entropies of all heads on spoilt photos for the minutes given."""
    torch.manual_seed(settings.seed)
    network = build_network().train()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.02)
    step, spent = load(work / "judge.pt", network=network, optimizer=optimizer)
    generator = torch.Generator().manual_seed(settings.seed + step)
    clock, saved, losses = Clock(settings.minutes, spent), spent, []
    names = (*CLASSES, "azimuth")
    known = labels(photos.shots.compositions)
    azimuth = torch.from_numpy(photos.shots.azimuth).float()
    while clock.running:
        index = torch.randint(len(photos), (settings.batch,), generator=generator)
        flip = torch.rand(len(index), generator=generator) < 0.5
        images = _half_spoilt(_mirrored(_rgba(photos, index), flip), generator)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images.contiguous(memory_format=torch.channels_last))
        turn = torch.where(flip, -azimuth[index], azimuth[index])
        losses.append(cross_entropies(logits, known[index], turn))
        descend(_WEIGHTS @ losses[-1], network, optimizer, clock.rate(2e-3, step))
        losses[-1] = losses[-1].detach()
        step += 1
        if step % 100 == 0:
            means = dict(zip(names, torch.stack(losses).mean(0).tolist(), strict=True))
            log(work / "judge.jsonl", step=step, minutes=clock.spent / 60, **means)
            losses = []
        if clock.spent - saved > 120:
            saved = clock.spent
            save(work / "judge.pt", step=step, spent=saved, network=network, optimizer=optimizer)
    save(work / "judge.pt", step=step, spent=clock.spent, network=network, optimizer=optimizer)
    return network, step


def _half_spoilt(rgba: Tensor, generator: torch.Generator) -> Tensor:
    """Spoils the first half and only moves the second: what is small shows best undisturbed."""
    half = len(rgba) // 2
    moved = warp(rgba[half:], generator)
    return torch.cat([disturb(rgba[:half], generator), _over_plain(moved, generator)])


def _over_plain(rgba: Tensor, generator: torch.Generator) -> Tensor:
    return rgba[:, :3] + (1.0 - rgba[:, 3:]) * backgrounds(len(rgba), generator)[:, :, None, None]


def _rgba(photos: Photos, index: Tensor) -> Tensor:
    return torch.from_numpy(photos.rgba[index.numpy()]).float().div_(255).permute(0, 3, 1, 2)


def _mirrored(rgba: Tensor, flip: Tensor) -> Tensor:
    return torch.where(flip[:, None, None, None], rgba.flip(-1), rgba)


def cross_entropies(logits: Tensor, known: Tensor, azimuth: Tensor) -> Tensor:
    """Returns the mean cross-entropy of each head [5].

    The colour of what is worn counts where it was asked for or nothing is worn: natural ones have
    no name. The azimuth counts everywhere; of what looks alike from all sides, all angles are as
    likely, and the judge learns to say so.
    """
    *named, turn = heads(logits)
    losses = [F.cross_entropy(named[i], known[:, i], reduction="none") for i in range(len(named))]
    losses[3] = losses[3] * _has_dye(known)
    losses.append(F.cross_entropy(turn, soft_bins(azimuth), reduction="none"))
    return torch.stack(losses).mean(-1)


def _has_dye(known: Tensor) -> Tensor:
    return (known[:, 2] == 0) | (known[:, 3] > 0)


def soft_bins(azimuth: Tensor) -> Tensor:
    """Shares each angle out between the two bins beside it: [B, BINS]."""
    place = torch.remainder(azimuth * (BINS / (2 * math.pi)), BINS)
    low, share = place.long() % BINS, place.frac()[:, None]
    return (1 - share) * F.one_hot(low, BINS) + share * F.one_hot((low + 1) % BINS, BINS)


def examine(judge: Judge, count: int) -> dict[str, dict]:
    """Asks the judge about fresh photos, as the prior would make them and spoilt: the share of
    right answers of each head, the median error of the azimuth in degrees, and both of each object.
    """
    photos = take_photos(count, SIZE, seed=_EXAM_SEED, bias=AS_GENERATED)
    generator = torch.Generator().manual_seed(_EXAM_SEED)
    rgba = _rgba(photos, torch.arange(count))
    return {
        "clean": _marks(judge, _over_plain(rgba, generator), photos.shots),
        "spoilt": _marks(judge, disturb(rgba, generator), photos.shots),
    }


def _marks(judge: Judge, images: Tensor, shots: Shots) -> dict:
    verdict, known = judge(images.permute(0, 2, 3, 1)), labels(shots.compositions)
    right = {
        head: getattr(verdict, head).argmax(-1) == known[:, i] for i, head in enumerate(CLASSES)
    }
    right["accessory_color"] = right["accessory_color"][_has_dye(known)]
    error = verdict.azimuth - torch.from_numpy(shots.azimuth).float()
    error = (torch.remainder(error + math.pi, 2 * math.pi) - math.pi).abs().rad2deg()
    marks: dict = {head: _round(flags.float().mean()) for head, flags in right.items()}
    marks["azimuth_degrees"] = _round(error.median())
    marks["objects"] = {}
    for i, name in enumerate(CLASSES["object"]):
        of = known[:, 0] == i
        if of.any():
            share, turn = right["object"][of].float().mean(), error[of].median()
            marks["objects"][name] = {"right": _round(share), "azimuth_degrees": _round(turn)}
    return marks


def _round(value: Tensor) -> float:
    return round(value.item(), 4)


def _write(out: Path, network: nn.Module, card: dict) -> None:
    from safetensors.torch import save_file

    state = network.state_dict().items()
    half = {name: v.half() if v.is_floating_point() else v for name, v in state}
    save_file({k: v.contiguous() for k, v in half.items()}, out / "judge.safetensors")
    (out / "judge.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
