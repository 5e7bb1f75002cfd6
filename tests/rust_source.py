"""The functions of a file of Rust code, and the expressions in them that end with a name: for tests/guards.

Rust is read as tokens, not parsed: comments, strings and characters are skipped, and brackets are matched.
"""

import re
from typing import NamedTuple

TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
      | (?P<string>[bc]?r(?P<hashes>\#*)".*?"(?P=hashes) | [bc]?"(?:\\.|[^"\\])*")
      | (?P<char>b?'(?:\\(?:x..|u\{[^}]*\}|.)|[^'\\])')
      | (?P<lifetime>'\w+)
      | (?P<name>(?:r\#)?[^\W\d]\w*)
      | (?P<number>\d\w*(?:\.\d\w*)?)
      | (?P<mark>\.\.=?|::|->|=>|&&|[-+*/%^&|!=<>]=|.)""",
    re.VERBOSE | re.DOTALL,
)
BRACKETS = {")": "(", "]": "[", "}": "{"}
ASSIGNMENTS = ("=", "+=", "-=")
KEYWORDS = ("if", "in", "match", "return", "while")


class Problem(Exception):
    """A disagreement between the table of guards and the code."""


class Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def tokens_of(text):
    """Returns the tokens of Rust code, without white space and comments."""
    tokens, at = [], 0
    while at < len(text):
        if text.startswith("/*", at):
            at = end_of_comment(text, at)
            continue
        found = TOKEN.match(text, at)
        if found.lastgroup != "space":
            tokens.append(Token(found.lastgroup, found.group(), at, found.end()))
        at = found.end()
    return tokens


def end_of_comment(text, at):
    """Returns the end of a block comment. Such comments nest."""
    depth = 0
    for found in re.compile(r"/\*|\*/").finditer(text, at):
        depth += 1 if found.group() == "/*" else -1
        if depth == 0:
            return found.end()
    raise Problem("a block comment has no end")


class Source:
    """A file of Rust code: its functions, and the expressions that end with a name. Unit tests are ignored."""

    def __init__(self, path, text):
        self.path, self.text = path, text
        self.tokens = tokens_of(text)
        self.partners = self.find_partners()
        tests = [i for i in range(len(self.tokens)) if self.texts(i, 3) == ["mod", "tests", "{"]]
        self.end = tests[0] if tests else len(self.tokens)
        self.functions = self.find_functions()

    def texts(self, i, count):
        return [token.text for token in self.tokens[i : i + count]]

    def find_partners(self):
        """Returns the index of each bracket's partner."""
        partners, opened = {}, []
        for i, token in enumerate(self.tokens):
            if token.kind != "mark":
                continue
            if token.text in BRACKETS.values():
                opened.append(i)
            elif token.text in BRACKETS:
                start = opened.pop()
                if self.tokens[start].text != BRACKETS[token.text]:
                    raise Problem(f"{self.path}: the brackets do not match")
                partners[start], partners[i] = i, start
        return partners

    def find_functions(self):
        """Returns each function: the type of its impl block or "", its name, and the first and the last token of its body."""
        impls, functions = [], []
        for i in range(self.end):
            kind, text = self.tokens[i].kind, self.tokens[i].text
            if kind != "name":
                continue
            if text == "impl" and (i == 0 or self.tokens[i - 1].text in ("}", ";", "{", "]", "unsafe")):
                impls.append(self.impl_block(i))
            elif text == "fn" and self.tokens[i + 1].kind == "name":
                body = self.body_after(i + 2)
                if body is not None:
                    owners = [owner for owner, start, end in impls if start < i < end]
                    owner = owners[-1] if owners else ""
                    functions.append((owner, self.tokens[i + 1].text, body, self.partners[body]))
        return functions

    def impl_block(self, i):
        """Returns the type, the start and the end of an impl block."""
        owner, depth, named = "", 0, True
        while self.tokens[i].text != "{":
            kind, text = self.tokens[i].kind, self.tokens[i].text
            depth += {"<": 1, ">": -1}.get(text, 0)
            named = named and text != "where"
            if kind == "name" and depth == 0 and named:
                owner = text
            i += 1
        return owner, i, self.partners[i]

    def body_after(self, i):
        """Returns the opening brace of the body, or nothing for a declaration."""
        while self.tokens[i].text != "{":
            if self.tokens[i].text == ";":
                return None
            i = self.partners[i] + 1 if self.tokens[i].text in ("(", "[") else i + 1
        return i

    def function(self, name):
        """Returns the body of the one function of this name, `name` or `Type::name`."""
        *owner, simple = name.split("::")
        found = [
            (start, end)
            for its_owner, its_name, start, end in self.functions
            if its_name == simple and owner in ([], [its_owner])
        ]
        if len(found) != 1:
            raise Problem(f"{self.path} has {len(found)} functions {name}: write `Type::{simple}`, or correct the table")
        return found[0]

    def uses(self, name, first, last):
        """Returns the spans of the expressions that end with this name: a constant, a call or a field."""
        spans = []
        for i in range(first, last):
            if self.tokens[i].kind == "name" and self.tokens[i].text == name and self.is_use(i):
                spans.append((self.tokens[self.leftmost(i)].start, self.tokens[self.rightmost(i)].end))
        return spans

    def is_use(self, i):
        before = self.tokens[i - 1].text if i else ""
        after = self.tokens[i + 1].text if i + 1 < len(self.tokens) else ""
        if before in ("const", "static", "fn", "let") or after in ASSIGNMENTS or self.is_import(i) or self.is_constant(i):
            return False
        return self.tokens[i].text.isupper() or before in (".", "::") or after == "("

    def is_import(self, i):
        """Returns true if the statement around a token begins with `use`."""
        while i and self.tokens[i].text not in (";", "=", "("):
            if self.tokens[i].text == "use":
                return True
            i -= 1
        return False

    def is_constant(self, i):
        """Returns true if a token is a part of the value of a constant, which cannot have a switch."""
        while i and self.tokens[i - 1].text not in (";", "{", "}"):
            i -= 1
        return "const" in self.texts(i, 6) or "static" in self.texts(i, 6)

    def constants(self):
        """Returns the name and the type of each constant, and whether other files can use it."""
        found = []
        for i in range(self.end):
            if self.texts(i, 1) == ["const"] and self.texts(i + 2, 1) == [":"]:
                type_ends = next(j for j in range(i + 3, self.end) if self.tokens[j].text == "=")
                shared = self.texts(i - 1, 1) in (["pub"], [")"])
                found.append((self.tokens[i + 1].text, "".join(self.texts(i + 3, type_ends - i - 3)), shared))
        return found

    def leftmost(self, i):
        """Returns the first token of the receiver or path before a name, or of the `&` before a field."""
        is_field = self.texts(i - 1, 1) == ["."] and self.texts(i + 1, 1) != ["("]
        while i and self.tokens[i - 1].text in (".", "::"):
            i -= 2
            while self.tokens[i].text in ("?", ")", "]"):
                if self.tokens[i].text == "?":
                    i -= 1
                    continue
                i = self.partners[i]
                before = self.tokens[i - 1]
                if (before.kind != "name" or before.text in KEYWORDS) and before.text not in ("?", ")", "]"):
                    break
                i -= 1
        return i - 1 if is_field and self.tokens[i - 1].text == "&" else i

    def rightmost(self, i):
        """Returns the last token of the arguments after a name, of `.await` and of `?`."""
        if self.texts(i + 1, 1) == ["("]:
            i = self.partners[i + 1]
        while True:
            if self.texts(i + 1, 2) == [".", "await"]:
                i += 2
            elif self.texts(i + 1, 1) == ["?"]:
                i += 1
            else:
                return i

    def string(self, name, first, last):
        """Returns the text of a constant that is declared in this range, or else in the file; nothing unless it is a string."""
        for start, end in ((first, last), (0, self.end)):
            for i in range(start, end):
                if self.texts(i, 2) == ["const", name]:
                    while self.tokens[i].text != "=":
                        i += 1
                    value = self.tokens[i + 1]
                    return re.sub(r"\\\n\s*", "", value.text) if value.kind == "string" else None
        return None
