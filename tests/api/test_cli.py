"""The commands of `troupe` beside `up`."""

import json
import os
import pty
import re
import signal
import subprocess

import httpx
import pytest

from troupe_process import TROUPE, Cluster, eventually, run, write_cluster


def test_submit_one_prompt(bard):
    fields = ("--prompt", "ROMEO:", "--max-tokens", 8, "--seed", 3, "--url", bard.url)
    plain = run("submit", *fields)
    assert plain.returncode == 0 and plain.stdout.strip(), plain.stderr
    streamed = run("submit", *fields, "--stream")
    assert streamed.stdout == "ROMEO:" + plain.stdout
    as_json = json.loads(run("submit", *fields, "--json").stdout)
    assert as_json["text"] + "\n" == plain.stdout
    assert as_json["usage"]["completion_tokens"] <= 8


def test_submit_a_file_reports_lines_and_goes_on(bard, tmp_path):
    lines = [{"prompt": "ROMEO:", "max_tokens": 4},
             {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4},
             {"prompt": "x", "temperature": -1}, "not an object",
             {"prompt": "x", "model": "hamlet"}, {"prompt": [5, 6], "max_tokens": 2}]
    file, output = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n{broken\n")
    done = run("submit", "--file", file, "--output", output, "--concurrency", 3, "--url", bard.url)
    assert done.returncode == 1
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert [a["line"] for a in answers] == [1, 2, 3, 4, 5, 6, 8]
    assert [("error" in a) for a in answers] == [False, False, True, True, True, False, True]
    assert "line 3" in done.stderr and "temperature" in done.stderr
    assert "4 of 7 requests failed" in done.stderr


def test_chat(bard):
    talk = run("chat", "--url", bard.url, "--system", "Be brief.", "--max-tokens", 6,
               stdin="Hello\nAnd again\n/quit\nnever sent\n")
    assert talk.returncode == 0, talk.stderr
    assert talk.stdout.count("\n") >= 2


def test_a_talk_longer_than_the_context_goes_on(bard):
    talk = run("chat", "--url", bard.url, "--max-tokens", 20,
               stdin=("Speak of kings and crowns and of the sea. " * 8 + "\n") * 8)
    assert talk.returncode == 0, talk.stderr
    assert "left out" in talk.stderr and "max_model_len" not in talk.stderr
    alone = run("chat", "--url", bard.url, stdin="word " * 2000 + "\nHello\n")
    assert "max_model_len" in alone.stderr and alone.returncode == 0


def test_ctrl_c_stops_the_answer_and_not_the_chat(bard):
    def asked():
        return bard.metric("troupe:http_requests_total", path="/v1/chat/completions")

    before = asked()
    ours, theirs = pty.openpty()
    chat = subprocess.Popen([TROUPE, "chat", "--url", bard.url, "--max-tokens", "400"], stdin=theirs,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        os.write(ours, b"Speak!\n")
        assert chat.stdout.read(1)
        chat.send_signal(signal.SIGINT)
        eventually(lambda: bard.idle() and asked() == before + 1, "the answer was stopped")
        os.write(ours, b"Again!\n")
        eventually(lambda: bard.idle() and asked() == before + 2, "the next question was answered")
        chat.send_signal(signal.SIGINT)
        os.write(ours, b"/quit\n")
        assert chat.wait(30) == 0
    finally:
        chat.kill()
        chat.communicate()
        os.close(ours)
        os.close(theirs)


def test_status(bard):
    table = run("status", "--url", bard.url)
    assert table.returncode == 0, table.stderr
    assert "bard" in table.stdout and "ready" in table.stdout and "TOKENS/s" in table.stdout
    body = json.loads(run("status", "--url", bard.url, "--json").stdout)
    assert body["replicas"][0]["model"] == "bard" and "tokens_per_s" in body["replicas"][0]


def test_bench_counts_on_a_server_and_in_the_process(bard, tmp_path):
    load = ("--load", "8/4:6@2", "--json")
    server = run("bench", "--url", bard.url, *load)
    assert server.returncode == 0, server.stderr
    alone = run("bench", write_cluster(tmp_path), *load, "--decode", "1", "--rounds", "1",
                "--set", "models.bard.max_num_seqs=4")
    assert alone.returncode == 0, alone.stderr
    decode, here = map(json.loads, alone.stdout.splitlines())
    assert decode["measure"] == "decode 1" and decode["step_ms"] > 0
    for row in (json.loads(server.stdout), here):
        assert row["measure"] == "load 8/4:6@2" and row["output_tokens"] == 24
        assert row["output_tokens_per_s"] > 0 and 0 < row["ttft"]["median_ms"] <= row["e2e"]["p99_ms"]
    assert run("bench", "--url", bard.url).returncode == 1
    wrong = run("bench", "--url", bard.url, "--load", "8/4")
    assert wrong.returncode == 1 and "IN/OUT:REQUESTS" in wrong.stderr


def test_nobody_listens():
    for command in (["status"], ["submit", "--prompt", "x"], ["chat"]):
        done = run(*command, "--url", "http://127.0.0.1:1", stdin="")
        assert done.returncode == 1
        assert "nothing listens on 127.0.0.1:1" in done.stderr and "troupe up" in done.stderr
    for url in ("https://x", "ftp://x", "http://", "http://x:y", "http://x:99999"):
        assert run("status", "--url", url).returncode == 1


def test_check_explains_and_finds_every_mistake(tmp_path):
    good = run("check", write_cluster(tmp_path))
    assert good.returncode == 0, good.stdout + good.stderr
    assert "max_num_seqs" in good.stdout and "default" in good.stdout
    told = re.search(r"bard/0 on cpu: (\d+) KV blocks of 16 tokens .* weights", good.stdout)
    with Cluster(tmp_path) as cluster:
        status = lambda: httpx.get(cluster.url + "/troupe/v1/status").json()
        assert int(told[1]) == eventually(lambda: status()["replicas"][0]["blocks_total"], "blocks are told")
    small = run("check", write_cluster(tmp_path, models={"bard": {"kv_cache_memory_bytes": 1000}}))
    assert small.returncode == 1
    assert "error: models.bard" in small.stdout and "largest max_model_len that fits" in small.stdout
    ranks = run("check", tmp_path / "cluster.json", "--set", "models.bard.tensor_parallel=2")
    assert ranks.stdout.count("does not load") == 2 and ranks.stdout.count("error: models.bard") == 1
    half = run("check", write_cluster(tmp_path), "--set", "models.bard.dtype=float16")
    assert half.returncode == 1
    assert "dtype 'float16' is not served on the CPU; 'auto', 'float32' and 'bfloat16' are" in half.stdout
    file = write_cluster(tmp_path, clutser="x", log_level="loud", edges={"http": 99999},
                         models={"hamlet": {}, "bard": {"max_num_seqs": -1}})
    bad = run("check", file)
    assert bad.returncode == 1
    for word in ("clutser", "loud", "99999", "hamlet", "max_num_seqs"):
        assert word in bad.stdout, word
    assert run("up", file).returncode == 1


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_a_sentence(tmp_path):
    file = write_cluster(tmp_path, devices=["cuda:0"])
    checked = run("check", file, "--set", "models.bard.dtype=float16")
    assert "bard/0 on cuda:0: cannot be told on this machine: " in checked.stdout and checked.returncode == 0
    done = run("up", file, "--port", "0")
    assert done.returncode == 1
    assert '"cpu"' in done.stderr and ("driver" in done.stderr or "libtroupe_cuda.so" in done.stderr)
    bad = run("up", write_cluster(tmp_path, devices=["cuda:first"]))
    assert bad.returncode == 1 and "cuda:<index>" in bad.stderr


def test_wrong_command_lines_and_help():
    assert run("--help").returncode == 0
    for command in ("up", "check", "chat", "submit", "status", "bench"):
        help_ = run(command, "--help")
        assert help_.returncode == 0 and "troupe " + command in help_.stdout
    assert run().returncode == 2
    assert run("sing").returncode == 2
    assert run("submit").returncode == 1
    assert run("version").stdout.startswith("troupe ")
    missing = run("up", "/nonexistent/cluster.json")
    assert missing.returncode == 1 and "/nonexistent/cluster.json" in missing.stderr


def test_output_that_cannot_be_written_is_a_failure(bard, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "x", "max_tokens": 1}\n' * 40)
    submit = ("submit", "--max-tokens", "2", "--url", bard.url)
    for command in ([*submit, "--prompt", "x"], [*submit, "--prompt", "x", "--stream"],
                    [*submit, "--file", file], ["status", "--url", bard.url], ["version"],
                    ["status", "--watch", "--url", bard.url], ["check", bard.file], ["--help"],
                    ["chat", "--max-tokens", "2", "--url", bard.url]):
        for redirection in (">/dev/full", ">&-"):
            done = subprocess.run(["sh", "-c", f'exec "$@" {redirection}', "sh", TROUPE, *map(str, command)],
                                  input="Hello\n", text=True, stderr=subprocess.PIPE, timeout=60)
            assert done.returncode == 1, (command, redirection, done.stderr)
            assert "cannot write to standard output" in done.stderr, (command, redirection, done.stderr)
    full = run(*submit, "--prompt", "x", "--output", "/dev/full")
    assert full.returncode == 1 and "cannot write" in full.stderr and "No space" in full.stderr


def test_text_that_is_no_utf8_is_refused_with_a_sentence(bard, tmp_path):
    for option in (["submit", "--prompt"], ["chat", "--system"], ["chat", "--model"],
                   ["submit", "--prompt", "x", "--model"]):
        done = subprocess.run([TROUPE, *option, b"\xff\xfe", "--url", bard.url], input=b"",
                              capture_output=True, timeout=60)
        assert done.returncode == 2, (option, done.stderr)
        assert b"not valid UTF-8" in done.stderr and b"json" not in done.stderr
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b'{"prompt": "\xff", "max_tokens": 1}\n{"prompt": "x", "max_tokens": 1}\n')
    done = run("submit", "--file", file, "--url", bard.url)
    assert done.returncode == 1 and "line 1: the text is not valid UTF-8" in done.stderr
    assert "error" not in json.loads(done.stdout.splitlines()[1])
    before = bard.metric("troupe:http_requests_total", path="/v1/chat/completions")
    talk = subprocess.run([TROUPE, "chat", "--max-tokens", "2", "--url", bard.url],
                          input=b"\xff\xfe\nHello\n", capture_output=True, timeout=60)
    assert talk.returncode == 0 and b"not valid UTF-8" in talk.stderr, talk.stderr
    assert bard.metric("troupe:http_requests_total", path="/v1/chat/completions") == before + 1


def test_numbers_that_are_not_finite_are_refused(bard):
    for command in (["submit", "--prompt", "x"], ["chat"]):
        for option in ("--temperature", "--top-p"):
            for number in ("nan", "inf", "-inf", "1e999"):
                done = run(*command, f"{option}={number}", "--url", bard.url, stdin="")
                assert done.returncode == 2, (command, option, number)
                assert option in done.stderr and "finite" in done.stderr


def test_an_unknown_command_is_named(bard):
    for word, meant in (("bogus", None), ("submitt", "submit"), ("chatt", "chat")):
        done = run(word, "--url", bard.url)
        assert done.returncode == 2 and f"'{word}'" in done.stderr, done.stderr
        assert "submit" in done.stderr and "status" in done.stderr
        assert (f"did you mean '{meant}'" in done.stderr) == (meant is not None), done.stderr


def test_answers_never_go_over_their_prompts(tmp_path):
    file, link = tmp_path / "prompts.jsonl", tmp_path / "link.jsonl"
    file.write_text('{"prompt": "x"}\n')
    link.symlink_to(file)
    for output in (file, link):
        done = run("submit", "--file", file, "--output", output, "--url", "http://127.0.0.1:1")
        assert done.returncode == 1 and "is the --file of the prompts" in done.stderr, done.stderr
    assert file.read_text() == '{"prompt": "x"}\n'


def test_several_choices_stay_apart(bard, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": ["ROMEO:", "JULIET:"], "max_tokens": 4, "seed": 1}) + "\n")
    answer = json.loads(run("submit", "--file", file, "--url", bard.url).stdout)
    assert len(answer["texts"]) == len(answer["finish_reasons"]) == 2 and "text" not in answer
    plain = run("submit", "--file", file, "--text", "--url", bard.url)
    assert plain.returncode == 0 and plain.stdout == "".join(t + "\n" for t in answer["texts"])
