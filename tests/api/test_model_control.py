"""Models that are loaded, replaced and unloaded while the cluster runs."""

import base64
import json
import os
import pathlib
import shutil
import threading

import grpc
import httpx
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from troupe_process import PATIENCE_S, ROOT, Cluster, eventually, run

BARD = ROOT / "examples/models/bard"
GENERATE = "/v2/models/bard/generate"
BODY = {"text_input": "ROMEO:", "max_tokens": 4, "temperature": 0}
MODEL_JSON = json.dumps({"model": str(BARD / "hf"), "dtype": "bfloat16"})
# Of the test that loads and unloads under traffic; 200 by hand.
CYCLES = int(os.environ.get("TROUPE_CYCLES", "20"))
EXPLICIT = ("--model-control-mode", "explicit")


@pytest.fixture
def repository(tmp_path):
    version = tmp_path / "repository" / "bard" / "1"
    version.mkdir(parents=True)
    (version / "model.json").write_text(MODEL_JSON)
    return tmp_path / "repository"


def client(cluster):
    return triton.InferenceServerClient(f"127.0.0.1:{cluster.port}", network_timeout=PATIENCE_S)


def index_of(cluster):
    return cluster.post("/v2/repository/index", {}).json()


def test_without_a_mode_models_stay(repository, tmp_path):
    with Cluster(tmp_path, repository=repository) as served:
        for what in ("load", "unload"):
            answer = served.post(f"/v2/repository/models/bard/{what}", {})
            assert answer.status_code == 503
            assert "explicit model load / unload is not allowed" in answer.json()["error"]


def test_explicit_starts_with_what_was_asked_for(repository, tmp_path):
    shutil.copytree(repository / "bard", repository / "other")
    explicit = ("--model-control-mode", "explicit")
    with Cluster(tmp_path, arguments=(*explicit, "--load-model", "bard"), repository=repository) as served:
        rows = eventually(lambda: len(index_of(served)) == 2 and index_of(served), "both are listed")
        assert rows == [{"name": "bard", "version": "1", "state": "READY", "reason": ""}, {"name": "other"}]
    none = run("up", "--model-repository", repository, *explicit, "--load-model", "nope", "--port", 0)
    assert none.returncode == 1 and "no such model" in none.stderr
    odd = run("up", "--model-repository", repository, "--load-model", "bard", "--port", 0)
    assert odd.returncode == 1 and "explicit" in odd.stderr


def test_load_and_unload_by_request(repository, tmp_path):
    with Cluster(tmp_path, arguments=("--model-control-mode", "explicit"), repository=repository) as served:
        c = client(served)
        assert c.is_server_ready() and not c.is_model_ready("bard")
        assert served.post(GENERATE, BODY).status_code == 404
        c.load_model("bard")
        assert c.is_model_ready("bard")
        text = served.post(GENERATE, BODY).json()["text_output"]
        # Again, with a configuration and files of its own, in place of those on disk.
        c.load_model("bard", config=json.dumps({"backend": "vllm", "parameters": {
            "WHOSE": {"string_value": "mine"}}}), files={"file:7/model.json": MODEL_JSON.encode()})
        config = served.get("/v2/models/bard/config").json()
        assert config["parameters"]["WHOSE"]["string_value"] == "mine"
        assert served.get("/v2/models/bard").json()["versions"] == ["7"]
        assert served.post(GENERATE, BODY).json()["text_output"] == text
        c.unload_model("bard")
        assert not c.is_model_ready("bard") and c.is_server_ready()
        # Version 1 went when version 7 took its place.
        assert [(e["version"], e["state"], e["reason"]) for e in index_of(served)] == [
            ("1", "UNAVAILABLE", "unloaded"), ("7", "UNAVAILABLE", "unloaded")]
        with pytest.raises(InferenceServerException, match="no such model is loaded"):
            c.unload_model("bard")
        c.load_model("bard")
        assert served.post(GENERATE, BODY).json()["text_output"] == text


