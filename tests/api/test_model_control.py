"""Models that are loaded, replaced and unloaded while the cluster runs."""

import base64
import json
import os
import pathlib
import random
import shutil
import statistics
import threading
import time

import grpc
import httpx
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from troupe_process import PATIENCE_S, ROOT, Cluster, eventually, run, write_cluster

BARD = ROOT / "examples/models/bard"
GENERATE = "/v2/models/bard/generate"
BODY = {"text_input": "ROMEO:", "max_tokens": 4, "temperature": 0}
MODEL_JSON = json.dumps({"model": str(BARD / "hf"), "dtype": "bfloat16"})
# Of the test that loads and unloads under traffic; 200 by hand.
CYCLES = int(os.environ.get("TROUPE_CYCLES", "20"))
# Of the tests whose files change while they are read.
ROUNDS = int(os.environ.get("TROUPE_CHANGE_ROUNDS", "8"))
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


def test_a_load_may_bring_the_weights(repository, tmp_path):
    """Which are larger than other bodies may be."""
    files = {f"file:1/own/{f.name}": f.read_bytes() for f in (BARD / "hf").iterdir()}
    files["file:1/model.json"] = json.dumps({"model": "own"}).encode()
    assert sum(map(len, files.values())) > 5 << 20
    with Cluster(tmp_path, arguments=EXPLICIT, repository=repository) as served:
        client(served).load_model("bard", config=json.dumps({"backend": "vllm"}), files=files)
        assert served.post(GENERATE, BODY).status_code == 200


