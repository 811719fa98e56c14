"""Trains the text encoder on captions, and the UNet on latents of the pictures with them."""
import os
import sys
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import split
import training

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference"))
import tokenizer_files  # noqa: E402
from checkpoint_models import make_scheduler, state_all_settings  # noqa: E402

MERGES = 2048
PLACEHOLDER = "<*>"
PROMPT = "a photo of {}, 4k, high resolution"
CAPTIONS = (PROMPT, PROMPT, "a photo of a {}", "a photo of {}", "a picture of a {}", "{}", "a {}")
EMPTY_SHARE = 0.1
LENGTH = 77
TEXT_WIDTH = 128
CHANNELS = (48, 80, 128)
LATENT_SIDE = 16
LARGEST_RATIO = 5  # of signal to noise that counts fully: steps with less noise weigh less (min-SNR)


def merges_of(word, ranks):
    """The merges that join a word's characters, as byte-pair encoding applies them."""
    parts, used = [*word[:-1], word[-1] + "</w>"], []
    while len(parts) > 1:
        pairs = [f"{a} {b}" for a, b in zip(parts, parts[1:])]
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        at = pairs.index(best)
        parts[at : at + 2] = ["".join(parts[at : at + 2])]
        used.append(best)
    return used


def merges():
    """The first of CLIP's merges, and those that make one piece of each animal's name, in CLIP's order."""
    every = tokenizer_files.read_merges()
    ranks = {pair: rank for rank, pair in enumerate(every)}
    chosen = set(every[:MERGES]).union(*(merges_of(name, ranks) for name in split.NAMES))
    return [pair for pair in every if pair in chosen]


def write_tokenizer(folder):
    """CLIP's tokenizer with some of its merges; returns it with the placeholder added."""
    tokenizer_files.write(folder, merges(), "<|endoftext|>")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    if tokenizer.add_tokens(PLACEHOLDER) != 1:
        raise SystemExit(f"{PLACEHOLDER} is in the vocabulary already")
    return tokenizer


def token_ids(tokenizer, texts):
    return tokenizer(
        texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
    ).input_ids


def build_text_encoder(tokenizer):
    words = len(tokenizer) - 1
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=words, hidden_size=TEXT_WIDTH, num_attention_heads=4, num_hidden_layers=3,
            intermediate_size=4 * TEXT_WIDTH, max_position_embeddings=LENGTH, hidden_act="quick_gelu",
            projection_dim=TEXT_WIDTH, bos_token_id=words - 2, eos_token_id=words - 1,
        )
    )  # fmt: skip


def build_unet():
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


class Painter(nn.Module):
    """Text encoder and UNet."""

    def __init__(self, tokenizer):
        super().__init__()
        self.text = build_text_encoder(tokenizer)
        self.unet = build_unet()


def noise_schedule():
    return DDPMScheduler.from_config(make_scheduler(False).config)


@dataclass
class Captions:
    """Every caption of every kind, tokenised; the empty one last."""

    ids: torch.Tensor
    kinds: int

    @classmethod
    def of(cls, tokenizer, names):
        texts = [caption.format(name) for name in names for caption in CAPTIONS]
        return cls(token_ids(tokenizer, texts + [""]), len(names))

    def rows(self, kinds, random):
        chosen = kinds * len(CAPTIONS) + torch.randint(0, len(CAPTIONS), kinds.shape, generator=random)
        empty = torch.rand(kinds.shape, generator=random) < EMPTY_SHARE
        return torch.where(empty, len(self.ids) - 1, chosen)


def train_text(tokenizer, names, folder, steps, batch=24, peak=1e-3, seed=0):
    """Trains the text encoder before the UNet, as CLIP's is: from its end on, a caption's states name the animal.

    Without it the states of all captions begin alike, and the UNet learns for long to overlook them.
    """
    torch.manual_seed(seed)
    encoder, captions = build_text_encoder(tokenizer), Captions.of(tokenizer, names)
    model = nn.ModuleDict({"text": encoder, "head": nn.Linear(TEXT_WIDTH, captions.kinds + 1)})
    random = torch.Generator().manual_seed(seed)

    def loss(step):
        kinds = torch.randint(0, captions.kinds, (batch,), generator=random)
        rows = captions.rows(kinds, random)
        kinds = torch.where(rows == len(captions.ids) - 1, captions.kinds, kinds)
        ids = captions.ids[rows]
        states = model["text"](ids)[0]
        after = ids == ids[0, -1]  # the end and the padding behind it
        logits = model["head"](states)[after]
        targets = kinds[:, None].expand(-1, LENGTH)[after]
        error = functional.cross_entropy(logits, targets)
        return error, error.detach()

    return training.run("text", model, loss, folder, steps, peak, decay=0.99)["text"]


def train(latents, kinds, text, tokenizer, names, folder, steps, batch=16, peak=1.5e-3, seed=0, start=None):
    """Trains the UNet. `latents` are scaled already. The log's loss is the mean square error of the noise."""
    torch.manual_seed(seed)
    unet, captions, schedule = build_unet(), Captions.of(tokenizer, names), noise_schedule()
    if start is not None:
        unet.load_state_dict(start)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        states = text.eval()(captions.ids)[0]
    ratio = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
    weights = ratio.clamp(max=LARGEST_RATIO) / ratio

    def loss(step):
        chosen = torch.randint(0, len(latents), (batch,), generator=random)
        noise = torch.randn((batch, *latents.shape[1:]), generator=random)
        times = torch.randint(0, schedule.config.num_train_timesteps, (batch,), generator=random)
        noisy = schedule.add_noise(latents[chosen], noise, times)
        rows = captions.rows(kinds[chosen], random)
        error = functional.mse_loss(unet(noisy, times, states[rows]).sample, noise, reduction="none").mean((1, 2, 3))
        return (weights[times] * error).mean(), error.detach().mean()

    return training.run("unet", unet, loss, folder, steps, peak, decay=0.997)


def save(painter, autoencoder, folder):
    """Writes the diffusers folder."""
    from checkpoint_models import model_index_text

    painter.unet.save_pretrained(os.path.join(folder, "unet"))
    painter.text.save_pretrained(os.path.join(folder, "text_encoder"))
    autoencoder.save_pretrained(os.path.join(folder, "vae"))
    write_tokenizer(os.path.join(folder, "tokenizer"))
    make_scheduler(False).save_pretrained(os.path.join(folder, "scheduler"))
    state_all_settings(os.path.join(folder, "scheduler", "scheduler_config.json"))
    with open(os.path.join(folder, "model_index.json"), "w", encoding="utf-8") as file:
        file.write(model_index_text(False))


@torch.no_grad()
def sample(painter, states, seeds, guidance, steps, scheduler):
    """Latents for states [2, 77, width] (empty prompt first), one for each seed."""
    noise = [
        torch.randn((1, 4, LATENT_SIDE, LATENT_SIDE), generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    latents = torch.cat(noise)
    scheduler.set_timesteps(steps)
    both = states.repeat_interleave(len(seeds), 0)
    for time in scheduler.timesteps:
        without, with_text = painter.unet(torch.cat([latents] * 2), time, both).sample.chunk(2)
        latents = scheduler.step(without + guidance * (with_text - without), time, latents).prev_sample
    return latents
