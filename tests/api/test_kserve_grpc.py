"""KServe's protocol over gRPC: tritonclient unchanged, sync and aio, and hostile messages."""

import asyncio
import hashlib
import itertools
import queue

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from troupe_process import PATIENCE_S, Cluster, eventually, run, write_cluster

GREEDY = {"max_tokens": 5, "temperature": 0.0}
# Longer than any test waits for, so that it is still running when it is ended.
LONG = {"max_tokens": 480, "temperature": 0.0, "ignore_eos": True}
STATES = (None, False, True)
GENERATE = "/v2/models/bard/generate"


def edges(**grpc_edge):
    return {"http": {"port": 0}, "grpc": {"port": 0, **grpc_edge}}


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """One cluster with both edges, for all tests that leave it as they found it."""
    with Cluster(tmp_path_factory.mktemp("grpc"), edges=edges()) as cluster:
        yield cluster


def address(cluster):
    return eventually(lambda: cluster._line(r"listening on grpc://(127\.0\.0\.1:\d+)"),
                      "a gRPC address").group(1)


def client(cluster):
    return triton.InferenceServerClient(address(cluster))


def stub(cluster):
    return service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(address(cluster)))


def tensor(name, values, kind="BYTES", module=triton):
    made = module.InferInput(name, [len(values)], kind)
    made.set_data_from_numpy(np.array(values, dtype=np.object_ if kind == "BYTES" else bool))
    return made


def inputs_of(prompt="ROMEO:", **flags):
    return [tensor("text_input", [prompt.encode()])] + [
        tensor(name, [value], "BOOL") for name, value in flags.items() if value is not None]


class Stream:
    """A stream of tritonclient whose callbacks fill a queue."""

    def __init__(self, connection, **options):
        self.heard = queue.Queue()
        self.connection = connection
        connection.start_stream(lambda result, error: self.heard.put((result, error)), **options)

    def ask(self, request_id="", **more):
        given = {"inputs": inputs_of(stream=True), "parameters": GREEDY, **more}
        self.connection.async_stream_infer("bard", request_id=request_id, **given)

    def next(self):
        return self.heard.get(timeout=PATIENCE_S)

    def all_of_one(self):
        """The responses of one request up to its final one."""
        parts = []
        while True:
            result, error = self.next()
            assert error is None, error
            parts.append(result)
            if is_final(result):
                return parts


def is_final(result):
    return result.get_response().parameters["triton_final_response"].bool_param


def text_of(result):
    return result.as_numpy("text_output")[0].decode()


def raw_request(**fields):
    made = pb.ModelInferRequest(model_name="bard", **fields)
    for key, value in GREEDY.items():
        field = "int64_param" if isinstance(value, int) else "double_param"
        setattr(made.parameters[key], field, value)
    return made


def one_input(name="text_input", kind="BYTES", shape=(1,), **fields):
    return pb.ModelInferRequest.InferInputTensor(name=name, datatype=kind, shape=shape, **fields)


def encoded(text):
    return len(text).to_bytes(4, "little") + text


def refused(call, *arguments):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    return caught.value.code(), caught.value.details()


def test_what_the_server_says_of_itself(stage):
    c = client(stage)
    assert c.is_server_live() and c.is_server_ready() and c.is_model_ready("bard", "1")
    assert not c.is_model_ready("bard", "9") and not c.is_model_ready("nope")
    server = c.get_server_metadata()
    assert server.name == "triton" and "binary_tensor_data" in server.extensions
    model = c.get_model_metadata("bard")
    assert (model.name, model.platform, list(model.versions)) == ("bard", "troupe", ["1"])
    assert [(t.datatype, list(t.shape)) for t in model.inputs if t.name == "stream"] == [
        ("BOOL", [1])]
    assert "text_output" in [t.name for t in model.outputs]
    config = c.get_model_config("bard").config
    assert config.model_transaction_policy.decoupled and config.max_batch_size == 0
    assert config.name == "bard" and config.backend == "troupe"
    assert {i.name for i in config.input} == {i.name for i in model.inputs}
    index = c.get_model_repository_index().models
    assert [(m.name, m.version, m.state) for m in index] == [("bard", "1", "READY")]
    assert c.get_trace_settings().settings["trace_level"].value == ["OFF"]
    assert c.get_log_settings().settings["log_error"].bool_param is True


