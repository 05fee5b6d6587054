"""A Triton model repository in place of a cluster file, from outside."""

import json
import re
import shutil

import httpx
import pytest
import tritonclient.grpc as grpcclient

from ports import free_ports
from troupe_process import ROOT, Cluster, eventually, run

BARD = ROOT / "examples/models/bard"


@pytest.fixture
def repository(tmp_path):
    """A repository with the model bard, whose weights stay where they are."""
    version = tmp_path / "repository" / "bard" / "1"
    version.mkdir(parents=True)
    (version / "model.json").write_text(json.dumps({"model": str(BARD / "hf"), "dtype": "bfloat16"}))
    return tmp_path / "repository"


def line_of(text, start):
    found = [line for line in text.splitlines() if line.startswith(start)]
    assert found, (start, text)
    return found[0]


def test_check_shows_what_completion_added(repository):
    pbtxt = repository / "bard/config.pbtxt"
    pbtxt.write_text('backend: "vllm"\ninstance_group [{ count: 1 kind: KIND_MODEL }]\n'
                     "optimization { priority: PRIORITY_MAX }\n")
    checked = run("check", repository)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"Completed configuration of bard ({pbtxt})" in checked.stdout
    assert line_of(checked.stdout, '  backend: "vllm"').endswith(f"{pbtxt}:1")
    assert line_of(checked.stdout, "+ max_batch_size: 0").endswith("auto-completion (backend vllm)")
    added = [line for line in checked.stdout.splitlines() if line.startswith("+ input {")]
    assert len(added) == 11 and all("auto-completion (backend vllm)" in line for line in added)
    assert re.search(r"models\.bard\.optimization .*executor's choice", checked.stdout)
    assert "models.bard.max_num_seqs" in checked.stdout
    assert f"--model-repository {repository}" in checked.stdout


def test_check_of_a_repository_without_config(repository):
    checked = run("check", repository)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "Completed configuration of bard (no config.pbtxt)" in checked.stdout
    assert line_of(checked.stdout, '+ backend: "troupe"').endswith("(there is a model.json)")


@pytest.mark.parametrize("text, complaint", [
    ('backend: "vllm"\nmax_batchsize: 4\n', r"config\.pbtxt:2:1: error: unknown field 'max_batchsize'"),
    ("max_batch_size: 4", r"config\.pbtxt:1:1: error: max_batch_size: .*specified max_batch_size 0"),
    ('backend: "onnxruntime"', r"config\.pbtxt:1:1: error: backend: unable to find backend library"),
    ("instance_group { kind: KIND_MODEL gpus: [0] }", r"specifies one or more GPUs"),
])
def test_mistakes_are_found_before_anything_starts(repository, text, complaint):
    (repository / "bard/config.pbtxt").write_text(text)
    for command in (("check", repository), ("up", "--model-repository", repository, "--port", 0)):
        done = run(*command)
        assert done.returncode == 1
        assert re.search(complaint, done.stdout + done.stderr), done.stdout + done.stderr


def test_an_unknown_architecture_lists_those_that_are_served(repository, tmp_path):
    shutil.copytree(BARD / "hf", tmp_path / "odd")
    config = json.loads((tmp_path / "odd/config.json").read_text())
    config["architectures"] = ["GPT2LMHeadModel"]
    (tmp_path / "odd/config.json").write_text(json.dumps(config, indent=1))
    (repository / "bard/1/model.json").write_text(json.dumps({"model": str(tmp_path / "odd")}))
    done = run("check", repository)
    assert done.returncode == 1
    assert re.search(r"config\.json:\d+: error: architectures: architecture 'GPT2LMHeadModel' is not "
                     r"served; there are .*LlamaForCausalLM", done.stdout), done.stdout


def test_up_serves_a_repository_and_the_cache_of_hugging_face(repository, tmp_path):
    snapshot = tmp_path / "hf/hub/models--troupe--bard/snapshots/c0ffee"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(BARD / "hf", target_is_directory=True)
    (repository / "bard/1/model.json").write_text(json.dumps({"model": "troupe/bard"}))
    (repository / "bard/config.pbtxt").write_text(
        'backend: "vllm"\ninstance_group { count: 2 kind: KIND_CPU }')
    with Cluster(tmp_path, repository=repository, environment={"HF_HOME": str(tmp_path / "hf")}) as served:
        assert served.complete(max_tokens=4).status_code == 200
        assert len(served.get("/troupe/v1/status").json()["replicas"]) == 2


