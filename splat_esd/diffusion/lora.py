"""The LoRA phi: the score of our own renders, with a camera and without."""

from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from splat_esd.cameras import Cameras
from splat_esd.diffusion.chunks import by_rows
from splat_esd.diffusion.multiview import poses
from splat_esd.diffusion.prior import Prior
from splat_esd.diffusion.text import Text

FEW_TOKENS = 1024  # written out, attention keeps tokens^2 numbers a head
WAVES = 4  # of the azimuth
CAMERA_NUMBERS = 17 + 2 * WAVES  # c2w's sixteen, the field of view, which c2w does not hold
CAMERA_RATE = 5.0  # of the camera's layers, which start from nothing, in LoRA's rates


def camera_vector(cameras: Cameras) -> Float[Tensor, "B 25"]:
    """Returns what phi is told of each camera: c2w row by row, tan(fovy / 2), and of the azimuth
    sin(k a) and cos(k a) for k = 1 ... WAVES.

    The last row of c2w holds a 1, so no camera is the null token, which is all zeros.

    References:
        Fourier Features (Tancik et al., 2020), Sec. 3. https://arxiv.org/abs/2006.10739
    """
    k = torch.arange(1, WAVES + 1, device=cameras.azimuth.device)
    turns = cameras.azimuth[:, None] * k
    fovy = torch.tan(0.5 * cameras.fovy)[:, None]
    return torch.cat([cameras.c2w.flatten(1), fovy, turns.sin(), turns.cos()], dim=1)


class Phi(nn.Module):
    """eps_phi(z_t, t, y, c): the prior plus a LoRA, and the camera on its text.

    A network of two layers makes a vector of the camera, which is added to each token's: words are
    what tells the prior of a view. On the time embedding, where ProlificDreamer has it, the same
    network learnt nothing of the camera in as many steps (`splat-esd bench phi`).

    There is one set of frozen weights. Outside `Phi`'s own passes the adapter is off, and the
    prior's denoiser is bit for bit what was loaded. At the start phi equals the prior: LoRA's B and
    the camera's last layer are zero.

    Arguments:
        text: The plain prompt's embedding, one row: the view-dependent one would tell the null
            branch where the camera is.
    References:
        LoRA (Hu et al., 2021); ProlificDreamer (Wang et al., 2023), Sec. 3.2; ESD
        (Wang et al., 2024), Sec. 4. https://arxiv.org/abs/2401.00909
    """

    def __init__(self, prior: Prior, text: Text, *, rank: int, seed: int):
        from peft import LoraConfig

        super().__init__()
        self.prior, self.text = prior, text
        width = text.embeds.shape[-1]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = LoraConfig(
                r=rank,
                lora_alpha=rank,
                init_lora_weights="gaussian",
                target_modules=list(prior.family.lora_targets),
            )
            prior.denoiser.add_adapter(config, adapter_name="phi")
            first, last = nn.Linear(CAMERA_NUMBERS, 256), nn.Linear(256, width)
            self.camera = nn.Sequential(first, nn.SiLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.camera.to(prior.device)
        self._lora = {n: p for n, p in prior.denoiser.named_parameters() if ".phi." in n}
        for parameter in self._lora.values():
            parameter.data = parameter.data.float()  # bf16 would swallow its updates
        if prior.device.type == "cpu":
            _fold(prior.denoiser)
        lone = prior.together == 1
        if prior.device.type == "cpu" and prior.family.denoiser[0] == "unet" and lone:
            prior.denoiser.set_attn_processor(_attention_for_cpus())
        self._detach()

    def trainable(self) -> dict[str, nn.Parameter]:
        """Returns what phi learns, by name: the LoRA's matrices and the camera embedding."""
        camera = {f"camera.{name}": p for name, p in self.camera.named_parameters()}
        return self._lora | camera

    def groups(self) -> list[dict[str, Any]]:
        """Returns what phi learns as an optimizer takes it; `times` is how fast, in the LoRA's
        rates.
        """
        camera = list(self.camera.parameters())
        return [
            {"params": list(self._lora.values()), "times": 1.0},
            {"params": camera, "times": CAMERA_RATE},
        ]

    def eps(
        self,
        z_t: Float[Tensor, "B C h w"],
        t: Int[Tensor, " B"],
        camera: Float[Tensor, "B 25"],
    ) -> Float[Tensor, "B C h w"]:
        """Estimates the noise in z_t as our renders would have it; all zeros is no camera."""
        return self.prior.as_eps(self.denoise(z_t, t, camera), z_t, t)

    def eps_and_losses(
        self,
        z: Float[Tensor, "B C h w"],
        z_t: Float[Tensor, "B C h w"],
        t: Int[Tensor, " B"],
        eps: Float[Tensor, "B C h w"],
        camera: Float[Tensor, "B 25"],
        dropped: Bool[Tensor, " B"],
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, " B"]]:
        """Returns `eps` without a graph, and each sample's denoising loss with one, of one pass.

        The loss is in the prior's own prediction. Where `dropped`, phi is not told the camera.
        """
        out = self.denoise(z_t, t, camera.masked_fill(dropped[:, None], 0.0))
        losses = (out - self.prior.target(z, eps, t)).square().mean(dim=(1, 2, 3))
        return self.prior.as_eps(out.detach(), z_t, t), losses

    def denoise(self, z_t: Tensor, t: Tensor, camera: Tensor) -> Tensor:
        """Runs the denoiser with the LoRA; the answer is in the prior's own words."""

        def answer(r: slice) -> Tensor:
            text = self.text.expand(len(z_t[r])).moved(self.camera(camera[r]))
            if self.prior.together > 1:
                text = text.seen_from(poses(camera[r, :16].unflatten(1, (4, 4))))
            with self._attached():
                return self.prior.denoise(z_t[r], t[r], text)

        return by_rows(answer, len(z_t), self.prior.rows_together)

    @contextmanager
    def _attached(self):
        """Turns the adapter on for one pass."""
        self.prior.denoiser.enable_adapters()
        try:
            yield
        finally:
            self._detach()

    def _detach(self) -> None:
        self.prior.denoiser.disable_adapters()
        for parameter in self._lora.values():
            # peft has turned it off, and backward, which comes later, needs it.
            parameter.requires_grad_(True)


def _fold(denoiser: Any) -> None:
    """Makes passes with phi multiply by  W + B A  in one product: on a CPU peft's three, with the
    copies between them, take a tenth of a step.
    """
    from peft.tuners.lora import LoraLayer

    def forward(layer: Any, x: Tensor) -> Tensor:
        base = layer.base_layer
        if layer.disable_adapters:
            return base(x)
        change = layer.lora_B["phi"].weight @ layer.lora_A["phi"].weight
        return nn.functional.linear(x, base.weight + change.to(base.weight.dtype), base.bias)

    layers: list[Any] = [m for m in denoiser.modules() if isinstance(m, LoraLayer)]
    for layer in layers:
        layer.forward = partial(forward, layer)


def _attention_for_cpus() -> Any:
    """Returns attention whose passes with a graph are written out where the tokens are few: on a
    CPU the backward pass of torch's fused one takes three times as long.
    """
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    class Attention(AttnProcessor2_0):
        explicit = AttnProcessor()

        def __call__(self, attn: Any, hidden_states: Tensor, *rest: Any, **named: Any) -> Tensor:
            few = hidden_states.shape[1] <= FEW_TOKENS
            if torch.is_grad_enabled() and hidden_states.ndim == 3 and few:
                return self.explicit(attn, hidden_states, *rest, **named)
            return super().__call__(attn, hidden_states, *rest, **named)

    return Attention()
