"""Two fronts and two stages, each in a network namespace of its own, with streams to break them under."""

import dataclasses
import http.client
import json
import pathlib
import random
import re
import shutil
import signal
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/api"))
# pylint: disable=wrong-import-position
import httpx

from nodes import Globe, Process
from troupe_process import PATIENCE_S, eventually

FRONTS, STAGES = ("front", "other"), ("stage1", "stage2")
WIRE_PORT, HTTP_PORT = 7600, 8000
UCX = {"UCX_TLS": "tcp", "UCX_NET_DEVICES": "eth0", "UCX_HANDLE_ERRORS": "none"}
# Slow enough that a fault meets streams in their middle, fast enough that a round is short.
SIMULATED = {"step_us": 5000, "token_us": 20, "eos_probability": 0.002}
WORDS = "the king shall ride to France and speak no more of love or war before night".split()


def simulated_repository(folder):
    """bard with the simulated executor: its tokens hash the whole history of a sequence, read back through its
    blocks, so that a wrong block, a lost token or a token twice changes everything after it."""
    made = folder / "models/bard"
    shutil.copytree(ROOT / "examples/models/bard/1", made / "1")
    (made / "hf").mkdir()
    for file in (ROOT / "examples/models/bard/hf").iterdir():
        (made / "hf" / file.name).symlink_to(file)
    config = made / "hf/config.json"
    known = json.loads(config.read_text())
    config.unlink()
    config.write_text(json.dumps({**known, "simulated": SIMULATED}))
    return folder / "models"


class Site(Globe):
    """The cluster of processes on a network that can be broken. A stage that ends is started anew, as a machine's
    supervisor does it. Use inside `net.inside("front")`, where its clients are. A second front, "other", serves too."""

    def __init__(self, net, folder, executor="simulated", kinds=None, **keys):
        self.net, self.executor, self.kinds = net, executor, kinds or KINDS
        models = simulated_repository(folder) if executor == "simulated" else ROOT / "examples/models"
        # Few at once, so that others wait when a fault comes.
        bard = {"instances": len(STAGES), "cpu_threads": 1, "max_num_seqs": 4}
        super().__init__(folder, **{"wire": {}, "model_repository": str(models), "models": {"bard": bard}, **keys})
        self.restart_delay_s = 0.0
        self.starts = []
        self._watched = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def write(self, name, stages=None, **keys):
        nodes = [{"name": front, "router": True, "devices": [], "edges": {"http": {"port": HTTP_PORT}}}
                 for front in FRONTS] + [{"name": stage, "devices": ["cpu"]} for stage in STAGES]
        for node in nodes:
            node["address"] = f"{self.net.address(node['name'])}:{WIRE_PORT}"
        return super().write(name, stages, nodes=nodes, **keys)

    def start(self, name, file=None, *arguments):
        self.nodes[name] = Process(file or self.file, "--node", name, "--executor", self.executor, *arguments,
                                   popen=lambda command, **how: self.net.popen(name, command, **how), **UCX)
        return self.nodes[name]

    def __enter__(self):
        self.start("other")
        try:
            super().__enter__()
        except AssertionError as why:
            said = "".join(f"{name}: {line}" for name, p in self.nodes.items() for line in p.output + p.complaints)
            raise AssertionError(f"{why}; the nodes said:\n{said}") from None
        self._watcher.start()
        return self

    def __exit__(self, *what):
        self._watched.set()
        self._watcher.join()
        super().__exit__(*what)

    def _watch(self):
        while not self._watched.wait(0.02):
            for name in (*STAGES, "other"):
                ended = self.nodes[name]
                if ended.process.poll() is None:
                    continue
                if self._watched.wait(self.restart_delay_s):
                    return
                self.starts.append((name, ended.process.returncode, ended))
                self.start(name)

    def at_rest(self):
        """Whether nothing is held anywhere, by the front's view."""
        return all(r["running"] == 0 and r["waiting"] == 0 and r["blocks_used"] == 0 for r in self.status()["replicas"])

    def healed(self):
        """Whether every node is up, every replica ready and at rest."""
        now = self.status()
        return (len(now["replicas"]) == self.replicas and all(n["state"] == "up" for n in now["nodes"])
                and all(r["state"] == "ready" for r in now["replicas"]) and self.at_rest())

    def metric(self, name):
        """The sum of the front's samples of this name."""
        text = httpx.get(self.url + "/metrics", timeout=PATIENCE_S).text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(name + "[ {]", line))

    def told(self, who, about, since):
        """When `who` first complained about a node after a time, or nothing."""
        return next((at for at, line in list(self.nodes[who].told) if at >= since and f"node '{about}'" in line), None)


