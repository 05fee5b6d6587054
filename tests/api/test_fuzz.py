"""Seeded mutations of KServe's requests, over gRPC and HTTP: each is answered with a code that it deserves and a sentence, and the
server serves as before. TROUPE_FUZZ_ROUNDS asks for more of them, TROUPE_FUZZ_SEED for others; a failure prints both."""

import json
import os
import random
import re

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from troupe_process import PATIENCE_S, ROOT, Cluster, eventually

ROUNDS = int(os.environ.get("TROUPE_FUZZ_ROUNDS", "200"))
SEED = int(os.environ.get("TROUPE_FUZZ_SEED", "20261126"))
OK, BAD, LOST, UNSERVED = "OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"
STATUS = {BAD: 400, LOST: 404, UNSERVED: 501}
# What the vLLM backend answers with INTERNAL: inputs that it declares and this model cannot serve.
INTERNAL = re.compile(r"^(\[request id: .*\] )?(Error generating stream: |Model bard does not support|When streaming|LoRA)", re.S)
DIMS = [0, -1, 1, 2, 7, 2**31, 2**62, -2**63, 2**63 - 1]
TYPES = ["", "BYTES", "BOOL", "INT8", "FP32", "FP16", "BF16", "UINT64", "STRING", "bytes", "TYPE_STRING", "\0", "X" * 9999]
NAMES = ["text_input", "stream", "sampling_parameters", "image", "embedding_request", "return_logprobs", "", "nope",
         "N" * 70000, "\u202e", "../1", "text_input\0", "text_input ", "TEXT_INPUT", "%s%n"]
VERSIONS = ["", "1", "0", "01", "-1", "+1", "2", "9" * 40, "../1", "1/../1", "latest", "\u0661", " 1", "1\0", "V" * 70000]
MODELS = ["bard", "bard", "bard", "", "nope", "Bard", "../bard", "bard/versions/1", "bard/1", "bard:1", "bard\0", "B" * 70000]
HELLO = b"\6\0\0\0ROMEO:"
RAW = [b"", b"\0", b"\1\0\0\0a", HELLO, b"\xff\xff\xff\xffa", b"\1\0\0\0\xff", b"\0\0\0\0", b"\5\0\0\0a", HELLO + b"x", HELLO * 2,
       b"x" * 5000]
# Those that are one text in UTF-8, of one token at least.
RIGHT = [b"\1\0\0\0a", HELLO]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("fuzz"), edges={"http": {"port": 0}, "grpc": {"port": 0}}) as cluster:
        yield cluster


@pytest.fixture
def chance(request):
    """A generator of the test's own, so that one test alone does what it does among the others."""
    seed = f"{SEED} {request.node.name}"
    print(f"TROUPE_FUZZ_SEED={SEED} TROUPE_FUZZ_ROUNDS={ROUNDS}")
    return random.Random(seed)


def channel(cluster):
    return grpc.insecure_channel(
        eventually(lambda: cluster._line(r"listening on grpc://(127\.0\.0\.1:\d+)"), "gRPC").group(1))


def stub(cluster):
    return service_pb2_grpc.GRPCInferenceServiceStub(channel(cluster))


def good(request_id=""):
    made = pb.ModelInferRequest(model_name="bard", id=request_id, raw_input_contents=[HELLO])
    made.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    made.parameters["max_tokens"].int64_param = 2
    made.parameters["temperature"].double_param = 0
    return made


def input_of(made, chance):
    return chance.choice(made.inputs) if made.inputs else made.inputs.add()


# Each mutation answers the codes that it deserves by itself, done to the good request.

def wrong_shape(made, chance):
    one = input_of(made, chance)
    del one.shape[:]
    one.shape.extend(chance.choice(DIMS) for _ in range(chance.randrange(4)))
    return {OK if list(one.shape) == [1] else BAD}


def many_dims(made, chance):
    input_of(made, chance).shape.extend([chance.choice(DIMS)] * 3000)
    return {BAD}


def wrong_type(made, chance):
    one = input_of(made, chance)
    one.datatype = chance.choice(TYPES)
    return {OK if one.datatype == "BYTES" else BAD}


def wrong_name(made, chance):
    one = input_of(made, chance)
    one.name = chance.choice(NAMES)
    # "image" and its like are refused as they are in the vLLM backend; the prompt is missing then too.
    return {OK} if one.name == "text_input" else {BAD, UNSERVED}


def one_more(made, chance):
    made.inputs.add(name=chance.choice(NAMES), datatype=chance.choice(TYPES), shape=[chance.choice(DIMS)])
    if chance.random() < 0.7:
        made.raw_input_contents.append(chance.choice(RAW))
    return {OK, BAD, UNSERVED}


def twice(made, chance):
    made.inputs.add().CopyFrom(input_of(made, chance))
    made.raw_input_contents.append(chance.choice(RAW))
    return {BAD}


