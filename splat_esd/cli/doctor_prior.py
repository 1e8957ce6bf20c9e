"""`splat-esd doctor prior=NAME`: the memory that a large prior will need, and what is here."""

import torch

from splat_esd import console, distributed
from splat_esd.bench.estimate import estimate
from splat_esd.config.commands import DoctorArguments
from splat_esd.config.load import load_config
from splat_esd.diffusion.loading import computes_bf16

COLUMNS = ("part", "GiB")


def examine_prior(asked: DoctorArguments) -> int:
    """Prints what a step will take at memory=full and low, and which of them fits here.

    Returns:
        0 if one of them fits, else 3.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = computes_bf16(device) if asked.dtype == "auto" else asked.dtype == "bf16"
    dtype = torch.bfloat16 if half else torch.float32
    config = load_config(["prompt=a corgi", f"prior={asked.prior}", f"prior.size={asked.size}"])
    with console.busy(f"counting what {asked.prior} keeps"):
        found = estimate(
            str(asked.prior),
            size=asked.size,
            views=asked.views,
            dtype=dtype,
            rank=config.guidance.lora.rank,
            on_cpu=device.type == "cpu",
        )
    graphs = found["graphs"]
    rows = [
        ["weights", f"{found['weights']:.1f}"],
        ["a view through the encoder", f"{graphs['encoder']:.1f}"],
        ["a view through phi", f"{graphs['phi']:.1f}"],
        [f"a step of {asked.views} views, prior.memory=full", f"{found['full']:.1f}"],
        ["a step, prior.memory=low", f"{found['low']:.1f}"],
    ]
    title = f"{asked.prior} at {asked.size}, {'bf16' if half else 'fp32'}"
    console.table(title, COLUMNS, rows)
    here = _memory(device)
    fits = [name for name in ("full", "low") if found[name] < here]
    what = "This GPU has" if device.type == "cuda" else "This machine has"
    advice = f"prior.memory={fits[0]} fits" if fits else "too little; take fewer pixels: size=256"
    console.result(f"\n{what} {here:.0f} GiB: {advice}.")
    if device.type == "cpu":
        console.result("Without a CUDA GPU a step takes minutes, and a run thousands of steps.")
    console.result(f"An estimate; measured by:  splat-esd rehearse prior={asked.prior}")
    return 0 if fits else 3


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**30
    return distributed.memory() / 2**30