@dataclasses.dataclass
class Answer:
    """What a client saw of one stream."""

    status: int = 0
    text: str = ""
    finish: str | None = None
    usage: dict | None = None
    done: bool = False
    error: str = ""
    headers: dict = dataclasses.field(default_factory=dict)
    times: list = dataclasses.field(default_factory=list)

    def outcome(self):
        usage = {k: v for k, v in (self.usage or {}).items() if k.endswith("_tokens")}
        return (self.status, self.text, self.finish, usage, self.done, self.error)


def stream(body):
    """Sends one request and reads its answer to the end. Asked to come again, it does so, as clients should."""
    while True:
        seen = ask(body)
        if seen.status != 503 or "retry-after" not in seen.headers:
            return seen
        time.sleep(0.05)


def ask(body):
    """Sends one request and reads its answer to the end, whatever that is."""
    seen = Answer()
    connection = http.client.HTTPConnection("127.0.0.1", HTTP_PORT, timeout=PATIENCE_S)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        seen.status = answer.status
        seen.headers = {k.lower(): v for k, v in answer.getheaders()}
        if answer.status != 200:
            seen.error = answer.read().decode()
            return seen
        for line in answer:
            if line.startswith(b"data: "):
                take(seen, line[6:].strip())
    except (OSError, http.client.HTTPException) as why:
        seen.error = f"{type(why).__name__}: {why}"
    finally:
        connection.close()
    return seen


def take(seen, data):
    if data == b"[DONE]":
        seen.done = True
        return
    event = json.loads(data)
    if "error" in event:
        seen.error = json.dumps(event["error"])
    seen.usage = event.get("usage") or seen.usage
    for choice in event.get("choices", ()):
        seen.text += choice["text"]
        seen.finish = choice["finish_reason"] or seen.finish
        seen.times.append(time.monotonic())


def draw_request(chance):
    """A request whose answer depends on nothing but itself."""
    body = {"model": "bard", "stream": True, "stream_options": {"include_usage": True},
            "prompt": " ".join(chance.choices(WORDS, k=chance.choice((3, 12, 40)))),
            "max_tokens": chance.randint(40, 160), "temperature": 0}
    if chance.random() < 0.6:
        body.update(temperature=chance.choice((0.7, 1.0, 1.3)), seed=chance.randrange(1 << 31),
                    top_p=chance.choice((1.0, 0.9)), top_k=chance.choice((-1, 40)))
    if chance.random() < 0.3:
        body["ignore_eos"] = True
    elif chance.random() < 0.4:
        body["stop_token_ids"] = chance.sample(range(300, 4000), 20)
    return body


