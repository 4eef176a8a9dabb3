"""Random trees with planted groups and copies: no group and no exact copy straddles; how many near copies do."""

import io
import random
import shutil
from collections import Counter
from itertools import count as numbers
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from modelnet.data.folds import divide
from modelnet.data.groups import Groups, group_images, groups_by_pattern, near_copies
from modelnet.data.split_table import match_split, read_split, split_of, split_path, write_split
from pipeline import build_cache
from pipeline.errors import SourceError
from pipeline.format.sharded import Reader, open_reader
from tests.soak.conftest import Count
from tests.support.photos import textured

KINDS = ("resized", "recompressed", "cropped by 1 %", "cropped by 3 %")
FOLDS, TEST = 4, 0.2


def copied(original: bytes, kind: str, choose: random.Random) -> bytes:
    """Return a near copy of a JPEG."""
    image = Image.open(io.BytesIO(original))
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
        box = (width * left, height * top, width * (1 - share + left), height * (1 - share + top))
        image = image.crop(tuple(map(round, box)))
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
            assert "none came into" in error.reason
            continue
        write_split(split_of(reader, path, folds, groups.of, groups.names))
        return match_split(read_split(path), reader).folds
    raise AssertionError


def test_groups_and_exact_copies_never_straddle_and_near_ones_rarely(
    count: Count, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints the table of docs/splits.md."""
    trees, copies, torn = count(1000, 4), Counter[str](), Counter[tuple[str, str]]()
    groups_seen = exact_seen = refused = 0
    for number in range(trees):
        choose = random.Random(number)
        exact, near = plant(workspace / "photos", choose)
        build_cache(workspace / "photos", workspace / "c.h5", size=16, workers=1)
        reader = open_reader(workspace / "c.h5")
        names = [name.decode() for name in reader.table("filenames").tolist()]
        patients = groups_by_pattern(reader, r"/(patient\d+)_")
        stratify = number % 10 == 0
        plain = np.random.default_rng(number).permutation(len(names)) % (FOLDS + 1)
        splits = {"a plain random split": dict(zip(names, plain.tolist(), strict=True))}
        for way, looks in (("without --group-near", None), ("--group-near", near_copies(reader))):
            folds = divided(reader, group_images(reader, [patients], looks), stratify)
            if folds is None:
                break
            splits[way] = dict(zip(names, folds.tolist(), strict=True))
            of_patient: dict[str, set[int]] = {}
            for name, fold in splits[way].items():
                of_patient.setdefault(name.partition("_")[0], set()).add(fold)
            assert all(len(found) == 1 for owner, found in of_patient.items() if owner.startswith("patient")), number
            assert all(splits[way][a] == splits[way][b] for a, b in exact), number
        if len(splits) < 3:
            refused += 1
            near = []
        groups_seen += len(patients.names)
        exact_seen += len(exact)
        for original, copy, kind in near:
            copies[kind] += 1
            for way, fold_of in splits.items():
                torn[kind, way] += fold_of[original] != fold_of[copy]
        shutil.rmtree(workspace / "photos")
        for file in workspace.glob("c.h5*"):
            file.unlink()
    ways = ("--group-near", "without --group-near", "a plain random split")
    with capsys.disabled():
        print(f"\n{trees} trees, {groups_seen} groups and {exact_seen} exact copies: none straddles; {refused} refused")
        print("| Near copies | Number | " + " | ".join(ways) + " |")
        for kind in KINDS:
            shares = [f"{torn[kind, way] / max(copies[kind], 1):.1%}" for way in ways]
            print(f"| {kind} | {copies[kind]} | {' | '.join(shares)} |")
    assert refused <= 0.01 * trees
    assert groups_seen > 10 * trees and exact_seen > 4 * trees and min(copies.values()) > trees
    for kind, most in zip(KINDS, (0.05, 0.05, 0.2, 0.7), strict=True):
        assert torn[kind, "--group-near"] <= 2 + most * copies[kind], kind
    assert sum(torn[kind, "a plain random split"] for kind in KINDS) > 0.6 * sum(copies.values())
