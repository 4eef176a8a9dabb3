"""Build the parts in C for any Python: nothing of Python is in them, so there is one wheel a platform."""

from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext


class BuildLibraries(build_ext):
    """Calls a library `_batch.so`, without the version of a Python in its name."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return its path."""
        return f"{fullname.replace('.', '/')}.so"


class WheelForAnyPython(bdist_wheel):
    """A wheel py3-none-PLATFORM; without a compiler, py3-none-any."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the parts of its tag."""
        libraries = self.get_finalized_command("build_ext")
        is_compiled = any(Path(libraries.get_ext_fullpath(part.name)).is_file() for part in libraries.extensions or ())
        return "py3", "none", super().get_tag()[2] if is_compiled else "any"


setup(cmdclass={"build_ext": BuildLibraries, "bdist_wheel": WheelForAnyPython})
