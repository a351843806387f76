"""The owner of one model: it takes a batch, runs it, answers everyone in it, and goes on."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from math import inf

from horngate_server.core.clock import Clock
from horngate_server.core.errors import DeadlineExpired, ModelFailed, NotReady, RequestError
from horngate_server.core.inference import ModelInfo
from horngate_server.core.model import Model
from horngate_server.engine.batch_queue import Batch, BatchQueue, Work
from horngate_server.engine.batch_runner import BatchReport, BatchRunner, Outcome
from horngate_server.engine.cost_model import CostModel

log = logging.getLogger(__name__)


QUICK_S = 0.003
"""A batch expected to take no longer than this may hold up the thread that takes requests in."""


Finish = Callable[[ModelInfo, Sequence[Outcome], BatchReport | None], None]


class Executor:
    """The owner of a model, its waiting line and its lock: one batch at a time, on its own thread or a submitter's.

    With ``others``, as many batches at once as there are models.

    Args:
        info: which model it is.
        model: computes; only this executor calls it after `start`, one batch at a time.
        queue: where requests wait.
        costs: what batches cost.
        finish: takes the outcomes of a batch and its report; every submitted work appears in exactly one of both, once.
        clock: monotonic seconds.
        pad: compute batches of the ladder's sizes only, so that no new shape is compiled or tuned under traffic.
        quick_s: batches expected to take no longer than this are computed by whoever submits their last request.
        on_death: called with the exception should the loop itself fail; the process cannot serve then.
        begin: called first by its thread.
        aside: computes requests for signatures that are to be computed aside (`signature.Batching.aside`), at the same
            time, on a thread of its own; this executor starts, stops and closes it.
        others: more of the same model, for as many batches at once, each on a thread of its own.
    """

    def __init__(
        self,
        info: ModelInfo,
        model: Model,
        queue: BatchQueue,
        costs: CostModel,
        finish: Finish,
        *,
        clock: Clock,
        on_death: Callable[[BaseException], None],
        pad: bool = True,
        quick_s: float = QUICK_S,
        begin: Callable[[], None] = lambda: None,
        aside: "Executor | None" = None,
        others: Sequence[Model] = (),
    ) -> None:
        self.info = info
        self.costs = costs
        self._models = (*others, model)
        self._not_in_rows: set[str] = set()
        self._free = [
            BatchRunner(each, costs, clock, pad=pad, shrink=self._shrink, not_in_rows=self._not_in_rows)
            for each in self._models
        ]
        """Those that compute nothing at this moment."""
        self._queue = queue
        self._finish = finish
        self._clock = clock
        self._on_death = on_death
        self._quick_s = quick_s
        self._begin = begin
        self._aside = aside
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"executor-{info.name}-{info.version}", daemon=True)
            for _ in self._models
        ]

    @property
    def queue_rows(self) -> Mapping[str, int]:
        """Rows that wait, by priority; those aside too."""
        bulk = self._queue.bulk_rows
        waiting = {"interactive": self._queue.rows - bulk, "bulk": bulk}
        if self._aside is not None:
            return {priority: rows + waiting[priority] for priority, rows in self._aside.queue_rows.items()}
        return waiting

    @property
    def capacity_rows(self) -> int:
        """Rows of each priority that may wait."""
        return self._queue.capacity_rows

    @property
    def max_batch_rows(self) -> int:
        """Rows that are computed together at most."""
        return self._queue.max_batch_rows

    @property
    def at_once(self) -> int:
        """Batches that are computed at the same time at most."""
        return len(self._models)

    @property
    def delay_s(self) -> float:
        """How long a request may be kept waiting for others."""
        return self._queue.delay_s

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is computed, at this moment; what is computed aside does not count."""
        return len(self._free) == len(self._models) and not self._queue

    def start(self) -> None:
        """Begin to compute."""
        if self._aside is not None:
            self._aside.start()
        for thread in self._threads:
            thread.start()

    def submit(self, works: Sequence[Work], *, compute: bool = True) -> Sequence[Outcome]:
        """Put works in the line; return those that are refused, with the reason. Callable from any thread.

        A batch that can start at once and is over soon is computed right here: waking another thread and being woken
        by the answers costs more than such a batch. What arrives meanwhile waits in the transport, and is the next.

        Args:
            works: to compute.
            compute: whether a batch may be computed right here.
        """
        refused: list[Outcome] = []
        taken = None
        if self._aside is not None and any(work.plan.info.batching.aside for work in works):
            refused += self._aside.submit([work for work in works if work.plan.info.batching.aside])
            works = [work for work in works if not work.plan.info.batching.aside]
        with self._changed:
            for work in works:
                try:
                    self._admit(work)
                except RequestError as error:
                    refused.append(Outcome(work, error.bare()))
            if self._free and (due := self._queue.due()) is not None:
                if compute and due <= (now := self._clock()) and self._expected() <= self._quick_s:
                    taken = self._free.pop(), self._queue.take(now)
                else:
                    self._changed.notify()
        if taken is not None:
            runner, batch = taken
            self._guarded(lambda: self._compute(runner, batch))
            with self._changed:
                self._free.append(runner)
                if self._queue or self._closed:
                    self._changed.notify()
        return refused

    def refuse(self) -> None:
        """Refuse new work from now on."""
        if self._aside is not None:
            self._aside.refuse()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stop(self, timeout_s: float | None) -> bool:
        """Refuse new work, compute what waits, and end. False if that took too long: the rest is answered then."""
        self.refuse()
        began = self._clock()
        in_time = True
        if self._aside is not None:
            in_time = self._aside.stop(timeout_s)
        for thread in self._threads:
            thread.join(None if timeout_s is None else max(0.0, timeout_s - (self._clock() - began)))
        if any(thread.is_alive() for thread in self._threads):
            with self._changed:
                left = [Outcome(work, NotReady("the server stopped before its turn")) for work in self._queue.drain()]
            self._finish(self.info, left, None)
            return False
        return in_time

    def close(self) -> None:
        """Close the models; after `stop`."""
        if self._aside is not None:
            self._aside.close()
        for model in self._models:
            model.close()

    # --- private --------------------------------------------------------------------------------------

    def _expected(self) -> float:
        """Return the seconds that the next batch is likely to take."""
        first = self._queue.first()
        if first is None:
            return 0.0
        plan = first.plan
        if not plan.predictable:
            return inf
        return self.costs.expected(plan.alike, min(self._queue.rows, plan.max_rows, self._queue.max_batch_rows))

    def _admit(self, work: Work) -> None:
        """Add to the line, or raise why not. Holds the lock."""
        if self._closed:
            raise NotReady(f"model {self.info.name} version {self.info.version} is draining")
        if self._not_in_rows and work.plan.info.signature.function in self._not_in_rows:
            work = work._replace(plan=work.plan.alone())
        remaining = work.deadline - work.arrived
        if remaining < inf:
            least = self.costs.least(work.plan.alike, min(work.plan.rows, self._queue.max_batch_rows), work.arrived)
            if least is not None:  # only a run of its own kind can tell what it takes
                waiting = self._queue.ahead(work)
                needed = self._wait(waiting) + least
                if needed > remaining:
                    raise DeadlineExpired(
                        f"cannot be met: {waiting} rows wait, which takes {needed:.3f} s; "
                        f"the deadline is in {remaining:.3f} s"
                    )
        self._queue.put(work, self._wait)

    def _wait(self, rows: int) -> float:
        """Return the least seconds in which so many rows can be computed."""
        return self.costs.wait(rows) / len(self._models)

    def _shrink(self, rows: int) -> None:
        """Let batches have so many rows at most from now on."""
        with self._changed:
            if rows < self._queue.max_batch_rows:
                self._queue.limit(rows)

    def _run(self) -> None:
        def loop() -> None:
            self._begin()
            while self._step():
                pass

        self._guarded(loop)

    def _step(self) -> bool:
        """Compute the next batch, when there is one; False once stopped and empty. Nothing is kept of it meanwhile."""
        taken = self._next()
        if taken is None:
            return False
        runner, batch = taken
        self._compute(runner, batch)
        with self._changed:
            self._free.append(runner)
        return True

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # the loop must not end without anybody being told
            log.critical("the executor of model %s died", self.info.name, exc_info=True)
            with self._changed:
                self._closed = True
                left = [Outcome(work, ModelFailed("the executor died. This is a bug.")) for work in self._queue.drain()]
            self._finish(self.info, left, None)
            self._on_death(error)

    def _next(self) -> tuple[BatchRunner, Batch] | None:
        """Wait until a batch is due and somebody is free to compute it; None once stopped and empty."""
        with self._changed:
            while True:
                timeout = None
                if self._free:
                    due = self._queue.due()
                    if due is None:
                        if self._closed:
                            self._changed.notify_all()
                            return None
                    else:
                        now = self._clock()
                        if due <= now or self._closed:
                            taken = self._free.pop(), self._queue.take(now)
                            if self._free and self._queue:
                                self._changed.notify()
                            return taken
                        timeout = due - now
                self._changed.wait(timeout)

    def _compute(self, runner: BatchRunner, batch: Batch) -> None:
        """Run one batch and answer it; whatever the model does, the loop goes on."""
        ended: Sequence[Outcome] = [Outcome(work, reason) for work, reason in batch.dropped]
        if not batch.rows:
            self._finish(self.info, ended, None)
            return
        for outcomes, report in runner.run(batch):
            self._finish(self.info, [*ended, *outcomes], report)
            ended = ()
