"""`splat-esd rehearse`: a large prior's real shapes with random weights, through a run's own steps.

What a run will take is known before anything is downloaded: seconds and memory, by part.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

import torch

from splat_esd import console
from splat_esd.bench import machine
from splat_esd.bench.memory import peak_from_now
from splat_esd.bench.products import ProductsInFloat32
from splat_esd.config.commands import RehearseArguments, command_line
from splat_esd.config.load import load_config
from splat_esd.diffusion.families import FAMILIES, MULTIVIEW
from splat_esd.diffusion.loading import computes_bf16
from splat_esd.diffusion.multiview import attend_across_views
from splat_esd.diffusion.prior import Prior
from splat_esd.diffusion.schedule import Schedule
from splat_esd.diffusion.text import Text
from splat_esd.runs.start import choose_device
from splat_esd.train import Run, make_run, train_step

_CROSS = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
_UNET = {"sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2}
_SD = {
    **_UNET,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (_CROSS[0],) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + (_CROSS[1],) * 3,
}
# The published configurations: family, denoiser, text [tokens, width, width of the pooled one].
SHAPES: dict[str, tuple[str | None, dict[str, Any], tuple[int, int, int]]] = {
    "sd15": (None, {**_SD, "cross_attention_dim": 768, "attention_head_dim": 8}, (77, 768, 0)),
    "sd21": (
        None,
        {
            **_SD,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
        (77, 1024, 0),
    ),
    "sdxl": (
        "text_time",
        {
            **_UNET,
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", _CROSS[0], _CROSS[0]),
            "up_block_types": (_CROSS[1], _CROSS[1], "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        (77, 2048, 1280),
    ),
    "sd35": (
        "SD3Transformer2DModel",
        {
            "sample_size": 128,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 24,
            "num_attention_heads": 24,
            "attention_head_dim": 64,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 384,
            "qk_norm": "rms_norm",
            "dual_attention_layers": tuple(range(13)),
        },
        (333, 4096, 2048),
    ),
    "flux2_klein": (
        "Flux2Transformer2DModel",
        {
            "in_channels": 128,
            "num_layers": 5,
            "num_single_layers": 20,
            "num_attention_heads": 24,
            "attention_head_dim": 128,
            "joint_attention_dim": 7680,
            "guidance_embeds": False,
        },
        (512, 7680, 0),
    ),
}
SHAPES["mvdream"] = (  # SD 2.1's, told cameras
    MULTIVIEW,
    SHAPES["sd21"][1]
    | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 16},
    SHAPES["sd21"][2],
)
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
_BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2  # Stable Diffusion's
COLUMNS = ("part", "seconds a step", "GiB at its highest")


class RandomPrior(Prior):
    """A prior of which every word is known and embedded as noise."""

    def check_words(self, prompt: str) -> None:
        """Takes any word."""

    def fits(self, prompt: str) -> bool:
        """Takes any length."""
        return True

    def encode_text(self, prompts: list[str]) -> Text:
        """Returns noise of the shape of embedded prompts."""
        tokens, width, pooled = SHAPES[self.source][2]
        embeds = torch.randn(len(prompts), tokens, width, device=self.device)
        vector = torch.randn(len(prompts), pooled, device=self.device) if pooled else None
        return Text(embeds, vector)


def main(asked: RehearseArguments) -> None:
    """Makes a few steps with random weights, and prints what they took."""
    config = load_config(
        [
            "prompt=a corgi", f"prior={asked.prior}", f"prior.size={asked.size}", "steps=1000",
            f"prior.memory={asked.memory}", f"cameras.batch_size={asked.views}",
            f"device={asked.device}", f"prior.dtype={asked.dtype}", "processes=1",
            "prior.growth=[]",
        ]
    )  # fmt: skip
    device, _ = choose_device(config)
    half = computes_bf16(device) if asked.dtype == "auto" else asked.dtype == "bf16"
    with console.busy(f"making {asked.prior} of random weights"):
        whole = peak_from_now(device)
        prior = random_prior(asked.prior, device, torch.bfloat16 if half else torch.float32)
        prior.size, prior.pullback = asked.size, config.prior.pullback
        prior.rows = 1 if asked.memory == "low" else None
        run = make_run(config, prior)
    made = whole()
    meter, seconds = Meter(run), []
    emulated = half and not computes_bf16(device)
    if emulated:
        console.warn(
            "this processor has no instructions for bf16, so products are computed in float32: "
            "memory is right, seconds are not."
        )
    for step in range(asked.steps):
        with ProductsInFloat32() if emulated else nullcontext():
            seconds.append(meter.step(run, step))
        console.note(f"step {step + 1} of {asked.steps}: {seconds[-1]:.1f} s")
    parts = meter.parts
    peak = max([made, *(p["gib"] for p in parts.values())])
    rows = [[n, f"{p['seconds'] / asked.steps:.2f}", f"{p['gib']:.1f}"] for n, p in parts.items()]
    console.table(f"{asked.prior} at {asked.size}", COLUMNS, rows)
    console.note(f"{min(seconds):.1f} s a step, at most {peak:.1f} GiB; weights are random.")
    if asked.out is not None:
        found = {
            "command": command_line("rehearse", asked),
            "version": version("splat-esd"),
            "machine": machine.describe(),
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "dtype": str(prior.dtype),
            "products": "float32" if emulated else str(prior.dtype).removeprefix("torch."),
            "parameters": sum(p.numel() for p in prior.denoiser.parameters()),
            "seconds": seconds,
            "peak_gib": peak,
            "parts": parts,
        }
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
        console.note(f"all figures are in {asked.out}.")


@torch.no_grad()
def random_prior(
    kind: str,
    device: torch.device,
    dtype: torch.dtype,
    cls: type[RandomPrior] = RandomPrior,
) -> RandomPrior:
    """Makes a prior of the published shapes, its weights small random numbers."""
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    name, shape, _ = SHAPES[kind]
    family = FAMILIES[name]
    flow = family.prediction == "flow"
    latents = {"latent_channels": shape["in_channels"] // family.latents.patch**2}
    path = Schedule.linear(1000, 3.0) if flow else None
    path = path or Schedule.variance_preserving(torch.cumprod(1 - _BETAS, 0))
    denoiser = _filled(getattr(diffusers, family.denoiser[1]), shape, device, dtype)
    if name == MULTIVIEW:
        attend_across_views(denoiser)
    return cls(
        schedule=path.to(device),
        denoiser=denoiser,
        vae=_filled(getattr(diffusers, family.vae), VAE | latents, device, dtype),
        text_encoders=[],
        tokenizers=[],
        family=family,
        zero_empty=False,
        prediction=family.prediction or "epsilon",
        size=None,
        source=kind,
        revision=None,
        dtype=dtype,
        vocabulary=None,
        pullback="encoder",
    )


def _filled(cls: Any, shape: dict, device: torch.device, dtype: torch.dtype) -> Any:
    """Makes a network on the device at once, without a copy in single precision beside it."""
    with torch.device("meta"):
        network = cls(**shape)
    network = network.to(dtype).to_empty(device=device)
    for parameter in network.parameters():
        parameter.normal_(std=0.02)
    for buffer in network.buffers():
        buffer.zero_()
    return network.eval().requires_grad_(False)


class Meter:
    """Adds up the seconds of a run's parts and keeps the highest memory in each and beside them."""

    def __init__(self, run: Run):
        self.device = run.device
        self.parts: dict[str, dict[str, float]] = defaultdict(lambda: {"seconds": 0.0, "gib": 0.0})
        prior, guidance = run.prior, run.guidance
        prior.encode_images = self._watched("encode", prior.encode_images)
        guidance.prior_eps = self._watched("prior", guidance.prior_eps)
        guidance.particles = self._watched("phi, forward", guidance.particles)
        self._peak = peak_from_now(self.device)

    def step(self, run: Run, step: int) -> float:
        """Makes a step and returns its seconds; what no part took is `all else`."""
        known, begun = sum(part["seconds"] for part in self.parts.values()), time.perf_counter()
        train_step(run, step)
        self._wait()
        seconds = time.perf_counter() - begun
        self._read("all else")
        inside = sum(part["seconds"] for part in self.parts.values()) - known
        self.parts["all else"]["seconds"] += seconds - inside
        return seconds

    def _watched(self, name: str, call: Callable) -> Callable:
        def timed(*arguments: Any, **named: Any) -> Any:
            self._read("all else")
            begun = time.perf_counter()
            answer = call(*arguments, **named)
            self._wait()
            self.parts[name]["seconds"] += time.perf_counter() - begun
            self._read(name)
            return answer

        return timed

    def _read(self, name: str) -> None:
        self.parts[name]["gib"] = max(self.parts[name]["gib"], self._peak())
        self._peak = peak_from_now(self.device)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