def test_the_protocol_answers_what_was_completed(repository, tmp_path):
    shutil.copytree(repository / "bard/1", repository / "bard/3")
    (repository / "bard/config.pbtxt").write_text(
        'backend: "vllm"\nversion_policy { all { } }\n'
        'input [{ name: "text_input" dims: [-1] }, { name: "tenant" data_type: TYPE_STRING dims: [1] optional: true }]\n'
        'instance_group { count: 1 kind: KIND_CPU name: "here" }\n'
        'parameters { key: "REPORT_CUSTOM_METRICS" value { string_value: "true" } }\n')
    with Cluster(tmp_path, repository=repository) as served:
        model = served.get("/v2/models/bard").json()
        assert model["platform"] == "vllm" and model["versions"] == ["1", "3"]
        assert [i["name"] for i in model["inputs"]][:2] == ["text_input", "tenant"]
        assert model["inputs"][0] == {"name": "text_input", "datatype": "BYTES", "shape": [-1]}
        assert len(model["inputs"]) == 12 and len(model["outputs"]) == 6
        config = served.get("/v2/models/bard/config").json()
        assert config["version_policy"] == {"all": {}}
        assert [(g["name"], g["kind"], g["count"]) for g in config["instance_group"]] == [("here", "KIND_CPU", 1)]
        assert config["parameters"] == {"REPORT_CUSTOM_METRICS": {"string_value": "true"}}
        assert config["model_transaction_policy"] == {"decoupled": True}
        index = served.post("/v2/repository/index", {}).json()
        assert [(e["version"], e["state"]) for e in index] == [("1", "READY"), ("3", "READY")]
        assert served.get("/v2/models/bard/versions/1").json()["versions"] == ["1"]
        assert served.get("/v2/models/bard/versions/2").status_code == 404
        body = {"text_input": ["ROMEO:"], "tenant": "t", "max_tokens": 2, "temperature": 0}
        assert served.post("/v2/models/bard/generate", body).status_code == 200
        nothing = served.post("/v2/models/bard/generate", {**body, "text_input": []})
        assert nothing.status_code == 400 and "no element" in nothing.json()["error"]
        assert served.get("/v2/health/live").status_code == 200


def test_up_wants_a_file_or_a_repository(repository):
    none = run("up")
    assert none.returncode == 2 and "--model-repository" in none.stderr
    both = run("up", "cluster.json", "--model-repository", repository)
    assert both.returncode == 2


def test_a_repository_without_models_serves_where_models_may_come(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for what in (("check",), ("up", "--port", 0)):
        none = run(*what, empty)
        assert none.returncode == 1 and "holds no model to serve" in none.stdout + none.stderr, none
    for mode in ("explicit", "poll"):
        assert run("check", empty, "--set", f"model_control.mode={mode}").returncode == 0
        with Cluster(tmp_path, arguments=("--model-control-mode", mode), repository=empty) as cluster:
            assert cluster.get("/v2/health/ready").status_code == 200
            assert cluster.post("/v2/repository/index", {}).json() == []


def test_a_repository_alone_has_tritons_three_doors(repository, tmp_path):
    with Cluster(tmp_path, repository=repository) as cluster:
        printed = "".join(cluster.output)
        (watched,) = re.findall(r"^metrics at http://(127\.0\.0\.1:\d+)/metrics$", printed, re.M)
        (called,) = re.findall(r"^listening on grpc://(127\.0\.0\.1:\d+)$", printed, re.M)
        with grpcclient.InferenceServerClient(called) as client:
            assert client.is_model_ready("bard")
        metrics = httpx.get(f"http://{watched}/metrics")
        assert metrics.status_code == 200 and "troupe:step_phase_seconds" in metrics.text
        assert cluster.metric("nv_inference_request_success", model="bard", version="1") == 0
        for path in ("/v1/models", "/v2/health/ready", "/troupe/v1/status", "/health"):
            refused = httpx.get(f"http://{watched}{path}")
            assert refused.status_code == 404 and "/metrics" in refused.json()["error"]["message"]
        refused = httpx.post(f"http://{watched}/v1/completions", json={"model": "bard", "prompt": "x"})
        assert refused.status_code == 404
        assert httpx.post(f"http://{watched}/metrics").status_code == 405
        cluster.kill("metrics")

        def back():
            try:
                return httpx.get(f"http://{watched}/metrics").status_code == 200
            except httpx.TransportError:
                return False

        eventually(lambda: cluster.metric("troupe:actor_restarts_total", actor="metrics") == 1, "a restart")
        eventually(back, "the same door again")


def test_the_doors_of_a_repository_follow_its_port(repository):
    first = free_ports(1)[0]
    checked = run("check", repository, "--port", first)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for edge, port in (("http", first), ("grpc", first + 1), ("metrics", first + 2)):
        assert re.search(rf"edges\.{edge}\.port +{port} ", checked.stdout), checked.stdout
    one = run("check", repository, "--port", first, "--set", "edges.http.host=0.0.0.0", "--set", "edges.grpc.host=::1",
              "--set", f"edges.metrics={first + 5}")
    for value, wanted in (("grpc.host", '"::1"'), ("grpc.port", first + 1), ("metrics.host", '"0.0.0.0"'),
                          ("metrics.port", first + 5)):
        assert re.search(rf"edges\.{value} +{wanted} ", one.stdout), one.stdout
    shared = run("check", repository, "--port", first, "--set", f"edges.metrics={first + 1}")
    assert shared.returncode == 1 and f"both ask for port {first + 1}" in shared.stdout + shared.stderr
    without = run("check", repository, "--set", "edges.grpc=false", "--set", "edges.metrics=9009")
    assert "edges.grpc" not in without.stdout and re.search(r"edges\.metrics\.port +9009 ", without.stdout)
    assert re.search(r"edges\.http\.port +8000 ", without.stdout)
