"""Pack the GPU check for a machine without a network: this tree, the wheels it needs, and how to run it.

    python benchmarks/pack_gpu_check.py --out gpu-check.tar.gz [--python 3.12]

The machine has to have torch and transformers of its own, and what they bring along: docs/gpu_check.md.
Wheels are fetched by pip for its version of Python, on Linux and x86-64, in the versions of constraints.txt.
"""

import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (
    *("analysis", "benchmarks", "experiments", "media", "model", "pipeline", "recipes", "shards", "src"),
    *("tests", "pyproject.toml"),
)
# What a machine with torch and transformers lacks. faiss-cpu is for whatever else is to be tried there.
PACKAGES = (
    "annotated-types", "braceexpand", "charset-normalizer", "pathlib-abc", "pydantic", "pydantic-core",
    "simplejpeg", "typing-extensions", "typing-inspection", "universal-pathlib", "webdataset", "faiss-cpu",
    # For the tests marked `gpu`.
    "hypothesis", "iniconfig", "packaging", "pluggy", "pygments", "pytest", "pytest-timeout",
    "sortedcontainers",
)  # fmt: skip
# pip matches the number in a platform's name exactly.
_PLATFORMS = (
    "manylinux1",
    "manylinux2014",
    *(f"manylinux_2_{n}" for n in (5, 12, 17, 24, 27, 28, 31, 34, 35)),
)
MAX_BYTES = 64 * 2**20

_RUN = """#!/usr/bin/env bash
# Run the GPU check with what is packed here: bash run.sh --out DIR [options of benchmarks/gpu_check.py]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ ! -d "$here/site" ]; then
  for wheel in "$here"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$here/site"; done
fi
export PYTHONPATH="$here/site:$here/tree/src${PYTHONPATH:+:$PYTHONPATH}"
exec python3 "$here/tree/benchmarks/gpu_check.py" "$@"
"""


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The archive, .tar.gz."
)
@click.option(
    "--python", "python_version", default="3.12", show_default=True, help="The machine's version of Python."
)
def main(out: Path, python_version: str) -> None:
    """Write the archive; it unpacks into the folder gpu-check."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"--out {out}: {error.strerror}") from error
    with tempfile.TemporaryDirectory() as temporary:
        fetch_wheels(Path(temporary), python_version)
        partial = Path(temporary) / "packed"
        with tarfile.open(partial, "w:gz") as archive:
            script = tarfile.TarInfo("gpu-check/run.sh")
            script.size, script.mode = len(_RUN.encode()), 0o755
            archive.addfile(script, io.BytesIO(_RUN.encode()))
            for name in tracked_files():
                archive.add(ROOT / name, f"gpu-check/tree/{name}", recursive=False)
            for wheel in sorted(Path(temporary).glob("*.whl")):
                archive.add(wheel, f"gpu-check/wheels/{wheel.name}")
        num_bytes = partial.stat().st_size
        if num_bytes > MAX_BYTES:
            raise click.ClickException(
                f"{num_bytes / 2**20:.1f} MiB, more than {MAX_BYTES / 2**20:.0f}; leave out a wheel"
            )
        shutil.move(partial, out)
    click.echo(
        f"{out}: {num_bytes / 2**20:.1f} MiB; there: tar -xzf {out.name} && bash gpu-check/run.sh --out found"
    )


def tracked_files() -> list[str]:
    """The files of FOLDERS under version control that are there; links stay links."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *FOLDERS],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return [name for name in listed.split("\0") if name and (ROOT / name).exists()]


def fetch_wheels(folder: Path, python_version: str) -> None:
    """Download PACKAGES in the versions of constraints.txt.

    A ClickException with pip's reason where that fails.
    """
    if not re.fullmatch(r"3\.\d+", python_version):
        raise click.ClickException(f"--python {python_version}: write it as 3.12")
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    versions = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    wanted = [f"{name}=={versions[name]}" for name in PACKAGES]
    platforms = [word for name in _PLATFORMS for word in ("--platform", f"{name}_x86_64")]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--only-binary=:all:", "--implementation", "cp", "--python-version", python_version, *platforms,
         "--dest", str(folder), *wanted],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["no reason given"]
        raise click.ClickException(f"pip cannot fetch the wheels: {lines[-1]}")


if __name__ == "__main__":
    main()
