"""The same requests to the real tritonserver and to troupe; prints where the answers differ, and why where that is known.

    python tests/judge/judge.py TROUPE [--bench BENCH_STAGE] [--all]

under a Python that has nvidia-pytriton and tritonclient[all]; nothing of them is in the repository. What a model says is not
compared (the real server has a mock of the vLLM backend), everything around it is: status, fields, types, shapes, texts of errors.
The exit status is 1 when a difference has no reason in reasons.py.
"""

import argparse
import json
import pathlib
import queue
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from reasons import REASONS
from servers import ROOT, Triton, Troupe, version_of

ASK = {"text_input": "ROMEO:", "max_tokens": 4, "temperature": 0, "ignore_eos": True}
FLAGS = ["return_finish_reason", "return_cumulative_logprob", "return_logprobs", "return_num_input_tokens", "return_num_output_tokens"]
ALL_FLAGS = dict.fromkeys(FLAGS, True)
TEXT = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["ROMEO:"]}
BARD, IDENTITY = "/v2/models/bard", "/v2/models/identity"
BYTES = {"name": "INPUT0", "datatype": "UINT8", "shape": [3], "data": [1, 2, 3]}

# name -> (verb, path, body): a body that is no string is sent as JSON.
HTTP = {
    "live": ("GET", "/v2/health/live", None), "ready": ("GET", "/v2/health/ready", None), "server": ("GET", "/v2", None),
    "model ready": ("GET", BARD + "/ready", None), "unknown ready": ("GET", "/v2/models/hamlet/ready", None),
    "metadata": ("GET", BARD, None), "metadata of a version": ("GET", BARD + "/versions/1", None),
    "metadata of no version": ("GET", BARD + "/versions/7", None), "metadata of nobody": ("GET", "/v2/models/hamlet", None),
    "config": ("GET", BARD + "/config", None), "statistics": ("GET", BARD + "/stats", None), "all statistics": ("GET", "/v2/models/stats", None),
    "identity metadata": ("GET", IDENTITY, None), "index": ("POST", "/v2/repository/index", {}),
    "load": ("POST", "/v2/repository/models/bard/load", {}), "unload": ("POST", "/v2/repository/models/bard/unload", {}),
    "no such path": ("GET", "/v3", None), "no such path of a model": ("GET", BARD + "/sing", None), "wrong verb": ("GET", BARD + "/generate", None),
    "post to a GET": ("POST", "/v2/health/live", {}), "memory status": ("GET", "/v2/systemsharedmemory/status", None),
    "memory of nobody": ("POST", "/v2/systemsharedmemory/region/r/register", {"key": "/no-such-memory", "offset": 0, "byte_size": 4}),
    "cuda memory status": ("GET", "/v2/cudasharedmemory/status", None), "trace": ("GET", "/v2/trace/setting", None), "logging": ("GET", "/v2/logging", None),
    "generate": ("POST", BARD + "/generate", ASK), "generate with all outputs": ("POST", BARD + "/generate", {**ASK, **ALL_FLAGS}),
    "generate with logprobs": ("POST", BARD + "/generate", {**ASK, **ALL_FLAGS, "logprobs": 0}),
    **{f"generate with {f}": ("POST", BARD + "/generate", {**ASK, f: True}) for f in FLAGS},
    "generate without the prompt": ("POST", BARD + "/generate", {**ASK, "exclude_input_in_output": True}),
    "generate with an id": ("POST", BARD + "/generate", {**ASK, "id": "q7"}),
    "generate with sampling_parameters": ("POST", BARD + "/generate", {"text_input": "x", "sampling_parameters": '{"max_tokens": 3}'}),
    "generate with strings": ("POST", BARD + "/generate", {**ASK, "max_tokens": "3", "temperature": "0"}),
    "generate with parameters": ("POST", BARD + "/generate", {"text_input": "x", "parameters": {"max_tokens": 3}}),
    "generate with a list": ("POST", BARD + "/generate", {**ASK, "stop": ["a"]}),
    "generate with an unknown parameter": ("POST", BARD + "/generate", {**ASK, "temprature": 1}),
    "generate of a stream": ("POST", BARD + "/generate", {**ASK, "stream": True}),
    "generate without text": ("POST", BARD + "/generate", {"max_tokens": 3}), "generate of only stream": ("POST", BARD + "/generate", {"stream": False}),
    "generate with a number as text": ("POST", BARD + "/generate", {"text_input": 7}), "generate with two texts": ("POST", BARD + "/generate", {"text_input": ["a", "b"]}),
    "generate with a bool as text": ("POST", BARD + "/generate", {**ASK, "stream": "yes"}),
    "generate with broken JSON": ("POST", BARD + "/generate", "{"), "generate with a list as body": ("POST", BARD + "/generate", "[1]"),
    "generate with nothing": ("POST", BARD + "/generate", ""), "generate with a field twice": ("POST", BARD + "/generate", '{"text_input": "a", "text_input": "b"}'),
    "generate of nobody": ("POST", "/v2/models/hamlet/generate", ASK), "generate of no version": ("POST", BARD + "/versions/9/generate", ASK),
    "generate with bad sampling_parameters": ("POST", BARD + "/generate", {"text_input": "x", "sampling_parameters": "{"}),
    "stream": ("POST", BARD + "/generate_stream", {**ASK, "stream": True}), "stream of one": ("POST", BARD + "/generate_stream", ASK),
    "stream with all outputs": ("POST", BARD + "/generate_stream", {**ASK, **ALL_FLAGS, "stream": True, "logprobs": 0}),
    "stream with the prompt": ("POST", BARD + "/generate_stream", {**ASK, "stream": True, "exclude_input_in_output": False}),
    "stream without text": ("POST", BARD + "/generate_stream", {"stream": True}),
    "stream of nobody": ("POST", "/v2/models/hamlet/generate_stream", ASK),
    "infer": ("POST", BARD + "/infer", {"inputs": [TEXT]}), "infer of nobody": ("POST", "/v2/models/hamlet/infer", {"inputs": [TEXT]}),
    "identity": ("POST", IDENTITY + "/infer", {"inputs": [BYTES]}), "identity with an id": ("POST", IDENTITY + "/infer", {"id": "q", "inputs": [BYTES]}),
    "identity for its output": ("POST", IDENTITY + "/infer", {"inputs": [BYTES], "outputs": [{"name": "OUTPUT0"}]}),
    "identity for no output": ("POST", IDENTITY + "/infer", {"inputs": [BYTES], "outputs": [{"name": "NONE"}]}),
    "identity of a wrong type": ("POST", IDENTITY + "/infer", {"inputs": [{**BYTES, "datatype": "INT32"}]}),
    "identity of an unknown type": ("POST", IDENTITY + "/infer", {"inputs": [{**BYTES, "datatype": "INT7"}]}),
    "identity of a wrong shape": ("POST", IDENTITY + "/infer", {"inputs": [{**BYTES, "shape": [1, 3]}]}),
    "identity of too few": ("POST", IDENTITY + "/infer", {"inputs": [{**BYTES, "shape": [4]}]}),
    "identity without inputs": ("POST", IDENTITY + "/infer", {"inputs": []}), "identity without the field": ("POST", IDENTITY + "/infer", {}),
    "identity of another input": ("POST", IDENTITY + "/infer", {"inputs": [{**BYTES, "name": "X"}]}),
    "identity twice": ("POST", IDENTITY + "/infer", {"inputs": [BYTES, BYTES]}), "identity of 300": ("POST", IDENTITY + "/infer", {"inputs": [{**BYTES, "data": [1, 2, 300]}]}),
    "identity with broken JSON": ("POST", IDENTITY + "/infer", "{"), "identity through generate": ("POST", IDENTITY + "/generate", {"INPUT0": [1, 2]}),
}


