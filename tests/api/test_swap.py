"""Requests that give their KV blocks to others, and get them back from host memory."""

import collections
import concurrent.futures
import re
import threading

import httpx

from nodes import Globe
from troupe_process import PATIENCE_S, Cluster, eventually, run, write_cluster

REQUESTS = 8
# Eight answers of nine blocks each, and room for about three of them.
TIGHT = {"max_model_len": 192, "num_gpu_blocks_override": 30, "max_num_seqs": 8}


def answers(cluster):
    def ask(i):
        body = {"model": "bard", "prompt": f"{i} ACT {i}. SCENE {i}.", "max_tokens": 120, "ignore_eos": True,
                "temperature": 0.8 if i % 2 else 0, "seed": i}
        done = httpx.post(cluster.url + "/v1/completions", json=body, timeout=PATIENCE_S)
        assert done.status_code == 200, done.text
        return done.json()["choices"][0]["text"]

    with concurrent.futures.ThreadPoolExecutor(REQUESTS) as pool:
        texts = list(pool.map(ask, range(REQUESTS)))
    # Whatever the answers had, the numbers of the scheduler come a moment later.
    eventually(lambda: cluster.metric("vllm:generation_tokens_total") == 120 * REQUESTS, "all tokens in the metrics")
    return texts


def test_a_preempted_request_goes_on_where_it_was(tmp_path):
    bard = {**TIGHT, "enable_prefix_caching": False}
    with Cluster(tmp_path, models={"bard": {**bard, "swap_space": 0}}) as without:
        expected = answers(without)
        assert without.metric("vllm:num_preemptions_total") > 0
        assert without.metric("troupe:recomputed_tokens_total") > 0
        assert without.metric("troupe:kv_blocks_saved_total") == 0
        assert 'num_cpu_blocks="0"' in without.get("/metrics").text
    with Cluster(tmp_path, models={"bard": {**bard, "swap_space": 0.25}}) as swapping:
        assert answers(swapping) == expected
        assert swapping.metric("vllm:num_preemptions_total") > 0
        assert swapping.metric("troupe:recomputed_tokens_total") == 0
        saved = swapping.metric("troupe:kv_blocks_saved_total")
        assert saved > 0 and swapping.metric("troupe:kv_blocks_restored_total") == saved
        assert swapping.metric("vllm:num_requests_swapped") == 0
        assert swapping.metric("vllm:cpu_cache_usage_perc") == 0
        assert 'num_cpu_blocks="0"' not in swapping.get("/metrics").text


def test_a_preempted_stream_is_not_silent_until_others_end(tmp_path):
    # Room for two of three whole answers: without turns the third would wait for some 160 tokens of the others.
    tight = {"max_model_len": 512, "num_gpu_blocks_override": 64, "max_num_seqs": 3, "enable_prefix_caching": False,
             "swap_space": 0.25, "override_generation_config": {"max_new_tokens": 490}}
    told, lock = [], threading.Lock()

    def read(i):
        body = {"model": "bard", "prompt": f"ACT {i}.", "max_tokens": 490, "ignore_eos": True, "temperature": 0, "stream": True}
        with httpx.stream("POST", cluster.url + "/v1/completions", json=body, timeout=PATIENCE_S) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                if '"text":' in line:
                    with lock:
                        told.append(i)

    with Cluster(tmp_path, models={"bard": tight}) as cluster:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            list(pool.map(read, range(3)))
        eventually(lambda: cluster.metric("vllm:generation_tokens_total") == 3 * 490, "all tokens in the metrics")
        assert cluster.metric("vllm:num_preemptions_total") > 0
        assert cluster.metric("troupe:recomputed_tokens_total") == 0
    silent = 0
    for mine in range(3):
        # What each of the others was told since this one was told something.
        since = collections.Counter()
        for i in told[: len(told) - told[::-1].index(mine)]:
            if i == mine:
                since.clear()
            else:
                since[i] += 1
                silent = max(silent, since[i])
    assert all(told.count(i) > 400 for i in range(3))
    # Whoever is saved waits for 64 steps and what it takes to make room.
    assert 55 < silent < 98, silent


def test_ranks_swap_together_in_one_process_and_in_two(tmp_path):
    with Cluster(tmp_path, models={"bard": TIGHT}) as alone:
        expected = answers(alone)
    pair = {**TIGHT, "tensor_parallel_size": 2, "swap_space": 0.25}
    with Cluster(tmp_path, models={"bard": pair}) as swapping:
        assert answers(swapping) == expected
        assert swapping.metric("troupe:kv_blocks_restored_total") > 0
        assert swapping.metric("troupe:recomputed_tokens_total") == 0
    far = {**pair, "instances": 1, "cpu_threads": 1}
    with Globe(tmp_path, replicas=1, models={"bard": far}) as swapping:
        assert answers(swapping) == expected
        eventually(lambda: swapping.metric("troupe:kv_blocks_restored_total") > 0, "the front knows")
        assert swapping.metric("troupe:recomputed_tokens_total") == 0


def test_check_tells_of_swap_space(tmp_path):
    told = run("check", write_cluster(tmp_path, models={"bard": {"swap_space": 0.25}}))
    assert re.search(r"models\.bard\.swap_space +0\.25 +.*cluster\.json", told.stdout), told.stdout
    assert "; 256.0 MiB of host memory for preempted sequences" in told.stdout
    # A million GiB nobody has.
    told = run("check", write_cluster(tmp_path, models={"bard": {"swap_space": 1e6}}))
    assert "(1024000000.0 MiB are asked for: no more than half of what is free is taken)" in told.stdout
    told = run("check", write_cluster(tmp_path))
    assert re.search(r"models\.bard\.swap_space +\(4 on GPUs, else 0\)", told.stdout), told.stdout
    refused = run("check", write_cluster(tmp_path, models={"bard": {"swap_space": -1}}))
    assert refused.returncode == 1 and "models.bard.swap_space" in refused.stdout + refused.stderr
