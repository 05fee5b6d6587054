"""The hybrid example, from outside: over OpenAI and KServe, and what loading checks."""

import concurrent.futures
import json
import pathlib
import re
import shutil
import subprocess

import httpx
import pytest

from library import built, call, example, prefix, scratch
from troupe_process import PATIENCE_S, ROOT, Cluster, events, eventually, run

MODELS = ROOT / "examples/hybrid_backend/models"
GREEDY = {"max_tokens": 12, "temperature": 0}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("guard"), repository=MODELS,
                 arguments=("--backend-directory", example("hybrid_backend"))) as cluster:
        yield cluster


@pytest.fixture
def copy(tmp_path):
    """The example's repository, to be changed; its weights stay where they are."""
    models = tmp_path / "models"
    shutil.copytree(MODELS, models)
    keys = json.loads((models / "bard/1/model.json").read_text())
    keys["model"] = str(ROOT / "examples/models/bard/hf")
    (models / "bard/1/model.json").write_text(json.dumps(keys))
    return models


def change(models, **keys):
    file = models / "bard/1/model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def check(models, *definitions):
    return run("check", models, "--backend-directory", example("hybrid_backend", *definitions))


def streamed(cluster, **body):
    with httpx.stream("POST", cluster.url + "/v1/completions", timeout=PATIENCE_S,
                      json={"model": "bard", "stream": True, **GREEDY, **body}) as response:
        assert response.status_code == 200, response.read()
        return "".join(e["choices"][0]["text"] for e in events(response) if e != "[DONE]" and e["choices"])


def generated(cluster, path="generate_stream", **body):
    response = cluster.post(f"/v2/models/bard/{path}", {**GREEDY, **body})
    assert response.status_code == 200, response.text
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    return "".join(json.loads(line)["text_output"] for line in lines) if lines else response.json()["text_output"]


def test_it_is_the_engines_model_with_its_own_keys(guarded, bard):
    assert guarded.get("/v2/models/bard").json()["platform"] == "guard"
    assert len(guarded.get("/v2/models/bard").json()["inputs"]) == 11
    assert guarded.get("/v2/models/bard/config").json()["model_transaction_policy"] == {"decoupled": True}
    plain = bard.complete("ROMEO:", **GREEDY).json()["choices"][0]["text"]
    assert guarded.complete("ROMEO:", **GREEDY).json()["choices"][0]["text"] == plain
    assert streamed(guarded, prompt="ROMEO:") == plain
    assert generated(guarded, text_input="ROMEO:", stream=True) == plain


def test_every_front_end_goes_through_its_execute(guarded, bard):
    templated = bard.complete("Enter ROMEO.\n\nROMEO:", **GREEDY).json()["choices"][0]["text"]
    plain = bard.complete("ROMEO:", **GREEDY).json()["choices"][0]["text"]
    assert templated != plain
    tenant = {"metadata": {"tenant": "stage"}}
    assert guarded.complete("ROMEO:", **GREEDY, **tenant).json()["choices"][0]["text"] == templated
    assert streamed(guarded, prompt="ROMEO:", **tenant) == templated
    assert generated(guarded, text_input="ROMEO:", stream=True, tenant="stage") == templated
    assert generated(guarded, "generate", text_input="ROMEO:", exclude_input_in_output=True,
                     tenant="stage") == templated
    usage = guarded.complete("ROMEO:", **GREEDY, **tenant).json()["usage"]
    assert usage["prompt_tokens"] > guarded.complete("ROMEO:", **GREEDY).json()["usage"]["prompt_tokens"]


@pytest.mark.parametrize("ask", [
    lambda c: c.complete("ROMEO:", metadata={"tenant": "nobody"}),
    lambda c: c.post("/v2/models/bard/generate", {"text_input": "ROMEO:", "tenant": "nobody"}),
])
def test_a_refusal_of_its_own_reaches_the_client(guarded, ask):
    refused = ask(guarded)
    assert refused.status_code == 400 and "there is no tenant 'nobody'" in refused.text


def test_parameters_that_are_nobodys_are_still_refused(guarded, bard):
    wrong = guarded.post("/v2/models/bard/generate", {"text_input": "ROMEO:", "tennant": "stage"})
    assert wrong.status_code == 400 and "tennant" in wrong.json()["error"]
    assert bard.post("/v2/models/bard/generate", {"text_input": "ROMEO:", "tenant": "stage"}).status_code == 400


