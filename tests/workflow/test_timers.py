"""What Snakemake leaves running when a campaign has ended."""

import subprocess
import sys

SNAKEFILE = """
from aifbench.campaign.workflow import end_timers

rule all:
    output: "made"
    shell: "touch {output}"

onsuccess:
    end_timers()
"""


def test_a_run_ends_with_its_last_job_and_not_an_hour_later(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--max-jobs-per-timespan", "1000/1h"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=200)
    assert (tmp_path / "made").exists()
