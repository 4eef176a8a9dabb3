"""verify: what it says of a whole and of a damaged cache."""

from pathlib import Path

from tests.support.command_line import RunCli


def test_verify_says_that_all_is_well_or_names_what_is_not(cache_path: Path, tmp_path: Path, run_cli: RunCli) -> None:
    data = bytearray(cache_path.read_bytes())
    data[8192 + 49152 * 3 + 5] ^= 1
    (tmp_path / "damaged.h5").write_bytes(data)

    good, bad = run_cli("verify", cache_path), run_cli("verify", "damaged.h5")

    assert (good.code, good.stdout, good.stderr) == (0, "every row and table is as it was built\n", "")
    assert bad.code == 65
    assert bad.stdout == "row 3 (class 1, n03874293_775.JPEG) is not as it was written\n"
    assert bad.stderr == "Run build-cache again; it rebuilds just the damaged rows.\n"
