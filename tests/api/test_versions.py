"""Several versions of one model at once, as a version policy chooses them: every protocol, from outside."""

import json
import shutil
import threading

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from library import odd
from troupe_process import PATIENCE_S, ROOT, Cluster, eventually, run

BARD = ROOT / "examples/models/bard"
EXPLICIT = ("--model-control-mode", "explicit", "--load-model", "*")
ALL = "version_policy { all { } }"
ASK = {"text_input": "ROMEO:", "temperature": 0, "return_num_output_tokens": True}


def write_version(repository, number, **keys):
    """A version whose answers say which it is: version N ends after 2 N tokens."""
    folder = repository / "bard" / str(number)
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({
        "model": str(BARD / "hf"), "dtype": "bfloat16",
        "override_generation_config": {"max_new_tokens": 2 * number}, **keys}))


def make(folder, versions, policy):
    for number in versions:
        write_version(folder / "models", number)
    (folder / "models/bard/config.pbtxt").write_text(f'backend: "vllm"\n{policy}\n')
    return folder / "models"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Versions 1 and 2 of one model, with both edges."""
    folder = tmp_path_factory.mktemp("versions")
    repository = make(folder, (1, 2), ALL)
    edges = {"http": {"port": 0}, "grpc": {"port": 0}}
    with Cluster(folder, model_repository=str(repository), edges=edges) as cluster:
        yield cluster


def http_client(cluster):
    return triton.InferenceServerClient(f"127.0.0.1:{cluster.port}", network_timeout=PATIENCE_S)


def grpc_client(cluster):
    address = eventually(lambda: cluster._line(r"listening on grpc://(127\.0\.0\.1:\d+)"), "gRPC").group(1)
    return triton_grpc.InferenceServerClient(address)


def inputs_of(kind):
    made = []
    for name, value, datatype in (("text_input", b"ROMEO:", "BYTES"), ("return_num_output_tokens", True, "BOOL")):
        one = kind.InferInput(name, [1], datatype)
        one.set_data_from_numpy(np.array([value], dtype=np.object_ if datatype == "BYTES" else bool))
        made.append(one)
    return made


def rows_of(cluster):
    return [(e["version"], e["state"], e["reason"]) for e in cluster.post("/v2/repository/index", {}).json()]


def served_by(cluster, version=None):
    """The version that an answer names, and the one that its length tells."""
    path = "/v2/models/bard" + (f"/versions/{version}" if version else "")
    answer = cluster.post(path + "/generate", ASK)
    assert answer.status_code == 200, answer.text
    return answer.json()["model_version"], answer.json()["num_output_tokens"] // 2


def test_check_shows_every_version_and_complains_about_none(both):
    checked = run("check", both.file)
    assert checked.returncode == 0 and "serves the highest" not in checked.stdout, checked.stdout


def test_metadata_index_and_readiness_know_both(both):
    c = http_client(both)
    assert c.get_model_metadata("bard")["versions"] == ["1", "2"]
    assert c.get_model_metadata("bard", "1")["versions"] == ["1"]
    assert c.is_model_ready("bard") and c.is_model_ready("bard", "1") and c.is_model_ready("bard", "2")
    assert not c.is_model_ready("bard", "3")
    assert rows_of(both) == [("1", "READY", ""), ("2", "READY", "")]
    g = grpc_client(both)
    assert list(g.get_model_metadata("bard").versions) == ["1", "2"]
    assert [g.is_model_ready("bard", v) for v in ("", "1", "2", "3")] == [True, True, True, False]
    assert [(m.version, m.state) for m in g.get_model_repository_index().models] == [("1", "READY"), ("2", "READY")]
    assert both.get("/v2/models/bard/versions/1/config").json()["version_policy"] == {"all": {}}


def test_http_reaches_each_version(both):
    assert [served_by(both, v) for v in ("1", "2", None)] == [("1", 1), ("2", 2), ("2", 2)]
    c = http_client(both)
    for version, wanted in (("1", 1), ("2", 2), ("", 2)):
        answer = c.infer("bard", inputs_of(triton), model_version=version)
        assert answer.get_response()["model_version"] == str(wanted)
        assert answer.as_numpy("num_output_tokens")[0] == 2 * wanted
        path = "/v2/models/bard" + (f"/versions/{version}" if version else "") + "/generate_stream"
        events = [json.loads(line[6:]) for line in both.post(path, {**ASK, "stream": True}).text.splitlines() if line]
        assert {e["model_version"] for e in events} == {str(wanted)}
        assert sum(e["num_output_tokens"] for e in events) == 2 * wanted
    for version in ("3", "01", "x", "-1", "18446744073709551617"):
        lost = both.post(f"/v2/models/bard/versions/{version}/generate", ASK)
        assert lost.status_code == 404 and f"version {version} is not found; versions 1, 2 are served" in lost.text


def test_grpc_reaches_each_version(both):
    with grpc_client(both) as c:
        for version, wanted in (("1", 1), ("2", 2), ("", 2)):
            answer = c.infer("bard", inputs_of(triton_grpc), model_version=version)
            assert answer.get_response().model_version == str(wanted)
            assert answer.as_numpy("num_output_tokens")[0] == 2 * wanted
        with pytest.raises(InferenceServerException, match="versions 1, 2 are served") as lost:
            c.infer("bard", inputs_of(triton_grpc), model_version="3")
        assert lost.value.status() == "StatusCode.NOT_FOUND"
        heard, ended = [], threading.Event()

        def hear(result, error):
            assert error is None
            heard.append((result.get_response().id, result.get_response().model_version,
                          int(result.as_numpy("num_output_tokens")[0])))
            if len(heard) == 2:
                ended.set()

        c.start_stream(hear)
        for version in ("1", "2"):
            c.async_stream_infer("bard", inputs_of(triton_grpc), model_version=version, request_id=f"to {version}")
        assert ended.wait(PATIENCE_S)
        c.stop_stream()
        assert sorted(heard) == [("to 1", "1", 2), ("to 2", "2", 4)]


def test_statistics_and_metrics_are_apart(both):
    def counted():
        stats = {s["version"]: s["inference_count"] for s in both.get("/v2/models/bard/stats").json()["model_stats"]}
        metric = {v: both.metric("nv_inference_count", model="bard", version=v) for v in ("1", "2")}
        return stats, metric

    stats, metric = counted()
    assert set(stats) == {"1", "2"}
    for version in ("1", "1", "1", None):
        served_by(both, version)
    after, metric_after = counted()
    assert after == {"1": stats["1"] + 3, "2": stats["2"] + 1}
    assert metric_after == {"1": metric["1"] + 3, "2": metric["2"] + 1}
    one = both.get("/v2/models/bard/versions/1/stats").json()["model_stats"]
    assert [s["version"] for s in one] == ["1"]
    over_grpc = grpc_client(both).get_inference_statistics("bard").model_stats
    assert {s.version: s.inference_count for s in over_grpc} == after


def test_openai_serves_the_highest(both):
    assert [m["id"] for m in both.get("/v1/models").json()["data"]] == ["bard"]
    before = both.metric("nv_inference_count", model="bard", version="2")
    answer = both.complete(temperature=0, max_tokens=None)
    assert answer.json()["usage"]["completion_tokens"] == 4
    assert both.metric("nv_inference_count", model="bard", version="2") == before + 1


@pytest.mark.parametrize("policy, versions", [
    ("version_policy { latest { num_versions: 2 } }", ["3", "5"]),
    ("version_policy { specific { versions: [1, 5] } }", ["1", "5"]),
    ("", ["5"]),
])
def test_the_policy_chooses(tmp_path, policy, versions):
    with Cluster(tmp_path, repository=make(tmp_path, (1, 3, 5), policy)) as served:
        assert served.get("/v2/models/bard").json()["versions"] == versions
        assert [row[0] for row in rows_of(served)] == versions
        for version in ("1", "3", "5"):
            status = served.post(f"/v2/models/bard/versions/{version}/generate", ASK).status_code
            assert status == (200 if version in versions else 404)
        assert served_by(served) == ("5", 5)


def test_under_latest_a_new_version_drains_the_old(tmp_path):
    repository = make(tmp_path, (1,), "")
    (repository / "bard/1/model.json").write_text(json.dumps({"model": str(BARD / "hf"), "dtype": "bfloat16"}))
    with Cluster(tmp_path, arguments=EXPLICIT, repository=repository) as served:
        body = {**ASK, "max_tokens": 200, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", served.url + "/v2/models/bard/versions/1/generate_stream", json=body,
                          timeout=PATIENCE_S) as stream:
            lines = (line for line in stream.iter_lines() if line)
            events = [next(lines)]
            write_version(repository, 2)
            loading = threading.Thread(target=http_client(served).load_model, args=("bard",))
            loading.start()
            events += lines
            loading.join()
        parts = [json.loads(event[6:]) for event in events]
        assert not any("error" in p for p in parts) and {p["model_version"] for p in parts} == {"1"}
        assert sum(p["num_output_tokens"] for p in parts) == 200
        assert rows_of(served) == [("2", "READY", ""), ("1", "UNAVAILABLE", "unloaded")]
        assert served_by(served) == ("2", 2)
        assert served.post("/v2/models/bard/versions/1/generate", ASK).status_code == 404
        assert [r["version"] for r in served.get("/troupe/v1/status").json()["replicas"]] == [2]


def test_load_reload_and_unload_act_on_all_versions_under_traffic(tmp_path):
    repository = make(tmp_path, (1,), ALL)
    with Cluster(tmp_path, arguments=EXPLICIT, repository=repository) as served:
        c = http_client(served)
        end, seen = threading.Event(), []

        def ask():
            while not end.is_set():
                seen.append(served_by(served, "1"))

        asker = threading.Thread(target=ask)
        asker.start()
        try:
            write_version(repository, 2)
            for _ in range(3):
                c.load_model("bard")
                assert served_by(served) == ("2", 2)
            # One that does not load changes nothing of what is served.
            write_version(repository, 3)
            shutil.copytree(BARD / "hf", tmp_path / "broken")
            for weights in (tmp_path / "broken").glob("*.safetensors"):
                weights.write_bytes(weights.read_bytes()[:1000])
            (repository / "bard/3/model.json").write_text(json.dumps({"model": str(tmp_path / "broken")}))
            with pytest.raises(InferenceServerException, match="failed to load 'bard', version 3: "):
                c.load_model("bard")
            assert rows_of(served) == [("1", "READY", ""), ("2", "READY", "")]
            assert served_by(served) == ("2", 2)
        finally:
            end.set()
            asker.join()
        assert len(seen) > 4 and set(seen) == {("1", 1)}
        c.unload_model("bard")
        assert sorted(rows_of(served)) == [("1", "UNAVAILABLE", "unloaded"), ("2", "UNAVAILABLE", "unloaded")]
        assert served.post("/v2/models/bard/versions/1/generate", ASK).status_code == 404
        assert served.get("/troupe/v1/status").json()["replicas"] == []


def test_versions_of_a_custom_backend(tmp_path):
    backends = odd()
    models = tmp_path / "models"
    for version in ("1", "2"):
        (models / "m" / version).mkdir(parents=True)
    # Version 1 has a library of its own.
    shutil.copy(backends / "odd/libtroupe_odd.so", models / "m/1/libtroupe_odd.so")
    (models / "m/config.pbtxt").write_text(f'backend: "odd"\n{ALL}\n')
    with Cluster(tmp_path, arguments=("--backend-directory", backends, *EXPLICIT), repository=models) as served:
        for _ in range(2):
            for path, version in (("", "2"), ("/versions/1", "1"), ("/versions/2", "2")):
                answer = served.post(f"/v2/models/m{path}/generate", {"IN": ["word"]})
                assert answer.status_code == 200 and answer.json()["model_version"] == version
            assert rows_of(served) == [("1", "READY", ""), ("2", "READY", "")]
            http_client(served).load_model("m")
        assert any(f"{models}/m/1/libtroupe_odd.so" in line for line in served.output)
        assert served.metric("nv_inference_request_success", model="m", version="1") == 2
        http_client(served).unload_model("m")
        assert served.post("/v2/models/m/versions/1/generate", {"IN": ["word"]}).status_code == 404
