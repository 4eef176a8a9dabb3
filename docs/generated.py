"""Compute what pages say: exit codes from the exception classes, figures from recorded benchmarks.

A Sphinx extension. It also fails a build whose pages would load a font, a script or a picture from elsewhere.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from benchmarks.__main__ import command_of
from modelnet.commands._options import heading_of
from pipeline import errors

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
ROOT_PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")  # in the site as architecture.md, ...

# an attribute that makes a browser load something; a link (<a href>) is only followed by a person
LOADS = re.compile(r"""<(?!a\b)\w+[^>]*?\b(?:src|srcset|href|data)\s*=\s*["']((?:https?:)?//[^"']+)""", re.IGNORECASE)
STYLE_LOADS = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')]+)""", re.IGNORECASE)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives and the check of the built pages."""
    app.add_directive("exit-codes", ExitCodes)
    app.add_directive("benchmark", Benchmark)
    app.connect("source-read", take_root_page)
    app.connect("builder-inited", show_defaults)
    app.connect("sphinx-click-process-options", show_headings)
    for part in ("description", "options", "epilog"):
        app.connect(f"sphinx-click-process-{part}", escape_patterns)
    app.connect("autodoc-process-docstring", escape_patterns)
    app.connect("doctree-resolved", draw_dashes)
    app.connect("build-finished", refuse_foreign_loads)
    return {"parallel_read_safe": True}


class ExitCodes(SphinxDirective):
    """Shows `exit_code_table`."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        return self.parse_text_to_nodes(exit_code_table())


class Benchmark(SphinxDirective):
    """Shows the tables that a benchmark recorded, `{benchmark} reading`: machine, figures, and how to repeat them."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the tables, or the command that records them where nobody has yet."""
        part = self.arguments[0]
        path = RESULTS / f"{part}.md"
        self.env.note_dependency(path)
        return self.parse_text_to_nodes(recorded(path))


def exit_code_table() -> str:
    """Return a Markdown table with every exception class, its exit code and the first line of its docstring."""
    lines = ["| Exit code | Python | Meaning |", "| ---: | --- | --- |"]
    for error in sorted(error_classes(), key=lambda error: (error.exit_code, error.__name__)):
        meaning = (error.__doc__ or "").partition("\n")[0]
        lines.append(f"| {error.exit_code} | `{error.__name__}` | {meaning} |")
    return "\n".join(lines)


def error_classes(base: type[errors.PipelineError] = errors.PipelineError) -> Iterator[type[errors.PipelineError]]:
    """Yield every exception of `pipeline.errors` below `base`, each once."""
    for error in base.__subclasses__():
        if error.__module__ == errors.__name__:
            yield error
            yield from error_classes(error)


def recorded(path: Path) -> str:
    """Return a file of recorded figures as a part of a page: its headings become bold lines, the machine comes last."""
    again = f"`{command_of(path.stem)}`"
    if not path.exists():
        return f"No figures are recorded for this version yet. {again} measures them."
    machine, _, tables = path.read_text("utf-8").partition("\n")
    tables = re.sub(r"^### (.*)$", r"**\1**", tables, flags=re.MULTILINE)
    return f"{tables}\n\nMeasured on {machine}. Repeat: {again}."


def take_root_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace the placeholder of a page that lies at the repository's root by that page, with its links made right."""
    for name in ROOT_PAGES:
        if f"{page}.md" == name.lower():
            text = (REPOSITORY / name).read_text("utf-8").replace("](docs/", "](")
            for other in ROOT_PAGES:
                text = text.replace(f"]({other})", f"]({other.lower()})")
            source[0] = text


def show_defaults(app: Sphinx) -> None:
    """Let the command reference show the default of each option, as `--help` does."""
    from cli import cli

    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        for option in command.params if command else ():
            if isinstance(option, click.Option) and not option.is_flag and option.default != "":
                option.show_default = option.show_default or isinstance(option.default, int | float | str | tuple)


def show_headings(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Let the command reference show options in groups, as `--help` does."""
    positions = [position for position, line in enumerate(lines) if line.startswith(".. option::")]
    headings = [heading_of(option) for option in context.command.params if isinstance(option, click.Option)]
    for number in reversed(range(len(positions))):
        if any(headings) and (number == 0 or headings[number] != headings[number - 1]):
            lines[positions[number] : positions[number]] = [f".. rubric:: {headings[number] or 'Other options'}", ""]


def escape_patterns(*event: Any) -> None:
    """Keep a pattern of files, as runs/*, in the lines of a help text or docstring from being read as emphasis."""
    lines: list[str] = event[-1]
    lines[:] = [re.sub(r"(?<=[-/])\*", r"\\*", line) for line in lines]


def draw_dashes(app: Sphinx, page: nodes.document, name: str) -> None:
    """Draw the dash between a parameter and its description, which Sphinx writes as two hyphens."""
    for text in list(page.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def refuse_foreign_loads(app: Sphinx, error: Exception | None) -> None:
    """Fail the build where a page or a style sheet would load something from another host."""
    if error is None and app.builder.format == "html":
        found = [f"{path.name}: {url}" for path in Path(app.outdir).rglob("*") for url in foreign_loads(path)]
        if found:
            raise ExtensionError("pages load from elsewhere: " + ", ".join(sorted(set(found))[:5]))


def foreign_loads(path: Path) -> list[str]:
    """Return the addresses on other hosts that a browser would load for this page or style sheet."""
    if path.suffix == ".css":
        return STYLE_LOADS.findall(path.read_text("utf-8"))
    if path.suffix != ".html":
        return []
    page = path.read_text("utf-8")
    return LOADS.findall(page) + STYLE_LOADS.findall(page)