def fewer(made, chance):
    del made.inputs[:chance.randrange(len(made.inputs) + 1)]
    return {OK if made.inputs else BAD}


def wrong_raw(made, chance):
    del made.raw_input_contents[:]
    made.raw_input_contents.extend(chance.choice(RAW) for _ in range(chance.choice([0, 1, 1, 1, 2, 3])))
    raw = list(made.raw_input_contents)
    return {OK if len(raw) == 1 and raw[0] in RIGHT else BAD}


def mixed_contents(made, chance):
    """Contents of several types, beside the raw ones or in their place."""
    contents = input_of(made, chance).contents
    contents.bytes_contents.extend([chance.choice(RAW)] * chance.randrange(3))
    contents.bool_contents.extend([True] * chance.randrange(3))
    contents.int_contents.extend([-2**31] * chance.randrange(2))
    contents.fp64_contents.extend([float("nan")] * chance.randrange(2))
    if chance.random() < 0.5:
        del made.raw_input_contents[:]
        return {OK, BAD}
    return {BAD}


def parameter(made, chance):
    name = chance.choice(["max_tokens", "priority", "timeout", "sequence_id", "triton_x", "stop", "temperature", "n", "",
                          "triton_enable_empty_final_response", "headers", "binary_data_size", "shared_memory_region", "P" * 70000])
    where = made.parameters if chance.random() < 0.7 else input_of(made, chance).parameters
    kind, value = chance.choice([("int64_param", -2**63), ("int64_param", 3), ("bool_param", True), ("string_param", "\0{"),
                                 ("double_param", float("inf")), ("uint64_param", 2**64 - 1), (None, None)])
    where[name].Clear()
    if kind:
        setattr(where[name], kind, value)
    # A time-out of some microseconds may pass, or not.
    return {OK, BAD, LOST, UNSERVED, *(["UNAVAILABLE"] if name == "timeout" else [])}


def output(made, chance):
    one = made.outputs.add(name=chance.choice(["text_output", "text_output", "finish_reason", "", "nope", "O" * 70000]))
    if chance.random() < 0.3:
        one.parameters["classification"].int64_param = chance.choice([1, -1, 2**40])
        return {BAD, UNSERVED}
    return {OK if one.name in ("text_output", "finish_reason") else BAD}


def model(made, chance):
    made.model_name = chance.choice(MODELS)
    made.model_version = chance.choice(VERSIONS)
    return {OK if made.model_name == "bard" and made.model_version in ("", "1") else LOST}


def request_id(made, chance):
    made.id = chance.choice(["", "\0", "i" * 70000, "\"}\r\n", "\u202e"])
    return {OK}


MUTATIONS = [wrong_shape, many_dims, wrong_type, wrong_name, one_more, twice, fewer, wrong_raw, mixed_contents, parameter, output,
             model, request_id]


def mutated(chance):
    """A request, what was done to it, and the codes that it may have; one change in every second."""
    made, what = good(), []
    changes = chance.choices(MUTATIONS, k=chance.choice([1, 1, 2, 3]))
    deserved = set().union(*[change(made, chance) for change in changes])
    what = [change.__name__ for change in changes]
    return made, what, deserved if len(changes) == 1 else deserved | {OK, BAD}


def assert_sentence(text, what, most=2000):
    """Some words of ours, however long the names in it are."""
    assert len(text.encode()) <= most + 200 and len(re.findall(r"[a-z]{2,}", text)) >= 3, (what, text[:300], len(text))
    ours = re.sub(r"(.)\1{60,}", "", text)
    assert len(re.findall(r"[a-z]{2,}", ours)) >= 3, (what, ours)


def assert_serves(cluster, wanted=None):
    answer = stub(cluster).ModelInfer(good(), timeout=PATIENCE_S)
    assert wanted is None or answer.raw_output_contents == wanted.raw_output_contents
    assert cluster.process.poll() is None and cluster.get("/v2/health/ready").status_code == 200
    return answer


def test_mutated_messages(stage, chance):
    before, s, seen = assert_serves(stage), stub(stage), {}
    for number in range(ROUNDS):
        made, what, deserved = mutated(chance)
        try:
            answer = s.ModelInfer(made, timeout=PATIENCE_S)
            code = OK
            assert answer.id == made.id and (answer.outputs or made.outputs), (number, what)
        except grpc.RpcError as refused:
            code = refused.code().name
            assert_sentence(refused.details(), (number, what))
            if code == "INTERNAL" and INTERNAL.match(refused.details()):
                continue
            assert code in deserved, (number, what, code, refused.details()[:300])
        assert code in deserved, (number, what, code)
        seen[code] = seen.get(code, 0) + 1
    assert seen[BAD] > ROUNDS / 5 and seen[OK] > ROUNDS / 20 and seen[LOST] > 0, seen
    assert_serves(stage, before)


