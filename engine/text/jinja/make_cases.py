#!/usr/bin/env python3
"""Writes cases.json: templates, contexts, and what jinja2 itself makes of them.

Needs only jinja2 (pip install jinja2). The environment is set up as transformers sets up its own
for chat templates: immutable sandbox, trim_blocks, lstrip_blocks, loop controls, a tojson that
keeps characters, raise_exception, strftime_now, and the generation tag.

usage: make_cases.py            writes cases.json beside this script
       make_cases.py --fuzz N SEED FILE   writes N random expressions instead, for a wider search;
              with cases.json as FILE the test runs them (restore it afterwards)
"""
import copy
import datetime
import json
import pathlib
import random
import sys

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2024, 2, 9, 15, 4, 5)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_keep"), [], [], body).set_lineno(line)

    def _keep(self, caller):
        return caller()


class Raised(Exception):
    pass


def environment():
    def raise_exception(message):
        raise Raised(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, "jinja2.ext.loopcontrols"])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: NOW.strftime(form)
    return env


ENV = environment()


def run(template, context):
    """The expected part of a case: output, error (the kind), or raised (the message)."""
    try:
        # Some filters change a list that they are given; the next case shall not see that.
        return {"output": ENV.from_string(template).render(**copy.deepcopy(context))}
    except Raised as e:
        return {"raised": str(e)}
    except (jinja2.TemplateSyntaxError, SyntaxError):  # A stray break is Python's own error.
        return {"error": "syntax"}
    except Exception:  # Whatever Python raises is an error of the template.
        return {"error": "render"}


def case(group, template, context=None):
    context = context or {}
    return {"group": group, "template": template, "context": context, **run(template, context)}


# --- Expressions and small templates -------------------------------------------------------------

VALUES = {
    "a": [1, 2, 3], "b": ["x", "yy", "zzz"], "s": "Hello World", "u": "Grüße, Ωμέγα – 你好 🎭",
    "e": "", "n": None, "t": True, "f": False, "i": 7, "j": -3, "r": 2.5, "z": 0,
    "d": {"k": 1, "l": [1, {"m": "v"}], "items": "shadow", "ß": 'q"\'uote'}, "el": [], "ed": {},
    "rows": [{"role": "system", "n": 3, "ok": True}, {"role": "user", "n": 1},
             {"role": "User", "n": 2, "ok": False}],
    "ml": "one\n  two\n\nthree\n", "big": 9007199254740993, "nested": [[1, [2, 3]], ["x", {"y": None}]],
    "h": "<a href='x'>&\"</a>",
}


def lines(name):
    """The templates of one section of corpus.txt: sections are '### name', templates '---' apart."""
    text = (pathlib.Path(__file__).parent / "corpus.txt").read_text()
    for section in text.split("### ")[1:]:
        head, _, body = section.partition("\n")
        if head.strip() == name:
            return [t.strip("\n") for t in body.split("\n---\n")]
    raise KeyError(name)


def expression_cases():
    out = []
    for section in ("expressions", "filters", "tests", "methods"):
        for block in lines(section):
            for line in block.splitlines():
                if line.strip():
                    out.append(case(section, "{{ " + line + " }}", VALUES))
    for template in lines("statements"):
        out.append(case("statements", template, VALUES))
    for template in lines("errors"):
        out.append(case("errors", template, VALUES))
    for template in SPACES:
        out.append(case("whitespace", template, VALUES))
    return out


SPACES = [
    "  {% if t %}  \n  x\n  {% endif %}\n  y\n", "{%- if t -%}\n x \n{%- endif -%}\n  y",
    "a\n\n{{- s -}}\n\nb", "a\n  {#- c -#}  \nb", "a\n  {# c #}\nb\n", "  {{ s }}  \n  {{ i }}\n\n",
    "\n\n{% set q = 1 %}\n\n{{ q }}\n\n", "a {%+ if t %}b{% endif +%}\nc", "  {%+ if t %}b{% endif +%}\nc",
    "{% raw %}{{ x }}{% endraw %}\nz", "  {% raw %}\n {{ x }} \n  {% endraw %}\n z",
    "a {%- raw -%}  {% x %}  {%- endraw -%}  b", "x{% for q in a %}\n{{ q }}\n{% endfor %}\ny",
    "{% for q in a -%}\n   {{ q }},\n{%- endfor %}", "\t{% if t %}\r\nx\r\n\t{% endif %}\r\ny\r\n",
    "{{ s }}{% if t %}\n\n{% endif %}\n\n", "{{ s }} {% if t %}x{% endif %} {# c #} {{ i }}\n",
    "{{ s }}  {% if t %}\n", "}} %} #} { % {", "{{ '}}' }}{{ '%}' }}{{ \"{{\" }}", "{{ {'a': {'b': 1}} }}",
    "{%if t%}x{%endif%}{{i}}", "{% if t %}\n  {% if t %}\n    in\n  {% endif %}\n{% endif %}\nend",
    "   {#+ c +#}\n x", "{#- a #}\n\n{# b -#}\n\n c", "a\u00a0{%- if t %} x{% endif %}", "", "\n", "\n\n", "x\n", "x\n\n",
]

# --- Chat templates in the idioms of published models, and conversations for them -----------------

TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a place – now",
    "parameters": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "City's name"},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "days": {"type": ["integer", "null"], "default": 1}}}}}]

U = {"role": "user", "content": "Hi <there> & you\n"}
A = {"role": "assistant", "content": "  Hello!  "}
S = {"role": "system", "content": " Be brief. "}
T = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "call12345", "type": "function", "function": {"name": "get_weather",
     "arguments": {"city": "Zürich", "days": 2, "deep": {"x": [1, 2.5, None, True]}}}}]}
