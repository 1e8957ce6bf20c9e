"""The LoRA phi: the score of our own renders, with a camera and without."""

from contextlib import contextmanager
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
CAMERA_NUMBERS = 17  # c2w's sixteen, and the field of view, which c2w does not hold


def camera_vector(cameras: Cameras) -> Float[Tensor, "B 17"]:
    """Returns what phi is told of each camera: c2w row by row, then tan(fovy / 2).

    The last row of c2w holds a 1, so no camera is the null token, which is all zeros.
    """
    c2w = cameras.c2w.flatten(1)
    return torch.cat([c2w, torch.tan(0.5 * cameras.fovy)[:, None]], dim=1)


class Phi(nn.Module):
    """eps_phi(z_t, t, y, c): the prior plus a LoRA, and the camera on its time embedding.

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
        told = prior.denoiser.get_submodule(prior.family.time_embedding)
        width = [m for m in told.modules() if isinstance(m, nn.Linear)][-1].out_features
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
        self._embedding: Tensor | None = None
        lone = prior.together == 1
        if prior.device.type == "cpu" and prior.family.denoiser[0] == "unet" and lone:
            prior.denoiser.set_attn_processor(_attention_for_cpus())
        told.register_forward_hook(self._add_camera)
        self._detach()

    def trainable(self) -> dict[str, nn.Parameter]:
        """Returns what phi learns, by name: the LoRA's matrices and the camera embedding."""
        camera = {f"camera.{name}": p for name, p in self.camera.named_parameters()}
        return self._lora | camera

    def eps(
        self,
        z_t: Float[Tensor, "B C h w"],
        t: Int[Tensor, " B"],
        camera: Float[Tensor, "B 17"],
    ) -> Float[Tensor, "B C h w"]:
        """Estimates the noise in z_t as our renders would have it; all zeros is no camera."""
        return self.prior.as_eps(self._denoise(z_t, t, camera), z_t, t)

    def eps_and_losses(
        self,
        z: Float[Tensor, "B C h w"],
        z_t: Float[Tensor, "B C h w"],
        t: Int[Tensor, " B"],
        eps: Float[Tensor, "B C h w"],
        camera: Float[Tensor, "B 17"],
        dropped: Bool[Tensor, " B"],
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, " B"]]:
        """Returns `eps` without a graph, and each sample's denoising loss with one, of one pass.

        The loss is in the prior's own prediction. Where `dropped`, phi is not told the camera.
        """
        out = self._denoise(z_t, t, camera.masked_fill(dropped[:, None], 0.0))
        losses = (out - self.prior.target(z, eps, t)).square().mean(dim=(1, 2, 3))
        return self.prior.as_eps(out.detach(), z_t, t), losses

    def _denoise(self, z_t: Tensor, t: Tensor, camera: Tensor) -> Tensor:
        def answer(r: slice) -> Tensor:
            text = self.text.expand(len(z_t[r]))
            if self.prior.together > 1:
                text = text.seen_from(poses(camera[r, :16].unflatten(1, (4, 4))))
            with self._attached(camera[r]):
                return self.prior.denoise(z_t[r], t[r], text)

        return by_rows(answer, len(z_t), self.prior.rows_together)

    @contextmanager
    def _attached(self, camera: Tensor):
        """Turns the adapter and the camera embedding on for one pass."""
        self.prior.denoiser.enable_adapters()
        self._embedding = self.camera(camera)
        try:
            yield
        finally:
            self._embedding = None
            self._detach()

    def _detach(self) -> None:
        self.prior.denoiser.disable_adapters()
        for parameter in self._lora.values():
            # peft has turned it off, and backward, which comes later, needs it.
            parameter.requires_grad_(True)

    def _add_camera(self, _module: Any, _inputs: Any, output: Tensor) -> Tensor | None:
        return None if self._embedding is None else output + self._embedding.to(output.dtype)


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
