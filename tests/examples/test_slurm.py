"""The batch scripts of examples/slurm.

Their commands exist, and they run as on a cluster of two small machines.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipvip.pipeline.train.checkpoint import list_checkpoints
from clipvip.shards.format.captions import read_captions
from clipvip.shards.tar.reader import list_shards, read_shard
from doc_blocks import check_command
from doc_folder import make_doc_folder

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "examples" / "slurm").glob("*.sbatch"))
# What Slurm tells a job of two machines without GPUs, or a task of an array.
JOB = {
    "SLURM_ARRAY_TASK_ID": "1",
    "SLURM_CPUS_PER_TASK": "1",
    "SLURM_GPUS_ON_NODE": "0",
    "SLURM_JOB_ID": str(os.getpid()),
    "SLURM_JOB_NODELIST": "localhost",
    "SLURM_NNODES": "2",
}
# Slurm's own commands: the name of the first machine; and a process on each, which get the step's signals.
SCONTROL = "#!/usr/bin/env bash\necho localhost\n"
SRUN = """#!/usr/bin/env bash
while [[ $1 == -* ]]; do shift; done
echo $$ > srun.pid
trap 'kill -TERM $(jobs -p)' TERM
for node in $(seq "$SLURM_NNODES"); do "$@" & done
status=0
for job in $(jobs -p); do
  while kill -0 "$job" 2>/dev/null; do wait "$job" && code=0 || code=$?; done
  ((code == 0)) || status=$code
done
exit "$status"
"""


def write_programs(folder: Path, **scripts: str) -> Path:
    folder.mkdir()
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def environment(programs: Path, **changes: str) -> dict[str, str]:
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, **JOB, "PATH": path, "OMP_NUM_THREADS": "1", **changes}


def script(name: str) -> str:
    (found,) = (path for path in SCRIPTS if path.stem == name)
    return str(found)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_commands_exist(path: Path, tmp_path: Path) -> None:
    """Run with commands that write down how they were called."""
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    calls = tmp_path / "calls"
    note = f'#!/usr/bin/env bash\necho "${{0##*/}} ${{*@Q}}" >> {shlex.quote(str(calls))}\n'
    programs = write_programs(tmp_path / "bin", **{"clipvip-data": note, "srun": note, "scontrol": SCONTROL})
    for folder in ("parts/clips-000", "parts/clips-001", "parts/captions-000", "parts/captions-001"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "clips.jsonl").write_text("1\n2\n")
    command = ["bash", path]
    subprocess.run(command, cwd=tmp_path, env=environment(programs, NUM_PARTS="2"), check=True)
    called = [shlex.split(line) for line in calls.read_text().splitlines()]
    assert called and all(check_command(words) for words in called)


def test_there_are_scripts_for_each_stage() -> None:
    assert [path.stem for path in SCRIPTS] == ["caption", "merge", "pretrain-tasks", "pretrain", "shard"]


# Tasks that save a checkpoint when SIGTERM comes, or fail; and a note of what is put back into the queue.
TASKS = """#!/usr/bin/env bash
trap 'exit 143' TERM
touch running
[[ $FAILS ]] && exit 7
while true; do sleep 0.02; done
"""
QUEUE = """#!/usr/bin/env bash
if [[ $1 == requeue ]]; then echo "$2" >> requeued; else echo localhost; fi
"""


@pytest.mark.parametrize(
    ("sent", "fails", "code", "requeued"),
    [(signal.SIGUSR1, "", 0, [JOB["SLURM_JOB_ID"]]), (None, "yes", 7, [])],
)
def test_a_job_without_torchrun_goes_back_into_the_queue_when_its_time_is_up(
    tmp_path: Path, sent: signal.Signals | None, fails: str, code: int, requeued: list[str]
) -> None:
    programs = write_programs(tmp_path / "bin", srun=TASKS, scontrol=QUEUE)
    variables = environment(programs, FAILS=fails)
    job = subprocess.Popen(["bash", script("pretrain-tasks")], cwd=tmp_path, env=variables)
    while sent and not (tmp_path / "running").exists():
        assert job.poll() is None
        time.sleep(0.02)
    if sent:
        job.send_signal(sent)
    assert job.wait(30) == code
    noted = tmp_path / "requeued"
    assert (noted.read_text().split() if noted.exists() else []) == requeued


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos, subtitles, clips.jsonl and models, but neither clips nor captions."""
    folder = tmp_path_factory.mktemp("given") / "data"
    folder.mkdir()
    make_doc_folder(folder)
    for name in ("clips", "captions", "runs"):
        (folder / name).rename(folder / f"other-{name}")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_videos_to_a_model_with_a_stop_on_the_way(given: Path, tmp_path: Path) -> None:
    programs = write_programs(tmp_path / "bin", srun=SRUN, scontrol=SCONTROL)
    log = tmp_path / "log"

    def start(name: str, *options: str, **changes: str) -> subprocess.Popen[bytes]:
        variables = environment(programs, NUM_PARTS="2", **changes)
        with log.open("wb") as file:
            command = ["bash", script(name), *options]
            return subprocess.Popen(command, cwd=given, env=variables, stdout=file, stderr=subprocess.STDOUT)

    def submit(name: str, *options: str, **changes: str) -> None:
        assert start(name, *options, **changes).wait() == 0, log.read_text()[-4000:]

    for part in ("0", "1"):
        submit("shard", SLURM_ARRAY_TASK_ID=part)
        submit("caption", "--num-beams", "1", SLURM_ARRAY_TASK_ID=part)
    submit("merge")
    shards = list_shards(given / "clips")
    keys = {sample.key for path in shards for sample in read_shard(path)}
    assert keys == {key for path in shards for key in read_captions(given / "captions", path.stem)}
    assert len(keys) == sum(len(json.loads(line)["clip"]) for line in (given / "clips.jsonl").open())

    settings = ["data.num_frames=2", "data.max_text_tokens=40", "optim.batch_size=4", "optim.epochs=6"]
    tiny = ["--gpus", "0", *(word for setting in [*settings, "run.workers=1"] for word in ("--set", setting))]
    run, out = start("pretrain", *tiny, SLURM_GPUS_ON_NODE="1"), given / "runs" / "b32"
    while not ((out / "log.jsonl").is_file() and (out / "log.jsonl").read_text()):
        assert run.poll() is None, log.read_text()[-4000:]
        time.sleep(0.1)
    os.kill(int((given / "srun.pid").read_text()), signal.SIGTERM)
    assert run.wait() != 0
    assert list_checkpoints(out) and not (out / "model").exists(), log.read_text()[-4000:]
    submit("pretrain", *tiny, SLURM_GPUS_ON_NODE="1")
    assert (out / "model" / "model.safetensors").is_file()