def draw_pool(chance, count):
    """Requests with the answers that they have without a fault. Some stop at a piece of their own text."""
    bodies = [draw_request(chance) for _ in range(count)]
    answers = ask_all(bodies)
    for body, answer in zip(bodies, answers):
        if chance.random() < 0.4 and len(answer.text) > 60:
            at = chance.randrange(len(answer.text) // 2, len(answer.text) - 6)
            body["stop"] = [answer.text[at:at + 5], "never said"]
            body["include_stop_str_in_output"] = chance.random() < 0.5
    return list(zip(bodies, ask_all(bodies)))


def ask_all(bodies, clients=12):
    """Every answer, in the order of the bodies, from so many clients that each ask one after another."""
    answers = [None] * len(bodies)

    def client(first):
        for index in range(first, len(bodies), clients):
            answers[index] = stream(bodies[index])

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def next_tokens(answers, struck, detected):
    """How long after `detected` the last stream that was open when the stage was struck had its next token."""
    firsts = [min((t for t in a.times if t > detected), default=detected) for a in answers if a.times and a.times[0] < struck]
    return max(firsts, default=detected) - detected


KINDS = ("kill", "kill", "stop", "stop", "hole", "hole", "deaf", "mute", "both", "drain")
# Where the stages have a rank each: these two also lose each other alone.
KINDS_OF_RANKS = (*KINDS, "apart", "apart")


@dataclasses.dataclass
class Fault:
    """What is broken, when and for how long. A stage that is deaf hears nothing of the front, one that is mute is not
    heard there."""

    kind: str
    stage: str
    after_s: float
    lasts_s: float
    restart_s: float
    delay: str
    loss: float

    @staticmethod
    def draw(chance, kinds):
        return Fault(chance.choice(kinds), chance.choice(STAGES), round(chance.uniform(0.05, 0.9), 3),
                     round(chance.choice((chance.uniform(0.05, 0.9), chance.uniform(0.9, 2.2))), 3),
                     round(chance.uniform(0, 0.8), 3), chance.choice(("0ms", "0ms", "1ms", "3ms")),
                     chance.choice((0, 0, 0.002)))

    def strike(self, site):
        """Breaks the stage and mends it. Returns when it was broken."""
        time.sleep(self.after_s)
        broken = time.monotonic()
        getattr(self, "_" + self.kind, self._cut)(site)
        return broken

    def _cut(self, site):
        site.net({"hole": f"cut {self.stage}", "deaf": f"deaf {self.stage} front",
                  "mute": f"deaf front {self.stage}", "apart": "cut stage1 stage2"}[self.kind])
        time.sleep(self.lasts_s)
        site.net("heal")

    def _stop(self, site):
        stage = site.nodes[self.stage]
        stage.kill(signal.SIGSTOP)
        time.sleep(self.lasts_s)
        stage.kill(signal.SIGCONT)

    def _kill(self, site):
        site.nodes[self.stage].kill()

    def _both(self, site):
        for stage in STAGES:
            site.nodes[stage].kill()

    def _drain(self, site):
        stage = site.nodes[self.stage]
        told = httpx.post(site.url + "/troupe/v1/drain", json={"node": self.stage, "deadline_s": 0.2})
        assert told.status_code == 202, told.text
        assert stage.wait() == 0, stage.complaints


class Round:
    """One fault under load."""

    def __init__(self, site, pool, seed, number):
        self.site, self.number = site, number
        self.chance = random.Random(f"{seed}/{number}")
        self.fault = Fault.draw(self.chance, site.kinds)
        self.jobs = self.chance.choices(pool, k=24)
        self.answers, self.struck, self.began = [], 0.0, time.monotonic()

    def run(self):
        """@return what went wrong, a line each"""
        site, fault = self.site, self.fault
        site.net(f"delay {fault.delay}")
        site.net(f"loss {fault.loss}")
        site.restart_delay_s = fault.restart_s
        load = threading.Thread(target=lambda: self.answers.extend(ask_all([body for body, _ in self.jobs])))
        load.start()
        self.struck = fault.strike(site)
        load.join()
        wrong = [line for pair, answer in zip(self.jobs, self.answers) for line in differences(*pair, answer)]
        try:
            eventually(site.healed, "the cluster is whole and holds nothing", 30)
        except AssertionError as why:
            wrong.append(f"{why}: {json.dumps(site.status())}")
        return wrong

    def story(self):
        """One line for people."""
        fault = self.fault
        at = self.site.told("front", fault.stage, self.struck)
        text = f"round {self.number}: {fault.kind} {fault.stage} after {fault.after_s} s"
        text += "" if fault.kind in ("kill", "both", "drain") else f" for {fault.lasts_s} s"
        text += f", delay {fault.delay}, loss {fault.loss}"
        if at is not None and fault.kind != "drain":
            text += f"; detected in {1000 * (at - self.struck):.0f} ms, all resumed {1000 * next_tokens(self.answers, self.struck, at):.0f} ms later"
        return text + f"; {time.monotonic() - self.began:.1f} s"


class Front:
    """The second front and its clients, who are where it is."""

    def __init__(self, site, pool, chance):
        self.site = site
        self.bodies = [{**body, "max_tokens": 250, "ignore_eos": True, "stop": None, "stop_token_ids": None}
                       for body, _ in chance.choices(pool, k=12)]
        self.answers = []
        with site.net.inside("other"):
            self._load = threading.Thread(target=lambda: self.answers.extend(ask_all(self.bodies)))
            self._load.start()
        eventually(lambda: all(r["running"] > 0 for r in site.status()["replicas"]), "both stages work for it")

    def clients_end(self, limit_s):
        self._load.join(limit_s)
        return not self._load.is_alive()


def differences(body, expected, answer):
    if answer.outcome() == expected.outcome():
        return []
    return [f"{json.dumps(body)}\n  expected {expected.outcome()}\n  seen     {answer.outcome()}"]
