"""A device that breaks when it is told to, as a GPU does at an illegal address: a library in the place of libtroupe_cuda.so,
whose device is the CPU."""

import os
import pathlib
import shutil

from troupe_process import ROOT, TROUPE

FRAIL = pathlib.Path(os.environ.get("TROUPE_FRAIL", ROOT / "build/dev/frail/libtroupe_cuda.so"))


def frail_program(folder):
    """A copy of the program with that library, and the cache directory where a file "break" breaks the device for one process."""
    (folder / "bin").mkdir()
    shutil.copy(TROUPE, folder / "bin")
    shutil.copy(FRAIL, folder / "bin")
    (folder / "lib").symlink_to(pathlib.Path(TROUPE).resolve().parents[1] / "lib")
    caches = folder / "caches"
    caches.mkdir()
    return folder / "bin" / "troupe", caches
