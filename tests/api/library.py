"""Backends of people's own, built as their authors do: outside the tree, against the installed headers."""

import functools
import os
import pathlib
import subprocess
import tempfile

from troupe_process import ROOT, TROUPE

BUILD = pathlib.Path(TROUPE).resolve().parents[1]
HERE = pathlib.Path(__file__).parent / "backends"
PATIENCE_S = 300


def call(*command):
    done = subprocess.run([str(c) for c in command], text=True, capture_output=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@functools.cache
def scratch():
    """A folder for the whole run."""
    kept = tempfile.TemporaryDirectory(prefix="troupe-backends-")
    scratch.kept = kept
    return pathlib.Path(kept.name)


@functools.cache
def prefix():
    """Troupe, installed."""
    call("cmake", "--install", BUILD, "--prefix", scratch() / "prefix")
    return scratch() / "prefix"


@functools.cache
def example(name, *definitions):
    """The backend directory of an example, built as a project of its own."""
    build = scratch() / "-".join([name, *definitions]).replace("=", "-")
    call("cmake", "-S", ROOT / "examples" / name, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix()}",
         "-DCMAKE_BUILD_TYPE=Release", *[f"-D{d}" for d in definitions])
    call("cmake", "--build", build)
    return build / "backends"


def odd(*definitions):
    """A backend directory with the backend "odd"."""
    return built("odd", *definitions)


@functools.cache
def built(name, *definitions):
    """A backend directory with a backend of backends/."""
    folder = scratch() / "-".join([f"{name}-backends", *definitions]) / name
    folder.mkdir(parents=True)
    call(os.environ.get("CXX", "c++"), "-std=c++20", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror",
         "-Wno-missing-field-initializers", *[f"-D{d}" for d in definitions], f"-I{prefix()}/include", HERE / f"{name}.cpp", "-o",
         folder / f"libtroupe_{name}.so")
    return folder.parent


def strange(folder, entry="troupe_backend_describe", api=2, abi="x", base=""):
    """A backend directory with the backend "strange", which says this of itself."""
    (folder / "strange").mkdir(parents=True, exist_ok=True)
    call(os.environ.get("CC", "cc"), "-shared", "-fPIC", f"-DENTRY={entry}", f"-DAPI={api}", f'-DABI="{abi}"',
         f'-DBASE="{base}"', HERE / "describe.c", "-o", folder / "strange" / "libtroupe_strange.so")
    return folder
