#!/usr/bin/env python3
"""Checks the manners of the house that a compiler does not: run one check by name, or all of them."""

import argparse
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import layers  # noqa: E402
import source  # noqa: E402

FUNCTION_LINES, PARAMETERS, NESTING, COLUMNS = 70, 5, 3, 120
MARKS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b|not imple" r"mented", re.I)


def file_limit(relative):
    if ".test." in relative or relative.startswith("tests/"):
        return 800
    return 600 if relative.startswith("kernels/") else 400


def each(root, suffixes=source.CODE_SUFFIXES):
    for path in source.files(root, suffixes):
        yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")


def check_layers(root):
    return [o for relative, text in each(root) for o in layers.check_file(relative, text, root)]


def check_limits(root):
    found = []
    for relative, text in each(root):
        lines = text.count("\n")
        if lines > file_limit(relative):
            found.append(f"{relative}: {lines} lines, limit {file_limit(relative)}")
        testing = ".test." in relative or relative.startswith("tests/")
        for f in source.functions(text):
            length = f.last_line - f.first_line + 1
            name = " ".join(f.head.split())[:60]
            if length > FUNCTION_LINES and not testing:
                found.append(f"{relative}:{f.first_line}: {length} lines, limit {FUNCTION_LINES}: {name}")
            if f.depth > NESTING:
                found.append(f"{relative}:{f.first_line}: nesting {f.depth}, limit {NESTING}: {name}")
            if f.parameters() > PARAMETERS:
                found.append(f"{relative}:{f.first_line}: {f.parameters()} parameters, limit {PARAMETERS}: {name}")
    for path in source.files(root, {".txt", ".cmake"}):
        relative = path.relative_to(root).as_posix()
        if path.name == "CMakeLists.txt":
            limit = 200 if relative == "CMakeLists.txt" else 60
            lines = path.read_text().count("\n")
            if lines > limit:
                found.append(f"{relative}: {lines} lines, limit {limit}")
    return found


def check_format(root):
    paths = [str(p) for p in source.files(root)]
    found = []
    for start in range(0, len(paths), 40):
        run = subprocess.run(["clang-format", "--style=file", "--dry-run", "-Werror", *paths[start:start + 40]],
                             capture_output=True, text=True, check=False, cwd=root)
        found += [line for line in run.stderr.splitlines() if "error:" in line]
    return found


def check_marks(root):
    found = []
    suffixes = source.CODE_SUFFIXES | {".py", ".md", ".txt", ".cmake", ".sh", ""}
    for path in source.files(root, suffixes):
        if path.name == "LICENSE":
            continue
        relative = path.relative_to(root).as_posix()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if MARKS.search(line):
                found.append(f"{relative}:{number}: unfinished mark: {line.strip()[:80]}")
    return found


def check_readmes(root):
    """Every folder with code of its own has a README of at most a page."""
    found = []
    folders = {p.parent for p in source.files(root)}
    for folder in sorted(folders):
        relative = folder.relative_to(root).as_posix()
        if relative.startswith(("tests/", "examples/")) or "include" in relative.split("/"):
            continue
        readme = folder / "README.md"
        if not readme.is_file() and not (folder.parent / "README.md").is_file():
            found.append(f"{relative}: no README.md here or one folder up")
        elif readme.is_file() and readme.read_text().count("\n") > 70:
            found.append(f"{relative}/README.md: more than a page")
    return found


def check_getenv(root):
    return [f"{relative}: only config/ reads the environment" for relative, text in each(root)
            if re.search(r"\b(secure_)?getenv\s*\(", source.blank_comments_and_strings(text))
            and not relative.startswith("config/")]


def check_headers(root):
    """Each public header compiles alone."""
    found = []
    includes = sorted({str(p) for p in pathlib.Path(root).glob("*/include")})
    flags = ["-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wno-pragma-once-outside-header", f"-I{root}"]
    for folder in includes:
        flags.append(f"-I{folder}")
    for folder in includes:
        for header in sorted(pathlib.Path(folder).rglob("*.hpp")):
            name = header.relative_to(folder).as_posix()
            run = subprocess.run(["g++", *flags, "-x", "c++", "-"], input=f'#include "{name}"\n',
                                 capture_output=True, text=True, check=False)
            if run.returncode != 0:
                first = next((x for x in run.stderr.splitlines() if "error" in x), run.stderr[:200])
                found.append(f"{name} does not compile alone: {first}")
    return found


CHECKS = {f.__name__.removeprefix("check_"): f for f in
          (check_layers, check_limits, check_format, check_marks, check_readmes, check_getenv, check_headers)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checks", nargs="*", help=f"of: {', '.join(CHECKS)}; none means all")
    parser.add_argument("--root", default=str(pathlib.Path(__file__).resolve().parents[2]))
    options = parser.parse_args()
    unknown = [c for c in options.checks if c not in CHECKS]
    if unknown:
        parser.error(f"no check named {', '.join(unknown)}; there are: {', '.join(CHECKS)}")
    offences = [o for name in options.checks or CHECKS for o in CHECKS[name](pathlib.Path(options.root))]
    for offence in offences:
        print(offence)
    print(f"{len(offences)} offences" if offences else "tidy")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