def test_the_answers_are_those_of_http(stage):
    c = client(stage)
    assert c.get_server_metadata(as_json=True) == stage.get("/v2").json()
    over_http = stage.get("/v2/models/bard").json()
    assert c.get_model_metadata("bard").name == over_http["name"]
    config = c.get_model_config("bard", as_json=True)["config"]
    for tensors in ("input", "output"):
        assert [t["name"] for t in config[tensors]] == [
            t["name"] for t in stage.get("/v2/models/bard/config").json()[tensors]]


def test_settings_change_as_over_http(stage):
    c = client(stage)
    assert c.update_log_settings({"log_verbose_level": 1}).settings[
        "log_verbose_level"].uint32_param == 1
    assert stage.get("/v2/logging").json()["log_verbose_level"] == 1
    assert c.update_log_settings({"log_verbose_level": 0}).settings[
        "log_verbose_level"].uint32_param == 0
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT.*unknown log setting"):
        c.update_log_settings({"log_colour": True})
    with pytest.raises(InferenceServerException, match="UNIMPLEMENTED.*tracing"):
        c.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})


def test_models_are_loaded_by_the_cluster_file(stage):
    for change in (client(stage).load_model, client(stage).unload_model):
        with pytest.raises(InferenceServerException, match="UNAVAILABLE.*not allowed"):
            change("bard")


def test_a_repository_of_another_name_is_not_supported(stage):
    code, words = refused(stub(stage).RepositoryIndex, pb.RepositoryIndexRequest(repository_name="x"))
    assert code == grpc.StatusCode.UNIMPLEMENTED and "'repository_name' specification is not supported" in words


def test_the_trace_settings_of_no_model(stage):
    assert stub(stage).TraceSetting(pb.TraceSettingRequest(model_name="bard")).settings["trace_level"].value == ["OFF"]
    assert refused(stub(stage).TraceSetting, pb.TraceSettingRequest(model_name="nope"))[0] == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
def test_infer_is_the_answer_of_http(stage, packed):
    answer = client(stage).infer("bard", inputs_of(), request_id="q7", parameters=GREEDY,
                                 outputs=[triton.InferRequestedOutput("text_output")],
                                 compression_algorithm=packed)
    said = answer.get_response()
    assert (said.id, said.model_name, said.model_version) == ("q7", "bard", "1")
    assert [(o.name, o.datatype, list(o.shape)) for o in said.outputs] == [
        ("text_output", "BYTES", [1])]
    body = {"text_input": "ROMEO:", **GREEDY}
    assert text_of(answer) == stage.post(GENERATE, body).json()["text_output"]


def test_infer_with_typed_contents_and_a_callback(stage):
    request = raw_request(inputs=[
        one_input(contents=pb.InferTensorContents(bytes_contents=[b"ROMEO:"])),
        one_input("exclude_input_in_output", "BOOL",
                  contents=pb.InferTensorContents(bool_contents=[True]))])
    answer = stub(stage).ModelInfer(request)
    whole = client(stage).infer("bard", inputs_of(), parameters=GREEDY)
    assert answer.raw_output_contents[0][4:].decode() == text_of(whole)[len("ROMEO:"):]
    heard = queue.Queue()
    client(stage).async_infer("bard", inputs_of(), lambda result, error: heard.put((result, error)),
                              parameters=GREEDY)
    result, error = heard.get(timeout=PATIENCE_S)
    assert error is None and text_of(result) == text_of(whole)


# The flags that need log probabilities have a test over HTTP.
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("finish, inputs, outputs", list(itertools.product(STATES, repeat=3)))
def test_the_grid_of_further_outputs(stage, stream, finish, inputs, outputs):
    with client(stage) as c:
        s = Stream(c)
        s.ask("q", inputs=inputs_of(stream=stream, return_finish_reason=finish,
                                    return_num_input_tokens=inputs,
                                    return_num_output_tokens=outputs))
        parts = s.all_of_one()
        c.stop_stream()
        assert s.heard.empty()
        whole = text_of(c.infer("bard", inputs_of(exclude_input_in_output=stream),
                                parameters=GREEDY))
    assert len(parts) >= 1 if stream else len(parts) == 1
    expected = {"text_output"}
    expected |= {"finish_reason"} if finish else set()
    expected |= {"num_input_tokens"} if inputs else set()
    expected |= {"num_output_tokens"} if outputs else set()
    for part in parts:
        assert {o.name for o in part.get_response().outputs} == expected
        assert part.get_response().id == "q"
    assert [is_final(p) for p in parts] == [False] * (len(parts) - 1) + [True]
    if finish:
        assert [p.as_numpy("finish_reason")[0] for p in parts] == (
            [b"None"] * (len(parts) - 1) + [b"length"])
    if inputs:
        assert all(p.as_numpy("num_input_tokens")[0] > 0 for p in parts)
    if outputs:
        assert sum(int(p.as_numpy("num_output_tokens")[0]) for p in parts) == 5
    assert "".join(text_of(p) for p in parts) == whole