@pytest.mark.parametrize("body, words", [
    ({"parameters": {"config": 5}}, "must be a string"),
    ({"parameters": {"config": "{"}}, "load request:1: error: not valid JSON"),
    ({"parameters": {"config": '{"max_batchsize": 1}'}}, "max_batchsize"),
    ({"parameters": {"config": '{"max_batch_size": 4}'}}, "max_batch_size"),
    ({"parameters": {"file:1/model.json": "?"}}, "base64"),
    ({"parameters": {"config": "{}", "file:1/model.json": "eyJ4=joxfQ=="}}, "base64"),
    ({"parameters": {"config": "{}", "file:1/model.json": " e30"}}, "base64"),
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
        calls = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(address))
        for call, message in ((calls.RepositoryModelLoad, service_pb2.RepositoryModelLoadRequest),
                              (calls.RepositoryModelUnload, service_pb2.RepositoryModelUnloadRequest)):
            with pytest.raises(grpc.RpcError, match="'repository_name' specification is not supported"):
                call(message(repository_name="x", model_name="bard"))
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
    """Threads, descriptors and resident MiB of the server."""
    own = pathlib.Path(f"/proc/{served.process.pid}")
    pages = int((own / "statm").read_text().split()[1])
    return len(list((own / "task").iterdir())), len(list((own / "fd").iterdir())), pages * os.sysconf("SC_PAGE_SIZE") >> 20


def is_light(after, before):
    return after[0] <= before[0] + 2 and after[1] <= before[1] + 4


def settled(served, before):
    """The weight once the model that went last has ended its threads, which an unload does not wait for."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_light(weight := weight_of(served), before) and time.monotonic() < deadline:
        time.sleep(0.1)
    return weight


def metric_lines(served):
    return len(served.get("/metrics").text.splitlines())


def assert_flat(megabytes):
    """Past the first quarter, in which caches fill, nothing grows; a model that stayed would be some MiB a cycle. Medians: an unload
    does not wait until all of the model's memory is home, so that a single weight may have one more."""
    quarter = len(megabytes) // 4
    early, late = megabytes[quarter:2 * quarter], megabytes[-quarter:]
    assert statistics.median(late) <= statistics.median(early) + 24 + len(megabytes) // 8, str(megabytes)


def test_cycles_under_traffic_lose_nothing_and_leave_nothing(repository, tmp_path):
    shutil.copytree(repository / "bard", repository / "other")
    # Of what was freed the sanitizer keeps little, so that the resident size tells what is held.
    few = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=4:thread_local_quarantine_size_kb=64"}
    with Cluster(tmp_path, arguments=(*EXPLICIT, "--load-model", "bard"), repository=repository, environment=few) as served:
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
            before, lines = weight_of(served), metric_lines(served)
            weights = []
            for number in range(CYCLES):
                cycle(number)
                weights.append(weight_of(served))
                if number % 20 == 19:
                    print(f"cycle {number + 1}: threads, descriptors, resident MiB: {weights[-1]}", flush=True)
            after = settled(served, before)
        finally:
            end.set()
            for thread in askers:
                thread.join()
        assert set(stays) == {(200, text)}
        # Served whole, or refused whole: not there, or not any more.
        assert {status for status, _ in comes_and_goes} <= {200, 404, 503}
        assert {words for status, words in comes_and_goes if status == 200} == {text}
        print(f"{CYCLES} cycles: {len(stays)} answers of the one that stays, {len(comes_and_goes)} of the other; {before} to {after}")
        assert is_light(after, before), (before, after)
        assert_flat([weight[2] for weight in weights])
        # A replica shows some 230 lines, which go with it.
        assert metric_lines(served) <= lines + 200
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


def test_the_cluster_file_names_mode_and_models(repository, tmp_path):
    shutil.copytree(repository / "bard", repository / "other")
    with Cluster(tmp_path, model_repository=str(repository),
                 model_control={"mode": "explicit", "load_models": ["other"]}) as served:
        rows = eventually(lambda: len(index_of(served)) == 2 and index_of(served), "both are listed")
        assert rows == [{"name": "other", "version": "1", "state": "READY", "reason": ""}, {"name": "bard"}]
        assert served.post(GENERATE, BODY).status_code == 404
        client(served).load_model("bard")
        assert served.post(GENERATE, BODY).status_code == 200
        assert run("check", served.file).returncode == 0
    # An option is laid over the file.
    with Cluster(tmp_path, arguments=("--load-model", "bard"), model_repository=str(repository),
                 model_control={"mode": "explicit", "load_models": ["other"]}) as served:
        assert client(served).is_model_ready("bard") and not client(served).is_model_ready("other")


def test_the_cluster_file_names_mode_and_interval_of_polls(repository, tmp_path):
    with Cluster(tmp_path, model_repository=str(repository), model_control={"mode": "poll", "poll_interval_s": 0.2}) as served:
        assert served.post("/v2/repository/models/bard/load", {}).status_code == 503
        shutil.copytree(repository / "bard", tmp_path / "new")
        (tmp_path / "new").rename(repository / "other")
        # Well before the 15 s that a poll has by default.
        eventually(lambda: served.get("/v2/models/other/ready").status_code == 200, "the new one is loaded", 12)


@pytest.mark.parametrize("control, words", [
    ({"mode": "sometimes"}, ["model_control.mode", "explicit"]),
    ({"mode": "explicit", "load_models": ["brad"]}, ["model_control.load_models", "'brad'", "'bard'"]),
    ({"load_models": ["bard"]}, ["model_control.load_models", "needs model_control.mode explicit"]),
    ({"mode": "poll", "load_models": ["bard"]}, ["needs model_control.mode explicit"]),
    ({"mode": "explicit", "load_models": "bard"}, ["must be a list of names"]),
    ({"mode": "poll", "poll_interval_s": 0}, ["model_control.poll_interval_s"]),
    ({"mod": "poll"}, ["model_control.mod", "mode"]),
])
def test_mistakes_in_the_cluster_file_are_told(repository, tmp_path, control, words):
    file = write_cluster(tmp_path, model_repository=str(repository), model_control=control)
    for command in ("check", "up"):
        done = run(command, file, *(["--port", 0] if command == "up" else []))
        said = done.stdout + done.stderr
        assert done.returncode == 1 and all(word in said for word in [*words, "cluster.json"]), said


class Writer:
    """Changes a model's files again and again, as an editor or a copy does: in place and in parts, by renaming, by
    deleting. Weights are only ever replaced by renaming."""

    def __init__(self, model, seed):
        self.model, self.chance, self.end = model, random.Random(seed), threading.Event()
        self.files = {p.relative_to(model): p.read_bytes() for p in sorted(model.rglob("*")) if p.is_file()}
        self.thread = threading.Thread(target=self._run)
        self.count = 0

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()
        self.restore()

    def restore(self):
        shutil.rmtree(self.model, ignore_errors=True)
        for name, content in self.files.items():
            (self.model / name).parent.mkdir(parents=True, exist_ok=True)
            (self.model / name).write_bytes(content)

    def _run(self):
        while not self.end.is_set():
            self.chance.choice([self.in_parts, self.in_parts, self.by_name, self.away, self.another_version, self.all_gone])()
            self.count += 1
            self.end.wait(self.chance.choice([0, 0.001, 0.02, 0.1]))

    def in_parts(self):
        name = self.chance.choice([n for n in self.files if n.suffix != ".safetensors"])
        content = self.files[name]
        cut = self.chance.randrange(len(content) + 1)
        with open(self.model / name, "wb") as file:
            file.write(content[:cut])
            file.flush()
            self.end.wait(self.chance.choice([0, 0.005]))
            if self.chance.random() < 0.8:
                file.write(content[cut:])

    def by_name(self):
        name = self.chance.choice(list(self.files))
        content = self.files[name]
        part = self.model / "part"
        part.write_bytes(content if self.chance.random() < 0.5 else content[:self.chance.randrange(len(content) + 1)])
        part.rename(self.model / name)

    def away(self):
        name = self.chance.choice(list(self.files))
        (self.model / name).unlink(missing_ok=True)
        self.end.wait(self.chance.choice([0, 0.01]))
        (self.model / name).write_bytes(self.files[name])

    def another_version(self):
        if (self.model / "2").exists():
            shutil.rmtree(self.model / "2")
        else:
            shutil.copytree(self.model / "1", self.model / "2")

    def all_gone(self):
        aside = self.model.parent.parent / "aside"
        self.model.rename(aside)
        self.end.wait(self.chance.choice([0, 0.01]))
        aside.rename(self.model)


@pytest.fixture
def moving(repository):
    """A model with its weights beside its versions, to be changed."""
    model = repository / "moving"
    shutil.copytree(BARD / "hf", model / "hf")
    (model / "1").mkdir()
    (model / "1/model.json").write_text(json.dumps({"model": "../hf", "dtype": "bfloat16"}))
    (model / "config.pbtxt").write_text('backend: "vllm"\n')
    return model


def assert_loads(served, text):
    """What lies there now, whole, is served at last; and the one beside it was never touched."""
    eventually(lambda: served.get("/v2/models/moving/ready").status_code == 200, "the model is back")
    assert served.post("/v2/models/moving/generate", BODY).json()["text_output"] == text
    assert served.post(GENERATE, BODY).json()["text_output"] == text


def test_loads_of_a_model_that_changes_meanwhile(repository, moving, tmp_path):
    with Cluster(tmp_path, arguments=(*EXPLICIT, "--load-model", "bard"), repository=repository) as served:
        text, seen = served.post(GENERATE, BODY).json()["text_output"], []
        with Writer(moving, 5) as writer:
            for _ in range(ROUNDS):
                answer = served.post("/v2/repository/models/moving/load", {})
                seen.append(answer.status_code)
                if answer.status_code != 200:
                    assert len(answer.json()["error"]) > 20 and "moving" in answer.json()["error"], answer.text
                assert served.post(GENERATE, BODY).json()["text_output"] == text
        assert writer.count > ROUNDS and set(seen) - {200}, (writer.count, seen)
        client(served).load_model("moving")
        assert_loads(served, text)


def test_polls_of_a_model_that_changes_meanwhile(repository, moving, tmp_path):
    poll = ("--model-control-mode", "poll", "--set", "model_control.poll_interval_s=0.05")
    with Cluster(tmp_path, arguments=poll, repository=repository) as served:
        text = served.post(GENERATE, BODY).json()["text_output"]
        with Writer(moving, 6) as writer:
            eventually(lambda: writer.count > 4 * ROUNDS and sum("moving" in line for line in served.complaints) > 2,
                       "mistakes are told")
            assert served.post(GENERATE, BODY).json()["text_output"] == text
        (moving / "config.pbtxt").write_text('backend: "vllm"\nparameters { key: "LAST" value { string_value: "1" } }\n')
        eventually(lambda: "LAST" in served.get("/v2/models/moving/config").json().get("parameters", {}), "the last one is served")
        assert_loads(served, text)


def test_check_of_a_model_that_changes_meanwhile(repository, moving):
    with Writer(moving, 7):
        for _ in range(ROUNDS):
            done = run("check", repository)
            assert done.returncode in (0, 1), done.stdout + done.stderr
            # A mistake names the model; while all of it is away there is none.
            assert ("moving" if done.returncode else '"bard"') in done.stdout, done.stdout
            assert "Sanitizer" not in done.stderr, done.stderr
    assert run("check", repository).returncode == 0
