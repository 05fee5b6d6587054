"""System shared memory end to end, and tritonclient's asyncio client over HTTP."""

import asyncio
import threading

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
import tritonclient.http.aio as http_aio
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from troupe_process import Cluster, eventually

GREEDY = {"max_tokens": 5, "temperature": 0.0}
GENERATE = "/v2/models/bard/generate"
PROMPT = np.array([b"ROMEO:"], dtype=np.object_)
ROOM_BYTES = 4096


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("memory"), edges={"http": {"port": 0}, "grpc": 0}) as c:
        yield c


@pytest.fixture(params=[over_http, over_grpc], ids=["http", "grpc"])
def protocol(request, stage):
    """A module of tritonclient and a client of it."""
    at = f"127.0.0.1:{stage.port}"
    if request.param is over_grpc:
        at = eventually(lambda: stage._line(r"grpc://(127\.0\.0\.1:\d+)"), "an address").group(1)
    with request.param.InferenceServerClient(at) as client:
        yield request.param, client
        client.unregister_system_shared_memory()


@pytest.fixture
def room():
    """A shared memory object with the prompt at its start."""
    made = shm.create_shared_memory_region("room", "/troupe_test_room", ROOM_BYTES)
    shm.set_shared_memory_region(made, [serialize_byte_tensor(PROMPT)])
    yield made
    shm.destroy_shared_memory_region(made)


def input_in(module, bytes_, offset=0, region="room"):
    made = module.InferInput("text_input", [1], "BYTES")
    made.set_shared_memory(region, bytes_, offset)
    return made


def prompt_bytes():
    return len(serialize_byte_tensor(PROMPT).item())


def expected(stage):
    return stage.post(GENERATE, {"text_input": "ROMEO:", **GREEDY}).json()["text_output"].encode()


def test_inputs_and_outputs_in_shared_memory(stage, protocol, room):
    module, client = protocol
    client.register_system_shared_memory("room", "/troupe_test_room", ROOM_BYTES)
    out = module.InferRequestedOutput("text_output")
    out.set_shared_memory("room", 1024, 2048)
    answer = client.infer("bard", [input_in(module, prompt_bytes())], outputs=[out],
                          parameters=GREEDY)
    said = answer.get_output("text_output")
    if module is over_grpc:
        assert not b"".join(answer.get_response().raw_output_contents)
    else:
        assert "data" not in said
    where = said["parameters"] if isinstance(said, dict) else said.parameters
    size = where["shared_memory_byte_size"]
    text = expected(stage)
    assert (size if isinstance(size, int) else size.int64_param) == 4 + len(text)
    assert shm.get_contents_as_numpy(room, np.object_, [1], offset=2048)[0] == text


def test_regions_are_listed_and_forgotten(protocol, room):
    _, client = protocol
    client.register_system_shared_memory("a", "/troupe_test_room", 100, 50)
    client.register_system_shared_memory("b", "/troupe_test_room", 10)

    def names():
        listed = client.get_system_shared_memory_status()
        return sorted(r["name"] for r in listed) if isinstance(listed, list) else sorted(
            listed.regions)

    assert names() == ["a", "b"]
    one = client.get_system_shared_memory_status("a")
    one = one[0] if isinstance(one, list) else one.regions["a"]
    read = one.get if isinstance(one, dict) else lambda key: getattr(one, key)
    assert [read(k) for k in ("name", "key", "offset", "byte_size")] == [
        "a", "/troupe_test_room", 50, 100]
    with pytest.raises(InferenceServerException, match="already in manager"):
        client.register_system_shared_memory("a", "/troupe_test_room", 10)
    client.unregister_system_shared_memory("a")
    assert names() == ["b"]
    client.unregister_system_shared_memory()
    assert names() == []


def test_what_does_not_fit_is_refused(protocol, room):
    module, client = protocol
    for key, size in (("/troupe_test_nothing", 10), ("/troupe_test_room", 2 * ROOM_BYTES),
                      ("/../etc/passwd", 10)):
        with pytest.raises(InferenceServerException):
            client.register_system_shared_memory("bad", key, size)
    client.register_system_shared_memory("room", "/troupe_test_room", ROOM_BYTES)
    for bad in (input_in(module, ROOM_BYTES, 8), input_in(module, 2, 0),
                input_in(module, 10, 0, "nope")):
        with pytest.raises(InferenceServerException):
            client.infer("bard", [bad], parameters=GREEDY)
    small = module.InferRequestedOutput("text_output")
    small.set_shared_memory("room", 2, 0)
    with pytest.raises(InferenceServerException, match="should be at least"):
        client.infer("bard", [input_in(module, prompt_bytes())], outputs=[small],
                     parameters=GREEDY)
    assert client.infer("bard", [input_in(module, prompt_bytes())], parameters=GREEDY)


