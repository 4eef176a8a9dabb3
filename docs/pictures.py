"""`make pictures`: draw docs/images anew, and write README's table of speeds, both from what is recorded or run now.

report.png is a screenshot of the report page of a small comparison, taken by a headless Chromium. speed.png and the
table in README.md show figures of benchmarks/results/reading.md.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
IMAGES = REPOSITORY / "docs" / "images"
READING = REPOSITORY / "benchmarks" / "results" / "reading.md"
BATCHES = ("batch 8", "batch 64", "batch 256")
FIRST = "ms"
SHOWN = {  # in README -> in the record
    "**this project, uint8 cache**": "ours, uint8 cache",
    "**this project, float32 cache**": "ours, float32 cache",
    "FFCV": "FFCV raw",
    "NumPy memory map, float32": "NumPy memmap, float32",
    "WebDataset, uint8": "WebDataset, uint8",
    "torchvision `ImageFolder`, 2 workers": "ImageFolder, 2 workers",
}
TABLE = re.compile(r"(?<=<!-- speed -->\n).*?(?=<!-- /speed -->)", re.DOTALL)
WIDTH, HEIGHT, COLORS = 1000, 1070, 64  # of the screenshot, in pixels; few colors make a small file

TRAIN = "train --val-fraction 0.4 --epochs 20 --seeds 0-7"
COMMANDS = (
    "build-cache data/example --size 64",
    f"{TRAIN} --name sgd",
    f"{TRAIN} --name adamw --opt adamw --lr 0.003 --augment flip",
    "report runs/sgd-seed-0/group.csv runs/adamw-seed-0/group.csv --out report.html",
)

Figures = dict[str, dict[str, str]]  # system -> column -> figure


def main() -> None:
    """Draw both pictures and write the table."""
    IMAGES.mkdir(exist_ok=True)
    figures = recorded_figures(READING.read_text("utf-8"))
    draw_speed(figures, IMAGES / "speed.png")
    readme = REPOSITORY / "README.md"
    readme.write_text(TABLE.sub(lambda _: speed_table(figures), readme.read_text("utf-8")), "utf-8")
    draw_report(IMAGES / "report.png")


def draw_report(target: Path) -> None:
    """Train two groups of networks on the example, and take a picture of the page that compares them."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("error: no browser: Chromium is not installed. Type: apt-get install chromium")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(REPOSITORY / "data" / "example", folder / "data" / "example")
        for command in COMMANDS:
            subprocess.run([sys.executable, REPOSITORY / "cli.py", *command.split()], cwd=folder, check=True)
        window = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}")
        picture = folder / "report.png"
        subprocess.run(
            [browser, *window, f"--screenshot={picture}", (folder / "report.html").as_uri()],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        shrink(picture, target)


def shrink(picture: Path, target: Path) -> None:
    """Write a picture with few colors."""
    from PIL import Image

    with Image.open(picture) as image:
        image.convert("RGB").quantize(COLORS).save(target, optimize=True)


def recorded_figures(record: str) -> Figures:
    """Read the tables of a record: of "3,900 (3,400–4,100)" the median; if two have a column, the first one counts."""
    figures: Figures = {}
    for table in record.split("\n### ")[1:]:
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
        for system, *cells in rows[2:]:
            for column, cell in zip(rows[0][1:], cells, strict=True):
                figures.setdefault(system, {}).setdefault(column, cell.partition(" (")[0])
    return figures


def speed_table(figures: Figures) -> str:
    """Return README's table of speeds as Markdown; a system that was not measured has dashes."""
    lines = ["| Images/s | batch 8 | batch 64 | batch 256 | first batch |", "| --- | ---: | ---: | ---: | ---: |"]
    for shown, system in SHOWN.items():
        row = figures.get(system, {})
        cells = [row.get(column, "–") for column in BATCHES]
        cells.append(f"{row[FIRST]} ms" if FIRST in row else "–")
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def draw_speed(figures: Figures, target: Path) -> None:
    """Draw the table as bars, a panel a batch size."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    names = [shown.strip("*").replace("`", "") for shown in SHOWN]
    figure, panels = pyplot.subplots(1, len(BATCHES), figsize=(10, 2.4), sharey=True, layout="constrained")
    for panel, column in zip(panels, BATCHES, strict=True):
        values = [float(figures.get(name, {}).get(column, "0").replace(",", "")) for name in SHOWN.values()]
        bars = panel.barh(names, values, color=["tab:blue" if "ours" in name else "silver" for name in SHOWN.values()])
        panel.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3, fontsize=8)
        panel.set_title(f"images/s, {column}", fontsize=9)
        panel.margins(x=0.25)
        panel.set_xticks([])
        panel.spines[["top", "right", "bottom"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.savefig(target, dpi=100)
    pyplot.close(figure)
    shrink(target, target)


if __name__ == "__main__":
    main()
