"""Writes golden.gguf with the writer of the `gguf` package (pip install gguf), to be compared byte by byte with ours.

    python make_golden.py golden.gguf
"""
import sys
import zlib

import numpy as np
from gguf import GGUFReader, GGUFValueType as T, GGUFWriter

path = sys.argv[1]
tensors = {
    "unet.input.weight": np.arange(-30, 34, dtype=np.int8).reshape(1, 2, 8, 4),
    "unet.input.scale": (np.arange(8, dtype=np.float32) + 1) / 8,
    "unet.input.sum": np.arange(-8, 8, dtype=np.int32).reshape(2, 8) * 1000,
    "text.position": (np.arange(21, dtype=np.float32).reshape(3, 7) / 4).astype(np.float16),
}

writer = GGUFWriter(path, "audiotoken")
writer.add_uint32("audiotoken.format_version", 1)
writer.add_custom_alignment(64)
writer.add_string("general.name", "Golden: grüße, 音")
for name, kind, value in [
    ("uint8", T.UINT8, 200), ("int8", T.INT8, -100), ("uint16", T.UINT16, 60000), ("int16", T.INT16, -30000),
    ("uint32", T.UINT32, 4000000000), ("int32", T.INT32, -2000000000), ("uint64", T.UINT64, 1 << 62),
    ("int64", T.INT64, -(1 << 62)), ("float32", T.FLOAT32, 0.25), ("float64", T.FLOAT64, 0.1), ("bool", T.BOOL, True),
]:
    writer.add_key_value("test." + name, value, kind)
for name, kind, value in [
    ("integers", T.INT32, [3, -1, 2147483647]), ("bytes", T.UINT8, [0, 255, 7]), ("wide", T.INT64, [-(1 << 40), 5]),
    ("numbers", T.FLOAT32, [0.5, -2.0]), ("truths", T.BOOL, [True, False]), ("texts", T.STRING, ["a", "", "ß</w>"]),
]:
    writer.add_key_value("test." + name, value, T.ARRAY, sub_type=kind)
checksums = [zlib.crc32(tensor.tobytes()) for tensor in tensors.values()]
writer.add_key_value("audiotoken.tensor.crc32", checksums, T.ARRAY, sub_type=T.UINT32)
for name, tensor in tensors.items():
    writer.add_tensor(name, tensor)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

reader = GGUFReader(path)
for tensor in reader.tensors:
    assert (tensor.data == tensors[tensor.name]).all(), tensor.name