def test_outputs_without_a_room_are_refused_before_anything_is_computed(stage, protocol, room):
    module, client = protocol
    client.register_system_shared_memory("room", "/troupe_test_room", ROOM_BYTES)
    counted = stage.get("/v2/models/bard/stats").json()
    for region, bytes_, offset in (("nope", 10, 0), ("room", ROOM_BYTES, 1), ("room", 1, 2**63 - 1)):
        out = module.InferRequestedOutput("text_output")
        out.set_shared_memory(region, bytes_, offset)
        with pytest.raises(InferenceServerException, match="shared memory region"):
            client.infer("bard", [input_in(module, prompt_bytes())], outputs=[out], parameters=GREEDY)
    assert stage.get("/v2/models/bard/stats").json() == counted


def test_an_object_that_shrinks_is_an_error(stage, protocol, room):
    module, client = protocol
    client.register_system_shared_memory("room", "/troupe_test_room", ROOM_BYTES)
    with open("/dev/shm/troupe_test_room", "r+b") as file:
        file.truncate(4)
        with pytest.raises(InferenceServerException, match="shrunk"):
            client.infer("bard", [input_in(module, prompt_bytes())], parameters=GREEDY)
        file.truncate(ROOM_BYTES)
    assert client.is_server_live()


def test_a_room_for_outputs_that_shrinks_is_an_error(stage, protocol, room):
    module, client = protocol
    client.register_system_shared_memory("room", "/troupe_test_room", ROOM_BYTES)
    out = module.InferRequestedOutput("text_output")
    out.set_shared_memory("room", 1024, 2048)
    with open("/dev/shm/troupe_test_room", "r+b") as file:
        file.truncate(2048)
        with pytest.raises(InferenceServerException, match="shrunk"):
            client.infer("bard", [input_in(module, prompt_bytes())], outputs=[out], parameters=GREEDY)
        file.truncate(ROOM_BYTES)
    assert client.infer("bard", [input_in(module, prompt_bytes())], outputs=[out], parameters=GREEDY)


def test_an_object_that_shrinks_and_grows_under_requests_ends_nothing(stage, protocol, room):
    """Whatever the moment of the cut, each request is answered, by a text or by an error."""
    module, client = protocol
    client.register_system_shared_memory("room", "/troupe_test_room", ROOM_BYTES)
    out = module.InferRequestedOutput("text_output")
    out.set_shared_memory("room", 1024, 2048)
    end = threading.Event()

    def cut_and_mend():
        content = serialize_byte_tensor(PROMPT).item()
        with open("/dev/shm/troupe_test_room", "r+b", buffering=0) as file:
            while not end.is_set():
                file.truncate(0)
                file.truncate(ROOM_BYTES)
                file.seek(0)
                file.write(content)

    cutter = threading.Thread(target=cut_and_mend)
    cutter.start()
    answers = errors = 0
    try:
        while answers + errors < 200:
            try:
                client.infer("bard", [input_in(module, prompt_bytes())], outputs=[out], parameters=GREEDY)
                answers += 1
            except InferenceServerException:
                errors += 1
    finally:
        end.set()
        cutter.join()
    assert errors > 0 and client.is_server_live()
    assert stage.post(GENERATE, {"text_input": "ROMEO:", **GREEDY}).status_code == 200


def test_the_asyncio_client_over_http(stage):
    async def talk():
        async with http_aio.InferenceServerClient(f"127.0.0.1:{stage.port}") as client:
            assert await client.is_server_ready() and await client.is_model_ready("bard")
            prompt = http_aio.InferInput("text_input", [1], "BYTES")
            prompt.set_data_from_numpy(PROMPT)
            asked = [client.infer("bard", [prompt], parameters=GREEDY) for _ in range(4)]
            with pytest.raises(InferenceServerException, match="unknown model"):
                await client.infer("nope", [prompt])
            return [a.as_numpy("text_output")[0] for a in await asyncio.gather(*asked)]

    assert set(asyncio.run(talk())) == {expected(stage)}
