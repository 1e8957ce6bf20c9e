"""The prior: a frozen text-to-image model in diffusers' layout; it speaks eps."""

import json
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splat_esd.diffusion.checks import check_pipeline
from splat_esd.diffusion.families import FAMILIES, Family
from splat_esd.diffusion.schedule import Schedule
from splat_esd.diffusion.text import Text
from splat_esd.diffusion.vocabulary import (
    Vocabulary,
    check_words,
    read_vocabulary,
    unknown_words,
    words_of,
)
from splat_esd.errors import EnvironmentProblem, UsageError

PREDICTIONS = ("epsilon", "v_prediction")
PULL = 0.1  # how strongly a picture is drawn to what the autoencoder can express
_FILES = ["model_index.json", "*/config.json", "*/scheduler_config.json", "tokenizer*/*"]
_WEIGHTS = ["*/model.safetensors", "*/diffusion_pytorch_model.safetensors"]


@dataclass
class Prior:
    """A frozen denoiser with its text encoders, schedule and, unless it works on pixels, VAE.

    Arguments:
        family: How its text is embedded, and what its UNet is given besides.
        zero_empty: Whether an empty prompt is embedded as zeros, as SDXL was trained.
        source: The folder or hub id it came from; `revision` the commit, or None for a plain
            folder.
        prediction: What the UNet's output means, "epsilon" or "v_prediction".
        dtype: What the UNet and the decoder of a pull-back compute in; latents, scores and
            gradients are float32 on the outside.
        vocabulary: The only words it knows, or None if any text will do.
        pullback: How a gradient of latents reaches the pixels, see `surrogate`.
    """

    schedule: Schedule
    # Any: diffusers and transformers are not imported before a prior is read.
    unet: Any
    vae: Any
    text_encoders: list[Any]
    tokenizers: list[Any]
    family: Family
    zero_empty: bool
    prediction: str
    source: str
    revision: str | None
    dtype: torch.dtype
    vocabulary: Vocabulary | None
    pullback: str

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def image_size(self) -> int:
        """Returns the side of the square images it was trained on, in pixels."""
        return self.unet.config.sample_size * self._factor

    @property
    def _factor(self) -> int:
        return 1 if self.vae is None else 2 ** (len(self.vae.config.block_out_channels) - 1)

    def check_words(self, prompt: str) -> None:
        """Refuses a prompt with a word that this prior has never seen.

        Raises:
            UsageError: Naming the word, the words it knows, and the way out.
        """
        if self.vocabulary is not None:
            check_words(prompt, self.vocabulary)

    def split_words(self, prompt: str) -> tuple[str, list[str]]:
        """Returns a prompt without the words this prior has never seen, and those words."""
        unknown = [] if self.vocabulary is None else unknown_words(prompt, self.vocabulary.words)
        if not unknown:
            return prompt, []
        return " ".join(word for word in words_of(prompt) if word not in unknown), unknown

    @torch.no_grad()
    def encode_text(self, prompts: list[str]) -> Text:
        """Embeds prompts, padded or cut to the tokenizer's length."""
        outputs = []
        for tokenizer, encoder in zip(self.tokenizers, self.text_encoders, strict=True):
            tokens = tokenizer(
                prompts,
                padding="max_length",
                truncation=True,
                max_length=tokenizer.model_max_length,
                return_tensors="pt",
            )
            outputs.append(encoder(tokens.input_ids.to(self.device), output_hidden_states=True))
        text = self.family.embed(outputs)
        if not self.zero_empty:
            return text
        keep = torch.tensor([float(bool(prompt)) for prompt in prompts], device=self.device)
        return text.blend(torch.diag(keep))

    def fits(self, prompt: str) -> bool:
        """Tells whether no tokenizer has to cut the prompt."""
        return all(len(t(prompt).input_ids) <= t.model_max_length for t in self.tokenizers)

    def encode_images(self, rgb: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Maps images in [0, 1] to the denoiser's latents:  z = scale * mean(E(2 x - 1)).

        Differentiable with respect to the images, unless gradients come back through the decoder;
        a pixel prior's latents are 2 x - 1 themselves.
        """
        x = 2.0 * rgb.permute(0, 3, 1, 2) - 1.0
        if self.vae is None:
            return x
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.pullback == "encoder"):
            z = self.vae.encode(x).latent_dist.mode()
        return self.vae.config.scaling_factor * z

    def surrogate(
        self,
        rgb: Float[Tensor, "B H W 3"],
        z: Float[Tensor, "B C h w"],
        grad_z: Float[Tensor, "B C h w"],
    ) -> Float[Tensor, ""]:
        """Returns a loss whose gradient carries grad_z to the images that z was encoded from.

            encoder    sum(grad_z z) / B,        d loss / d x = (dz/dx)^T grad_z / B
            decoder    sum(grad_x x) / B,        grad_x = D(z) - D(z - grad_z) + PULL (x - D(z))

        The first is the paper's. The second asks where the decoder would move the picture if the
        latents took that step, to first order (dx/dz) grad_z, and keeps the picture near what the
        autoencoder can express. Small encoders need it: their transposed Jacobian paints patterns
        and colours that nobody sees in the latents. A pixel prior has nothing to pull back through.
        """
        if self.pullback == "encoder" or self.vae is None:
            return (grad_z * z).sum() / len(z)
        with torch.no_grad(), self._cast():
            here, there = self._decode(torch.cat([z, z - grad_z])).float().chunk(2)
            grad_x = here - there + PULL * (rgb - here)
        return (grad_x * rgb).sum() / len(z)

    def _decode(self, z: Tensor) -> Tensor:
        x = z if self.vae is None else self.vae.decode(z / self.vae.config.scaling_factor).sample
        return (0.5 + 0.5 * x).permute(0, 2, 3, 1)

    def eps(
        self,
        z_t: Float[Tensor, "B C h w"],
        t: Int[Tensor, " B"],
        text: Text,
    ) -> Float[Tensor, "B C h w"]:
        """Estimates the noise in z_t:  eps(z_t, t, y) = -sigma_t grad log p_t(z_t | y)."""
        out = self.denoise(z_t, t, text)
        return out if self.prediction == "epsilon" else self.schedule.eps_from_v(out, z_t, t)

    def denoise(self, z_t: Tensor, t: Tensor, text: Text) -> Tensor:
        """Runs the UNet; the answer is in its own words (`prediction`), in float32."""
        height, width = (side * self._factor for side in z_t.shape[-2:])
        more = self.family.conditions(text, height, width)
        with self._cast():
            return self.unet(z_t, t, encoder_hidden_states=text.embeds, **more).sample.float()

    def _cast(self) -> AbstractContextManager:
        single = self.dtype == torch.float32
        return nullcontext() if single else torch.autocast(self.device.type, self.dtype)

    def target(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Returns what `denoise` is trained to answer: the noise, or the velocity."""
        return eps if self.prediction == "epsilon" else self.schedule.velocity(z, eps, t)


def load_prior(
    source: str,
    *,
    mirrors: tuple[str, ...] = (),
    revision: str | None = None,
    device: torch.device | str,
    dtype: str,
    pullback: str = "encoder",
) -> Prior:
    """Loads a prior from a folder, from the hub's local cache, or from the hub.

    Arguments:
        source: A folder in diffusers' layout, or a hub id; `mirrors` are tried after it, in order.
        dtype: "auto" (bf16 where the device computes in it, else fp32), "bf16" or "fp32".
        pullback: "encoder" or "decoder".
    Raises:
        UsageError: If the folder is not a prior.
        EnvironmentProblem: If a hub id is neither on this machine nor to be reached.
    """
    device = torch.device(device)
    folder, source, commit = _locate(source, mirrors, revision)
    half = _computes_bf16(device) if dtype == "auto" else dtype == "bf16"
    compute = torch.bfloat16 if half else torch.float32
    try:
        check_pipeline(folder, source)
        prior = _read(folder, source, commit, device, compute, pullback)
        _try_call(prior)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(
            f"prior.path: {folder} cannot be read as a diffusers pipeline: {_first_line(error)}"
        ) from error
    return prior


@torch.no_grad()
def _try_call(prior: Prior) -> None:
    """Asks the UNet once, at the smallest size that passes through it."""
    config = prior.unet.config
    side = 2 ** len(config.block_out_channels)
    z_t = torch.zeros(1, config.in_channels, side, side, device=prior.device)
    text = prior.encode_text([""])
    try:
        out = prior.eps(z_t, torch.zeros(1, dtype=torch.long, device=prior.device), text)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"unet: a trial call failed: {_first_line(error)}") from error
    if out.shape != z_t.shape:
        raise ValueError(
            f"unet: expected {z_t.shape[1]} output channels, got {out.shape[1]}; "
            "use a text-to-image model that predicts eps or v."
        )


