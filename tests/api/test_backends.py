"""Backends of people's own: the example and an odd one, from outside; and libraries that must be refused."""

import concurrent.futures
import json
import queue
import re
import shutil
import threading

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from library import example, odd, strange
from troupe_process import PATIENCE_S, ROOT, Cluster, eventually, run

ABI = "libstdc++ cxx11=1 gxx=1017 pointer=8"
DOCUMENTS = ["Dogs bark at the moon.", "Food for a cat: what a cat eats.", "The cat sleeps."]


def repository(folder, process="shared", **models):
    """Models of the backend "odd", one for each name."""
    for name, mode in models.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(
            f'backend: "odd"\nparameters {{ key: "mode" value {{ string_value: "{mode}" }} }}\n'
            f'parameters {{ key: "PROCESS" value {{ string_value: "{process}" }} }}\n')
    return folder


def one_model(folder, text):
    (folder / "m/1").mkdir(parents=True)
    (folder / "m/config.pbtxt").write_text(text)
    return folder


def tensor(kind, name, values):
    array = np.array(values, dtype=np.object_ if isinstance(values[0], str) else np.int32)
    made = kind.InferInput(name, list(array.shape), "BYTES" if array.dtype == object else "INT32")
    made.set_data_from_numpy(array)
    return made


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("rerank"), repository=ROOT / "examples/custom_backend/models",
                 arguments=("--backend-directory", example("custom_backend"), "--set", "edges.grpc=0")) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=["shared", "own"])
def odds(request, tmp_path_factory):
    """In this process, and in processes of their own: nobody sees a difference."""
    folder = tmp_path_factory.mktemp("odd")
    models = repository(folder / "models", request.param, plain="", many="repeat", last="throw in finalize")
    with Cluster(folder, repository=models,
                 arguments=("--backend-directory", odd(), "--set", "edges.grpc=0")) as cluster:
        yield cluster


def ask(cluster, model, word, path="generate", **more):
    return cluster.post(f"/v2/models/{model}/{path}", {"IN": [word], **more})


def test_missing_inputs_are_counted_as_triton_does(odds, reranker):
    """N is optional; a model whose inputs are all required is told their number."""
    said = odds.post("/v2/models/plain/infer", {"inputs": []}).json()["error"]
    assert "expected number of inputs between 1 and 2 but got 0 inputs for model 'plain'" in said
    said = reranker.post("/v2/models/reranker/infer", {"inputs": []}).json()["error"]
    assert "expected number of inputs between 2 and 3 but got 0" in said


