"""What every runtime computes: the stages, their shapes, and random inputs for them."""
import json
import os
from dataclasses import dataclass

UNET, VAE, SOUND = "unet_step", "vae_decode", "sound"
#: In the order of the report.
STAGES = {
    UNET: "One guided UNet step",
    VAE: "VAE decoder",
    SOUND: "BEATs and token projector",
}
PROMPT_TOKENS = 77
SAMPLE_RATE = 16000
SECONDS_OF_SOUND = 10
TIMESTEP = 501


@dataclass(frozen=True)
class Workload:
    """Everything a runtime has to know; written as JSON for the workers."""

    checkpoint: str
    cache: str  # folder for exported and quantised models of this checkpoint
    threads: int
    #: Whether all are to keep from instructions that are newer than AVX2.
    avx2: bool = False

    @property
    def sd(self):
        return os.path.join(self.checkpoint, "sd")

    def unet_config(self):
        with open(os.path.join(self.sd, "unet", "config.json"), encoding="utf-8") as file:
            return json.load(file)

    @property
    def latent_side(self):
        return self.unet_config()["sample_size"]

    @property
    def picture_side(self):
        return 8 * self.latent_side

    @property
    def context(self):
        return self.unet_config()["cross_attention_dim"]

    def describe(self, stage):
        side = self.latent_side
        return {
            UNET: f"batch 2, latents {side}x{side}, context {PROMPT_TOKENS}x{self.context}",
            VAE: f"latents {side}x{side} to a picture of {self.picture_side}x{self.picture_side}",
            SOUND: f"{SECONDS_OF_SOUND} s of sound to one token",
        }[stage]

    def unet_inputs(self, seed=0):
        """Latents [2, 4, side, side], timestep [1] and context [2, 77, width], as float32 arrays."""
        import numpy as np

        random = np.random.default_rng(seed)
        latents = random.standard_normal((1, 4, self.latent_side, self.latent_side), np.float32).repeat(2, 0)
        context = random.standard_normal((2, PROMPT_TOKENS, self.context), np.float32)
        return latents, np.array([TIMESTEP], np.float32), context

    def vae_inputs(self, seed=0):
        """Latents [1, 4, side, side]."""
        import numpy as np

        shape = (1, 4, self.latent_side, self.latent_side)
        return (np.random.default_rng(seed).standard_normal(shape, np.float32),)

    def waveform(self):
        """Quiet noise, [1, samples]."""
        import numpy as np

        shape = (1, SECONDS_OF_SOUND * SAMPLE_RATE)
        return 0.1 * np.random.default_rng(0).standard_normal(shape, np.float32)
