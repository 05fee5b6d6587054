"""What the tidy checks know of C++: enough to find includes, functions, parameters and nesting."""

import pathlib
import re
import subprocess

CODE_SUFFIXES = {".cpp", ".hpp", ".cu", ".cuh"}
CONTROL = re.compile(r"^(else\b|do\b|try\b)|\b(if|for|while|switch|catch)\b\s*(constexpr\s*)?\(")
SCOPE = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b[^()]*$")


def files(root, suffixes=CODE_SUFFIXES):
    """The files below `root` that git tracks or would track; outside a checkout, all of them."""
    root = pathlib.Path(root)
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard"],
                            capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        found = [root / line for line in listed.stdout.splitlines()]
    else:
        found = list(root.rglob("*"))
    return sorted(p for p in found if p.suffix in suffixes and p.is_file())


def blank_comments_and_strings(text):
    """The same text with comments, strings and preprocessor lines blanked, lines kept."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"(?P<d>[^()\s]*)\(.*?\)(?P=d)"|"(?:\\.|[^"\\\n])*"'
                         r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*",
                         re.S | re.M)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)


class Function:
    def __init__(self, head, first_line):
        self.head, self.first_line = head, first_line
        self.last_line, self.depth = first_line, 0

    def parameters(self):
        """How many parameters the head lists; commas inside <>, (), {} do not count."""
        start = self.head.find("(")
        if "operator()" in self.head:
            start = self.head.find("(", self.head.find("operator()") + 10)
        level, count, seen = 0, 0, False
        for c in self.head[start + 1:]:
            if c in "(<{[":
                level += 1
            elif c in ">}]" or (c == ")" and level > 0):
                level -= 1
            elif c == ")":
                break
            elif c == "," and level == 0:
                count += 1
            seen = seen or not c.isspace()
        return count + 1 if seen else 0


def functions(text):
    """The function definitions of a file, with their extent, and the depth of their control flow."""
    code = blank_comments_and_strings(text)
    stack, found, head_start, line, parens = [], [], 0, 1, 0
    for at, c in enumerate(code):
        if c == "\n":
            line += 1
        elif c in "()":
            parens += 1 if c == "(" else -1
        elif c == ";" and parens == 0:
            head_start = at + 1
        elif c == "{":
            _open(stack, code[head_start:at], line, found)
            stack[-1]["parens"] = parens
            parens, head_start = 0, at + 1
        elif c == "}" and stack:
            top = stack.pop()
            parens = top["parens"]
            if top["function"] is not None and top["kind"] == "function":
                top["function"].last_line = line
            head_start = at + 1 if top["kind"] != "init" else head_start
    return found


def _open(stack, head, line, found):
    outer = stack[-1] if stack else {"kind": "scope", "function": None, "depth": 0}
    text = head.strip()
    entry = {"kind": "init", "function": outer["function"], "depth": outer["depth"], "parens": 0}
    if outer["kind"] == "scope":
        if SCOPE.search(text) and not text.endswith(")"):
            entry["kind"] = "scope"
        elif "(" in text and not re.search(r"(^|[^=!<>])=($|[^=])", text.split("(")[0]):
            first = line - head.lstrip().count("\n")
            entry["kind"], entry["depth"] = "function", 0
            entry["function"] = Function(text, first)
            found.append(entry["function"])
    elif re.search(r"\]\s*(\([^{}]*\))?[^;{}()]*$", text) and "[" in text and not CONTROL.match(text):
        entry["kind"], entry["depth"] = "lambda", 0
    elif CONTROL.search(text) or text == "":
        entry["kind"] = "block"
        entry["depth"] = outer["depth"] + (1 if CONTROL.search(text) else 0)
        if entry["function"] is not None:
            entry["function"].depth = max(entry["function"].depth, entry["depth"])
    stack.append(entry)
