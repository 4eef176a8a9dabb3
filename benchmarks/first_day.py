"""Time the first day of a new user: a bare environment, the wheel, photographs of their own, a network elsewhere.

    make dist
    python3 benchmarks/first_day.py FOLDER dist/*.whl
    python3 benchmarks/first_day.py FOLDER dist/*.whl --python python3.13

FOLDER holds a folder of photographs for each class. Everything is installed by pip, or faster with `--uv uv`. The last
command runs in a second environment, which has Pillow, NumPy and ONNX Runtime alone. No compiler is found, and nothing
of a clone. Needs Python's standard library.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Run the commands in a folder of their own, and print how long each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", default=sys.executable, help="the Python of both environments")
    parser.add_argument("--uv", help="the uv that installs; else pip does")
    parser.add_argument("--workdir", type=Path, help="where to work: 7 GB are needed")
    options = parser.parse_args()
    photos, wheel = options.folder.resolve(), options.wheel.resolve()
    photograph = next(path for path in sorted(photos.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg"))
    tools, elsewhere = Path("venv", "bin"), Path("elsewhere", "bin")
    commands: tuple[tuple[str | Path, ...], ...] = (
        (options.python, "-m", "venv", "venv"),
        (*installer(options.uv, tools), f"{wheel}[export]"),
        (tools / "modelnet", "build-cache", photos),
        (tools / "modelnet", "show", "data/cache/*.h5"),
        (tools / "modelnet", "train", "--epochs", "10"),
        (tools / "modelnet", "report", "runs/*-001"),
        (tools / "modelnet", "export", "runs/*-001"),
        (tools / "modelnet", "predict", "runs/*-001", photograph, "--json"),
        (options.python, "-m", "venv", "elsewhere"),
        (*installer(options.uv, elsewhere), "pillow", "numpy", "onnxruntime"),
        (elsewhere / "python", "runs/*-001/infer.py", photograph),
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean["CC"] = "/no/compiler"
    with tempfile.TemporaryDirectory(prefix="first-day-", dir=options.workdir) as folder:
        for words in commands:
            command = [next(Path(folder).glob(str(word)), word) if "*" in str(word) else word for word in words]
            typed = " ".join(map(str, command)).replace(f"{folder}/", "").replace(f"{wheel.parent}/", "")
            start = time.monotonic()
            ended = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)
            print(f"{time.monotonic() - start:7.1f} s  {typed}", flush=True)
            if ended.stdout:
                print("           " + ended.stdout.splitlines()[-1])
            if ended.returncode:
                sys.exit(f"exit code {ended.returncode}\n{ended.stdout}{ended.stderr}")


def installer(uv: str | None, tools: Path) -> tuple[str | Path, ...]:
    """Return what installs packages into the environment of `tools`."""
    if uv is None:
        return tools / "pip", "install", "--quiet"
    return uv, "pip", "install", "--quiet", "--python", tools / "python"


if __name__ == "__main__":
    main()
