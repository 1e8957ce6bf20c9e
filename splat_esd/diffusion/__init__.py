"""Diffusion: the noise schedule, the frozen prior, its LoRA and the prompts."""