def test_mutated_messages_on_one_stream(stage, chance):
    """Each is answered by exactly one final response, and a right request among them by the right text."""
    before, requests, what = assert_serves(stage), [], {}
    for number in range(ROUNDS):
        made, changes, _ = mutated(chance) if number % 10 else (good(), [], None)
        made.id = f"q{number}"
        what[made.id] = changes
        requests.append(made)
    finals, refused = [], 0
    for answer in stub(stage).ModelStreamInfer(iter(requests), timeout=2 * PATIENCE_S):
        inner = answer.infer_response
        if answer.error_message:
            refused += 1
            assert what[inner.id] and inner.parameters["triton_final_response"].bool_param
            assert_sentence(answer.error_message, what[inner.id])
        elif not what[inner.id]:
            assert inner.raw_output_contents == before.raw_output_contents
        if inner.parameters["triton_final_response"].bool_param:
            finals.append(inner.id)
    assert sorted(finals) == sorted(what) and refused > ROUNDS / 4
    assert_serves(stage, before)


def test_mutated_bytes_over_grpc(stage, chance):
    before, wire = assert_serves(stage), channel(stage)
    methods = ["ModelInfer", "ModelMetadata", "ModelConfig", "ModelStatistics", "ModelReady", "RepositoryIndex",
               "RepositoryModelLoad", "RepositoryModelUnload", "SystemSharedMemoryRegister", "TraceSetting"]
    calls = {m: wire.unary_unary(f"/inference.GRPCInferenceService/{m}") for m in methods}
    for number in range(ROUNDS):
        method, message = chance.choice(methods), bytearray(good().SerializeToString())
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(message) + 1)
            message[at:at + chance.randrange(3)] = chance.choice([*RAW[:-1], b"\x7f", b"\x80" * 9])
        try:
            calls[method](bytes(message), timeout=PATIENCE_S)
        except grpc.RpcError as refused:
            code, told = refused.code().name, refused.details()
            # INTERNAL is grpc++'s own word for what is no message; UNAVAILABLE says that models stay as they are.
            assert code in {BAD, LOST, UNSERVED, "INTERNAL", "ALREADY_EXISTS"} or "is not allowed" in told, (number, method, refused)
    assert_serves(stage, before)


def mutated_body(chance):
    """A binary request over HTTP: its head, its tail, and what the header says of the head's length."""
    tail = chance.choice([*[HELLO] * 12, *RAW[:-1]])
    one = {"name": "text_input", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}
    head = {"inputs": [one], "parameters": {"max_tokens": 2, "temperature": 0}}

    def change(what):
        if what == "shape":
            one["shape"] = chance.choice([[chance.choice(DIMS)], [], "1", [1.5], [[1]], None, [True], [chance.choice(DIMS)] * 2000])
        elif what == "type":
            one["datatype"] = chance.choice([*TYPES, 5, None])
        elif what == "size":
            one["parameters"]["binary_data_size"] = chance.choice([0, -1, 1, 2**40, 2**63, 2**64, 1.5, "5", None])
        elif what == "data":
            one["data"] = chance.choice([["a"], [], [1], "a", [[["a"]]], [None], {"a": 1}])
            if chance.random() < 0.7:
                del one["parameters"]
        elif what == "again":
            head["inputs"].append({**one, "name": chance.choice(NAMES)})
        elif what == "name":
            one["name"] = chance.choice([*NAMES, 7, None])
        elif what == "outputs":
            head["outputs"] = chance.choice([[{"name": "nope"}], [{}], 5, [5], [{"name": "O" * 70000}], [
                {"name": "text_output", "parameters": {"binary_data": chance.choice([True, 1, "x"])}}]])
        elif what == "parameters":
            head["parameters"] = chance.choice([5, [], {"binary_data_output": 3}, {"timeout": -1}, {"stop": ["a"]}, {"n": 10**30},
                                                {"P" * 70000: 1}, {"max_tokens": True}])
        elif what == "id":
            head["id"] = chance.choice([5, "", "i" * 70000, None, {}, "\u202e"])

    for _ in range(chance.randrange(1, 3)):
        change(chance.choice(["shape", "type", "size", "data", "again", "name", "outputs", "parameters", "id", "id", "nothing", "nothing"]))
        one.setdefault("parameters", {})
    text = json.dumps(head).encode()
    if chance.random() < 0.2:
        at = chance.randrange(len(text))
        text = text[:at] + chance.choice([b"\0", b"{", b"]", b"\xff", b'"']) + text[at + 1:]
    length = len(text) if chance.random() < 0.8 else chance.choice([0, 1, len(text) - 1, len(text) + 1, 2**64, 10**30, -1])
    return text + tail, length


