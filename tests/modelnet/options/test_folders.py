"""The folders that commands write into (modelnet/options/folders.py): declared once, and without torch."""

import ast
import subprocess
import sys

from modelnet.options import folders
from tests.support.command_line import REPOSITORY

DECLARED = {str(folders.CACHES), str(folders.FEATURES), str(folders.RUNS)}


def paths_in(code: bytes) -> set[str]:
    """Return the texts that code makes paths of."""
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    named = [call.args[0] for call in calls if call.args and getattr(call.func, "id", "") == "Path"]
    return {str(text.value) for text in named if isinstance(text, ast.Constant)}


def test_no_other_module_names_them() -> None:
    for file in (REPOSITORY / "modelnet").rglob("*.py"):
        expected = DECLARED if file.name == "folders.py" else set()
        assert paths_in(file.read_bytes()) & DECLARED == expected, file


def test_asking_for_them_imports_no_torch() -> None:
    program = "import sys; import modelnet.options.folders; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)
