"""Follows all batches of all campaigns below the results folder, and holds what the monitor shows.

All state comes from files, and is rebuilt from them at each start; nothing is ever written. Sizes of the files of live
jobs are looked at on each `poll`, and times of the folders in which something is going on; all is listed when one of
these has changed, and every ten seconds. One thread polls at a time; what others read is under
a lock, or is a finished whole that does not change any more (`rows`, the samples of ended jobs).
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from aifbench.files.beneath import folder_beneath, folders_beneath, signature
from aifbench.files.bounded import read_beneath
from aifbench.log.levels import FILE, Rule, RulesFile, job_fields, threshold
from aifbench.log.writer import ERROR
from aifbench.services.monitor.campaigns import Campaign, judge_owner, planned_batches, supervised, was_cancelled
from aifbench.services.monitor.jobs import Job, all_bands
from aifbench.services.monitor.series import Sample, Series
from aifbench.services.monitor.slurm import Queue
from aifbench.services.monitor.stored import LOG_BYTES, labels, log_line, log_piece, stored_samples
from aifbench.services.values import mapping, number

LIST_EVERY_S = 10.0
OWNER_EVERY_S = 5.0
ALIVE_S = 15 * 60.0
"""A campaign in which nothing runs and nothing happened for longer than this is not at work any more."""
KEPT = 8
"""Ended jobs whose samples stay in memory after somebody looked at them."""
LOG_LINES = 500
LOCK_S = 5.0
SAMPLER = ("missed_ticks", "cpu_s")
MOST_AT_ONCE = 120
"""Samples of one job that one poll sends; where there are more, readers are told to ask for them."""


@dataclass(frozen=True)
class Event:
    """Something to tell readers: `topic` is `jobs`, or `job:<id>` for what only readers of that job want."""

    topic: str
    name: str
    data: bytes


class Reader:
    """The state of all jobs. `monotonic` and `wall` are clocks in seconds."""

    def __init__(
        self,
        results: Path,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._results = results
        self._rules = RulesFile(results / FILE)
        self._monotonic, self._wall = monotonic, wall
        self._lock = threading.Lock()
        self.queue = Queue()
        self.wants_slurm = False
        """Some job's state would be told by Slurm: somebody is to call `queue.ask`, in another thread."""
        self._answers = 0
        self.jobs: dict[str, Job] = {}
        self.rows: list[dict[str, Any]] = []
        """The row of each job, newest first. Replaced as a whole by each poll: safe to read without the lock."""
        self.passed_over = 0
        self.polls = 0
        self.poll_s = 0.0
        self.polled_at = 0.0
        self._campaigns: dict[str, Campaign] = {}
        self._at_work: set[str] = set()
        self._listed = -math.inf
        self._watched: list[int] = []
        self._checked: dict[str, float] = {}
        self._ended: OrderedDict[str, Series] = OrderedDict()
        self._sent: dict[str, dict[str, Any]] = {}

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the state. Raises TimeoutError when a poll holds it for long: the file system hangs then."""
        if not self._lock.acquire(timeout=LOCK_S):
            raise TimeoutError
        try:
            yield
        finally:
            self._lock.release()

    # -- polling ------------------------------------------------------------------------------------------------------

    def poll(self) -> list[Event]:
        """Look at the files once; return what is new, in the order of time."""
        began = self._monotonic()
        with self._held():
            events: list[Event] = []
            watched = self._watch()
            if began - self._listed >= LIST_EVERY_S or watched != self._watched:
                self._list(began)
                self._listed, self._watched = began, watched
            self._take_queue()
            for job in list(self.jobs.values()):
                if job.status is None and job.here and job.campaign in self._at_work:
                    self._look(job, began)
                if job.is_followed(began):
                    events += self._follow(job, began)
                elif job.series.last is not None:
                    if not job.is_compacted():
                        self._keep(job.id, job.series)
                    job.series = Series()
            if self.polls == 0:
                events = []  # nobody has asked yet, and those who will get all of it as the answer
            events += self._rows(began)
            self.polls += 1
            self.poll_s = self._monotonic() - began
            self.polled_at = self._wall()
        return events

    def _watch(self) -> list[int]:
        """Return when the folders changed in which new ones may appear: the root, and the campaigns at work."""
        self._at_work = self._alive()
        times = []
        for parts in ((), *((name, *more) for name in sorted(self._at_work) for more in ((), ("batches",)))):
            with contextlib.suppress(OSError), folder_beneath(self._results, *parts) as folder:
                times.append(os.fstat(folder).st_mtime_ns)
        return times

    def _list(self, now: float) -> None:
        """Find campaigns and batches that are new, have changed, or are gone."""
        names, self.passed_over = folders_beneath(self._results)
        found: set[str] = set()
        for name in names:
            batches, strange = folders_beneath(self._results, name, "batches")
            self.passed_over += strange
            known = self._campaigns.setdefault(name, Campaign())
            with contextlib.suppress(OSError):
                self._take_plan(name, known)
            known.launched = supervised(self._results, name)
            known.cancelled = was_cancelled(self._results, name)
            for batch in batches:
                job = self._job(name, batch)
                job.here = True
                found.add(job.id)
                if not job.is_live():
                    self._look(job, now)
            found |= {job.id for job in self.jobs.values() if job.campaign == name and job.planned and not job.record}
        for gone in self.jobs.keys() - found:
            self._campaigns[self.jobs.pop(gone).campaign].plan = None  # it may still be in the plan
            self._ended.pop(gone, None)
        for name in self._campaigns.keys() - set(names):
            del self._campaigns[name]

    def _job(self, campaign: str, batch: str) -> Job:
        fresh = Job(campaign, batch)
        return self.jobs.setdefault(fresh.id, fresh)

    def _take_plan(self, name: str, known: Campaign) -> None:
        with folder_beneath(self._results, name) as folder:
            here = os.fstat(folder)
            if known.folder != (here.st_dev, here.st_ino):
                known.folder, known.plan, known.seen_at = (here.st_dev, here.st_ino), None, here.st_mtime
            plan = signature(folder, "plan.json")
            if plan is None or plan == known.plan:
                return
            known.plan = plan
            known.seen_at = max(known.seen_at, plan.mtime_ns / 1e9)
            data = read_beneath(folder, "plan.json")
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            planned = set()
            for batch in planned_batches(data):
                job = self._job(name, batch.name)
                job.take_plan(batch.entry, batch.repetitions, batch.slurm, batch.params)
                planned.add(job.id)
            for job in self.jobs.values():
                job.planned = job.planned and (job.campaign != name or job.id in planned)

    def _look(self, job: Job, now: float) -> bool:
        """Read batch.json if it has changed; return whether it had."""
        try:
            with folder_beneath(self._results, job.campaign, "batches", job.batch) as folder:
                return self._take_record(job, folder, now)
        except OSError:
            return False

    def _take_record(self, job: Job, folder: int, now: float) -> bool:
        found = signature(folder, "batch.json")
        if found is None or found == job.record:
            return False
        was_live, first = job.is_live(), job.record is None
        try:
            data = read_beneath(folder, "batch.json")
        except OSError:
            return False
        if not job.take_record(data, now):
            return False
        job.record = found
        if first:  # the service has just started: how long ago things happened is told by the files' times
            age = max(0.0, self._wall() - found.mtime_ns / 1e9)
            job.seen_progress = now - age
            job.ended_seen = None if job.is_live() else now - age
        campaign = self._campaigns[job.campaign]
        campaign.seen_at = max(campaign.seen_at, found.mtime_ns / 1e9)
        if job.status == "terminated" and was_cancelled(self._results, job.campaign):
            campaign.cancelled = True
        if was_live or not first:
            self._ended.pop(job.id, None)
        return True

    def _follow(self, job: Job, now: float) -> list[Event]:
        """Read what is new of a live job."""
        topic = f"job:{job.id}"
        events: list[Event] = []
        try:
            with folder_beneath(self._results, job.campaign, "batches", job.batch) as folder:
                self._check_owner(job, folder, now)
                if not job.log_started:
                    job.log.start_near_end(folder, LOG_BYTES)
                job.log_started = True
                samples = self._new_samples(job, now)
                if len(samples) > MOST_AT_ONCE:
                    events.append(Event(topic, "behind", orjson.dumps({"id": job.id})))
                else:
                    events += [Event(topic, "sample", sample_event(job, *found)) for found in samples]
                begin, restarts = job.log.offset, job.log.restarts
                lines = [line for line in map(log_line, job.log.read(folder)) if line is not None]
                self._take_record(job, folder, now)
        except OSError:
            return events
        if lines:
            data = {"id": job.id, "lines": lines[-LOG_LINES:], "from": begin, "next": job.log.offset}
            events.append(Event(topic, "log", orjson.dumps({**data, "restarted": job.log.restarts > restarts})))
        return events

    def _new_samples(self, job: Job, now: float) -> list[tuple[Sample, dict[str, float]]]:
        first = job.seen_sample is None
        try:
            with folder_beneath(self._results, job.campaign, "batches", job.batch, "live") as live:
                before = job.seen_progress
                found = job.take_rows(job.samples.read(live), now)
                if found and first:
                    self._date(job, live, before, now)
                return found
        except OSError:
            return []

    def _date(self, job: Job, live: int, before: float | None, now: float) -> None:
        """After a start: take the age of the last sample and of the last progress from the file, not from now."""
        written = signature(live, job.samples.name)
        last = job.series.last
        if written is None or last is None:
            return
        age = max(0.0, self._wall() - written.mtime_ns / 1e9)
        job.seen_sample = now - age
        since = last.step.get("since_s") if last.step is not None else None
        begun = now - age - (last.t_s - since) if isinstance(since, int | float) else None
        job.seen_progress = max(
            (moment for moment in (before, begun) if moment is not None and moment <= now), default=now - age
        )

    def _check_owner(self, job: Job, folder: int, now: float) -> None:
        if now - self._checked.get(job.id, -math.inf) < OWNER_EVERY_S:
            return
        self._checked[job.id] = now
        judge_owner(job, folder, self.queue)

    def _take_queue(self) -> None:
        """Give the jobs what Slurm has said since the last poll, and find out whether it is to be asked."""
        self.wants_slurm = shutil.which("squeue") is not None and any(
            (job.is_live() and job.slurm_job()) or (job.slurm and job.status is None) for job in self.jobs.values()
        )
        if self.queue.answers == self._answers:
            return
        self._answers = self.queue.answers
        for job in self.jobs.values():
            number = job.slurm_job() if job.status is not None else None
            job.queue = self.queue.job(number) if number else self.queue.waiting(job.batch) if job.slurm else None
            job.changed = job.changed or number is not None

    def _rows(self, now: float) -> list[Event]:
        """Make the row of each job, and the event of those that have changed."""
        at_work = self._at_work = self._alive()
        rows, changed, rules = [], [], self._rules.rules()
        for job in self.jobs.values():
            cancelled = self._campaigns[job.campaign].cancelled
            job.cancelled, job.changed = cancelled, job.changed or cancelled != job.cancelled
            job.log_level = self._log_level(job, rules) if job.is_live() else None
            if job.changed or job.is_live() or job.status is None:
                job.make_row(now, job.campaign in at_work)
            rows.append(job.row)
            before = self._sent.get(job.id)
            if before is not job.row:
                fresh = job.row if before is None else {k: v for k, v in job.row.items() if v != before.get(k)}
                self._sent[job.id] = job.row
                if fresh:
                    changed.append({"id": job.id, **fresh})
        gone = list(self._sent.keys() - self.jobs.keys())
        for each in gone:
            del self._sent[each]
        rows.sort(key=lambda row: (row["started_at"] or "", row["batch"]), reverse=True)
        self.rows = rows
        if not changed and not gone:
            return []
        return [Event("jobs", "jobs", orjson.dumps({"jobs": changed, "gone": gone}))]

    def _log_level(self, job: Job, rules: list[Rule]) -> dict[str, Any] | None:
        """Return the level from which a job writes, and the configuration that decides; None: nobody has set one."""
        found = threshold(rules, job_fields(job.campaign, job.benchmark, job.batch), self._wall())
        if not found.known:
            return None
        over = found.level is None
        return {"level": ERROR if over else found.level, "config": found.name, "over": over}

    def _alive(self) -> set[str]:
        """Return the campaigns at work: a batch runs, its supervisor lives, or something happened a short time ago."""
        found = {job.campaign for job in self.jobs.values() if job.is_live() and job.lost is None}
        now = self._wall()
        return found | {
            name
            for name, known in self._campaigns.items()
            if known.launched or (known.launched is None and now - known.seen_at < ALIVE_S)
        }

    # -- questions ----------------------------------------------------------------------------------------------------

    def listed(self, state: str, most: int, run: str | None = None) -> tuple[list[dict[str, Any]], int]:
        """Return the rows of the jobs that are `active`, have `ended`, or `all`, and how many jobs there are in all.

        `most` of those that are not active, the newest; of one run (campaign) when it is named.
        """
        rows = [row for row in self.rows if run is None or row["campaign"] == run]
        active = [row for row in rows if row["active"]]
        ended = [row for row in rows if not row["active"] and row["state"] != "not-started"]
        ended.sort(key=lambda row: row["ended_at"] or row["started_at"] or "", reverse=True)
        waiting = [row for row in rows if row["state"] == "not-started"]
        found = {"active": active, "ended": ended[:most], "all": [*active, *ended[:most], *waiting[:most]]}
        return found[state], len(rows)

    def knows(self, run: str) -> bool:
        """Return whether there is a folder of this run (campaign) in the results."""
        return run in self._campaigns

    def detail(self, id: str) -> dict[str, Any] | None:
        """Return all that is known of a job but its samples: the row, phases as bands, facts, what its cases are.

        None: no such job.
        """
        with self._held():
            job = self.jobs.get(id)
            if job is None:
                return None
            campaign, batch = job.campaign, job.batch
            sampler = mapping(mapping(job.invocation.get("facts")).get("sampler"))
            told = {
                **job.row,
                "phases": all_bands(job),
                "sampler": {name: number(sampler.get(name)) for name in SAMPLER} if sampler else None,
                "samples_dropped": job.samples.dropped,
                "log_dropped": job.log.dropped,
            }
        return {**told, "cases": labels(self._results, campaign, batch)}

    def samples(self, id: str, since_s: float, step_s: float) -> dict[str, Any] | None:
        """Return the samples of a job's last invocation as columns (see `Series.columns`), and `used`, what all of them
        together tell (see `Series.used`). None: no such job.
        """
        with self._held():
            job = self.jobs.get(id)
            if job is None:
                return None
            index = job.invocation.get("index")
            head = {"id": id, "invocation": job.invocations or None, "started_at": job.row["started_at"]}
            if not job.is_compacted() and (job.is_live() or job.shown_sample() is not None):
                return {**head, **_told(job.series, since_s, step_s)}
            series = self._ended.get(id)
            where = (job.campaign, "batches", job.batch)
        if series is None:
            series = Series()
            with contextlib.suppress(OSError), folder_beneath(self._results, *where) as folder:
                for sample in stored_samples(folder, index):
                    series.add(sample)
            with self._held():
                self._keep(id, series)
        return {**head, **_told(series, since_s, step_s)}

    def _keep(self, id: str, series: Series) -> None:
        self._ended[id] = series
        self._ended.move_to_end(id)
        while len(self._ended) > KEPT:
            self._ended.popitem(last=False)

    def log(self, id: str, since: int | None) -> dict[str, Any] | None:
        """Return lines of a job's log from byte `since` on, or its end, and where to go on. None: no such job.

        `restarted` tells that the file is shorter than `since`, or holds no line there: then the end of it is given.
        """
        with self._held():
            job = self.jobs.get(id)
            if job is None:
                return None
            campaign, batch = job.campaign, job.batch
        return {"id": id, **log_piece(self._results, campaign, batch, since)}


def _told(series: Series, since_s: float, step_s: float) -> dict[str, Any]:
    return {"count": series.samples, "used": series.used(), **series.columns(since_s, step_s)}


def sample_event(job: Job, sample: Sample, values: dict[str, float]) -> bytes:
    """Return what readers of a job get of one sample: the time, the values of its series, records and the step."""
    told = {"id": job.id, "invocation": job.invocations, "t": round(sample.t_s, 3), "values": values}
    return orjson.dumps({**told, "records": sample.records, "step": sample.step})
