"""`troupe bench compare`, from outside: a clone keeps all limits, a changed backend breaks them, each in its own way."""

import json
import os
import pty
import re
import shutil
import subprocess

import pytest

from library import example, odd
from troupe_process import ROOT, TROUPE, clean_environment, run

BARD = ROOT / "examples/models"
GUARD = ROOT / "examples/hybrid_backend/models"
QUICK = ("--rounds", 1, "--prompts", 3, "--max-tokens", 6, "--concurrency", 2)


def compare(custom, against, *more, **options):
    return run("bench", "compare", custom, "--against", against, *(options.pop("size", QUICK)), *more, limit_s=240, **options)


def report(done):
    assert done.stdout.startswith("{"), done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def scripted(tmp_path):
    """Prompts whose second and third go to a tenant of the hybrid example, or to nobody that it knows."""
    file = tmp_path / "prompts.jsonl"
    lines = ["ROMEO:", {"prompt": "JULIET:", "metadata": {"tenant": "stage"}}, {"prompt": "NURSE:", "metadata": {"tenant": "nobody"}}]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return file


def test_a_hybrid_that_changes_nothing_keeps_its_limits():
    done = compare(GUARD, BARD, "--backend-directory", example("hybrid_backend"), "--require-equal-output",
                   "--max-latency-ratio", 100, "--max-p95-ratio", 100, "--max-throughput-loss", 0.99, "--json")
    assert done.returncode == 0, done.stderr
    all_ = report(done)
    assert all_["kept"] is True and all_["api"] == "openai" and all_["against"]["model"] == "bard"
    for side in (all_["noise"], all_["result"]):
        assert side["output"] == {"answers": 3, "equal": 3, "share": 1.0, "differences": []}
        assert side["failed"] == {"against": 0, "custom": 0}
        assert set(side["latency_ms"]) == {f"{k}.{q}" for k in ("first_token", "per_token", "whole") for q in ("p50", "p95")}
        for figure in side["latency_ms"].values():
            assert figure["against"] > 0 and figure["ratio"] == pytest.approx(figure["custom"] / figure["against"], rel=0.01)
        assert side["throughput"]["tokens_per_s"]["custom"] > 0
    # Three medians, three p95s, the throughput, the share and the failures.
    assert len(all_["limits"]) == 9 and all(v["kept"] for v in all_["limits"])


def test_each_broken_limit_is_status_3_and_named(scripted):
    given = ("--backend-directory", example("hybrid_backend"), "--prompts-file", scripted)
    none = compare(GUARD, BARD, *given)
    assert none.returncode == 0, none.stderr
    assert "equal answers: 1 of 3 (A/A: 3 of 3); refused: 0 against, 1 custom" in none.stdout, none.stdout
    assert re.search(r"round 1, prompt 2: apart from character \d+, token [0-5]: ", none.stdout), none.stdout
    assert "refused: 400: there is no tenant 'nobody'" in none.stdout.replace("\\", ""), none.stdout
    for limit, word in ((("--require-equal-output",), "share of equal answers: 1.000, seen 0.333"),
                        (("--min-equal-share", 0.5), "share of equal answers: 0.500, seen 0.333"),
                        (("--max-latency-ratio", 0.001), "latency ratio, first token p50"),
                        (("--max-throughput-loss", -50), "throughput loss"),
                        (("--min-equal-share", 0.1), "answers that fail here alone")):
        broken = compare(GUARD, BARD, *given, *limit)
        assert broken.returncode == 3, broken.stdout + broken.stderr
        line = next(x for x in broken.stdout.splitlines() if x.startswith("limit ") and word in x)
        assert line.endswith("BROKEN"), broken.stdout


def test_bodies_of_the_file_are_sent_as_they_are(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "ROMEO:", "max_tokens": 2}\n{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}\n')
    done = compare(GUARD, BARD, "--backend-directory", example("hybrid_backend"), "--prompts-file", prompts,
                   "--set", "models.bard.max_num_seqs=2", "--require-equal-output", "--json")
    assert done.returncode == 0, done.stderr
    assert report(done)["result"]["output"]["answers"] == 2


