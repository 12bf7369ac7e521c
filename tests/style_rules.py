"""Rules of language and layout that a program can check: source text in, violations out."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

FORBIDDEN_NAMES = {
    "asked",
    "found",
    "given",
    "kept",
    "known",
    "made",
    "mine",
    "number",
    "place",
    "said",
    "taken",
    "theirs",
    "told",
    "wanted",
}
BANNED_PHRASES = (
    r"[Bb]eware",
    r"\bMind\b",
    r"[Nn]othing is wrong",
    r"\bso many\b",
    r"\bas many\b(?! \w+ as)",
    r"\bof which\b",
    r"\bbeside\b",
    r"\balike\b",
    r"\banew\b",
    r"\b(says|said|say)\b",
    r"\b(tells|told)\b",
    r"\b(asks|asked)\b",
    r"\b(speaks|spoken)\b",
    r"\blearnt\b",
    r"\bso much\b",
    r"(?<![Tt]here )\b(is|are) no (?!longer\b|better\b|more\b)",
    r"\bgo(es)? on with\b",
    r"\bbegun\b",
    r"\btake another\b",
    r"\bclosest: ",
)
WIDTH = 100
LONGEST_SENTENCE = 30
LONGEST_FUNCTION = 40
LONGEST_FILE = 250
FIRST_WORDS = r"(What|Who|Whom|Whose|Where|How|Of|That|So|As)\b"


def line_width(text: str) -> Iterator[str]:
    """Lines wider than 100 columns."""
    for index, line in enumerate(text.splitlines(), start=1):
        if len(line) > WIDTH:
            yield f"line {index}: {len(line)} columns"


def forbidden_names(text: str) -> Iterator[str]:
    """Names of variables, parameters and functions that do not describe the value."""
    for node in ast.walk(ast.parse(text)):
        name = ""
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name = node.name
        if name.lstrip("_") in FORBIDDEN_NAMES:
            yield f"line {node.lineno}: {name}"


def documented(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Each module, class and function with its docstring."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            if docstring:
                yield node, docstring


def first_words(text: str) -> Iterator[str]:
    """Docstrings that begin with a what-clause or a preposition."""
    for _, docstring in documented(ast.parse(text)):
        if re.match(FIRST_WORDS, docstring):
            yield docstring.partition("\n")[0]


def docstring_sections(text: str) -> Iterator[str]:
    """Public functions with three parameters and no Args, or with a raise and no Raises.

    The docstring of a command is its help text and has no sections.
    """
    for node in ast.parse(text).body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        if any(ast.unparse(decorator).startswith("app.") for decorator in node.decorator_list):
            continue
        docstring = ast.get_docstring(node) or ""
        parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        # Parameters that are documented by ``Doc`` in their annotation need no Args.
        parameters = [part for part in parameters if "Doc(" not in ast.unparse(part)]
        if len(parameters) > 2 and "Args:" not in docstring:
            yield f"{node.name}: no Args"
        raises = any(isinstance(part, ast.Raise) and part.exc for part in ast.walk(node))
        if raises and "Raises:" not in docstring:
            yield f"{node.name}: no Raises"


def loss_examples(text: str) -> Iterator[str]:
    """Public loss functions without an example."""
    for node in ast.parse(text).body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        if node.name.endswith("_loss") and ">>>" not in (ast.get_docstring(node) or ""):
            yield node.name


def texts(text: str) -> Iterator[str]:
    """Docstrings and other strings that a user may read: those with a space in them."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value


def banned_phrases(text: str) -> Iterator[str]:
    """Phrases of the old dialect in docstrings and messages."""
    for part in texts(text):
        yield from phrases(part)


def sentence_length(text: str) -> Iterator[str]:
    """Sentences of docstrings with more than 30 words."""
    for _, docstring in documented(ast.parse(text)):
        yield from long_sentences(re.sub(r"(?m)^\s*>>>.*$", "", docstring))


def phrases(prose: str) -> Iterator[str]:
    """Phrases of the old dialect in a text."""
    part = re.sub(r"\s+", " ", prose)
    for match in re.finditer("|".join(BANNED_PHRASES), part):
        start = max(match.start() - 30, 0)
        yield f"{match.group()!r} in {part[start : match.end() + 30]!r}"


def long_sentences(prose: str) -> Iterator[str]:
    """Sentences of a text with more than 30 words."""
    for sentence in re.split(r"(?<=[.;:?!])\s+|\n\s*\n|\n\s*(?:[-*|]|\d+\.) ", prose):
        words = [word for word in sentence.split() if re.search(r"[A-Za-z]", word)]
        if len(words) > LONGEST_SENTENCE:
            yield f"{len(words)} words: {' '.join(words[:8])} ..."


def page_prose(page: str) -> str:
    """Return the prose of a Markdown page: no code blocks, tables and headings."""
    without_code = re.sub(r"(?ms)^ *```.*?^ *``` *$", "", page)
    return re.sub(r"(?m)^ *(\||#).*$", "", without_code)


def one_statement_per_line(text: str) -> Iterator[str]:
    """Tuple assignments of several attributes, which hide several statements."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            for target in node.targets:
                attributes = isinstance(target, ast.Tuple) and all(
                    isinstance(part, ast.Attribute) for part in target.elts
                )
                if attributes:
                    yield f"line {node.lineno}"


def nested_expressions(text: str) -> Iterator[str]:
    """Comprehensions with two loops, and statements with two conditional expressions."""
    comprehensions = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, comprehensions) and len(node.generators) > 1:
            yield f"line {node.lineno}: comprehension with two loops"
        if isinstance(node, ast.IfExp):
            inner = [part for part in ast.walk(node) if isinstance(part, ast.IfExp)]
            if len(inner) > 1:
                yield f"line {node.lineno}: nested conditional expression"


def function_length(text: str) -> Iterator[str]:
    """Functions with more than 40 lines of code."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            if length > LONGEST_FUNCTION:
                yield f"{node.name}: {length} lines"


def file_length(text: str) -> Iterator[str]:
    """Files with more than 250 lines."""
    length = len(text.splitlines())
    if length > LONGEST_FILE:
        yield f"{length} lines"


RULES: dict[str, Callable[[str], Iterator[str]]] = {
    rule.__name__: rule
    for rule in (
        line_width,
        forbidden_names,
        first_words,
        docstring_sections,
        loss_examples,
        banned_phrases,
        sentence_length,
        one_statement_per_line,
        nested_expressions,
        function_length,
        file_length,
    )
}
