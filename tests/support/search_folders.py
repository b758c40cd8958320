"""Shards, models and the command of `clipvip-eval search`, and what it should find."""

from pathlib import Path

from click.testing import CliRunner, Result

from clipvip.media.sampling import uniform_indices
from clipvip.model import ClipVip
from clipvip.pipeline.evaluate.cli import main
from clipvip.shards.files.hashes import sha256_of_file
from clipvip.shards.format.manifest import ShardRecord, write_manifest
from clipvip.shards.tar.reader import list_shards, read_shard
from tiny_clip import make_clip, tiny_tokenizer


def make_model(folder: Path, *, seed: int = 0) -> Path:
    ClipVip.from_clip(str(make_clip(folder / "clip", seed=seed)), temporal_size=4).save_pretrained(
        folder / "vip"
    )
    tiny_tokenizer().save_pretrained(folder / "vip")
    return folder / "vip"


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["search", "--device", "cpu", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def run_well(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def error_of(result: Result) -> str:
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    return line


def list_again(folder: Path) -> None:
    """Let the manifest list the shards that are there."""
    records = [
        ShardRecord(path.name, sum(1 for _ in read_shard(path)), path.stat().st_size, sha256_of_file(path))
        for path in sorted(folder.glob("*.tar"))
    ]
    write_manifest(folder, stage="shard", options={}, shards=records)


def expected(model: Path, shards: Path, sentence: str) -> list[tuple[float, str]]:
    """(similarity, key) of all clips, the best first, one clip at a time and straight from the model."""
    vip = ClipVip.from_pretrained(model).eval()
    found = []
    text = vip.encode_text([sentence]).numpy()[0]
    for path in list_shards(shards):
        for sample in read_shard(path):
            frames = sample.decode(uniform_indices(sample.num_frames, 4))
            found.append((float(text @ vip.encode_video([frames]).numpy()[0]), sample.key))
    return sorted(found, reverse=True)