def http(server, verb, path, body):
    data = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{server.http}{path}", data=data, method=verb)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            status, kind, text = answer.status, answer.headers.get("Content-Type"), answer.read().decode()
    except urllib.error.HTTPError as e:
        status, kind, text = e.code, e.headers.get("Content-Type"), e.read().decode()
    events = [plain(json.loads(x[6:])) for x in text.split("\n\n") if x.startswith("data: ")]
    return {"status": status, "type": kind if status == 200 else None, "body": events or plain(parse(text))}


def parse(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


def plain(value, key=""):
    """What is a model's or a moment's own becomes its kind."""
    if isinstance(value, dict):
        return {k: plain(v, k) for k, v in sorted(value.items())}
    if isinstance(value, list):
        return [plain(v, key) for v in value]
    if key == "logprobs" and isinstance(value, str) and value != "null":
        return ["token " + ",".join(sorted(next(iter(one.values())))) for one in json.loads(value)]
    if key == "text_output":
        return "(text with the prompt)" if isinstance(value, str) and value.startswith("ROMEO:") else "(text)"
    if isinstance(value, float) or key in ("ns", "count", "last_inference", "inference_count", "execution_count", "num_input_tokens"):
        return "(number)"
    return re.sub(r"\d{10,}", "(number)", value) if isinstance(value, str) else value


def tensors(**values):
    made = []
    for name, value in values.items():
        kind = "BOOL" if isinstance(value, bool) else "BYTES"
        made.append(triton.InferInput(name, [1], kind))
        made[-1].set_data_from_numpy(np.array([value if kind == "BOOL" else value.encode()], dtype=bool if kind == "BOOL" else np.object_))
    return made


def outputs_of(result):
    message = result.get_response()
    return {"model": message.model_name, "version": message.model_version, "id": message.id,
            "parameters": {k: str(v).strip() for k, v in sorted(message.parameters.items())},
            "outputs": [f"{o.name} {o.datatype} {list(o.shape)}" for o in message.outputs], "raw": len(message.raw_output_contents)}


def attempt(what):
    try:
        return what()
    except InferenceServerException as e:
        return {"status": str(e.status()), "error": plain(e.message())}


def stream(server, model="bard", **options):
    came = queue.Queue()
    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        client.start_stream(callback=lambda result, error: came.put((result, error)), headers=options.pop("headers", None))
        client.async_stream_infer(model, options.pop("inputs"), **options)
        client.stop_stream()
    return [outputs_of(r) if e is None else {"status": str(e.status()), "error": plain(e.message())} for r, e in list(came.queue)]


SAMPLING = '{"max_tokens": 3, "ignore_eos": true, "temperature": 0}'
GRPC = {
    "grpc infer": lambda s, c: outputs_of(c.infer("bard", tensors(text_input="ROMEO:"))),
    "grpc identity": lambda s, c: outputs_of(c.infer("identity", [identity_input()], request_id="q")),
    "grpc identity of a wrong shape": lambda s, c: outputs_of(c.infer("identity", [identity_input([1, 3])])),
    "grpc infer of nobody": lambda s, c: outputs_of(c.infer("hamlet", tensors(text_input="x"))),
    "grpc metadata": lambda s, c: c.get_model_metadata("bard", as_json=True), "grpc metadata of nobody": lambda s, c: c.get_model_metadata("hamlet", as_json=True),
    "grpc live": lambda s, c: c.is_server_live(), "grpc ready": lambda s, c: c.is_server_ready(), "grpc model ready": lambda s, c: c.is_model_ready("bard"),
    "grpc index": lambda s, c: c.get_model_repository_index(as_json=True), "grpc load": lambda s, c: c.load_model("bard"),
    "grpc memory of nobody": lambda s, c: c.register_system_shared_memory("r", "/no-such-memory", 4),
    "grpc stream": lambda s, c: stream(s, inputs=tensors(text_input="ROMEO:", stream=True, sampling_parameters=SAMPLING), request_id="q"),
    "grpc stream of one": lambda s, c: stream(s, inputs=tensors(text_input="ROMEO:", sampling_parameters=SAMPLING)),
    "grpc stream with an empty final": lambda s, c: stream(s, inputs=tensors(text_input="ROMEO:", sampling_parameters=SAMPLING), enable_empty_final_response=True),
    "grpc stream with all outputs": lambda s, c: stream(s, inputs=tensors(text_input="ROMEO:", stream=True, sampling_parameters=SAMPLING, **ALL_FLAGS)),
    "grpc stream with the prompt": lambda s, c: stream(s, inputs=tensors(text_input="ROMEO:", stream=True, exclude_input_in_output=False)),
    "grpc stream of nobody": lambda s, c: stream(s, model="hamlet", inputs=tensors(text_input="x")),
    "grpc stream of an unknown input": lambda s, c: stream(s, inputs=tensors(text_input="x", sing="y")),
    "grpc stream without text": lambda s, c: stream(s, inputs=tensors(stream=True)),
    "grpc stream of nobody as a status": lambda s, c: stream(s, model="hamlet", inputs=tensors(text_input="x"), headers={"triton_grpc_error": "true"}),
    "grpc stream of identity": lambda s, c: stream(s, model="identity", inputs=[identity_input()]),
}


def identity_input(shape=(3,)):
    made = triton.InferInput("INPUT0", list(shape), "UINT8")
    made.set_data_from_numpy(np.array([1, 2, 3], np.uint8).reshape(shape))
    return made


def record(server):
    said = {name: http(server, *what) for name, what in HTTP.items()}
    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        said.update({name: attempt(lambda ask=ask: ask(server, client)) for name, ask in GRPC.items()})
    return said


def differences(a, b, path=""):
    """Pairs of what differs, by path."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}, key=str):
            yield from differences(a.get(key, "(none)"), b.get(key, "(none)"), f"{path}.{key}".lstrip("."))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b)):
            yield from differences(x, y, f"{path}[{i}]")
    elif a != b:
        yield path, a, b


def main():
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("troupe")
    asked.add_argument("--bench", help="measure the identity too, with this bench_stage")
    asked.add_argument("--all", action="store_true", help="show answers that are alike too")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        real, ours = Triton(scratch), Troupe(scratch, given.troupe)
        try:
            real.await_ready()
            ours.await_ready()
            print(f"tritonserver {version_of(real.log)}; {len(HTTP) + len(GRPC)} requests")
            unexplained = tell(record(real), record(ours), given.all)
            if given.bench:
                subprocess.run([given.bench, str(ROOT), "echo", f"peer={real.grpc},{real.process.pid}"], check=True, timeout=300)
        finally:
            real.stop()
            ours.stop()
    sys.exit(1 if unexplained else 0)


def tell(theirs, mine, show_all):
    counts = {"alike": 0, "explained": 0, "unexplained": 0}
    for name in theirs:
        found = list(differences(theirs[name], mine[name]))
        why = REASONS.get(name)
        counts["alike" if not found else "explained" if why else "unexplained"] += 1
        if show_all and not found:
            print(f"{name}: alike: {json.dumps(mine[name])[:200]}")
        if found:
            print(f"{name}: {why or 'NO REASON'}")
        for path, a, b in found:
            print(f"    {path}: {json.dumps(a)[:300]} | {json.dumps(b)[:300]}")
    for name in REASONS:
        if name not in theirs or not list(differences(theirs[name], mine[name])):
            print(f"reasons.py explains '{name}', which does not differ")
    print(counts)
    return counts["unexplained"]


if __name__ == "__main__":
    main()
