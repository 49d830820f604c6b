"""How far a run is: a record that is not what was written is no repetition, and its file is named."""

import re

from aifbench.services.client.tally import Tally
from tests.fixtures.recorded import DONE, write_recorded


def test_a_flipped_digit_in_a_record_costs_its_repetition_and_is_named(tmp_path):
    write_recorded(tmp_path / "small")
    tally = Tally(tmp_path, "small")
    counts, done, problems = tally.look()
    assert (counts, done, problems) == ({"valid": 4, "invalid": 0, "failed": 0, "missing": 0}, (12, 12), [])
    records = tmp_path / "small" / "batches" / DONE / "cases.jsonl"
    text = records.read_bytes()
    flipped = re.sub(rb'"value":0\.01', b'"value":0.02', text, count=1)
    assert len(flipped) == len(text)
    assert flipped != text
    records.write_bytes(flipped)
    counts, done, problems = Tally(tmp_path, "small").look()
    assert (counts["valid"], counts["missing"], done) == (3, 1, (11, 12))
    assert problems == [f"batches/{DONE}/cases.jsonl has 1 damaged line"]


def test_a_changed_plan_is_no_plan(tmp_path):
    write_recorded(tmp_path / "small")
    plan = tmp_path / "small" / "plan.json"
    plan.write_bytes(plan.read_bytes().replace(b'"min": 3', b'"min": 1', 1))
    counts, _, problems = Tally(tmp_path, "small").look()
    assert counts is None
    assert problems == ["plan.json is no plan that this version knows"]