def first_tokens(cluster, count):
    """The texts of the first tokens that bard says."""
    texts = [cluster.complete("ROMEO:", temperature=0, max_tokens=n).json()["choices"][0]["text"]
             for n in range(1, count + 1)]
    return [texts[0], *[after[len(before):] for before, after in zip(texts, texts[1:])]]


def give_text(model, token, text):
    """The token `token` of a BPE model says `text` from now on, and no text becomes it any more."""
    model["vocab"][text] = model["vocab"].pop(token)
    pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    kept = [p for p in pairs if token not in (p[0], p[1], p[0] + p[1])]
    model["merges"] = [" ".join(p) for p in kept] if isinstance(model["merges"][0], str) else kept


def test_an_address_over_two_tokens_is_replaced_on_every_front_end(copy, tmp_path, bard):
    """bard knows no address, so two tokens that it says one after the other are given the halves of one as their text."""
    weights = tmp_path / "hf"
    shutil.copytree(ROOT / "examples/models/bard/hf", weights)
    tokenizer = json.loads((weights / "tokenizer.json").read_text())
    said = [t.replace(" ", "Ġ").replace("\n", "Ċ") for t in first_tokens(bard, 12)]
    first = next(i for i in range(11) if len(said[i]) > 1 and len(said[i + 1]) > 1 and said[i] != said[i + 1])
    for text, half in zip(said[first:], ("will@glo", "be.orgĠ")):
        give_text(tokenizer["model"], text, half)
    (weights / "tokenizer.json").write_text(json.dumps(tokenizer))
    change(copy, model=str(weights))
    with Cluster(tmp_path, repository=copy, arguments=("--backend-directory", example("hybrid_backend"))) as served:
        texts = [streamed(served, prompt="ROMEO:"), generated(served, text_input="ROMEO:", stream=True),
                 served.complete("ROMEO:", **GREEDY).json()["choices"][0]["text"]]
        assert texts[0] == texts[1] == texts[2] and texts[0].count("[e-mail] ") >= 1 and "@" not in texts[0], texts
        assert served.metric("troupe:backend_total", model="bard", metric="replaced") >= 3
    change(copy, private_data={})
    with Cluster(tmp_path, repository=copy, arguments=("--backend-directory", example("hybrid_backend"))) as served:
        assert "will@globe.org" in streamed(served, prompt="ROMEO:")


