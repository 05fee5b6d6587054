"""The two servers that the judge compares: tritonserver from PyPI's nvidia-pytriton, and troupe, with the same models."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/api"))
# pylint: disable=wrong-import-position
from ports import free_ports

HERE = pathlib.Path(__file__).resolve().parent
IDENTITY = '''import triton_python_backend_utils as pb
class TritonPythonModel:
    def execute(self, requests):
        return [pb.InferenceResponse([pb.Tensor("OUTPUT0", pb.get_input_tensor_by_name(r, "INPUT0").as_numpy())]) for r in requests]
'''
IDENTITY_CONFIG = '''max_batch_size: 0
input [{ name: "INPUT0" data_type: TYPE_UINT8 dims: [-1] }]
output [{ name: "OUTPUT0" data_type: TYPE_UINT8 dims: [-1] }]
instance_group [{ kind: KIND_CPU count: 1 }]
'''


def put(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


class Server:
    """A process, ended with SIGTERM and then SIGKILL."""

    def __init__(self, command, log, env=None):
        self.log = log
        with log.open("w") as out:
            self.process = subprocess.Popen([str(c) for c in command], stdout=out, stderr=subprocess.STDOUT, env=env)

    def await_ready(self, limit_s=60):
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            if self.process.poll() is not None:
                sys.exit(f"{self.log}: ended early\n" + self.log.read_text()[-3000:])
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v2/health/ready", timeout=2):
                    return self
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
        sys.exit(f"{self.log}: never ready\n" + self.log.read_text()[-3000:])

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Triton(Server):
    """The real one. Runs under the Python that has nvidia-pytriton."""

    def __init__(self, scratch):
        import pytriton  # pylint: disable=import-outside-toplevel
        home = pathlib.Path(pytriton.__file__).parent
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copytree(home / "tritonserver/backends/python", scratch / "backends/python")
        shutil.copy(home / f"tritonserver/python_backend_stubs/{version}/triton_python_backend_stub", scratch / "backends/python")
        models = scratch / "triton"
        put(models / "bard/config.pbtxt", 'backend: "python"\ninstance_group [{ kind: KIND_CPU count: 1 }]\n')
        put(models / "bard/1/model.py", (HERE / "mock_model.py").read_text())
        put(models / "identity/config.pbtxt", 'backend: "python"\n' + IDENTITY_CONFIG)
        put(models / "identity/1/model.py", IDENTITY)
        self.http, self.grpc, metrics = free_ports(3)
        libraries = [home.parent / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
        env = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
               "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(home.parent)}
        super().__init__([home / "tritonserver/bin/tritonserver", f"--model-repository={models}", f"--backend-directory={scratch / 'backends'}",
                          f"--http-port={self.http}", f"--grpc-port={self.grpc}", f"--metrics-port={metrics}", "--allow-gpu-metrics=false"],
                         scratch / "triton.log", env)


class Troupe(Server):
    """Ours, with bard itself and the identity backend of tests/bench."""

    def __init__(self, scratch, binary):
        models = scratch / "troupe"
        put(models / "bard/1/model.json", json.dumps({"model": str(ROOT / "examples/models/bard/hf")}))
        put(models / "bard/config.pbtxt", 'backend: "vllm"\n')
        put(models / "identity/config.pbtxt", 'backend: "identity"\n' + IDENTITY_CONFIG)
        (models / "identity/1").mkdir(parents=True)
        self.http, self.grpc = free_ports(2)
        cluster = scratch / "cluster.json"
        cluster.write_text(json.dumps({"model_repository": str(models), "edges": {"http": self.http, "grpc": self.grpc}}))
        stage = pathlib.Path(binary).resolve().parents[1] / "lib/stage"
        super().__init__([binary, "up", cluster, "--backend-directory", stage], scratch / "troupe.log")


def version_of(log):
    found = re.search(r"server_version\s*\|\s*([\d.]+)", log.read_text())
    return found.group(1) if found else "unknown"
