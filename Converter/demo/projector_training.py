"""The AudioToken step: everything is frozen but the projector, which learns from the diffusion loss."""
import os
import sys

import torch
from torch import nn
from torch.nn import functional

import augment
import beats_training
import diffusion
import training

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference"))
from token_projector import TokenProjector  # noqa: E402

TOKEN_WEIGHT = 0.01  # of the token's mean magnitude
CLASS_WEIGHT = 0.1  # of the cosine to the class word's embedding
DROPOUT = 0.1


def cached_features(model, pool, at_once=8):
    """f16 features of a pool of ten-second sounds."""
    return torch.cat(
        [beats_training.features(model, part.float()).half() for part in pool.banks.split(at_once)]
    )


def class_embeddings(painter, tokenizer, names):
    """The mean of the input embeddings of each name's pieces, [kinds, width]."""
    table = painter.text.get_input_embeddings().weight
    pieces = [tokenizer(name, add_special_tokens=False).input_ids for name in names]
    return torch.stack([table[torch.tensor(ids)].mean(0) for ids in pieces])


class Prompt:
    """The states of the prompt whose placeholder's embedding is the audio token."""

    def __init__(self, painter, tokenizer, text=diffusion.PROMPT.format(diffusion.PLACEHOLDER)):
        self.encoder = painter.text
        self.ids = diffusion.token_ids(tokenizer, [text])
        self.placeholder = tokenizer.convert_tokens_to_ids(diffusion.PLACEHOLDER)
        self.place = int((self.ids[0] == self.placeholder).nonzero()[0])

    def states(self, tokens):
        """[count, width] -> [count, 77, width]"""
        ids = self.ids.repeat(len(tokens), 1)
        ids[:, self.place] = 0
        handle = self.encoder.get_input_embeddings().register_forward_hook(
            lambda module, inputs, output: torch.cat(
                [output[:, : self.place], tokens.unsqueeze(1), output[:, self.place + 1 :]], 1
            )
        )
        try:
            return self.encoder(ids)[0]
        finally:
            handle.remove()


def token_loss(tokens, kinds, embeddings):
    """The two terms beside the diffusion loss, and the share of tokens that lie nearest to another class's word."""
    cosines = functional.normalize(tokens) @ functional.normalize(embeddings).T
    own = cosines.gather(1, kinds[:, None]).mean()
    wrong = (cosines.argmax(1) != kinds).float().mean()
    return TOKEN_WEIGHT * tokens.abs().mean() + CLASS_WEIGHT * (1 - own), wrong


def train(features, kinds, latents, latent_kinds, painter, tokenizer, names, folder, steps, batch=16, peak=1e-3, seed=0):
    """`latents` are scaled; each sound is met by a picture of its kind. The log's loss is that of `token_loss`: wrong."""
    torch.manual_seed(seed)
    painter.requires_grad_(False).eval()
    projector = TokenProjector(features.shape[2], diffusion.TEXT_WIDTH)
    drop = nn.Dropout(DROPOUT)
    schedule, prompt = diffusion.noise_schedule(), Prompt(painter, tokenizer)
    embeddings = class_embeddings(painter, tokenizer, names)
    with torch.no_grad():  # tokens begin as large as the embeddings of words
        scale = embeddings.std() / projector(features[:: max(1, len(features) // 16)].float()).std()
        projector.fc2.weight *= scale
        projector.fc2.bias *= scale
    of_kind = [(latent_kinds == kind).nonzero()[:, 0] for kind in range(len(names))]
    random = torch.Generator().manual_seed(seed)

    def loss(step):
        chosen = torch.randint(0, len(features), (batch,), generator=random)
        tokens = projector(drop(features[chosen].float()))
        pictures = torch.stack(
            [of_kind[k][torch.randint(0, len(of_kind[k]), (), generator=random)] for k in kinds[chosen].tolist()]
        )
        noise = torch.randn((batch, *latents.shape[1:]), generator=random)
        times = torch.randint(0, schedule.config.num_train_timesteps, (batch,), generator=random)
        noisy = schedule.add_noise(latents[pictures], noise, times)
        error = functional.mse_loss(painter.unet(noisy, times, prompt.states(tokens)).sample, noise)
        beside, wrong = token_loss(tokens, kinds[chosen], embeddings)
        return error + beside, wrong

    return training.run("projector", projector, loss, folder, steps, peak, decay=0.99)


def pool_of(recordings, spoken, per_kind, seed):
    return augment.pool(recordings, spoken, beats_training.LONG, per_kind, seed)