def test_check_shows_what_the_backend_declares():
    checked = run("check", ROOT / "examples/custom_backend/models", "--backend-directory", example("custom_backend"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert any(line.startswith("+ input {") and "auto-completion (backend bm25)" in line
               for line in checked.stdout.splitlines()), checked.stdout


def test_the_reranker_is_a_model_like_others(reranker):
    assert re.search(r"^ready after .*: reranker$", "".join(reranker.output), re.M)
    c = tritonclient.http.InferenceServerClient(f"127.0.0.1:{reranker.port}", network_timeout=PATIENCE_S)
    assert c.is_server_ready() and c.is_model_ready("reranker", "1")
    model = c.get_model_metadata("reranker")
    assert model["platform"] == "bm25"
    assert model["inputs"][1] == {"name": "documents", "datatype": "BYTES", "shape": [-1]}
    config = c.get_model_config("reranker")
    assert config["instance_group"][0]["count"] == 2 and config["backend"] == "bm25"
    assert {"name": "reranker", "version": "1", "state": "READY", "reason": ""} in c.get_model_repository_index()
    kind = tritonclient.http
    answer = c.infer("reranker", [tensor(kind, "query", ["cat food"]), tensor(kind, "documents", DOCUMENTS)],
                     request_id="r7")
    assert answer.get_response()["id"] == "r7"
    scores = answer.as_numpy("scores")
    assert scores.dtype == np.float32 and scores[0] == 0 and scores[1] > scores[2] > 0
    assert list(answer.as_numpy("order")) == [1, 2, 0]
    only = c.infer("reranker", [tensor(kind, "query", ["cat"]), tensor(kind, "documents", DOCUMENTS),
                                tensor(kind, "top_k", [1])], outputs=[kind.InferRequestedOutput("order")])
    assert list(only.as_numpy("order")) == [1] and only.as_numpy("scores") is None
    statistics = c.get_inference_statistics("reranker")["model_stats"][0]
    assert statistics["inference_count"] == 2 and statistics["inference_stats"]["success"]["count"] == 2
    assert reranker.metric("troupe:backend_total", model="reranker", metric="documents") == 6
    assert reranker.metric("nv_inference_request_success", model="reranker") == 2


def test_a_custom_model_comes_and_goes(tmp_path):
    """Loaded by request, again while it serves, and unloaded."""
    body = {"query": "cat food", "documents": DOCUMENTS}
    with Cluster(tmp_path, repository=ROOT / "examples/custom_backend/models",
                 arguments=("--backend-directory", example("custom_backend"),
                            "--model-control-mode", "explicit")) as served:
        def order(what):
            answer = served.post(f"/v2/repository/models/reranker/{what}", {})
            assert answer.status_code == 200, answer.text

        assert served.post("/v2/models/reranker/generate", body).status_code in (400, 404)
        for _ in range(2):
            order("load")
            assert served.post("/v2/models/reranker/generate", body).json()["order"] == [1, 2, 0]
        order("unload")
        assert served.post("/v2/models/reranker/generate", body).status_code in (400, 404)
        assert served.get("/v2/health/ready").status_code == 200


def test_the_scores_are_those_of_the_formula(reranker):
    answer = reranker.post("/v2/models/reranker/generate", {"query": "cat food", "documents": DOCUMENTS}).json()
    bags = [["dogs", "bark", "moon"], ["food", "cat", "what", "cat", "eats"], ["cat", "sleeps"]]
    mean = sum(map(len, bags)) / 3
    for bag, score in zip(bags, answer["scores"]):
        wanted = 0.0
        for word in ("cat", "food"):
            holders = sum(word in b for b in bags)
            tf = bag.count(word)
            wanted += np.log(1 + (3 - holders + 0.5) / (holders + 0.5)) * tf * 2.2 / (
                tf + 1.2 * (0.25 + 0.75 * len(bag) / mean))
        assert score == pytest.approx(wanted, rel=1e-5)


def test_the_reranker_over_grpc(reranker):
    port = eventually(lambda: reranker._line(r"listening on grpc://127\.0\.0\.1:(\d+)"), "the gRPC port").group(1)
    c = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}")
    kind = tritonclient.grpc
    assert c.is_model_ready("reranker") and c.get_model_metadata("reranker").platform == "bm25"
    answer = c.infer("reranker", [tensor(kind, "query", ["cat food"]), tensor(kind, "documents", DOCUMENTS)])
    assert list(answer.as_numpy("order")) == [1, 2, 0]
    with pytest.raises(tritonclient.utils.InferenceServerException, match="top_k must be 1 or more"):
        c.infer("reranker", [tensor(kind, "query", ["c"]), tensor(kind, "documents", ["d"]), tensor(kind, "top_k", [0])])


def test_wrong_requests_never_reach_it(reranker):
    wrong = reranker.post("/v2/models/reranker/generate", {"query": "a"})
    assert wrong.status_code == 400 and "missing required input(s) ['documents']" in wrong.json()["error"]
    chat = reranker.post("/v1/completions", {"model": "reranker", "prompt": "a"})
    assert chat.status_code == 400 and "/v2/models/reranker/infer" in chat.text


@pytest.mark.parametrize("word, status, text", [
    ("throw", 500, "execute of the backend 'odd' threw: execute is odd"),
    ("throw an int", 500, "threw something that is no std::exception"),
    ("false", 501, "not this word"),
    ("silence", 500, "returned without a response"),
    ("wrong name", 500, "sent the output 'OTHER'"),
    ("wrong type", 500, "another type than BYTES"),
    ("wrong shape", 500, "a shape of 3 elements and data of 1"),
])
def test_what_goes_wrong_is_an_error_of_its_request_alone(odds, word, status, text):
    before = odds.metric("nv_inference_request_failure", model="plain")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        beside = pool.submit(ask, odds, "plain", "sleep")
        wrong = ask(odds, "plain", word)
    assert wrong.status_code == status and text in wrong.json()["error"], wrong.text
    assert beside.result().json()["OUT"] == "sleep"
    right = ask(odds, "plain", "word").json()
    assert right["OUT"] == "word" and right["COUNT"] == 0 and right["mode"] == ""
    assert odds.metric("nv_inference_request_failure", model="plain") == before + 1


def test_decoupled_answers_come_one_by_one_and_in_order(odds):
    text = ask(odds, "many", "w", "generate_stream", N=5).text
    parts = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert [p["COUNT"] for p in parts] == [0, 1, 2, 3, 4] and all(p["OUT"] == "w" for p in parts)
    assert ask(odds, "many", "w", N=1).json()["COUNT"] == 0
    two = ask(odds, "many", "w", N=2)
    assert two.status_code == 400 and "produced 2 responses" in two.json()["error"]
    lost = ask(odds, "many", "never", N=0)
    assert lost.status_code == 500 and "let go of the request" in lost.json()["error"]


def test_an_empty_end_is_for_those_who_ask(odds):
    """As Triton has it: the end of a decoupled backend is a response of its own only on request."""
    address = eventually(lambda: odds._line(r"listening on grpc://(127\.0\.0\.1:\d+)"), "gRPC").group(1)
    heard, ended = {"off": [], "on": []}, threading.Event()

    def hear(result, error):
        assert error is None, error
        answer = result.get_response()
        final = answer.parameters["triton_final_response"].bool_param
        heard[answer.id].append((len(answer.outputs), final))
        if len(heard["off"]) == 3 and len(heard["on"]) == 4:
            ended.set()

    kind = tritonclient.grpc
    inputs = [tensor(kind, "IN", ["late end"]), tensor(kind, "N", [3])]
    with kind.InferenceServerClient(address) as c:
        c.start_stream(hear)
        for name in heard:
            c.async_stream_infer("many", inputs, request_id=name, enable_empty_final_response=name == "on")
        assert ended.wait(PATIENCE_S), heard
        c.stop_stream()
    assert heard == {"off": [(2, False)] * 3, "on": [(2, False)] * 3 + [(0, True)]}


def test_streams_whose_first_responses_come_together(odds):
    """The first of several that are ready is sent as any other, on each of many streams."""
    address = odds._line(r"listening on grpc://(127\.0\.0\.1:\d+)").group(1)
    kind = tritonclient.grpc
    inputs = [tensor(kind, "IN", ["w"]), tensor(kind, "N", [8])]
    for stream in range(30):
        heard = queue.Queue()
        with kind.InferenceServerClient(address) as c:
            c.start_stream(lambda result, error: heard.put(error or result.as_numpy("COUNT")[0]))
            c.async_stream_infer("many", inputs)
            assert [heard.get(timeout=PATIENCE_S) for _ in range(8)] == list(range(8)), stream
            c.stop_stream()


def test_what_is_no_text_spoils_no_message_around_it(odds):
    """Bytes that are not UTF-8 in a name of a metric or in a parameter: clients and scrapers read what is beside them."""
    address = eventually(lambda: odds._line(r"listening on grpc://(127\.0\.0\.1:\d+)"), "gRPC").group(1)
    words = tritonclient.grpc.InferInput("IN", [1], "BYTES")
    words.set_data_from_numpy(np.array([b"bytes"], dtype=np.object_))
    told = tritonclient.grpc.InferenceServerClient(address).infer("plain", [words]).get_response().parameters
    assert told["odd \ufffd"].string_param == "\ufffd is no text"
    assert ask(odds, "plain", "bytes").json()["odd \ufffd"] == "\ufffd is no text"
    seen = odds.get("/metrics").content.decode()
    assert 'metric="odd \ufffd\ufffd name"' in seen and f'metric="{"n" * 63}"' in seen


def test_the_log_is_one_line_a_call(odds):
    assert any("model plain: two lines" in line for line in odds.complaints)


def test_its_death_is_told_and_mended(odds):
    odds.kill("backend")
    eventually(lambda: ask(odds, "plain", "word").status_code == 200, "an answer after the restart")
    eventually(lambda: odds.get("/v2/health/ready").status_code == 200, "readiness")


@pytest.mark.parametrize("mode, complaint", [
    ("throw in auto_complete", "auto_complete is odd"),
    ("throw an int in auto_complete", "auto_complete_config of the backend 'odd' threw something"),
    ("fail in initialize", "there is nothing to load"),
])
def test_a_model_that_cannot_load_says_why(tmp_path, mode, complaint):
    models = repository(tmp_path / "models", m=mode)
    done = run("up", "--model-repository", models, "--port", 0, "--backend-directory", odd())
    assert done.returncode == 1 and complaint in done.stdout + done.stderr


def test_a_constructor_that_throws_is_a_load_error(tmp_path):
    models = repository(tmp_path / "models", m="")
    done = run("check", models, "--backend-directory", odd("ODD_CONSTRUCTOR_THROWS"))
    assert done.returncode == 1 and "the constructor is odd" in done.stdout


@pytest.mark.parametrize("how, complaint", [
    ({"entry": "other"}, "has no function troupe_backend_describe"),
    ({"abi": "msvc"}, f"with the ABI 'msvc', and this program with '{ABI}'"),
    ({"api": 99}, "version 99 of the backend interface, and this program has version 2"),
    ({"abi": ABI, "base": "onnx"}, "builds on the backend 'onnx'"),
    ({"abi": ABI, "base": "troupe"}, "was tested with version 0.0.1 of Troupe, and this is 0.1.0"),
])
def test_a_library_of_another_make_is_refused_by_both_names(tmp_path, how, complaint):
    models = one_model(tmp_path / "models", 'backend: "strange"')
    for command in (("check", models), ("up", "--model-repository", models, "--port", 0)):
        done = run(*command, "--backend-directory", strange(tmp_path / "backends", **how))
        assert done.returncode == 1 and complaint in done.stdout + done.stderr, done.stdout + done.stderr


def test_a_library_that_says_another_name_is_refused(tmp_path):
    strange(tmp_path / "backends", abi=ABI)
    (tmp_path / "backends/alias").mkdir()
    shutil.copy(tmp_path / "backends/strange/libtroupe_strange.so", tmp_path / "backends/alias/libtroupe_alias.so")
    done = run("check", one_model(tmp_path / "models", 'backend: "alias"'), "--backend-directory", tmp_path / "backends")
    assert done.returncode == 1 and "says that it is the backend 'strange', and the model wants 'alias'" in done.stdout


@pytest.mark.parametrize("name", ["../odd", "/tmp/odd", "..", ".odd", "odd/../odd", "a b", "odd\\n", "x" * 65])
def test_no_name_leads_out_of_the_folders(tmp_path, name):
    done = run("check", one_model(tmp_path / "models", f'backend: "{name}"'), "--backend-directory", odd())
    assert done.returncode == 1 and "is no name of a backend" in done.stdout, done.stdout


def test_no_link_leads_out_of_the_folders(tmp_path):
    models = one_model(tmp_path / "models", 'backend: "odd"')
    (models / "m/1/libtroupe_odd.so").symlink_to(odd() / "odd/libtroupe_odd.so")
    done = run("check", models, "--backend-directory", odd())
    assert done.returncode == 1 and "out of its folder" in done.stdout, done.stdout


def test_a_missing_library_names_the_places_in_tritons_order(tmp_path):
    models = one_model(tmp_path / "models", 'backend: "nope"')
    done = run("check", models, "--backend-directory", tmp_path)
    assert done.returncode == 1
    assert f"there is no libtroupe_nope.so in {models}/m/1, {models}/m, {tmp_path}/nope" in done.stdout, done.stdout


def test_the_version_directory_comes_first(tmp_path):
    models = one_model(tmp_path / "models", 'backend: "odd"')
    shutil.copy(odd() / "odd/libtroupe_odd.so", models / "m/1")
    assert run("check", models).returncode == 0


@pytest.mark.parametrize("text, complaint", [
    ("max_batch_size: 8", "specified max_batch_size 8, but in auto-complete-config function for model 'm' "
                          "specified max_batch_size 0"),
    ("model_transaction_policy { decoupled: true }", "the backend odd needs false"),
    ('input { name: "IN" data_type: TYPE_FP32 dims: [-1] }', "data_type of 'IN' is TYPE_FP32 here"),
    ('parameters { key: "PROCESS" value { string_value: "mine" } }', "must be 'shared' or 'own', not 'mine'"),
])
def test_what_a_person_wrote_wins_or_loading_fails(tmp_path, text, complaint):
    done = run("check", one_model(tmp_path / "models", f'backend: "odd"\n{text}'), "--backend-directory", odd())
    assert done.returncode == 1 and complaint in done.stdout.replace('"', "'"), done.stdout


def test_a_written_shape_is_kept(tmp_path):
    models = one_model(tmp_path / "models", 'backend: "odd"\ninput { name: "IN" dims: [1] }')
    with Cluster(tmp_path, repository=models, arguments=("--backend-directory", odd())) as served:
        assert served.get("/v2/models/m").json()["inputs"][0] == {"name": "IN", "datatype": "BYTES", "shape": [1]}
        assert served.post("/v2/models/m/generate", {"IN": ["a", "b"]}).status_code == 400
