"""The layout of a cohort on disk: names, attributes, codecs; for other programs, see docs/reference/cohort.md."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from compseg.samples import SampleInfo

SCHEMA = 1
ATTRIBUTE = "compseg"
# Attribute of a sample: kind and high of what its file held, and whether the tissue rule does not give its mask.
VALUES = "compseg_values"
SAMPLES = "samples"
THUMBNAIL = "reference"  # what schema 1 calls the array of a sample's thumbnail
# Not bfloat16: it saves a fifth of the bytes and no time, for eight times the error (docs/research/performance.md).
DTYPES = ("float16", "float32")
# Bit planes shuffled together suit smooth spectra. LZ4 compresses them almost as well as Zstandard, and is faster
# (benchmarks/layout.py).
CODEC = BloscCodec(cname="lz4", clevel=9, shuffle="bitshuffle")

Array = NDArray[Any]


@dataclass(frozen=True)
class Record:
    """A row of the table of samples.

    Attributes:
        info: The sample.
        shape: `(H, W, C)` of its image.
        checksums: SHA-256 of the pixels of each array that it has: `image`, `tissue`, perhaps `truth` and `reference`.
    """

    info: SampleInfo
    shape: tuple[int, int, int]
    checksums: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, flat: the fields of the sample, `shape` and `checksums`."""
        return {**asdict(self.info), "shape": list(self.shape), "checksums": self.checksums}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Record:
        """The inverse of `to_dict`."""
        # A copy, because what is taken out of it has to stay in the attributes.
        fields = dict(plain)
        height, width, channels = fields.pop("shape")
        checksums = fields.pop("checksums")
        return cls(SampleInfo(**fields), (height, width, channels), checksums)


def fingerprint_of(attributes: Mapping[str, Any]) -> str:
    """SHA-256 of all that a network could learn from a cohort, by its attributes alone.

    That is the channels, the stored type, and of each sample its name, label, class, split, group, patient, shape and
    the checksums of its pixels. Where the cohort is, how it was cut into blocks and which files it was made of have no
    part in it: a copy has the same fingerprint.
    """
    keys = ("name", "label", "class_name", "split", "group", "patient", "shape", "checksums")
    rows = [[row[key] for key in keys] for row in attributes["samples"]]
    plain = [attributes["channels"], attributes["dtype"], rows]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def partial_path(path: Path) -> Path:
    """The folder in which a cohort is built before it is renamed to `path`."""
    return path.with_name(path.name + ".partial")


def node(name: str, part: str = "") -> str:
    """Path inside the store of a sample, or of one of its arrays."""
    return f"{SAMPLES}/{name}/{part}".rstrip("/")


def checksum(array: Array) -> str:
    """SHA-256 of the values in C order."""
    # Of the values, not of the stored bytes, which would change with the codec.
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def block_edge(size: int, wanted: int) -> int:
    """Edge of equal blocks of about `wanted` pixels that cover `size` pixels; a remainder would cost a whole block."""
    return -(-size // max(1, round(size / wanted)))


def write_array(root: zarr.Group, path: str, array: Array, chunk: int) -> None:
    """Store an array in blocks of about `chunk` x `chunk` pixels with all their channels, in one file (a shard).

    Each block ends in its CRC-32C, so that damage is noticed when it is read.
    """
    # All channels in a block: in blocks of 32, whole spots, which is what training reads, take about twice as long.
    block = (block_edge(array.shape[0], chunk), block_edge(array.shape[1], chunk), *array.shape[2:])
    shard = tuple(-(-size // edge) * edge for size, edge in zip(array.shape, block, strict=True))
    stored = root.create_array(
        path,
        shape=array.shape,
        dtype=array.dtype,
        chunks=block,
        # One file an array is as fast as a file a block, of which a mosaic of 1024 pixels a side would have 256.
        shards=shard if shard != block else None,
        compressors=[CODEC, Crc32cCodec()],
    )
    stored[...] = array
