"""The order of the house: which folder may include which, and who may see which third-party header."""

import pathlib
import re

# Folder -> the folders of ours that it may include, beside itself. The longest matching prefix rules.
CORE = ["base", "engine/request"]
FOLDERS = {
    "base": [],
    "config": ["base"],
    "kernels/reference": ["base"],
    "kernels": ["base"],
    "kernels/cuda": ["base", "kernels", "kernels/reference"],
    "transport": ["base"],
    "transport/ucx": ["base", "transport"],
    "transport/inproc": ["base", "transport"],
    "transport/caf": ["base", "transport", "transport/ucx"],
    "engine/request": ["base"],
    "engine/include": ["base"],
    "engine/text": CORE,
    "engine/kv": CORE,
    "engine/route": CORE + ["engine/kv"],
    "engine/sched": CORE + ["engine/kv"],
    "engine/weights": CORE + ["config", "kernels"],
    "engine/models": CORE + ["config", "kernels", "engine/weights"],
    "engine/exec": CORE + ["config", "kernels", "engine/kv", "engine/sched", "engine/weights", "engine/models"],
    "engine/exec/cuda": CORE + ["config", "kernels", "kernels/cuda", "engine/weights", "engine/models", "engine/exec"],
    "actors/metrics": CORE + ["engine/sched", "engine/kv", "engine/exec"],
    "actors/edge": CORE + ["actors", "actors/metrics", "config", "engine/text"],
    "actors/edge/grpc": CORE + ["actors", "actors/metrics", "actors/edge", "engine/text"],
    "actors/cli": ["base", "config", "transport", "actors", "engine/request"],
    "actors": ["base", "config", "transport", "engine", "actors/metrics", "actors/edge"],
    "examples": ["base", "config", "engine/request", "actors", "transport"],
    "tests": ["base", "config", "kernels", "kernels/cuda", "engine", "actors", "transport"],
}

# A pattern of third-party or system headers -> the folders that may include it.
THIRD_PARTY = {
    r"caf/": ["actors", "transport/caf", "transport/include/troupe/transport/caf.hpp", "examples", "tests"],
    r"boost/": ["actors/edge", "actors/cli", "tests"],
    r"(grpc|grpcpp|google)/": ["actors/edge/grpc", "config", "tests"],
    r"zlib": ["actors/edge"],
    r"prometheus/": ["actors/metrics"],
    r"(google/protobuf/|proto/.*\.pb\.h$)": ["config", "actors/edge", "actors/backend", "tests"],
    r"nlohmann/": ["config", "engine/text", "engine/weights", "engine/models", "engine/exec", "actors", "tests",
                   "examples"],
    r"spdlog/": ["base"],
    r"CLI/": ["actors/cli", "tests/bench", "tests/sim", "examples"],
    r"pcre2|utf8proc": ["engine/text"],
    r"openssl/": ["actors/edge", "transport"],
    r"(oneapi/|dnnl)": ["tests/bench"],
    r"(immintrin|x86intrin|cpuid)": ["kernels/cpu", "tests/bench"],
    r"hwy/": ["kernels/cpu"],
    r"(ucp/|ucs/|uct/)": ["transport/ucx"],
    r"(cuda|cublas|nccl|cudnn)": ["kernels/cuda", "transport/nccl", "engine/exec/cuda", "tests/bench/attention"],
    r"flashinfer/": ["tests/bench/attention"],
    # Engine core is a set of pure state machines.
    r"(thread|mutex|shared_mutex|atomic|condition_variable|future|semaphore|barrier|latch)$": [
        "base", "config", "kernels", "engine/weights", "engine/models", "engine/exec", "actors", "transport",
        "examples", "tests"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


def room_of(path, rooms):
    """The longest entry of `rooms` that holds `path`, or None."""
    parts = path.split("/")
    for length in range(len(parts), 0, -1):
        if "/".join(parts[:length]) in rooms:
            return "/".join(parts[:length])
    return None


def owner_of(header, root):
    """The folder of ours that a header belongs to, or None for someone else's."""
    if header.startswith("troupe/"):
        name = header.split("/")[1]
        return "engine/request" if name == "engine" else name
    return str(pathlib.PurePosixPath(header).parent) if (pathlib.Path(root) / header).is_file() else None


def may_include(room, owner):
    if owner == room or owner.startswith(room + "/"):
        return True
    allowed = FOLDERS[room]
    exact = room_of(owner, FOLDERS)
    return any(owner == a or exact == a or (owner.startswith(a + "/") and exact == a)
               or (a == "engine" and owner.startswith("engine/")) for a in allowed)


def check_file(relative, text, root):
    """The offences of one file, as sentences."""
    found = []
    room = room_of(relative, FOLDERS)
    if room is None:
        return [f"{relative}: no layer holds this file; add its folder to tests/tidy/layers.py"]
    testing = relative.endswith(".test.cpp") or "/test_" in relative
    for line, header in ((text[:m.start()].count("\n") + 1, m.group(2)) for m in INCLUDE.finditer(text)):
        owner = owner_of(header, root)
        if owner is not None and not may_include(room, owner):
            found.append(f"{relative}:{line}: {room} may not include {header} (of {owner})")
        for pattern, rooms in THIRD_PARTY.items():
            allowed = any(relative == r or relative.startswith(r + "/") for r in rooms)
            if owner is None and re.match(pattern, header) and not allowed and not testing:
                found.append(f"{relative}:{line}: only {', '.join(rooms)} may include <{header}>")
    return found
