"""Golden renderings of chat templates, by the Jinja environment that transformers sets up.

The templates are ours, in the idioms of popular models; every template is rendered over every
conversation. Time stands still: strftime_now is replaced by one that reads a fixed clock.
"""
import collections
import datetime
import json
import os

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = datetime.datetime(2026, 3, 5, 14, 7, 9)

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a city.", "parameters": {
        "type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "description": "Its name, \"as is\" <b>&</b> caf\u00e9"},
            "days": {"type": "integer"},
            "unit": {"type": "string", "enum": ["C", "F"]},
            "where": {"type": "object", "properties": {
                "lat": {"type": "number"}, "tags": {"type": "array", "items": {
                    "type": "string"}}}}}}}}
CLOCK = {"type": "function", "function": {
    "name": "clock", "description": "The time.", "parameters": {"type": "object",
                                                                "properties": {}}}}


def say(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, ident="abcDEF123"):
    return {"id": ident, "type": "function",
            "function": {"name": name, "arguments": arguments}}


# What differs between conversations besides the messages: tools, documents and template arguments.
CONVERSATIONS = {
    "one": {"messages": [say("user", "What news?")]},
    "system": {"messages": [say("system", "  Speak in verse.\n"), say("user", " Hello! ")]},
    "long": {"messages": [
        say("system", "Be brief."), say("user", "Who's there?"),
        say("assistant", "Nay, answer me.", name="Francisco"),
        say("user", "Long live the king!", name="bernardo"), say("assistant", "Bernardo?\n"),
        say("user", "He.\n\nIt is I."), say("assistant", "You come most carefully."),
        say("user", "'Tis now struck twelve.")]},
    "unicode": {"messages": [
        say("user", "\u4f60\u597d, caf\u00e9 \U0001f600 <b>\"q\" & 'r'</b> \\n {{ x }} {% y %}"),
        say("assistant", "\u00a0na\u00efve\u3000"), say("user", "\ttab\r\nline")]},
    "empty": {"messages": []},
    "blank": {"messages": [say("user", ""), say("assistant", ""), say("user", "   ")]},
    "order": {"messages": [say("user", "a"), say("user", "b")]},
    "assistant-first": {"messages": [say("assistant", "Speak."), say("user", "I will.")]},
    "late-system": {"messages": [say("user", "a"), say("assistant", "b"), say("system", "c"),
                                 say("user", "divide by nought")]},
    "critic": {"messages": [say("critic", "A fine play."), say("user", "Truly?")]},
    "thinking": {"messages": [
        say("user", "2+2?"), say("assistant", "<think>\nTwo and two.\n</think>\n\nFour."),
        say("user", "And 3?"), say("assistant", "Seven.", reasoning_content="\nFour and three.\n"),
        say("user", "Sure?"), say("assistant", "<think>Again.</think>Yes.")]},
    "no-thinking": {"messages": [say("user", "Hi")], "arguments": {"enable_thinking": False}},
    "arguments": {"messages": [say("system", "S"), say("user", "U")], "arguments": {
        "enable_thinking": True, "date_string": "23 Apr 1616", "assistant_name": "Bard",
        "controls": {"length": 3, "tone": ["grave", "gay"]}}},
    "tools": {"messages": [say("system", "Use tools."), say("user", "Weather in Rome?")],
              "tools": [WEATHER, CLOCK]},
    "tool-run": {"tools": [WEATHER], "messages": [
        say("user", "Weather in Rome?"),
        say("assistant", None, tool_calls=[call("get_weather", {"city": "R\u00f4me", "days": 2})]),
        say("tool", "{\"sky\": \"clear\"}", tool_call_id="abcDEF123"),
        say("assistant", "Clear."), say("user", "Thanks.")]},
    "tool-many": {"tools": [WEATHER, CLOCK], "messages": [
        say("user", "Both?"),
        say("assistant", "Let me see.", tool_calls=[
            call("get_weather", "{\"city\": \"Rome\"}"), call("clock", {}, "short")]),
        say("tool", "clear"), say("tool", "noon")]},
    "parts": {"messages": [
        say("system", [{"type": "text", "text": "Look."}]),
        say("user", [{"type": "image"}, {"type": "text", "text": " What is this? "},
                     {"type": "text", "text": "And that?"}]),
        say("assistant", "A rose.")]},
    "documents": {"messages": [say("user", "Who is he?")], "documents": [
        {"title": "Dramatis personae", "text": "Hamlet, a prince.\nOphelia."},
        {"title": "", "text": "Yorick, a jester."}]},
}
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def clock(form):
    return NOW.strftime(form)


def render(template, talk, prompt):
    """Returns the case's outcome: the text, or what kind of failure and its message."""
    try:
        rendered, _ = render_jinja_template(
            [talk["messages"]], tools=talk.get("tools"), documents=talk.get("documents"),
            chat_template=template, add_generation_prompt=prompt, strftime_now=clock,
            **SPECIALS, **talk.get("arguments", {}))
        return {"expected": rendered[0]}
    except jinja2.exceptions.TemplateSyntaxError as err:
        return {"error": "syntax", "message": str(err)}
    except jinja2.exceptions.UndefinedError as err:
        return {"error": "undefined", "message": str(err)}
    except jinja2.exceptions.TemplateError as err:
        kind = "raised" if type(err) is jinja2.exceptions.TemplateError else "security"
        return {"error": kind, "message": str(err)}
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as err:
        return {"error": "type", "message": f"{type(err).__name__}: {err}"}


def dump(path, value):
    with open(path, "w", encoding="ascii") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def make(data, bard):
    folder = os.path.join(data, "chat")
    os.makedirs(folder, exist_ok=True)
    dump(os.path.join(folder, "conversations.json"), {
        "now": NOW.isoformat(), "specials": SPECIALS, "conversations": CONVERSATIONS})
    sources = {name[:-6]: os.path.join(HERE, "templates", name)
               for name in sorted(os.listdir(os.path.join(HERE, "templates")))}
    sources["bard"] = os.path.join(bard, "chat_template.jinja")
    for name, path in sources.items():
        with open(path, encoding="utf-8", newline="") as file:
            template = file.read()
        cases = [{"conversation": key, "add_generation_prompt": prompt,
                  **render(template, talk, prompt)}
                 for key, talk in CONVERSATIONS.items() for prompt in (False, True)]
        dump(os.path.join(folder, name + ".json"),
             {"name": name, "template": template, "cases": cases})
        kinds = dict(collections.Counter(c["error"] for c in cases if "error" in c))
        print(f"{name}: {len(cases)} cases, errors {kinds}")