def assert_refused_well(answer, what):
    assert set(answer.json()) == {"error"}, (what, answer.text[:300])
    text = answer.json()["error"]
    assert answer.status_code in STATUS.values() or answer.status_code == 500 and INTERNAL.match(text), (what, answer.text[:300])
    assert_sentence(text, what, 16384)


def test_mutated_bodies_over_http(stage, chance):
    before, seen = assert_serves(stage), {}
    with httpx.Client(timeout=PATIENCE_S) as c:
        for _ in range(ROUNDS):
            body, length = mutated_body(chance)
            answer = c.post(f"{stage.url}/v2/models/bard/infer", content=body,
                            headers={"Inference-Header-Content-Length": str(length)})
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
            if answer.status_code != 200:
                assert_refused_well(answer, (body[:500], length))
    assert seen[400] > ROUNDS / 4 and seen[200] > 0, seen
    assert_serves(stage, before)


PIECES = ["{", "}", "[", "]", ",", ":", '"', "null", "true", "-1", "1e999", "0.5", "\n", "\\u0000", "\\ud800", "NaN", "[[[[", '{"a":',
          "9" * 30, '"text_input"', '"stream"', '"max_tokens"', "\t", "\u202e"]


def test_mutated_generations(stage, chance):
    """JSON that is cut, doubled and filled up; streams too."""
    before, seen = assert_serves(stage), {}
    whole = json.dumps({"text_input": "ROMEO:", "max_tokens": 2, "temperature": 0, "return_logprobs": True, "stop": "x", "seed": 7})
    with httpx.Client(timeout=PATIENCE_S) as c:
        for _ in range(ROUNDS):
            text = whole
            for _ in range(chance.randrange(1, 4)):
                at = chance.randrange(len(text) + 1)
                text = text[:at] + chance.choice(PIECES) * chance.choice([1, 1, 0, 50]) + text[at + chance.randrange(9):]
            path = chance.choice(["generate", "generate_stream"])
            answer = c.post(f"{stage.url}/v2/models/bard/{path}", content=text.encode())
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
            if answer.status_code != 200:
                assert_refused_well(answer, text)
    assert seen[400] > ROUNDS / 4 and seen[200] > 0, seen
    assert_serves(stage, before)


@pytest.mark.parametrize("version", ["0", "01", "-1", "%2e%2e", "..%2f1", "1%00", "9" * 40, "%d9%a1", "1%20", "%31%2f", "v" * 4000])
def test_no_odd_version_is_one(stage, version):
    for what, method in (("", "GET"), ("/config", "GET"), ("/stats", "GET"), ("/ready", "GET"), ("/generate", "POST")):
        body = {"text_input": "a", "max_tokens": 1} if method == "POST" else None
        answer = httpx.request(method, f"{stage.url}/v2/models/bard/versions/{version}{what}", json=body, timeout=PATIENCE_S)
        assert answer.status_code in (400, 404), (what, answer.text)
    assert_serves(stage)


def test_no_odd_name_leaves_the_repository(stage, tmp_path):
    """Beside the repository lies a model that would load; no name of an order reaches it."""
    for where in ("repository/inside", "outside"):
        (tmp_path / where / "1").mkdir(parents=True)
        keys = {"model": str(ROOT / "examples/models/bard/hf"), "dtype": "bfloat16"}
        (tmp_path / where / "1/model.json").write_text(json.dumps(keys))
    names = ["../outside", "..", ".", "inside/../../outside", str(tmp_path / "outside"), "inside/1", "inside/", "./inside",
             "..\\outside", "inside\0", "", "~", "N" * 70000, "\n", "\u202e"]
    with Cluster(tmp_path, arguments=("--model-control-mode", "explicit", "--load-model", "inside"),
                 model_repository=str(tmp_path / "repository"), edges={"http": {"port": 0}, "grpc": {"port": 0}}) as served:
        s = stub(served)
        for name in names:
            for order, request in ((s.RepositoryModelLoad, pb.RepositoryModelLoadRequest),
                                   (s.RepositoryModelUnload, pb.RepositoryModelUnloadRequest)):
                with pytest.raises(grpc.RpcError) as refused:
                    order(request(model_name=name), timeout=PATIENCE_S)
                assert refused.value.code().name in (BAD, LOST), (name, refused.value)
                assert_sentence(refused.value.details(), name)
        for name in ("..%2foutside", "%2e%2e", "inside%2f..%2f..%2foutside", "inside%00", "%0a", "N" * 4000):
            for what in ("load", "unload"):
                answer = served.post(f"/v2/repository/models/{name}/{what}", {})
                assert answer.status_code in (400, 404) and answer.json()["error"], (name, answer.text)
        assert [row["name"] for row in served.post("/v2/repository/index", {"ready": True}).json()] == ["inside"]
        assert served.post("/v2/models/inside/generate", {"text_input": "ROMEO:", "max_tokens": 2}).status_code == 200