R = {"role": "tool", "name": "get_weather", "tool_call_id": "call12345", "content": '{"t": 21.0}'}
K = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nIt is 21.", "reasoning_content": "hm"}
P = {"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image"},
                                 {"type": "text", "text": "what?"}]}
CONVERSATIONS = [
    [U], [S, U], [U, A, U], [S, U, A, U, A], [U, U], [A, U], [], [S, U, T, R, K, U], [U, T, R],
    [S, P], [U, T, R, R], [U, K, U], [S, U, T, R], [{"role": "other", "content": "x"}],
    [{"role": "user"}], [U, {"role": "assistant", "content": None}, U],
]


def chat_cases():
    out = []
    for number, template in enumerate(lines("chats")):
        for messages in CONVERSATIONS:
            for tools, prompt in ((None, True), (TOOLS, True), (None, False)):
                context = {"messages": messages, "tools": tools, "documents": None,
                           "add_generation_prompt": prompt, "bos_token": "<s>", "eos_token": "</s>"}
                if prompt and tools is None and number % 2:
                    context["enable_thinking"] = len(messages) % 2 == 0
                out.append(case(f"chat{number}", template, context))
    return out


# --- Random expressions --------------------------------------------------------------------------

ATOMS = ["a", "b", "s", "u", "e", "n", "t", "f", "i", "j", "r", "z", "d", "el", "rows", "missing", "ml",
         "1", "0", "-2", "3.0", "'ab'", "' x '", "[1, 2]", "(1, 'q')", "{'k': 2}", "none", "true",
         "d.k", "d['l']", "rows[0]", "rows[1].n", "nested", "nested[0][1]", "range(4)", "'é'"]
BINARY = ["+", "-", "*", "//", "%", "/", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in",
          "and", "or"]
FILTERS = ["|length", "|upper", "|list", "|first", "|last", "|string", "|trim", "|join(',')", "|sort",
           "|int", "|float", "|tojson", "|default('D')", "|default('D', true)", "|abs", "|round",
           "|round(1)", "|sum", "|min", "|max", "|reverse|list", "|unique|list", "|title", "|capitalize",
           "|replace('l', 'L')", "|map('string')|list", "|select|list", "|reject('none')|list",
           "|selectattr('ok')|list", "|map(attribute='n')|list", "|dictsort", "|items|list", "|e",
           "|indent(2)", "|tojson(indent=1)", "|wordcount", "|batch(2)|list", "|center(9)", "|lower"]
TESTS = ["defined", "none", "string", "number", "mapping", "iterable", "sequence", "boolean", "integer",
         "float", "odd", "even", "divisibleby 2", "in a", "sameas none", "eq 7", "true", "lower"]
SUFFIX = ["[0]", "[-1]", "['k']", "[::-1]", "[1:]", "[:2]", "[-2:]", "[::2]", ".k", ".upper()", ".split()",
          ".strip()", ".items()|list", ".get('k')", ".get('x', 1)", ".startswith('H')", ".count(1)",
          ".split('l', 1)", ".find('o')", ".keys()|list", ".title()", ".rsplit('o')", ".splitlines()"]


def random_expression(rng, depth):
    if depth == 0 or rng.random() < 0.15:
        return rng.choice(ATOMS)
    one = random_expression(rng, depth - 1)
    kind = rng.randrange(9)
    if kind < 3:
        return f"({one} {rng.choice(BINARY)} {random_expression(rng, depth - 1)})"
    if kind < 5:
        return f"({one}){rng.choice(FILTERS)}"
    if kind < 7:
        return f"({one}){rng.choice(SUFFIX)}"
    if kind == 7:
        return f"({one} is {rng.choice(['', 'not '])}{rng.choice(TESTS)})"
    return f"({one} if {random_expression(rng, depth - 1)} else {rng.choice(ATOMS)})"


def unfoldable(self, eval_ctx=None):
    raise nodes.Impossible()


def random_cases(count, seed):
    # jinja2 makes a slice of a constant that cannot be sliced undefined when it folds it, and an
    # error when it does not. Here it is always an error, so nothing is folded.
    nodes.Getitem.as_const = unfoldable
    rng = random.Random(seed)
    out = []
    while len(out) < count:
        made = case("random", "{{ " + random_expression(rng, rng.randrange(1, 4)) + " }}", VALUES)
        # Generators print an address, and slices of ranges are lists here.
        text = made.get("output", "")
        if " at 0x" in text or " object" in text or len(text) > 400 or "range(" in text:
            continue
        out.append(made)
    return out


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--fuzz":
        cases = random_cases(int(sys.argv[2]), int(sys.argv[3]))
        target = pathlib.Path(sys.argv[4])
    else:
        cases = expression_cases() + chat_cases() + random_cases(600, 7)
        target = pathlib.Path(__file__).parent / "cases.json"
    templates, contexts = {}, {}  # Each is written once; a case names it by its index.
    for c in cases:
        c["template"] = templates.setdefault(json.dumps(c["template"], ensure_ascii=False), len(templates))
        c["context"] = contexts.setdefault(json.dumps(c["context"], ensure_ascii=False), len(contexts))
    rows = ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases)
    target.write_text(f'{{"jinja2": "{jinja2.__version__}",\n"contexts": [\n' + ",\n".join(contexts)
                      + '],\n"templates": [\n' + ",\n".join(templates) + f'],\n"cases": [\n{rows}]}}\n')
    print(f"{len(cases)} cases, {len(templates)} templates, {len(contexts)} contexts -> {target}")


if __name__ == "__main__":
    main()