def test_many_requests_share_a_stream(stage):
    with client(stage) as c:
        s = Stream(c)
        for i in range(8):
            s.ask(f"q{i}", enable_empty_final_response=bool(i % 2))
        finals, texts = [], {}
        while len(finals) < 8:
            result, error = s.next()
            assert error is None
            request_id = result.get_response().id
            assert request_id not in finals
            texts[request_id] = texts.get(request_id, "") + text_of(result)
            if is_final(result):
                finals.append(request_id)
        c.stop_stream()
        assert s.heard.empty()
    assert sorted(finals) == [f"q{i}" for i in range(8)] and len(set(texts.values())) == 1


def test_an_error_is_one_final_response_and_the_stream_goes_on(stage):
    bad = [raw_request(id="a", inputs=[one_input(shape=(2,))], raw_input_contents=[encoded(b"x")]),
           pb.ModelInferRequest(id="b", model_name="nope"),
           raw_request(id="c", inputs=[one_input()], raw_input_contents=[b"", b""])]
    good = raw_request(id="d", inputs=[one_input()], raw_input_contents=[encoded(b"ROMEO:")])
    answers = list(stub(stage).ModelStreamInfer(iter([*bad, good])))
    for answer in answers:
        assert answer.infer_response.parameters["triton_final_response"].bool_param
    assert [(a.infer_response.id, bool(a.error_message)) for a in sorted(
        answers, key=lambda a: a.infer_response.id)] == [
            ("a", True), ("b", True), ("c", True), ("d", False)]


def test_a_response_that_has_none_of_the_outputs_asked_for_is_still_told(stage):
    asked = [pb.ModelInferRequest.InferRequestedOutputTensor(name="finish_reason")]
    request = raw_request(id="q", inputs=[one_input()], raw_input_contents=[encoded(b"ROMEO:")], outputs=asked)
    answers = [a.infer_response for a in stub(stage).ModelStreamInfer(iter([request]), timeout=PATIENCE_S)]
    assert [(a.id, len(a.outputs), a.parameters["triton_final_response"].bool_param) for a in answers] == [("q", 0, True)]


def test_a_client_that_reads_none_of_its_refusals_is_read_no_further(stage):
    sent, all_of_them = [], 64

    def requests():
        for i in range(all_of_them):
            sent.append(i)
            yield pb.ModelInferRequest(id=str(i) + "x" * (1 << 20), model_name="nope")

    answers = stub(stage).ModelStreamInfer(requests(), timeout=PATIENCE_S)
    before = []

    def stands_still():
        before.append(len(sent))
        return len(sent) == all_of_them or before.count(len(sent)) > 200

    eventually(stands_still, "all are sent, or no more are taken")
    assert len(sent) < all_of_them
    assert sorted(int(a.infer_response.id.rstrip("x")) for a in answers) == list(range(all_of_them))


def test_an_error_is_the_status_where_the_client_asks_for_it(stage):
    with client(stage) as c:
        s = Stream(c, headers={"triton_grpc_error": "true"})
        s.ask(inputs=inputs_of(nonsense=True))
        result, error = s.next()
        assert result is None and error.status() == "StatusCode.INVALID_ARGUMENT"
        assert "unexpected inference input 'nonsense'" in error.message()


