"""Rotated log files: which there are beside a log, and what is in them, also compressed.

A file that cannot be read, or not to its end, is an error, never skipped: `gz`,
`bz2` and `xz` are read here, `zst` by zstd where that is installed. What a file unpacks to is
bounded, and so is the memory that this takes.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from ds01d.errors import Ds01Error

CHUNK: Final = 1 << 20
MAX_BYTES: Final = 256 << 20
"""Of one file, unpacked; logrotate's is `maxsize 50M`."""
_MAX_MEMORY: Final = 128 << 20  # `xz -9` takes 65 MiB
_NUMBER: Final = r"(?:\.[0-9]{1,5}|-[0-9][0-9_.T-]{5,19})"  # as logrotate counts, or dates
_PACKED: Final = ("gz", "bz2", "xz", "lzma", "zst", "Z", "lz4", "lzo", "lz", "br", "zip", "7z")


def find_rotated(log: Path, *, skip_inode: int | None) -> list[Path]:
    """The rotated files of a log, oldest first; without the one whose inode is `skip_inode`.

    With logrotate's `extension` the number stands before the log's own. Raises `Ds01Error`.
    """
    packed = f"(?:[.](?:{'|'.join(_PACKED)}))?"
    name, stem, end = map(re.escape, (log.name, log.stem, log.suffix))
    pattern = re.compile(f"(?:{name}{_NUMBER}|{stem}{_NUMBER}{end}){packed}")
    dated: list[tuple[int, Path]] = []
    try:
        for entry in os.scandir(log.parent):
            if pattern.fullmatch(entry.name):
                status = entry.stat(follow_symlinks=False)
                # With `copytruncate` or a rename in progress the open log may bear a rotated name.
                if status.st_ino != skip_inode:
                    dated.append((status.st_mtime_ns, Path(entry.path)))
    except OSError as error:
        raise Ds01Error(f"rotated logs cannot be found: {error}") from error
    return [path for _, path in sorted(dated)]


def read_rotated(descriptor: int, path: Path) -> Iterator[bytes]:
    """What is in a rotated file, in chunks; takes the descriptor over. Raises `Ds01Error`."""
    unpack = _UNPACKERS.get(path.suffix)
    with os.fdopen(descriptor, "rb") as file:
        # Reported, not skipped: what is left out would look as if it had never happened.
        if unpack is None and path.suffix.removeprefix(".") in _PACKED:
            raise Ds01Error(f"{path} is left out: ds01d cannot unpack {path.suffix} files")
        size = 0
        try:
            for chunk in (unpack or _read_plain)(file):
                size += len(chunk)
                # A few kilobytes can unpack to more than the host has memory.
                if size > MAX_BYTES and unpack is not None:
                    raise Ds01Error(f"{path} is left out from {MAX_BYTES >> 20} MiB on")
                yield chunk
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            raise Ds01Error(f"{path} cannot be read to its end: {error}") from error


def data_chunks(descriptor: int, offset: int) -> Iterator[tuple[int, bytes]]:
    """What a file holds from an offset on, without its holes: where each chunk begins, and it."""
    while True:
        try:
            offset = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            # A hole of gigabytes takes no time with SEEK_DATA, and would fill memory without.
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end, or the end
                return
        chunk = os.pread(descriptor, CHUNK, offset)
        if not chunk:
            return
        yield offset, chunk
        offset += len(chunk)


def _read_plain(file: BinaryIO) -> Iterator[bytes]:
    for _, chunk in data_chunks(file.fileno(), 0):
        yield chunk


def _unpack_gz(file: BinaryIO) -> Iterator[bytes]:
    with gzip.open(file) as unpacked:
        while chunk := unpacked.read(CHUNK):
            yield chunk


def _unpack_bz2(file: BinaryIO) -> Iterator[bytes]:
    with bz2.open(file) as unpacked:
        while chunk := unpacked.read(CHUNK):
            yield chunk


def _unpack_xz(file: BinaryIO) -> Iterator[bytes]:
    """By hand, since lzma.open has no bound on the memory that a file may ask for."""
    unpacker = lzma.LZMADecompressor(memlimit=_MAX_MEMORY)
    while True:
        packed = b""
        if unpacker.eof:  # another stream may follow, after padding
            packed = unpacker.unused_data.lstrip(b"\0") or file.read(CHUNK).lstrip(b"\0")
            if not packed:
                return
            unpacker = lzma.LZMADecompressor(memlimit=_MAX_MEMORY)
        elif unpacker.needs_input:
            packed = file.read(CHUNK)
            if not packed:
                raise EOFError("it ends too early")
        if chunk := unpacker.decompress(packed, CHUNK):
            yield chunk


def _unpack_zst(file: BinaryIO) -> Iterator[bytes]:
    """By zstd itself: Python knows the format from 3.14 on."""
    program = shutil.which("zstd")
    if program is None:
        raise ValueError("zstd is not installed")
    command = (program, "-dcq", f"--memory={_MAX_MEMORY >> 20}MB")
    process = subprocess.Popen(
        command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        if process.stdout is not None:
            while chunk := process.stdout.read(CHUNK):
                yield chunk
    if process.returncode != 0:
        raise EOFError(f"zstd ended with exit status {process.returncode}")


_UNPACKERS: Mapping[str, Callable[[BinaryIO], Iterator[bytes]]] = {
    ".gz": _unpack_gz,
    ".bz2": _unpack_bz2,
    ".xz": _unpack_xz,
    ".lzma": _unpack_xz,
    ".zst": _unpack_zst,
}
