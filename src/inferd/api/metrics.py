"""Prometheus metrics. One settled entry feeds ledger, metrics and log, so they cannot disagree.

Labels are bounded: model names come from the catalogue, routes from the route table. No account,
token or end user is a label.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inferd.api.merged_metrics import merged
from inferd.serving.routing import Routing
from inferd.storage.rows import EntryRow
from inferd.storage.verifications import VerificationRow

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_KINDS = ("input", "cached", "output")
_PER_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class Metrics:
    """Everything that `/metrics` shows."""

    def __init__(self) -> None:
        disable_created_metrics()
        self._registry = registry = CollectorRegistry()
        self._shared = CollectorRegistry()
        """What all gateways of a machine have in common."""
        self.requests = Counter(
            "inferd_requests",
            "Settled requests.",
            ["model", "task", "dialect", "status"],
            registry=registry,
        )
        self.cancelled = Counter(
            "inferd_cancelled",
            "Requests whose client left, by the stage it left in.",
            ["model", "stage"],
            registry=registry,
        )
        self.tokens = Counter(
            "inferd_tokens", "Tokens by kind.", ["model", "kind"], registry=registry
        )
        self.cost = Counter(
            "inferd_cost_nano_usd", "Cost in nano-dollars.", ["model"], registry=registry
        )

        def seconds(name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            name = f"inferd_{name}_seconds"
            return Histogram(name, text, ["model"], buckets=buckets, registry=registry)

        self.queue = seconds("queue", "Wait for a slot, loading included.")
        self.first = seconds("first_event", "Time to the first event of an answer.")
        self.runtime = seconds("runtime", "From slot to end.")
        self.per_token = seconds("output_token", "Mean for each token after the first.", _PER_TOKEN)
        self._responses = Counter(
            "inferd_http_responses",
            "HTTP answers by route and status; 499 is a client that left.",
            ["route", "status"],
            registry=registry,
        )
        self._differences = Gauge(
            "inferd_ledger_differences",
            "What the last check of the ledger found wrong.",
            registry=self._shared,
        )
        self._verified = Gauge(
            "inferd_ledger_verified_timestamp_seconds",
            "When the ledger was checked last; 0: not yet.",
            registry=self._shared,
        )
        self._children: dict[tuple[str, ...], Counter] = {}
        self._models: dict[str, _ModelMetrics] = {}

    def verified(self, found: VerificationRow) -> None:
        """Show what the last check of the ledger found."""
        self._differences.set(found.differences)
        self._verified.set(found.ended_unix_ns / 1e9)

    def watch(self, router: Routing) -> None:
        """Show the router's state at each scrape."""
        self._shared.register(_RouterCollector(router))

    def settled(self, entry: EntryRow) -> None:
        """Count one settled request."""
        model = self._models.get(entry.model)
        if model is None:
            model = self._models[entry.model] = _ModelMetrics(self, entry.model)
        model.settled(entry)

    def responded(self, route: str, status: int) -> None:
        """Count one HTTP answer."""
        key = (route, str(status))
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._responses.labels(*key)
        child.inc()

    def render(self, router: Routing) -> bytes:
        """The text exposition format, of all gateways of this machine."""
        own = self.render_own()
        if router.index is not None:
            own = merged({**router.others, router.index: own})
        return own + self.render_shared()

    def render_shared(self) -> bytes:
        """What is the same whichever gateway of this machine is asked."""
        return generate_latest(self._shared)

    def render_own(self) -> bytes:
        """What this process counted."""
        return generate_latest(self._registry)


class _ModelMetrics:
    """One model's children of every metric: finding them by label would cost more than they do."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._model = model
        self._tokens = {kind: metrics.tokens.labels(model, kind) for kind in _KINDS}
        self._cost = metrics.cost.labels(model)
        self._queue = metrics.queue.labels(model)
        self._first = metrics.first.labels(model)
        self._runtime = metrics.runtime.labels(model)
        self._per_token = metrics.per_token.labels(model)
        self._requests: dict[tuple[str, str, str], Counter] = {}

    def settled(self, entry: EntryRow) -> None:
        key = (entry.task, entry.dialect, entry.status)
        requests = self._requests.get(key)
        if requests is None:
            requests = self._requests[key] = self._metrics.requests.labels(self._model, *key)
        requests.inc()
        if entry.status == "cancelled":
            self._metrics.cancelled.labels(self._model, entry.stage).inc()
        self._tokens["input"].inc(entry.input_tokens - entry.cached_tokens)
        self._tokens["cached"].inc(entry.cached_tokens)
        self._tokens["output"].inc(entry.output_tokens)
        self._cost.inc(entry.cost_nanos)
        self._queue.observe(entry.queue_ms / 1000)
        self._runtime.observe(entry.runtime_ms / 1000)
        if entry.first_event_ms is not None:
            self._observe_first(entry, entry.first_event_ms)

    def _observe_first(self, entry: EntryRow, first_ms: int) -> None:
        self._first.observe(first_ms / 1000)
        after_first_ms = entry.queue_ms + entry.runtime_ms - first_ms
        if entry.output_tokens > 1 and after_first_ms >= 0:
            self._per_token.observe(after_first_ms / 1000 / (entry.output_tokens - 1))


class _RouterCollector(Collector):
    def __init__(self, router: Routing) -> None:
        self._router = router

    def collect(self) -> Iterator[Metric]:
        snapshot = self._router.snapshot()
        gauges = {
            "replicas": GaugeMetricFamily("inferd_replicas", "Ready replicas.", labels=["model"]),
            "in_flight": GaugeMetricFamily("inferd_in_flight", "Slots in use.", labels=["model"]),
            "slots": GaugeMetricFamily("inferd_slots", "Slots.", labels=["model"]),
            "queued": GaugeMetricFamily("inferd_queued", "Waiting requests.", labels=["model"]),
            "memory_bytes": GaugeMetricFamily(
                "inferd_worker_memory_bytes", "Resident bytes of workers.", labels=["model"]
            ),
        }
        for model in snapshot.models:
            for name, gauge in gauges.items():
                gauge.add_metric([model.model], float(getattr(model, name)))
        yield from gauges.values()
        for name in ("loads", "evictions", "deaths"):
            total = CounterMetricFamily(f"inferd_replica_{name}", f"Replica {name} since start.")
            total.add_metric([], float(getattr(snapshot, name)))
            yield total