@pytest.mark.parametrize("fields, code, words", [
    (dict(inputs=[one_input(shape=(2,))], raw_input_contents=[encoded(b"a") * 2]),
     "INVALID_ARGUMENT", "Expected [1], got [2]"),
    (dict(inputs=[one_input(shape=(-1,))], raw_input_contents=[b""]), "INVALID_ARGUMENT", "shape"),
    (dict(inputs=[one_input(kind="FP32")], raw_input_contents=[b"1234"]),
     "INVALID_ARGUMENT", "expects 'BYTES'"),
    (dict(inputs=[one_input(kind="STRING")], raw_input_contents=[b""]),
     "INVALID_ARGUMENT", "unknown datatype"),
    (dict(inputs=[one_input()], raw_input_contents=[b"\xff\xff\xff\xffabc"]),
     "INVALID_ARGUMENT", "only 3"),
    (dict(inputs=[one_input()], raw_input_contents=[b"\1"]), "INVALID_ARGUMENT", "unexpected end"),
    (dict(inputs=[one_input()], raw_input_contents=[encoded(b"a") + b"x"]),
     "INVALID_ARGUMENT", "behind its last element"),
    (dict(inputs=[one_input()], raw_input_contents=[encoded(b"a"), b""]),
     "INVALID_ARGUMENT", "belong to no input"),
    (dict(inputs=[one_input(), one_input("stream", "BOOL")], raw_input_contents=[encoded(b"a")]),
     "INVALID_ARGUMENT", "none is left for input 'stream'"),
    (dict(inputs=[one_input(), one_input()], raw_input_contents=[encoded(b"a")] * 2),
     "INVALID_ARGUMENT", "input 'text_input' already exists"),
    (dict(inputs=[one_input(contents=pb.InferTensorContents(bytes_contents=[b"a"]))],
          raw_input_contents=[encoded(b"a")]), "INVALID_ARGUMENT", "must not be specified"),
    (dict(inputs=[one_input()]), "INVALID_ARGUMENT", "text_input"),
    (dict(inputs=[]), "INVALID_ARGUMENT", "missing required input(s) ['text_input']"),
    (dict(inputs=[one_input("stream", "BOOL")], raw_input_contents=[b"\0"]),
     "INVALID_ARGUMENT", "missing required input(s) ['text_input']"),
    (dict(inputs=[one_input(), one_input("stream", "BOOL")],
          raw_input_contents=[encoded(b"a"), b"\1"]), "UNIMPLEMENTED", "decoupled"),
    (dict(model_version="9", inputs=[one_input()], raw_input_contents=[encoded(b"a")]),
     "NOT_FOUND", "version 9"),
    (dict(inputs=[one_input()], raw_input_contents=[encoded(b"a")],
          outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="nope")]),
     "INVALID_ARGUMENT", "unexpected inference output 'nope'"),
])
def test_refused_messages(stage, fields, code, words):
    status, text = refused(stub(stage).ModelInfer, raw_request(**fields))
    assert status.name == code and words in text
    assert client(stage).is_server_live()


def test_bytes_that_are_no_message(stage):
    channel = grpc.insecure_channel(address(stage))
    method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    # grpc++ says so of what it cannot parse; we do not hear of it.
    assert refused(method, b"\xff\xff\xff")[0] in (grpc.StatusCode.INTERNAL,
                                                   grpc.StatusCode.UNIMPLEMENTED)
    nothing = channel.unary_unary("/inference.GRPCInferenceService/Nothing")
    assert refused(nothing, b"")[0] == grpc.StatusCode.UNIMPLEMENTED
    assert client(stage).is_server_live()


def test_cuda_shared_memory_is_refused(stage):
    s = stub(stage)
    for call, message in ((s.CudaSharedMemoryStatus, pb.CudaSharedMemoryStatusRequest()),
                          (s.CudaSharedMemoryRegister, pb.CudaSharedMemoryRegisterRequest()),
                          (s.CudaSharedMemoryUnregister, pb.CudaSharedMemoryUnregisterRequest())):
        assert refused(call, message)[0] == grpc.StatusCode.UNIMPLEMENTED


def test_a_cancelled_stream_ends_its_requests(stage):
    with client(stage) as c:
        s = Stream(c)
        s.ask(parameters=LONG)
        assert s.next()[1] is None
        c.stop_stream(cancel_requests=True)
        last = None
        while not s.heard.empty():
            last = s.next()
        assert last[0] is None and last[1].status() == "StatusCode.CANCELLED"
    eventually(stage.idle, "an idle replica")


def test_a_cancelled_infer_and_a_deadline_end_their_requests(stage):
    heard = queue.Queue()
    c = client(stage)
    running = c.async_infer("bard", inputs_of(), lambda result, error: heard.put((result, error)), parameters=LONG)
    eventually(lambda: stage.metric("vllm:num_requests_running") > 0 or not stage.idle(), "running")
    running.cancel()
    result, error = heard.get(timeout=PATIENCE_S)
    assert result is None and error.status() == "StatusCode.CANCELLED"
    eventually(stage.idle, "an idle replica")
    with pytest.raises(InferenceServerException, match="Deadline"):
        c.infer("bard", inputs_of(), parameters=LONG, client_timeout=0.05)
    eventually(stage.idle, "an idle replica")


def test_a_connection_that_goes_away_ends_its_requests(stage):
    channel = grpc.insecure_channel(address(stage))
    request = raw_request(inputs=[one_input(), one_input("stream", "BOOL")],
                          raw_input_contents=[encoded(b"ROMEO:"), b"\1"])
    request.parameters["max_tokens"].int64_param = LONG["max_tokens"]
    request.parameters["ignore_eos"].bool_param = True
    answers = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([request]))
    next(answers)
    channel.close()
    eventually(stage.idle, "an idle replica")


