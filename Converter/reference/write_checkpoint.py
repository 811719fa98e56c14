"""Writes the checkpoint set that a layout describes: safetensors, torch zip pickles, configs, tokenizer."""
import argparse
import os
from collections import OrderedDict

import torch
from safetensors.torch import save_file

import layouts
import tokenizer_files


def tensors_of(file):
    return OrderedDict(
        (row["name"], torch.from_numpy(layouts.checked_values(file["path"], row))) for row in file["tensors"]
    )


def write_safetensors(file, out, spelling):
    path = prepared_path(file, out)
    new_names = file["newNames"] if spelling == "new" else {}
    named = ((new_names.get(row["name"], row["name"]), row) for row in file["tensors"])
    tensors = {name: torch.from_numpy(layouts.checked_values(file["path"], row)) for name, row in named if name}
    save_file(tensors, path, {"format": "pt"})


def write_torch(file, out):
    tensors = tensors_of(file)
    if file["ordered"]:
        tensors._metadata = OrderedDict({"": {"version": 1}})
    else:
        tensors = dict(tensors)
    contents = {"cfg": layouts.cfg_dictionary(file["cfg"]), "model": tensors} if "cfg" in file else tensors
    torch.save(contents, prepared_path(file, out))


def write_text(file, out, text):
    with open(prepared_path(file, out), "w", encoding="utf-8", newline="\n") as handle:
        handle.write(text)


def prepared_path(file, out):
    path = os.path.join(out, file["path"])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def write(layout, out, spelling="hub", merges_path=tokenizer_files.DEFAULT_MERGES):
    merges = tokenizer_files.read_merges(merges_path)
    for file in layout["files"]:
        if file["kind"] == "safetensors":
            write_safetensors(file, out, spelling)
        elif file["kind"] == "torch":
            write_torch(file, out)
        elif file["kind"] == "vocabulary":
            write_text(file, out, tokenizer_files.vocabulary_text(merges))
        elif file["kind"] == "merges":
            write_text(file, out, tokenizer_files.merges_text(merges))
        else:
            write_text(file, out, file["text"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("layout")
    parser.add_argument("out")
    parser.add_argument("--naming", default="hub", choices=("hub", "new"))
    options = parser.parse_args()
    write(layouts.read(options.layout), options.out, options.naming)


if __name__ == "__main__":
    main()
