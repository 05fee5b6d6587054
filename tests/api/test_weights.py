"""Weights that are cut or written to while a model computes from them."""

import json
import os
import shutil
import threading

import httpx
import pytest

from troupe_process import PATIENCE_S, ROOT, Cluster, eventually

BARD = ROOT / "examples/models/bard"
SHORT = {"text_input": "ROMEO:", "max_tokens": 8, "temperature": 0}
LONG = {**SHORT, "max_tokens": 400, "ignore_eos": True, "stream": True}
STREAMS = 4


def write_untied(folder):
    """bard with an output head of its own: its embeddings are then read from the file while it runs, and they end the file."""
    shutil.copytree(BARD / "hf", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    table = header.pop("model.embed_tokens.weight")
    names = [*sorted(k for k in header if k != "__metadata__"), "lm_head.weight", "model.embed_tokens.weight"]
    made, data = {}, b""
    for name in names:
        one = header.get(name, table)
        first, last = one["data_offsets"]
        made[name] = {**one, "data_offsets": [len(data), len(data) + last - first]}
        data += whole[end + first:end + last]
    text = json.dumps(made).encode()
    text += b" " * (-len(text) % 64)
    weights.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return weights


@pytest.fixture
def weights(tmp_path):
    """A repository of bard and of `copy`; the file that `copy` computes from."""
    for name, folder in (("bard", BARD / "hf"), ("copy", tmp_path / "copy")):
        version = tmp_path / "repository" / name / "1"
        version.mkdir(parents=True)
        (version / "model.json").write_text(json.dumps({"model": str(folder), "dtype": "bfloat16"}))
    return write_untied(tmp_path / "copy")


def generate(served, model):
    return served.post(f"/v2/models/{model}/generate", SHORT)


class Stream(threading.Thread):
    """A long answer of a model, event by event."""

    def __init__(self, served, model):
        super().__init__()
        self.where = f"{served.url}/v2/models/{model}/generate_stream"
        self.events = []
        self.start()

    def run(self):
        with httpx.stream("POST", self.where, json=LONG, timeout=PATIENCE_S) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self.events.append(json.loads(line[6:]))

    def whole(self):
        self.join(PATIENCE_S)
        return self.events

    def text(self):
        return "".join(event["text_output"] for event in self.whole())


def state_of(served, model):
    return next(m for m in served.post("/v2/repository/index", {}).json() if m["name"] == model)


def replica_of(served, model):
    return next(r for r in served.get("/troupe/v1/status").json()["replicas"] if r["model"] == model)


def restore_by_renaming(weights, content):
    new = weights.with_suffix(".new")
    new.write_bytes(content)
    new.rename(weights)


def restore_in_place(weights, content):
    weights.write_bytes(content)


@pytest.mark.parametrize("restore", [restore_by_renaming, restore_in_place])
def test_weights_that_are_cut_cost_their_model_alone(weights, tmp_path, restore):
    content = weights.read_bytes()
    with Cluster(tmp_path, repository=tmp_path / "repository") as served:
        text = generate(served, "bard").json()["text_output"]
        assert generate(served, "copy").json()["text_output"] == text
        undisturbed = Stream(served, "bard").text()
        good = [Stream(served, "bard") for _ in range(STREAMS)]
        bad = [Stream(served, "copy") for _ in range(STREAMS)]
        eventually(lambda: all(s.events for s in good + bad), "all streams have begun")
        os.truncate(weights, len(content) // 4)
        for stream in bad:
            reason = stream.whole()[-1]["error"]
            assert f"{weights}: the file was cut from {len(content)} to {len(content) // 4} bytes" in reason, reason
            assert "rename" in reason and len(stream.events) > 1
        for stream in good:
            assert stream.text() == undisturbed and len(undisturbed) > 300
        # The replica is back, and cannot load what is left.
        row = eventually(lambda: state_of(served, "copy")["state"] == "UNAVAILABLE" and state_of(served, "copy"), "the load failed")
        assert str(weights) in row["reason"] and "truncated" in row["reason"], row
        refused = generate(served, "copy")
        assert refused.status_code == 503 and "truncated" in refused.json()["error"]
        assert generate(served, "bard").json()["text_output"] == text
        restore(weights, content)
        eventually(lambda: state_of(served, "copy")["state"] == "READY", "the copy is served again")
        assert generate(served, "copy").json()["text_output"] == text
        assert replica_of(served, "copy")["restarts"] > 0 and replica_of(served, "bard")["restarts"] == 0


def test_other_weights_written_in_place_are_not_mixed_with_the_old(weights, tmp_path):
    """No page is ever missing here: the copy is idle while its file is exchanged."""
    content = weights.read_bytes()
    with Cluster(tmp_path, repository=tmp_path / "repository") as served:
        text = generate(served, "copy").json()["text_output"]
        weights.write_bytes(content[:-4096] + bytes(4096))
        told = generate(served, "copy")
        assert told.status_code >= 500 and "written to while it was in use" in told.json()["error"], told.text
        eventually(lambda: replica_of(served, "copy")["restarts"] > 0 and state_of(served, "copy")["state"] == "READY",
                   "what is there now is loaded")
        assert generate(served, "copy").json()["text_output"] == text


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_touched_file_is_the_same_file(weights, tmp_path, ranks):
    """Nothing of its content changes while it is computed from: nobody notices."""
    version = tmp_path / "repository/copy/1/model.json"
    version.write_text(json.dumps({**json.loads(version.read_text()), "tensor_parallel_size": ranks}))
    with Cluster(tmp_path, repository=tmp_path / "repository") as served:
        text = generate(served, "copy").json()["text_output"]
        undisturbed = Stream(served, "copy").text()
        streams = [Stream(served, "copy") for _ in range(STREAMS)]
        eventually(lambda: all(s.events for s in streams), "all streams have begun")
        os.utime(weights)
        for stream in streams:
            assert stream.text() == undisturbed and len(undisturbed) > 300
        os.utime(weights, (1_000_000_000, 1_000_000_000))
        assert generate(served, "copy").json()["text_output"] == text
        assert replica_of(served, "copy")["restarts"] == 0
        # What comes after it is noticed as ever.
        content = weights.read_bytes()
        weights.write_bytes(content[:-4096] + bytes(4096))
        told = generate(served, "copy")
        # A replica of several ranks is as one whose process has ended: its requests go on once it is back.
        assert ranks > 1 or (told.status_code >= 500 and "while it was in use" in told.json()["error"]), told.text
        eventually(lambda: replica_of(served, "copy")["restarts"] > 0, "what is there now is loaded")


def test_a_replica_of_two_ranks_outlives_the_cut_too(weights, tmp_path):
    content = weights.read_bytes()
    version = tmp_path / "repository/copy/1/model.json"
    version.write_text(json.dumps({**json.loads(version.read_text()), "tensor_parallel_size": 2}))
    with Cluster(tmp_path, repository=tmp_path / "repository", arguments=("--set", "limits.resume_limit_s=5")) as served:
        text = generate(served, "copy").json()["text_output"]
        stream = Stream(served, "copy")
        eventually(lambda: stream.events, "the stream has begun")
        os.truncate(weights, 100)
        assert "error" in stream.whole()[-1]
        eventually(lambda: state_of(served, "copy")["state"] == "UNAVAILABLE", "the load failed")
        restore_by_renaming(weights, content)
        eventually(lambda: state_of(served, "copy")["state"] == "READY", "the copy is served again")
        assert generate(served, "copy").json()["text_output"] == text