@pytest.mark.parametrize("body, words", [
    ({"parameters": {"config": 5}}, "must be a string"),
    ({"parameters": {"config": "{"}}, "load request:1: error: not valid JSON"),
    ({"parameters": {"config": '{"max_batchsize": 1}'}}, "max_batchsize"),
    ({"parameters": {"config": '{"max_batch_size": 4}'}}, "max_batch_size"),
    ({"parameters": {"file:1/model.json": "?"}}, "base64"),
    ({"parameters": {"file:1/model.json": base64.b64encode(b"{}").decode()}}, "config"),
    ({"parameters": {"config": "{}", "file:../../x": ""}}, "file"),
    ({"parameters": {"what": "x"}}, "what"),
    ({"parameters": 5}, "parameters"),
])
def test_a_bad_load_changes_nothing(repository, tmp_path, body, words):
    with Cluster(tmp_path, arguments=("--model-control-mode", "explicit", "--load-model", "*"),
                 repository=repository) as served:
        answer = served.post("/v2/repository/models/bard/load", body)
        assert answer.status_code in (400, 404, 409, 501), answer.text
        assert words in answer.json()["error"]
        assert served.post("/v2/repository/models/nope/load", {}).status_code == 404
        assert served.post(GENERATE, BODY).status_code == 200


def test_reload_under_traffic_loses_nothing(repository, tmp_path):
    with Cluster(tmp_path, arguments=("--model-control-mode", "explicit", "--load-model", "*"),
                 repository=repository) as served:
        text = served.post(GENERATE, BODY).json()["text_output"]
        end = threading.Event()
        seen = []

        def ask():
            while not end.is_set():
                answer = httpx.post(served.url + GENERATE, json=BODY, timeout=PATIENCE_S)
                seen.append((answer.status_code, answer.json().get("text_output")))

        askers = [threading.Thread(target=ask) for _ in range(3)]
        for thread in askers:
            thread.start()
        try:
            for _ in range(4):
                client(served).load_model("bard")
        finally:
            end.set()
            for thread in askers:
                thread.join()
        assert len(seen) > 4 and set(seen) == {(200, text)}
        assert len(served.get("/troupe/v1/status").json()["replicas"]) == 1


def test_poll_follows_the_files(repository, tmp_path):
    poll = ("--model-control-mode", "poll", "--repository-poll-secs", "1")
    with Cluster(tmp_path, arguments=poll, repository=repository) as served:
        assert served.post("/v2/repository/models/bard/load", {}).status_code == 503
        shutil.copytree(repository / "bard", repository / "other")
        eventually(lambda: served.get("/v2/models/other/ready").status_code == 200, "the new one is loaded")
        (repository / "bard/config.pbtxt").write_text('parameters { key: "A" value { string_value: "1" } }')
        eventually(lambda: "A" in served.get("/v2/models/bard/config").json()["parameters"], "it is read again")
        shutil.rmtree(repository / "other")
        eventually(lambda: served.get("/v2/models/other/ready").status_code != 200, "it is gone")
        (repository / "bard/config.pbtxt").write_text("max_batch_size: 9")
        eventually(lambda: any("max_batch_size" in line for line in served.complaints), "the mistake is told")
        assert served.post(GENERATE, BODY).status_code == 200


def test_load_and_unload_over_grpc(repository, tmp_path):
    edges = {"http": {"port": 0}, "grpc": {"port": 0}}
    with Cluster(tmp_path, arguments=EXPLICIT, model_repository=str(repository), edges=edges) as served:
        address = eventually(lambda: served._line(r"listening on grpc://(127\.0\.0\.1:\d+)"), "gRPC").group(1)
        c = triton_grpc.InferenceServerClient(address)
        # grpc.health.v1 in bytes: the answer's field 1 is SERVING (1) or NOT_SERVING (2).
        check = grpc.insecure_channel(address).unary_unary("/grpc.health.v1.Health/Check")
        eventually(lambda: check(b"") == b"\x08\x01", "a server without models is ready")
        c.load_model("bard", config=json.dumps({"backend": "vllm"}), files={"file:3/model.json": MODEL_JSON.encode()})
        assert c.is_model_ready("bard", "3") and not c.is_model_ready("bard", "1")
        assert [(m.name, m.version, m.state) for m in c.get_model_repository_index().models] == [
            ("bard", "3", "READY")]
        c.unload_model("bard", unload_dependents=True)
        assert not c.is_model_ready("bard")
        for what, code in ((lambda: c.unload_model("bard"), "NOT_FOUND"), (lambda: c.load_model("nope"), "NOT_FOUND"),
                           (lambda: c.load_model("bard", config="{"), "INVALID_ARGUMENT")):
            with pytest.raises(InferenceServerException) as refused:
                what()
            assert code in refused.value.status()
        node = served.get("/troupe/v1/status").json()["nodes"][0]["name"]
        assert served.post("/troupe/v1/drain", {"node": node, "stay": True}).status_code == 202
        eventually(lambda: check(b"") == b"\x08\x02", "a server that drains is not ready")
        with pytest.raises(InferenceServerException, match="shutting down"):
            c.load_model("bard")


