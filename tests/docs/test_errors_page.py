"""The page of errors and exit codes says what the exception classes are."""

import re

from docs.generated import error_classes, exit_code_table
from pipeline import errors
from tests.support.command_line import REPOSITORY

EXCEPTIONS = {
    name: error.exit_code
    for name, error in vars(errors).items()
    if isinstance(error, type) and issubclass(error, errors.PipelineError) and error is not errors.PipelineError
}
OF_NO_EXCEPTION = {0, 1, 3, 129, 130, 143}


def test_the_table_has_every_exception_with_its_exit_code() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", exit_code_table(), re.MULTILINE)

    assert {name: int(code) for code, name in rows} == EXCEPTIONS
    assert len(rows) == len(EXCEPTIONS)


def test_the_page_explains_each_exit_code_once() -> None:
    page = (REPOSITORY / "docs" / "errors.md").read_text("utf-8")
    explained = [int(code) for row in re.findall(r"^\| ([\d, ]+) \|", page, re.MULTILINE) for code in row.split(",")]

    assert sorted(explained) == sorted(OF_NO_EXCEPTION | set(EXCEPTIONS.values()))


def test_the_drawing_shows_every_class_below_its_base_with_its_code() -> None:
    drawn = re.findall(r"^([│ ]*)[├└]── (\w+) *(\d*)", errors.__doc__ or "", re.MULTILINE)
    found = [(len(indentation) // 4 + 1, name, int(code or 1)) for indentation, name, code in drawn]

    depths = [sum(issubclass(base, errors.PipelineError) for base in error.__mro__) - 1 for error in error_classes()]
    expected = [(depth, e.__name__, e.exit_code) for depth, e in zip(depths, error_classes(), strict=True)]
    assert found == expected
