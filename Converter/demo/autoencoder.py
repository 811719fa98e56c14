"""Trains the autoencoder: 64 x 64 pictures to 4 x 16 x 16 latents and back."""
import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional

import training

CHANNELS = (16, 32, 64)
KL_WEIGHT = 1e-5


def build():
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(CHANNELS),
        up_block_types=("UpDecoderBlock2D",) * len(CHANNELS),
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
    )


def to_tensor(pictures):
    """uint8 [count, side, side, 3] -> float [count, 3, side, side] in -1...1"""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(tensor):
    return ((tensor / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def gradients(x):
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def loss_of(model, x):
    posterior = model.encode(x).latent_dist
    y = model.decode(posterior.sample()).sample
    edges = sum(functional.l1_loss(a, b) for a, b in zip(gradients(y), gradients(x)))
    difference = functional.l1_loss(y, x) + functional.mse_loss(y, x)
    return difference + 0.5 * edges + KL_WEIGHT * posterior.kl().mean(), difference


def train(pictures, folder, steps, batch=16, peak=2e-3, seed=0):
    """Trains on uint8 pictures; the result has its scaling factor set to 1 / the latents' deviation."""
    torch.manual_seed(seed)
    model = build()
    random = np.random.default_rng(seed)

    def loss(step):
        return loss_of(model, to_tensor(pictures[random.integers(0, len(pictures), batch)]))

    model = training.run("autoencoder", model, loss, folder, steps, peak, decay=0.999)
    with torch.no_grad():
        latents = encode(model, pictures[:: max(1, len(pictures) // 512)])
    model.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return model


def refine(model, pictures, folder, steps, batch=12, peak=1.5e-3, seed=1):
    """Trains the decoder on: latents stay as they are, so that this may follow the UNet's training or run beside it."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    for part in (model.encoder, model.quant_conv):
        part.requires_grad_(False)
    latents = encode(model, pictures)

    def loss(step):
        chosen = random.integers(0, len(pictures), batch)
        x, y = to_tensor(pictures[chosen]), model.decode(latents[torch.from_numpy(chosen)]).sample
        edges = sum(functional.l1_loss(a, b) for a, b in zip(gradients(y), gradients(x)))
        difference = functional.l1_loss(y, x) + functional.mse_loss(y, x)
        return difference + 0.5 * edges, difference.detach()

    return training.run("decoder", model, loss, folder, steps, peak, decay=0.998)


@torch.no_grad()
def encode(model, pictures):
    """Latents, not scaled, of uint8 pictures."""
    return torch.cat([model.encode(to_tensor(p)).latent_dist.mode() for p in np.array_split(pictures, len(pictures) // 64 + 1)])


@torch.no_grad()
def decode(model, latents):
    """uint8 pictures of latents that are not scaled."""
    return np.concatenate([to_pictures(model.decode(part).sample) for part in latents.split(64)])