def test_over_grpc_without_a_mode_models_stay(repository, tmp_path):
    edges = {"http": {"port": 0}, "grpc": {"port": 0}}
    with Cluster(tmp_path, model_repository=str(repository), edges=edges) as served:
        address = eventually(lambda: served._line(r"listening on grpc://(127\.0\.0\.1:\d+)"), "gRPC").group(1)
        for order in (triton_grpc.InferenceServerClient(address).load_model,
                      triton_grpc.InferenceServerClient(address).unload_model):
            with pytest.raises(InferenceServerException, match="is not allowed") as refused:
                order("bard")
            assert "UNAVAILABLE" in refused.value.status()


def test_an_unload_lets_streams_end(repository, tmp_path):
    with Cluster(tmp_path, arguments=(*EXPLICIT, "--load-model", "*"), repository=repository) as served:
        body = {**BODY, "max_tokens": 100, "ignore_eos": True, "stream": True}
        whole = served.post(GENERATE, {**body, "stream": False,
                                         "exclude_input_in_output": True}).json()["text_output"]
        with httpx.stream("POST", served.url + GENERATE + "_stream", json=body, timeout=PATIENCE_S) as stream:
            lines = (line for line in stream.iter_lines() if line)
            events = [next(lines)]
            gone = threading.Thread(target=client(served).unload_model, args=("bard",))
            gone.start()
            events += lines
            gone.join()
        assert stream.status_code == 200
        parts = [json.loads(event.removeprefix("data: ")) for event in events]
        assert not any("error" in part for part in parts)
        assert "".join(part["text_output"] for part in parts) == whole and len(parts) > 10
        assert [(e["state"], e["reason"]) for e in index_of(served)] == [("UNAVAILABLE", "unloaded")]


def weight_of(served):
    """Threads and descriptors of the server."""
    own = pathlib.Path(f"/proc/{served.process.pid}")
    return len(list((own / "task").iterdir())), len(list((own / "fd").iterdir()))


def test_cycles_under_traffic_lose_nothing_and_leave_nothing(repository, tmp_path):
    shutil.copytree(repository / "bard", repository / "other")
    with Cluster(tmp_path, arguments=(*EXPLICIT, "--load-model", "bard"), repository=repository) as served:
        text = served.post(GENERATE, BODY).json()["text_output"]
        end = threading.Event()
        stays, comes_and_goes = [], []

        def ask(model, seen):
            with httpx.Client(timeout=PATIENCE_S) as c:
                while not end.is_set():
                    answer = c.post(f"{served.url}/v2/models/{model}/generate", json=BODY)
                    seen.append((answer.status_code, answer.json().get("text_output")))
                    end.wait(0.02)

        def cycle(number):
            c = client(served)
            c.load_model("other")
            assert c.is_model_ready("other")
            if number % 4 == 0:
                c.load_model("bard")
            c.unload_model("other")
            assert not c.is_model_ready("other")
            c.close()

        askers = [threading.Thread(target=ask, args=pair)
                  for pair in (("bard", stays), ("bard", stays), ("other", comes_and_goes))]
        for thread in askers:
            thread.start()
        try:
            for number in range(2):
                cycle(number)
            before = weight_of(served)
            for number in range(CYCLES):
                cycle(number)
            after = weight_of(served)
        finally:
            end.set()
            for thread in askers:
                thread.join()
        assert set(stays) == {(200, text)}
        # Served whole, or refused whole: not there, or not any more.
        assert {status for status, _ in comes_and_goes} <= {200, 404, 503}
        assert {words for status, words in comes_and_goes if status == 200} == {text}
        assert after[0] <= before[0] + 2 and after[1] <= before[1] + 4, (before, after)
        assert len(served.get("/troupe/v1/status").json()["replicas"]) == 1


def test_a_failed_reload_leaves_the_old_one(repository, tmp_path):
    with Cluster(tmp_path, arguments=(*EXPLICIT, "--load-model", "*"), repository=repository) as served:
        broken = tmp_path / "broken"
        shutil.copytree(BARD / "hf", broken)
        for weights in broken.glob("*.safetensors"):
            weights.write_bytes(weights.read_bytes()[:1000])
        (repository / "bard/1/model.json").write_text(json.dumps({"model": str(broken)}))
        answer = served.post("/v2/repository/models/bard/load", {})
        assert answer.status_code >= 400 and "failed to load 'bard'" in answer.json()["error"]
        assert served.post(GENERATE, BODY).status_code == 200
        assert served.get("/v2/models/bard/ready").status_code == 200
