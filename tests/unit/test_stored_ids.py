"""Ids never change: those of the shipped campaigns are the ones that stand in tests/fixtures/ids.

A campaign that grows adds lines to its list; a line that goes, or another id for the same case, makes every result that
people have already measured another one.
"""

from pathlib import Path

import pytest

from aifbench.campaign.config import read_config
from aifbench.campaign.plan import make_plan

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "tests" / "fixtures" / "ids"
CAMPAIGNS = {"laptop": "config.yaml", "meluxina": "meluxina.yaml"}


def lines(plan):
    labels = plan.labels()
    return [f"{case.id} {batch.id} {labels[case.id]}" for batch in plan.batches.values() for case in batch.cases]


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_the_ids_of_the_shipped_campaigns_are_the_stored_ones(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SBATCH_ACCOUNT", "p200000")
    plan = make_plan(read_config([ROOT / "config" / CAMPAIGNS[name]]))
    assert lines(plan) == (STORED / f"{name}.txt").read_text(encoding="utf-8").splitlines()
