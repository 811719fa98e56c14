"""Pictures of the animals: photographs and emoji, pasted with chance on backgrounds of chance. 64 x 64 RGB."""
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

import packages
import split

SIDE = 64
DRAWN = 2 * SIDE  # pictures are composed at twice the side
EMOJI_SIZE = 109  # the only size of the bitmap font


def cut_out(image):
    image = image.convert("RGBA")
    return image.crop(image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())


def subjects(work):
    """For each kind a list of RGBA cut-outs."""
    font = ImageFont.truetype(packages.local(work, split.EMOJI_FONT), EMOJI_SIZE)
    found = []
    for kind in split.KINDS:
        images = [cut_out(Image.open(packages.local(work, path))) for path in kind.stamps]
        for character in kind.emoji:
            canvas = Image.new("RGBA", (160, 160))
            ImageDraw.Draw(canvas).text((8, 8), character, font=font, embedded_color=True)
            images.append(cut_out(canvas))
        for image in images:
            image.thumbnail((160, 160), Image.LANCZOS)
        found.append(images)
    return found


def _colour(random, low, high):
    return np.array([random.uniform(low, high) for _ in range(3)])


def background(random):
    """A sky over a ground, or a plain gradient, in soft colours."""
    rows = np.linspace(0, 1, DRAWN)[:, None, None]
    if random.random() < 0.6:
        sky = np.array([150, 195, 235]) + _colour(random, -25, 20)
        ground = np.array([(120, 175, 90), (205, 185, 130), (235, 240, 245)][random.integers(3)])
        ground = ground + _colour(random, -20, 20)
        horizon = random.uniform(0.45, 0.75)
        blend = 1 / (1 + np.exp(-(rows - horizon) * random.uniform(15, 60)))
        canvas = sky * (1 - blend) + ground * blend + 25 * (0.5 - rows)
    else:
        top, bottom = _colour(random, 130, 250), _colour(random, 130, 250)
        canvas = top * (1 - rows) + bottom * rows
    canvas = np.broadcast_to(canvas, (DRAWN, DRAWN, 3)) + random.normal(0, 3, (DRAWN, DRAWN, 1))
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8)).convert("RGBA")


def compose(subject, random):
    """One picture of a subject, uint8 [64, 64, 3]."""
    size = random.uniform(0.78, 0.98) * DRAWN
    scale = size / max(subject.size)
    image = subject.resize([max(1, round(side * scale)) for side in subject.size], Image.BILINEAR)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(random.uniform(-6, 6), Image.BILINEAR, expand=True)
    alpha = image.getchannel("A")
    image = ImageEnhance.Brightness(image).enhance(random.uniform(0.88, 1.12))
    image = ImageEnhance.Color(image).enhance(random.uniform(0.8, 1.2))
    image.putalpha(alpha)
    canvas = background(random)
    free = [DRAWN - side for side in image.size]
    place = [round(space * random.uniform(0.3, 0.7)) for space in free]
    place[1] = round(free[1] * random.uniform(0.45, 0.85))
    if random.random() < 0.7:
        shadow = Image.new("L", canvas.size)
        left, foot = place[0] + image.size[0] * 0.15, place[1] + image.size[1]
        ImageDraw.Draw(shadow).ellipse((left, foot - 8, left + image.size[0] * 0.7, foot + 5), fill=70)
        canvas.paste((30, 30, 30, 255), mask=shadow.filter(ImageFilter.GaussianBlur(3)))
    canvas.alpha_composite(image.crop((max(0, -place[0]), max(0, -place[1]), *image.size)), [max(0, p) for p in place])
    return np.asarray(canvas.convert("RGB").resize((SIDE, SIDE), Image.BOX))


def make(work, per_kind, seed):
    """(pictures uint8 [kinds * per_kind, 64, 64, 3], kinds [kinds * per_kind])."""
    random = np.random.default_rng(seed)
    pictures, kinds = [], []
    for index, images in enumerate(subjects(work)):
        for number in range(per_kind):
            pictures.append(compose(images[number % len(images)], random))
            kinds.append(index)
    return np.stack(pictures), np.array(kinds)


def sheet(pictures, columns, path, scale=2):
    """Writes a contact sheet."""
    rows = (len(pictures) + columns - 1) // columns
    canvas = Image.new("RGB", (columns * (SIDE + 2), rows * (SIDE + 2)), "white")
    for index, picture in enumerate(pictures):
        place = (index % columns * (SIDE + 2), index // columns * (SIDE + 2))
        canvas.paste(Image.fromarray(picture), place)
    canvas.resize([side * scale for side in canvas.size], Image.NEAREST).save(path)
