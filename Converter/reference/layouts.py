"""Checkpoint layouts: everything about a checkpoint set but its weights, which `hashed_weights` computes.

A layout is JSON: {"format", "name", "files": [file]}; each file has a path relative to the checkpoint's folder and
a kind:

  text         "text": the file's contents
  vocabulary   CLIP's vocab.json, rebuilt from the merges; "crc32" of the file
  merges       CLIP's merges.txt; "crc32" of the file
  safetensors  "tensors"; "crc32" of the whole file in the hub spelling; "newNames": {name in the file: name that newer
               writers use, or null if they omit the tensor}
  torch        "tensors"; "ordered": an OrderedDict with _metadata instead of a dict; "cfg": [{"key", and one of "int",
               "float", "bool", "string"}], with which the file is {"cfg": ..., "model": tensors}

A tensor is {"name", "shape", "mean", "bound", "crc32"}, float32, or {"name", "shape", "crc32"}, int64 that counts from
0. Its values depend on the path and the name given in the layout, whatever spelling is written. "tie" names the tensor
of the same file whose values it has instead: models share some of their weights between layers.
"""
import json
import zlib

import numpy as np

import hashed_weights

FORMAT = "audiotoken-random-checkpoint 1"


def tensor_values(path, row):
    if "bound" not in row:
        return np.arange(np.prod(row["shape"]), dtype=np.int64).reshape(row["shape"])
    return hashed_weights.values(path, row.get("tie", row["name"]), row["shape"], row["mean"], row["bound"])


def checked_values(path, row):
    """The tensor's values; they must have the CRC-32 that the layout states."""
    values = tensor_values(path, row)
    found = zlib.crc32(values.tobytes())
    if found != row["crc32"]:
        raise SystemExit(f"{path}: {row['name']} has CRC-32 {found}, the layout states {row['crc32']}")
    return values


def cfg_rows(cfg):
    kinds = {bool: "bool", int: "int", float: "float", str: "string"}
    return [{"key": key, kinds[type(value)]: value} for key, value in cfg.items()]


def cfg_dictionary(rows):
    return {row["key"]: next(value for name, value in row.items() if name != "key") for row in rows}


def read(path):
    with open(path, encoding="utf-8") as file:
        layout = json.load(file)
    if layout.get("format") != FORMAT:
        raise SystemExit(f"{path} is no checkpoint layout: its format is {layout.get('format')}, expected {FORMAT}")
    return layout


def write(layout, path):
    """One line per file attribute and per tensor, so that changes can be read."""

    def compact(value):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=True)

    def rows(values):
        return "[\n" + ",\n".join(compact(value) for value in values) + "\n]"

    files = []
    for file in layout["files"]:
        texts = {key: rows(value) if isinstance(value, list) else compact(value) for key, value in file.items()}
        parts = [f"{compact(key)}:{text}" for key, text in texts.items()]
        files.append("{" + ",\n".join(parts) + "}")
    head = ",\n".join(f"{compact(key)}:{compact(layout[key])}" for key in ("format", "name"))
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        out.write("{" + head + ',\n"files":[\n' + ",\n".join(files) + "\n]}\n")