def _computes_bf16(device: torch.device) -> bool:
    """Tells whether bf16 is the faster: on a GPU, and on processors with instructions for it."""
    if device.type != "cpu":
        return True
    # Older torch cannot tell, and without such instructions bf16 is slower than float32.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _read(
    folder: Path,
    source: str,
    commit: str | None,
    device: torch.device,
    dtype: torch.dtype,
    pullback: str,
) -> Prior:
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))

    def part(cls: Any, name: str) -> Any:
        return cls.from_pretrained(folder, subfolder=name, local_files_only=True)

    scheduler = part(diffusers.DDPMScheduler, "scheduler")
    prediction = scheduler.config.prediction_type
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction_type: expected one of {PREDICTIONS}, got {prediction!r}.")
    vae = part(diffusers.AutoencoderKL, "vae") if index.get("vae", [None])[0] else None
    unet = part(diffusers.UNet2DConditionModel, "unet")
    family = FAMILIES[unet.config.addition_embed_type]
    encoders = [part(getattr(transformers, c), name) for name, c in family.encoders.items()]
    for module in (vae, unet, *encoders):
        if module is not None:
            module.eval().requires_grad_(False).to(device, torch.float32)
    return Prior(
        schedule=Schedule(scheduler.alphas_cumprod.to(device)),
        unet=unet.to(dtype),
        vae=vae,
        text_encoders=encoders,
        tokenizers=[
            part(transformers.CLIPTokenizer, name.replace("text_encoder", "tokenizer"))
            for name in family.encoders
        ],
        family=family,
        zero_empty=bool(index.get("force_zeros_for_empty_prompt")),
        prediction=prediction,
        source=source,
        revision=commit,
        dtype=dtype,
        vocabulary=read_vocabulary(folder),
        pullback=pullback,
    )


