"""Docstrings that refer to the errors of another function name those of the system, too."""

import ast
import re
from collections import defaultdict

from tests.support.command_line import REPOSITORY

OF_THE_SYSTEM = {"AccessDenied", "StorageError", "WorkerDied"}
REFERENCE = re.compile(r"^([\w,\s]+): as `(\w+)`(?: and `(\w+)`)?", re.MULTILINE)


def test_who_passes_errors_of_the_system_on_names_all_of_them() -> None:
    raised = defaultdict[str, set[str]](set)
    passed_on = list[tuple[str, set[str], list[str]]]()
    for package in ("pipeline", "modelnet"):
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    section = (ast.get_docstring(node) or "").partition("Raises:\n")[2]
                    named = OF_THE_SYSTEM & set(re.findall(r"\w+", section))
                    raised[node.name] |= named
                    for line, *functions in REFERENCE.findall(re.sub("(?m)^ +", "", section)):
                        if OF_THE_SYSTEM & set(re.findall(r"\w+", line)):
                            passed_on.append((f"{file.name}: {node.name}", named, functions))

    assert len(passed_on) > 8
    for where, named, functions in passed_on:
        assert named >= set[str]().union(*(raised[name] for name in functions if name)), where