def test_the_filter_across_all_borders():
    """Every text cut at every place, and byte by byte, against the text in one piece."""
    program = scratch() / "filter"
    source = ROOT / "examples/hybrid_backend"
    call("c++", "-std=c++20", "-O1", f"-I{source}", source / "private_data.cpp",
         pathlib.Path(__file__).parent / "backends/filter.cpp", "-o", program)
    done = subprocess.run([program], text=True, capture_output=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d{3,} cuts, all alike$", done.stdout.strip()), done.stdout


def test_a_client_that_goes_ends_the_engines_work(guarded):
    with httpx.stream("POST", guarded.url + "/v1/completions", timeout=PATIENCE_S,
                      json={"model": "bard", "prompt": "ROMEO:", "stream": True, "ignore_eos": True,
                            "max_tokens": 200, "metadata": {"tenant": "stage"}}) as response:
        next(response.iter_lines())
    eventually(guarded.idle, "no sequence left")


def test_the_recorded_version_is_checked_and_may_be_waived(copy):
    assert check(copy).returncode == 0, check(copy).stdout
    old = check(copy, "GUARD_TESTED_WITH=0.0.7")
    assert old.returncode == 1 and "was tested with version 0.0.7 of Troupe, and this is 0.1.0" in old.stdout
    pbtxt = copy / "bard/config.pbtxt"
    pbtxt.write_text(pbtxt.read_text() + 'parameters { key: "BASE_VERSION" value { string_value: "any" } }\n')
    waived = check(copy, "GUARD_TESTED_WITH=0.0.7")
    assert waived.returncode == 0, waived.stdout


def test_only_declared_keys_are_left_alone(copy):
    change(copy, tenent={})
    wrong = check(copy)
    assert wrong.returncode == 1 and "tenent" in wrong.stdout, wrong.stdout
    (copy / "bard/config.pbtxt").write_text('backend: "vllm"\n')
    plain = check(copy)
    assert plain.returncode == 1 and "tenants" in plain.stdout, plain.stdout


@pytest.mark.parametrize("tenants, complaint", [
    ({"a": {"prompt": "nothing"}}, "tenants.a.prompt must hold {prompt}"),
    ({"a": 7}, "tenants or private_data in model.json"),
])
def test_its_own_mistakes_fail_the_load(copy, tenants, complaint):
    change(copy, tenants=tenants)
    done = run("up", "--model-repository", copy, "--port", 0, "--backend-directory", example("hybrid_backend"))
    assert done.returncode == 1 and complaint in done.stdout + done.stderr, done.stdout + done.stderr


def test_a_process_of_its_own_is_a_load_error(copy, tmp_path):
    """It lives where the engine lives; whoever asks for a child is told so before anything starts."""
    pbtxt = copy / "bard/config.pbtxt"
    written = pbtxt.read_text()
    own = 'parameters { key: "PROCESS" value { string_value: "%s" } }\n'
    pbtxt.write_text(written + own % "own")
    for command in (("check", copy), ("up", "--model-repository", copy, "--port", 0)):
        done = run(*command, "--backend-directory", example("hybrid_backend"))
        said = done.stdout + done.stderr
        assert done.returncode == 1 and "the backend 'guard' builds on the engine" in said, said
        assert "remove the parameter PROCESS" in said and "config.pbtxt" in said, said
    pbtxt.write_text('backend: "vllm"\n' + own % "own")
    change(copy, tenants=None, private_data=None)
    keys = json.loads((copy / "bard/1/model.json").read_text())
    (copy / "bard/1/model.json").write_text(json.dumps({k: v for k, v in keys.items() if v is not None}))
    engine = run("check", copy)
    assert engine.returncode == 1 and "PROCESS" in engine.stdout and "'vllm' is the engine" in engine.stdout, engine.stdout
    pbtxt.write_text('backend: "vllm"\n' + own % "shared")
    assert run("check", copy).returncode == 0


def mistaken(folder, **models):
    """A repository of the hybrid "careless", a model for each mistake."""
    for name, mistake in models.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text('backend: "careless"\n')
        (folder / name / "1/model.json").write_text(json.dumps(
            {"model": str(ROOT / "examples/models/bard/hf"), "dtype": "bfloat16", "mistake": mistake}))
    return folder


def test_mistakes_of_a_hybrid_cost_their_request_alone(tmp_path):
    models = mistaken(tmp_path / "models", bard="", bare="no base")
    with Cluster(tmp_path, repository=models, arguments=("--backend-directory", built("careless"))) as served:
        def ask(model, prompt, path="generate", **more):
            body = {"text_input": prompt, "max_tokens": 200, "temperature": 0, "ignore_eos": True, **more}
            return served.post(f"/v2/models/{model}/{path}", body)

        whole = ask("bard", "ROMEO:").json()["text_output"]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            beside = [pool.submit(ask, "bard", "ROMEO:") for _ in range(4)]
            streamed = ask("bard", "throw in a part", "generate_stream", stream=True).text
            broken = ask("bard", "throw in a part")
            late = ask("bard", "throw after")
            dropped = ask("bard", "silence")
            assert [b.result().json()["text_output"] for b in beside] == [whole] * 4
        assert streamed.count('"error"') == 1 and "the third part is too much" in streamed.strip().splitlines()[-1], streamed
        assert late.status_code == 500 and "too late" in late.json()["error"]
        assert broken.status_code == 500 and "the third part is too much" in broken.json()["error"]
        assert dropped.status_code >= 500 and dropped.json()["error"]
        # It has never asked the engine's half to begin.
        bare = ask("bare", "ROMEO:")
        assert bare.status_code == 500 and "initialize() of a hybrid calls that of engine_backend" in bare.json()["error"]
        assert ask("bard", "ROMEO:").json()["text_output"] == whole
        assert served.metric("troupe:actor_restarts_total", actor="backend") == 0


def test_keys_that_throw_are_a_load_error(tmp_path):
    models = mistaken(tmp_path / "models", bard="")
    done = run("check", models, "--backend-directory", built("careless", "CARELESS_KEYS_THROW"))
    assert done.returncode == 1 and "own_keys of the backend 'careless' threw" in done.stdout, done.stdout
