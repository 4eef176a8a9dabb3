"""Random trees with planted groups, exact copies and near copies, and what splits of them leak."""

import io
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count as numbers
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modelnet.data.folds import divide
from modelnet.data.groups import Groups, group_images, groups_by_pattern, near_copies
from modelnet.data.split_table import match_split, read_split, split_of, split_path, write_split
from pipeline import build_cache
from pipeline.errors import SourceError
from pipeline.format.sharded import Reader, open_reader
from tests.support.photos import textured

KINDS = ("resized", "recompressed", "cropped by 1 %", "cropped by 3 %")
WAYS = ("--group-near", "without --group-near", "a plain random split")
FOLDS, TEST = 4, 0.2


def copied(original: bytes, kind: str, choose: random.Random) -> bytes:
    """Return a near copy of a JPEG."""
    image: Image.Image = Image.open(io.BytesIO(original))
    width, height = image.size
    quality = 90
    if kind == "resized":
        scale = choose.uniform(0.5, 2)
        image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    elif kind == "recompressed":
        quality = choose.randint(30, 80)
    else:
        share = float(kind.split()[2]) / 100  # of each side, spread over both ends
        left, top = (choose.uniform(0, share) for _ in range(2))
        right, bottom = 1 - share + left, 1 - share + top
        image = image.crop((round(width * left), round(height * top), round(width * right), round(height * bottom)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def plant(root: Path, choose: random.Random) -> tuple[list[tuple[str, str]], list[tuple[str, str, str]]]:
    """Write a tree of patients in classes; return pairs of exact copies, and (original, near copy, kind), by name."""
    classes = [root / str(number) for number in range(choose.randint(2, 4))]
    for folder in classes:
        folder.mkdir(parents=True)
    exact, near = [], []
    number = numbers()
    for patient in range(choose.randint(12, 20)):
        for _ in range(choose.randint(1, 4)):
            name = f"patient{patient}_{next(number)}.jpg"
            file = io.BytesIO()
            width, height = (choose.randint(120, 260) for _ in range(2))
            textured(width, height, choose.getrandbits(40)).save(file, "JPEG", quality=90)
            (choose.choice(classes) / name).write_bytes(file.getvalue())
            chosen = choose.random()
            if chosen < 0.2:
                owner = "copy" if choose.random() < 0.8 else f"patient{choose.randint(0, 11)}"  # joins two patients
                exact.append((name, f"{owner}_{next(number)}.jpg"))
                (choose.choice(classes) / exact[-1][1]).write_bytes(file.getvalue())
            elif chosen < 0.7:
                kind = choose.choice(KINDS)
                near.append((name, f"near_{next(number)}.jpg", kind))
                (choose.choice(classes) / near[-1][1]).write_bytes(copied(file.getvalue(), kind, choose))
    return exact, near


def divided(reader: Reader, groups: Groups, stratify: bool) -> NDArray[np.int64] | None:
    """Return the folds as they are read back from a split.csv, of the first seed that leaves no fold empty.

    None where a group has more than half of the images, which is refused.
    """
    path = split_path(reader.path)
    for seed in numbers():
        try:
            folds = divide(reader, groups, FOLDS, TEST, seed, stratify)
        except SourceError as error:
            if groups.sizes.max() * 2 > reader.num_images:
                return None
            assert " came into " in error.reason
            continue
        write_split(split_of(reader, path, folds, groups.of, groups.names))
        return match_split(read_split(path), reader).folds
    raise AssertionError


@dataclass
class Trial:
    """A random tree and its splits.

    Attributes:
        exact: pairs of file names with the same content.
        near: (original, near copy, kind).
        patients: the number of planted groups.
        splits: by the way they were made, the fold of each file.
    """

    exact: list[tuple[str, str]]
    near: list[tuple[str, str, str]]
    patients: int
    splits: dict[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def straddling(self) -> list[str]:
        """Patients and exact copies in two folds of a split that is to keep them together."""
        found = []
        for way in WAYS[:2]:
            fold_of, of_patient = self.splits.get(way, {}), dict[str, set[int]]()
            for name, fold in fold_of.items():
                of_patient.setdefault(name.partition("_")[0], set()).add(fold)
            found += [p for p, folds in of_patient.items() if p.startswith("patient") and len(folds) > 1]
            found += [f"{a} and {b}" for a, b in self.exact if fold_of and fold_of[a] != fold_of[b]]
        return found


def split_a_random_tree(folder: Path, number: int) -> Trial:
    """Make a tree, cache and divide it, every tenth with classes alike; leave nothing behind."""
    choose = random.Random(number)
    trial = Trial(*plant(folder / "photos", choose), 0)
    build_cache(folder / "photos", folder / "c.h5", size=16, workers=1)
    reader = open_reader(folder / "c.h5")
    names = [name.decode() for name in reader.table("filenames").tolist()]
    patients = groups_by_pattern(reader, r"/(patient\d+)_")
    trial.patients = len(patients.names)
    for way, looks in zip(WAYS, (near_copies(reader), None), strict=False):
        folds = divided(reader, group_images(reader, [patients], looks), stratify=number % 10 == 0)
        if folds is not None:
            trial.splits[way] = dict(zip(names, folds.tolist(), strict=True))
    plain = np.random.default_rng(number).permutation(len(names)) % (FOLDS + 1)
    trial.splits[WAYS[2]] = dict(zip(names, plain.tolist(), strict=True))
    shutil.rmtree(folder / "photos")
    for file in folder.glob("c*"):
        file.unlink()
    return trial
