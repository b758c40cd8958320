"""`clipvip-data verify --repair`: making again restores every byte."""

import random
import shutil
from pathlib import Path

import pytest

from commands import run
from outputs import content
from tiny_ofa import make_ofa
from verify_folders import damage, verify


@pytest.fixture
def shards(intact: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(intact, tmp_path / "clips"))


@pytest.mark.slow
def test_repairing_and_making_again_restores_every_byte(
    made_by_stage: tuple[Path, tuple[object, ...]],
) -> None:
    """Also of a source whose clips fill several shards; shards that are whole are not written again."""
    folder, command = made_by_stage
    before = content(folder)
    names = sorted(path.name for path in folder.glob("*.tar"))
    assert len(names) == 5
    generator = random.Random(2)
    for round_number in range(2):
        hit = generator.sample(names, 2)
        for name in hit:
            size = (folder / name).stat().st_size
            place = generator.randrange(size)
            damage(folder / name, lambda data, place=place: data.__setitem__(place, data[place] ^ 0x40))
        if round_number == 0:
            (folder / "_state" / names[-1].replace("tar", "json")).write_text('{"samples": 3')
            hit.append(names[-1])
        if round_number == 1:
            (folder / "_state" / "options.json").write_text("{")
        found = verify(folder, "--repair")
        assert found["broken"] == sorted(set(hit))
        assert sorted(Path(path).name for path in found["removed"]) == sorted(set(hit))
        assert verify(folder)["problems"].keys() == {"missing"}
        assert run(*command).exit_code == 0
        assert content(folder) == before
        assert verify(folder)["counts"]["problems"] == 0


def test_repairing_leaves_whole_shards_alone(made_by_stage: tuple[Path, tuple[object, ...]]) -> None:
    folder, command = made_by_stage
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    last = max(times)
    damage(folder / last, lambda data: data.__setitem__(700, data[700] ^ 1))
    assert verify(folder, "--repair")["broken"] == [last]
    assert run(*command).exit_code == 0
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    assert {name for name in times if times[name] != after[name]} == {last}


@pytest.mark.slow
def test_repairing_captions_restores_every_byte(intact: Path, tmp_path: Path) -> None:
    model = make_ofa(tmp_path / "tiny-ofa")
    out = tmp_path / "captions"
    command = ("caption", "--shards", intact, "--out", out, "--model", model, "--gpus", 0, "--workers", 1)
    command += ("--num-beams", 1, "--max-length", 4)
    assert run(*command).exit_code == 0
    assert verify(intact, "--captions", out, "--decode", "none")["counts"]["problems"] == 0
    before = content(out)
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    path = out / "000001.parquet"
    damage(path, lambda data: data.__setitem__(100, data[100] ^ 1))
    found = verify(intact, "--captions", out, "--decode", "none", "--repair")
    assert (found["broken"], found["removed"]) == (["000001.parquet"], [str(path)])
    assert run(*command).exit_code == 0
    assert content(out) == before
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert {name for name in times if times[name] != after[name]} == {"000001.parquet"}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("seed", "num_rounds"), [(0, 5), pytest.param(1, 100, marks=pytest.mark.slow)])
def test_any_damage_to_any_file_is_found_and_undone(
    seed: int, num_rounds: int, made_by_stage: tuple[Path, tuple[object, ...]]
) -> None:
    """A flipped bit or a lost end of a shard, a mark, the manifest, the skips or the options."""
    folder, command = made_by_stage
    intact = content(folder)
    names = sorted(name for name, data in intact.items() if data and name != "report.json")
    generator = random.Random(seed)
    for _ in range(num_rounds):
        name = generator.choice(names)
        data = bytearray(intact[name])
        if generator.random() < 0.3:
            del data[generator.randrange(len(data)) :]
        else:
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        (folder / name).write_bytes(data)
        assert verify(folder, "--repair")["counts"]["problems"] > 0, name
        assert run(*command).exit_code == 0, name
        assert content(folder) == intact, name


def test_what_cannot_be_made_again_is_not_removed(shards: Path) -> None:
    """No `_state`: these shards were copied from elsewhere."""
    damage(shards / "000001.tar", lambda data: data.__setitem__(700, data[700] ^ 1))
    result = run("verify", shards, "--repair", "--workers", 1)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(
        f"Error: {shards}: _state/options.json is missing or damaged, so no command can make"
    )
    assert (shards / "000001.tar").is_file()