def test_custom_backends_are_compared_through_generate(tmp_path):
    bodies = tmp_path / "bodies.jsonl"
    text = ("kings ride at night", "the sea is old", "a queen of the sea")
    bodies.write_text(json.dumps({"query": "sea", "documents": text}) + "\n")
    models = ROOT / "examples/custom_backend/models"
    other = tmp_path / "models"
    shutil.copytree(models, other)
    pbtxt = other / "reranker/config.pbtxt"
    pbtxt.write_text(pbtxt.read_text().replace('"1.2"', '"0.1"'))
    given = ("--backend-directory", example("custom_backend"), "--prompts-file", bodies)
    same = compare(models, models, *given, "--require-equal-output")
    assert same.returncode == 0 and "through generate" in same.stdout and "requests/s" in same.stdout, same.stdout + same.stderr
    changed = compare(other, models, *given, "--require-equal-output", "--json")
    assert changed.returncode == 3, changed.stdout + changed.stderr
    assert report(changed)["result"]["output"]["differences"][0]["token"] is None
    no_text = compare(models, models, "--backend-directory", example("custom_backend"))
    assert no_text.returncode == 1 and "--prompts-file" in no_text.stderr, no_text.stderr


def test_engine_models_through_generate_too():
    done = compare(BARD, BARD, "--api", "generate", "--require-equal-output", "--json")
    assert done.returncode == 0, done.stderr
    assert report(done)["api"] == "generate" and report(done)["result"]["throughput"]["tokens_per_s"]["custom"] > 0


def test_the_same_seed_asks_the_same_prompts():
    firsts = [report(compare(BARD, BARD, "--json", "--seed", seed))["first_prompt"] for seed in (5, 5, 6)]
    assert firsts[0] == firsts[1] != firsts[2] and len(firsts[0].split()) == 24


def test_errors_are_sentences_and_status_1(tmp_path):
    missing = compare(tmp_path / "none", BARD)
    assert missing.returncode == 1 and str(tmp_path / "none") in missing.stderr
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('"good"\n7\n')
    bad = compare(BARD, BARD, "--prompts-file", wrong)
    assert bad.returncode == 1 and "line 2" in bad.stderr
    nobody = compare(BARD, BARD, "--model", "hamlet")
    assert nobody.returncode == 1 and "hamlet" in nobody.stderr
    refused = tmp_path / "refused.jsonl"
    refused.write_text('{"prompt": "x", "temperature": -1}\n')
    all_refused = compare(BARD, BARD, "--prompts-file", refused)
    assert all_refused.returncode == 1 and "refuses every prompt" in all_refused.stderr and "temperature" in all_refused.stderr
    file = tmp_path / "two.json"
    file.write_text(json.dumps({"model_repository": str(BARD), "secret_file": "s",
                                "nodes": [{"name": n, "address": f"127.0.0.1:{p}"} for n, p in (("a", 7601), ("b", 7602))]}))
    several = compare(file, BARD)
    assert several.returncode == 1, several.stderr
    assert run("bench", "compare", BARD).returncode == 2
    for limit in (("--max-latency-ratio", "nan"), ("--max-latency-ratio", -1), ("--max-p95-ratio", 0),
                  ("--max-throughput-loss", 2)):
        assert run("bench", "compare", BARD, "--against", BARD, *limit).returncode == 2, limit


def test_clusters_with_ports_of_their_own_run_side_by_side(tmp_path):
    file = tmp_path / "cluster.json"
    file.write_text(json.dumps({"model_repository": str(BARD), "edges": {"http": 18000, "grpc": 18001, "metrics": 18002}}))
    done = compare(file, file, "--require-equal-output")
    assert done.returncode == 0, done.stderr


def test_the_death_of_a_side_is_an_error_with_its_last_words(tmp_path):
    """The base is well; the custom backend takes its process with it."""
    done = crash(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the process of the custom side ended with signal" in done.stderr, done.stderr


def crash(folder):
    for name, mode in (("base", "fine"), ("custom", "die")):
        (folder / name / "odd/1").mkdir(parents=True)
        (folder / name / "odd/config.pbtxt").write_text(f'backend: "odd"\nparameters {{ key: "mode" value {{ string_value: "{mode}" }} }}\n')
    return compare(folder / "custom", folder / "base", "--backend-directory", odd())


def test_progress_is_drawn_on_a_terminal_alone():
    ours, theirs = pty.openpty()
    command = [TROUPE, "bench", "compare", BARD, "--against", BARD, *QUICK]
    done = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=theirs, env=clean_environment())
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 4096):
            seen += piece
    except OSError:  # The other end is closed.
        pass
    assert done.wait(60) == 0
    os.close(ours)
    done.stdout.close()
    assert b"A/A" in seen and b"base and custom" in seen and b"%" in seen
    assert compare(BARD, BARD).stderr == ""
