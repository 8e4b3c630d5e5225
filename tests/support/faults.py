"""Faults that tests inject: damaged and hostile files, full disks, kills, clocks that jump."""

import contextlib
import os
import pathlib
import pickle
import shutil
import signal
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest

# --- damage ---------------------------------------------------------------------------------------


def flip(path: pathlib.Path, at: int | None = None, bit: int = 0) -> None:
    """Flips one bit of the byte `at`, by default the middle one; a second time restores it."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1 << bit
    path.write_bytes(bytes(data))


def cut(path: pathlib.Path) -> None:
    """Leaves the first half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: pathlib.Path) -> None:
    """Leaves a file of no bytes."""
    os.truncate(path, 0)


DAMAGE: dict[str, Callable[[pathlib.Path], None]] = {
    "a flipped bit": flip,
    "cut off": cut,
    "emptied": empty,
    "removed": pathlib.Path.unlink,
}


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
    """Every file below `folder`."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def largest(folder: pathlib.Path) -> pathlib.Path:
    """The largest file below `folder`."""
    return max(files_of(folder), key=lambda path: path.stat().st_size)


# --- disks ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def disk(folder: pathlib.Path, options: str) -> Iterator[None]:
    """Mounts a file system at `folder` (`size=2m`, `ro`); skips the test without permission."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no permission to mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def filled(folder: pathlib.Path) -> Iterator[None]:
    """Leaves no byte free on the disk of `folder` while the block runs."""
    ballast = folder / ".ballast"
    try:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            for size in (2**20, 2**12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))
        yield
    finally:
        ballast.unlink(missing_ok=True)


# --- processes ------------------------------------------------------------------------------------


def kill(child: subprocess.Popen) -> None:
    """kill -9."""
    child.kill()
    assert child.wait() == -signal.SIGKILL


def listening(process: int) -> set[str]:
    """The addresses at which a process listens, in the kernel's hexadecimal notation."""
    with contextlib.suppress(OSError):
        links = [os.readlink(link) for link in pathlib.Path(f"/proc/{process}/fd").iterdir()]
        tables = [
            pathlib.Path(f"/proc/{process}/net/{name}").read_text() for name in ("tcp", "tcp6")
        ]
        rows = [line.split() for table in tables for line in table.splitlines()[1:]]
        return {
            row[1].partition(":")[0]
            for row in rows
            if row[3] == "0A" and f"socket:[{row[9]}]" in links
        }
    return set()


# The command line with a clock that jumps ten years ahead at step 3, twenty back at step 8, to the
# right time at step 13, and so on.
JUMPING_CLOCK = """
import time
from cnn_papers.main import cli
from cnn_papers.runs.writer import Writer
real, report, ahead = time.time, Writer.report_training, [0.0]
time.time = lambda: real() + ahead[0]
def train(writer, step, *arguments):
    ahead[0] = (0.0, 3e8, -3e8)[(step + 2) // 5 % 3]
    report(writer, step, *arguments)
Writer.report_training = train
cli()
"""

# --- hostile files --------------------------------------------------------------------------------


class Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def write_pickle(path: pathlib.Path, touched: pathlib.Path) -> None:
    """A pickle that makes the file `touched` when it is loaded."""
    path.write_bytes(pickle.dumps({"w": Touches(touched)}))


def png_of(width: int, height: int) -> bytes:
    """A complete grey PNG in as few bytes as possible, a thousandth of its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg_declaring(jpeg: bytes, width: int, height: int) -> bytes:
    """`jpeg`, a baseline one, with another size in its frame header."""
    at = jpeg.index(b"\xff\xc0")
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def write_escaping_tar(path: pathlib.Path, outside: pathlib.Path) -> None:
    """A tar of `fine.txt` and of members above its folder, at `outside` or through a link to it."""
    with tarfile.open(path, "w") as archive:
        for name in ("fine.txt", "../above.txt", "a/../../above.txt", f"{outside}/absolute.txt"):
            archive.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("link/through.txt"))


def noise(size: int) -> bytes:
    """Bytes that are no file of any kind."""
    return np.random.default_rng(0).bytes(size)
