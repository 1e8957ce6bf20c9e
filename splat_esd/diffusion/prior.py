"""The prior: a frozen text-to-image model in diffusers' layout; it speaks eps."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from splat_esd.diffusion.chunks import by_rows
from splat_esd.diffusion.families import Family
from splat_esd.diffusion.schedule import Schedule
from splat_esd.diffusion.text import Text
from splat_esd.diffusion.vocabulary import (
    Vocabulary,
    check_words,
    unknown_words,
    words_of,
)

UNSAID = 512  # side of the pictures of a denoiser whose configuration names none
PULL = 0.1  # how strongly a picture is drawn to what the autoencoder can express


@dataclass
class Prior:
    """A frozen denoiser with its text encoders, schedule and, unless it works on pixels, VAE.

    Arguments:
        denoiser: The UNet, or a transformer.
        family: How its text is embedded, and what its denoiser is given besides.
        zero_empty: Whether an empty prompt is embedded as zeros, as SDXL was trained.
        source: The folder or hub id it came from; `revision` the commit, or None for a plain
            folder.
        prediction: What the denoiser's output means: "epsilon", "v_prediction" or "flow".
        size: Side of the pictures it is shown, in pixels.
        dtype: What the denoiser computes in, and what gradients pass through on their way back
            (the autoencoder's encoder or decoder); latents, scores and gradients are float32 on the
            outside.
        vocabulary: The only words it knows, or None if any text will do.
        pullback: How a gradient of latents reaches the pixels, see `surrogate`.
        rows: How many views pass through a network at once; None: all.
    """

    schedule: Schedule
    # Any: diffusers and transformers are not imported before a prior is read.
    denoiser: Any
    vae: Any
    text_encoders: list[Any]
    tokenizers: list[Any]
    family: Family
    zero_empty: bool
    prediction: str
    size: int | None
    source: str
    revision: str | None
    dtype: torch.dtype
    vocabulary: Vocabulary | None
    pullback: str
    rows: int | None = None

    @property
    def together(self) -> int:
        """Returns how many rows of a batch are drawn together, as views of one thing."""
        return self.family.views

    @property
    def rows_together(self) -> int | None:
        """Returns `rows` in whole groups of those drawn together."""
        return None if self.rows is None else self.together * -(-self.rows // self.together)

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def image_size(self) -> int:
        """Returns the side of the square images it is shown: `size`, or that of its training."""
        trained = getattr(self.denoiser.config, "sample_size", None)
        return self.size or (trained * self.factor if trained else UNSAID)

    def side_at(self, share: float) -> int:
        """Returns a share of `image_size` that is a whole number of latents."""
        return max(1, round(share * self.image_size / self.factor)) * self.factor

    @property
    def factor(self) -> int:
        """Returns how many pixels one latent is wide."""
        if self.vae is None:
            return 1
        return self.family.latents.patch * 2 ** (len(self.vae.config.block_out_channels) - 1)

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
            tokens = self.family.tokens(tokenizer, prompts, self._length(tokenizer))
            here = {name: value.to(self.device) for name, value in tokens.items()}
            encoder.to(self.device)
            outputs.append(encoder(**here, output_hidden_states=True))
            encoder.to("cpu")  # a run asks once, and its GPU has better things to hold
        text = self.family.embed(outputs, self.denoiser.config)
        if not self.zero_empty:
            return text
        keep = torch.tensor([float(bool(prompt)) for prompt in prompts], device=self.device)
        return text.blend(torch.diag(keep))

    def fits(self, prompt: str) -> bool:
        """Tells whether no tokenizer has to cut the prompt."""
        return all(len(t(prompt).input_ids) <= self._length(t) for t in self.tokenizers)

    def _length(self, tokenizer: Any) -> int:
        return min(tokenizer.model_max_length, self.family.longest)

    def encode_images(self, rgb: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Maps images in [0, 1] to the denoiser's latents: the mean of E(2 x - 1), normalised as
        its family does.

        Differentiable with respect to the images, unless gradients come back through the decoder;
        a pixel prior's latents are 2 x - 1 themselves.
        """
        x = 2.0 * rgb.permute(0, 3, 1, 2) - 1.0
        if self.vae is None:
            return x
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.pullback == "encoder"):
            e = by_rows(lambda r: self._encode(x[r]), len(x), self.rows)
        return self.family.latents.to_z(self.vae, e)

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
            both = torch.cat([z, z - grad_z])
            here, there = by_rows(lambda r: self._decode(both[r]), len(both), self.rows).chunk(2)
            grad_x = here - there + PULL * (rgb - here)
        return (grad_x * rgb).sum() / len(z)

    def _encode(self, x: Tensor) -> Tensor:
        return self.vae.encode(x.to(self.vae.dtype)).latent_dist.mode().float()

    def _decode(self, z: Tensor) -> Tensor:
        x = z
        if self.vae is not None:
            x = self.vae.decode(self.family.latents.to_e(self.vae, z).to(self.vae.dtype)).sample
        return (0.5 + 0.5 * x).permute(0, 2, 3, 1).float()

    def eps(
        self,
        z_t: Float[Tensor, "B C h w"],
        t: Int[Tensor, " B"],
        text: Text,
    ) -> Float[Tensor, "B C h w"]:
        """Estimates the noise in z_t:  eps(z_t, t, y) = -sigma_t grad log p_t(z_t | y)."""

        def answer(r: slice) -> Tensor:
            return self.denoise(z_t[r], t[r], text.rows(r))

        return self.as_eps(by_rows(answer, len(z_t), self.rows_together), z_t, t)

    def as_eps(self, out: Tensor, z_t: Tensor, t: Tensor) -> Tensor:
        """Turns what the denoiser answered into noise."""
        if self.prediction == "epsilon":
            return out
        if self.prediction == "flow":
            return self.schedule.eps_from_flow(out, z_t, t)
        return self.schedule.eps_from_v(out, z_t, t)

    def denoise(self, z_t: Tensor, t: Tensor, text: Text) -> Tensor:
        """Runs the denoiser; the answer is in its own words (`prediction`), in float32."""
        height, width = (side * self.factor for side in z_t.shape[-2:])
        time = self.schedule.told(t)
        with self._cast():
            return self.family.answer(self.denoiser, z_t, time, text, height, width).float()

    def _cast(self) -> AbstractContextManager:
        single = self.dtype == torch.float32
        return nullcontext() if single else torch.autocast(self.device.type, self.dtype)

    def target(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Returns what `denoise` is trained to answer: the noise, the velocity or the flow."""
        if self.prediction == "epsilon":
            return eps
        return eps - z if self.prediction == "flow" else self.schedule.velocity(z, eps, t)
