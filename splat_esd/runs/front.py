"""Where the front of a start is, found before the run begins."""

import torch

from splat_esd import console
from splat_esd.config.load import Config
from splat_esd.config.refine import RefineJob
from splat_esd.diffusion.prompts import PromptBook
from splat_esd.facing import find_front
from splat_esd.runs.start import choose_device, open_prior
from splat_esd.train import initial_splats


def with_front(job: RefineJob) -> Config:
    """Returns the run's settings with the azimuth of its start's front, found if it was not given.

    Raises:
        UsageError: If the splat cannot be read, or the prompt has words the prior does not know.
    """
    config = job.config
    if not (job.find_front and config.prior.view_prompts):
        return config
    with console.busy("asking the prior where the front is"):
        prior = open_prior(config, choose_device(config)[0])
        book = PromptBook(prior, config.prompt, "", by_view=True)
        start = initial_splats(config, seed=0).gaussians.to(prior.device)
        with torch.no_grad():
            front = find_front(prior, book, start, seed=0)
    console.note(f"the front is at {front:g} degrees, the prior says; front=ANGLE says otherwise.")
    init = config.init.model_copy(update={"front": front})
    return config.model_copy(update={"init": init})
