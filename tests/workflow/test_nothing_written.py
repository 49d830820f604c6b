"""Who only looks writes nothing, and who cannot write says so in one line."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from aifbench.campaign.config import read_config
from aifbench.campaign.plan import make_plan, write_specs
from tests.truth.test_storage_truth import mounted
from tests.workflow.campaign import HOSTILE, STORAGE, checkout, run, write

ONE = {**STORAGE, "mode": "direct", "axes": {}}


def everything(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return time and size of all that is below a folder, but for Snakemake's own, which it makes in each case."""
    found = (path for path in folder.rglob("*") if ".snakemake" not in path.parts)
    return {path: (0 if path.name == "project" else path.lstat().st_mtime_ns, path.lstat().st_size) for path in found}


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the only line of ours; there is no traceback."""
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("aifbench: ")]
    return line


def test_a_dry_run_writes_nothing_and_tells_what_an_edited_campaign_would_do(tmp_path):
    project = checkout(tmp_path / HOSTILE / "project")
    folder = project.parent
    (folder / "target").mkdir()
    file = write(folder, ONE)
    before = everything(tmp_path)
    fresh = run(file, "--dry-run", project=project)
    assert fresh.returncode == 0, fresh.stderr
    assert "measure storage-target" in fresh.stdout
    assert everything(tmp_path) == before
    plan = make_plan(read_config([file]))
    write_specs(plan, plan.config.results)
    (batch,) = plan.batches
    done = plan.config.results / "batches" / batch / "done.json"
    done.parent.mkdir(parents=True)
    done.touch()
    file = write(folder, {**ONE, "repetitions": 4})
    before = everything(tmp_path)
    edited = run(file, "--dry-run", project=project)
    assert "measure storage-target" in edited.stdout  # though all is done by what stands in the folder
    assert everything(tmp_path) == before


@pytest.mark.heavy
@pytest.mark.parametrize(
    "asked",
    ["--lint", "--dag", "--rulegraph", "--filegraph", "--d3dag", "--summary", "--detailed-summary", "--unlock",
     "--list-rules", "--list-untracked", "--list-changes=input", "--cleanup-metadata=x",
     "--print-compilation"],
)  # fmt: skip
def test_whatever_is_asked_of_snakemake_but_to_run_writes_nothing(tmp_path, asked):
    project = checkout(tmp_path / HOSTILE / "project")
    file = write(project.parent, ONE)
    before = everything(tmp_path)
    said = run(file, asked, project=project)
    assert "Traceback" not in said.stderr
    assert everything(tmp_path) == before


def test_a_full_disk_of_results_is_one_line(tmp_path):
    file = write(tmp_path, ONE)
    with mounted(tmp_path / "results", "tmpfs", "size=1m") as results:
        (results / "somebody-elses").write_bytes(bytes(1 << 20))
        done = run(file, project=checkout(tmp_path / "project"))
        assert done.returncode == 2
        assert "results = " in one_line(done)
        assert "No space left on device" in done.stderr


def test_a_full_disk_of_the_working_folder_is_one_line(tmp_path):
    file = write(tmp_path, ONE)
    with mounted(tmp_path / "project", "tmpfs", "size=1m") as project:
        checkout(project)
        with open(project / "somebody-elses", "wb", buffering=0) as other:
            other.write(bytes(1 << 20))
        done = run(file, project=project)
        assert done.returncode == 2
        assert "the working folder = " in one_line(done)
        assert "No space left on device" in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_disk_that_fills_while_a_batch_runs_is_one_line_and_loses_no_repetition(tmp_path):
    file = write(tmp_path, {**ONE, "file_size": "1MiB", "repetitions": 6})
    with mounted(tmp_path / "results", "tmpfs", "size=2m") as results:
        plan = make_plan(read_config([file]))
        write_specs(plan, plan.config.results)
        (batch,) = plan.batches
        folder, spec = plan.config.results / "batches" / batch, plan.config.results / "specs" / f"{batch}.json"
        command = [sys.executable, "-m", "aifbench", "run", "--spec", str(spec)]
        command += ["--out", str(folder), "--done", str(folder / "done.json")]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        cases = folder / "cases.jsonl"
        while process.poll() is None and not (cases.exists() and cases.stat().st_size):
            time.sleep(0.02)
        with open(results / "somebody-elses", "wb", buffering=0) as other:
            while process.poll() is None:
                try:
                    other.write(bytes(4096))
                except OSError:
                    break
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 1, said
        assert "Traceback" not in said
        assert "No space left on device" in said.splitlines()[-1]
        assert not (folder / "done.json").exists()
        before = cases.read_bytes().rpartition(b"\n")[0]
        (results / "somebody-elses").unlink()
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
        assert cases.read_bytes().startswith(before)
        assert before


WRONG = [("a\nb", "config"), ("x{batch}", "results"), ("/x:y/python", "the checkout")]


@pytest.mark.parametrize(("name", "key"), WRONG)
def test_a_name_that_cannot_work_is_one_line_before_anything_is_written(tmp_path, name, key):
    project = checkout(tmp_path / "project")
    file = write(project, ONE)
    if key == "the checkout":  # whose interpreter lies there
        script = (
            "import sys; sys.executable = sys.argv[1]; from pathlib import Path; "
            "from aifbench.campaign.workflow import read_campaign; read_campaign([Path(sys.argv[2])], {}, main=True)"
        )
        argv = [sys.executable, "-c", script, name, str(file)]
        done = subprocess.run(argv, cwd=project, capture_output=True, text=True, check=False)
    elif key == "config":
        done = run(file.rename(project / f"{name}.yaml"), project=project)
    else:
        done = run(file, "--config", f"results={name}", project=project)
    assert done.returncode == 2
    assert f"{key} = " in one_line(done)
    assert not (project / "results").exists()
