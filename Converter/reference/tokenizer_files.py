"""CLIP's tokenizer files, rebuilt from OpenAI's list of byte-pair merges."""
import gzip
import json
import os

MERGES = 49152 - 256 - 2
DEFAULT_MERGES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Resources", "clip_merges.txt")


def read_merges(path=DEFAULT_MERGES):
    """The merges CLIP uses, from `clip_merges.txt` or from OpenAI's `bpe_simple_vocab_16e6.txt.gz`."""
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8", newline="\n") as file:
        return file.read().split("\n")[1 : MERGES + 1]


def merges_text(merges):
    return "#version: 0.2\n" + "\n".join(merges) + "\n"


def byte_characters():
    """The printable character that stands for each byte, in the vocabulary's order."""
    codes = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    others = 256 - len(codes)
    return [chr(code) for code in codes] + [chr(256 + n) for n in range(others)]


def vocabulary(merges):
    characters = byte_characters()
    words = characters + [c + "</w>" for c in characters] + ["".join(pair.split()) for pair in merges]
    return words + ["<|startoftext|>", "<|endoftext|>"]


def vocabulary_text(merges):
    return json.dumps({word: index for index, word in enumerate(vocabulary(merges))})


def config_text(pad_token):
    return json.dumps(
        {
            "model_max_length": 77,
            "tokenizer_class": "CLIPTokenizer",
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "pad_token": pad_token,
        }
    )


def write(folder, merges, pad_token):
    """Writes vocab.json, merges.txt and tokenizer_config.json."""
    os.makedirs(folder, exist_ok=True)
    texts = {
        "vocab.json": vocabulary_text(merges),
        "merges.txt": merges_text(merges),
        "tokenizer_config.json": config_text(pad_token),
    }
    for name, text in texts.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