def test_the_aio_client(stage):
    async def talk():
        async with triton_aio.InferenceServerClient(address(stage)) as c:
            assert await c.is_server_ready()
            whole = await c.infer("bard", inputs_of(), parameters=GREEDY)

            async def requests():
                for i in range(3):
                    yield {"model_name": "bard", "inputs": inputs_of(stream=True),
                           "parameters": GREEDY, "request_id": str(i)}

            texts, finals = {}, []
            async for result, error in c.stream_infer(requests()):
                assert error is None
                key = result.get_response().id
                texts[key] = texts.get(key, "") + text_of(result)
                finals += [key] if is_final(result) else []
            with pytest.raises(InferenceServerException, match="NOT_FOUND"):
                await c.infer("nope", inputs_of())
            return text_of(whole), texts, finals

    whole, texts, finals = asyncio.run(talk())
    assert sorted(finals) == ["0", "1", "2"]
    assert {"ROMEO:" + text for text in texts.values()} == {whole}


def test_statistics_and_metrics_count_every_protocol(stage):
    def counted():
        stats = client(stage).get_inference_statistics("bard").model_stats[0]
        return stats.inference_count, stats.inference_stats.success.count

    before = counted()
    client(stage).infer("bard", inputs_of(), parameters=GREEDY)
    stage.post(GENERATE, {"text_input": "ROMEO:", **GREEDY})
    assert counted() == (before[0] + 2, before[1] + 2)
    over_http = stage.get("/v2/models/bard/stats").json()["model_stats"][0]
    assert over_http["inference_count"] == before[0] + 2


def test_a_worker_that_dies_is_a_pause(tmp_path):
    with Cluster(tmp_path, edges=edges()) as cluster, client(cluster) as c:
        s = Stream(c)
        s.ask("whole", parameters=LONG)
        whole = "".join(text_of(part) for part in s.all_of_one())
        s.ask("broken", parameters=LONG)
        first = s.next()[0]
        cluster.kill("worker")
        rest = [first] if is_final(first) else [first, *s.all_of_one()]
        assert "".join(text_of(part) for part in rest) == whole
        c.stop_stream()
        assert s.heard.empty()


def test_statistics_survive_the_edges(tmp_path):
    with Cluster(tmp_path, edges=edges()) as cluster:
        cluster.post(GENERATE, {"text_input": "ROMEO:", **GREEDY})
        for kind in ("grpc", "edge"):
            cluster.kill(kind)
            label = {"actor": kind}

            def back():
                try:
                    return cluster.metric("troupe:actor_restarts_total", **label) == 1
                except httpx.TransportError:
                    return False

            eventually(back, f"another {kind}")

        def count():
            with client(cluster) as c:
                try:
                    return c.get_inference_statistics("bard").model_stats[0].inference_count
                except InferenceServerException:
                    return None

        assert eventually(count, "an answer over gRPC") == 1
        assert cluster.get("/v2/models/bard/stats").json()["model_stats"][0]["inference_count"] == 1


def test_keys_guard_all_but_health(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"sha256:{hashlib.sha256(b'open').hexdigest()} me\n")
    keys.chmod(0o600)
    http = {"port": 0, "api_keys_file": str(keys)}
    with Cluster(tmp_path, edges={"http": http, "grpc": 0}) as cluster, client(cluster) as c:
        assert c.is_server_live() and c.is_server_ready()
        good = {"authorization": "Bearer open"}
        for headers in (None, {"authorization": "Bearer shut"}, {"authorization": "open"}):
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                c.get_model_metadata("bard", headers=headers)
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                c.infer("bard", inputs_of(), headers=headers)
        s = Stream(c)
        assert s.next()[1].status() == "StatusCode.UNAUTHENTICATED"
        c.stop_stream()
        assert c.get_model_metadata("bard", headers=good).name == "bard"
        assert c.infer("bard", inputs_of(), parameters=GREEDY, headers=good)
        s = Stream(c, headers=good)
        s.ask()
        assert is_final(s.all_of_one()[-1])


def test_a_port_in_use_is_told(stage, tmp_path):
    port = int(address(stage).rsplit(":", 1)[1])
    file = write_cluster(tmp_path, edges={"http": {"port": 0}, "grpc": port})
    ended = run("up", file)
    assert ended.returncode == 1
    assert f"cannot listen for gRPC on 127.0.0.1:{port}" in ended.stderr
    assert "edges.grpc" in ended.stderr