def _locate(
    source: str, mirrors: tuple[str, ...], revision: str | None
) -> tuple[Path, str, str | None]:
    """Finds the folder of a prior: a local folder, the hub's cache, then the hub itself."""
    if Path(source).is_dir():
        if not (Path(source) / "model_index.json").is_file():
            raise UsageError(
                f"prior.path: {source} has no model_index.json; expected a folder in diffusers' "
                "layout (unet, text_encoder, tokenizer, scheduler and, for latent priors, vae)."
            )
        return Path(source), source, None
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise UsageError(f"prior.path: {source} is neither a folder nor a hub id like owner/name.")
    from huggingface_hub import snapshot_download

    names = [source, *mirrors]
    for online in (False, True):
        for name in names if not online or _hub_answers() else []:
            try:
                folder = snapshot_download(
                    name,
                    revision=revision,
                    local_files_only=not online,
                    allow_patterns=_FILES + _WEIGHTS,
                )
                return Path(folder), name, Path(folder).name
            except (OSError, ValueError):
                continue  # this copy is not there; the next may be
    raise EnvironmentProblem(
        f"prior {source!r} is not on this machine and the hub cannot be reached or no longer has "
        f"it (tried {', '.join(names)}); run `hf download {source}` where there is a network, "
        "set prior.path=<folder>, or use prior=zoo."
    )


def _hub_answers() -> bool:
    """Tells within five seconds whether the hub can be reached, instead of a minute of retries."""
    import socket
    from urllib.parse import urlparse

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    url = urlparse(constants.ENDPOINT)
    try:
        socket.create_connection((url.hostname, url.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
