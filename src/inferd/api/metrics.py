"""Prometheus metrics. One settled entry feeds ledger, metrics and log, so they cannot disagree.

Labels are bounded: model names come from the catalogue, routes from the route table. No account,
token or end user is a label.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inferd.serving.router import Router
from inferd.storage.rows import EntryRow

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_PER_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class Metrics:
    """Everything that `/metrics` shows."""

    def __init__(self) -> None:
        disable_created_metrics()
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "inferd_requests",
            "Settled requests.",
            ["model", "task", "dialect", "status"],
            registry=registry,
        )
        self._cancelled = Counter(
            "inferd_cancelled",
            "Requests whose client left, by the stage it left in.",
            ["model", "stage"],
            registry=registry,
        )
        self._tokens = Counter(
            "inferd_tokens", "Tokens by kind.", ["model", "kind"], registry=registry
        )
        self._cost = Counter(
            "inferd_cost_nano_usd", "Cost in nano-dollars.", ["model"], registry=registry
        )

        def seconds(name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            name = f"inferd_{name}_seconds"
            return Histogram(name, text, ["model"], buckets=buckets, registry=registry)

        self._queue = seconds("queue", "Wait for a slot, loading included.")
        self._first = seconds("first_event", "Time to the first event of an answer.")
        self._runtime = seconds("runtime", "From slot to end.")
        self._per_token = seconds(
            "output_token", "Mean for each token after the first.", _PER_TOKEN
        )
        self._responses = Counter(
            "inferd_http_responses",
            "HTTP answers by route and status; 499 is a client that left.",
            ["route", "status"],
            registry=registry,
        )
        self._children: dict[tuple[str, ...], Counter] = {}

    def watch(self, router: Router) -> None:
        """Show the router's state at each scrape."""
        self._registry.register(_RouterCollector(router))

    def settled(self, entry: EntryRow) -> None:
        """Count one settled request."""
        model = entry.model
        self._requests.labels(model, entry.task, entry.dialect, entry.status).inc()
        if entry.status == "cancelled":
            self._cancelled.labels(model, entry.stage).inc()
        fresh = entry.input_tokens - entry.cached_tokens
        counts = (
            ("input", fresh),
            ("cached", entry.cached_tokens),
            ("output", entry.output_tokens),
        )
        for kind, count in counts:
            if count:
                self._tokens.labels(model, kind).inc(count)
        self._cost.labels(model).inc(entry.cost_nanos)
        self._queue.labels(model).observe(entry.queue_ms / 1000)
        self._runtime.labels(model).observe(entry.runtime_ms / 1000)
        if entry.first_event_ms is not None:
            self._first.labels(model).observe(entry.first_event_ms / 1000)
            after_first_ms = entry.queue_ms + entry.runtime_ms - entry.first_event_ms
            if entry.output_tokens > 1 and after_first_ms >= 0:
                per_token = after_first_ms / 1000 / (entry.output_tokens - 1)
                self._per_token.labels(model).observe(per_token)

    def responded(self, route: str, status: int) -> None:
        """Count one HTTP answer."""
        key = (route, str(status))
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._responses.labels(*key)
        child.inc()

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self._registry)


class _RouterCollector(Collector):
    def __init__(self, router: Router) -> None:
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
