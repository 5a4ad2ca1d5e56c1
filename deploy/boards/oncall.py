"""The dashboard of whoever is on call: is it well, does it answer, does it keep up, and which instance does not."""

from deploy.boards.board import Board, Panel, Query, Row

__all__ = ["ONCALL"]

REFUSED = 'sum by (instance) (rate(advsentry_dropped_total{HERE, reason=~"overload|deadline"}[$__rate_interval]))'
ANSWERED = 'sum by (instance) (rate(advsentry_images_total{HERE, outcome="detected"}[$__rate_interval]))'
FAILED = 'code=~"INTERNAL|UNAVAILABLE|UNKNOWN|DATA_LOSS"'


def _stat(title: str, description: str, unit: str, expr: str, **bounds: float) -> Panel:
    return Panel(
        title=title,
        description=description,
        unit=unit,
        queries=[Query(expr=expr)],
        kind="stat",
        width=4,
        height=4,
        **bounds,  # type: ignore[arg-type]  # bad_above and bad_below only
    )


def _quantile(share: float, metric: str, by: str) -> str:
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({metric}[$__rate_interval])))"


WELL = Row(
    title="Is it well?",
    panels=[
        _stat(
            "Instances not ready",
            "Instances that are scraped and take no calls. Those that cannot be scraped are beside.",
            "none",
            "count(advsentry_ready{HERE} == 0) or vector(0)",
            bad_above=1,
        ),
        _stat(
            "Instances down",
            "Targets of Prometheus that do not answer.",
            "none",
            "count(up{HERE} == 0) or vector(0)",
            bad_above=1,
        ),
        _stat(
            "Oldest good canary",
            "Seconds since the instance that is worst off last answered its own known images rightly.",
            "s",
            "max(time() - advsentry_canary_last_success_timestamp_seconds{HERE})",
            bad_above=60,
        ),
        _stat(
            "Calls that fail by the server",
            "Share of calls that ended as INTERNAL, UNAVAILABLE, UNKNOWN or DATA_LOSS, over 5 minutes.",
            "percentunit",
            f"(sum(rate(advsentry_requests_total{{HERE, {FAILED}}}[5m])) or vector(0)) "
            "/ sum(rate(advsentry_requests_total{HERE}[5m]))",
            bad_above=0.001,
        ),
        _stat(
            "Certificate ends in",
            "Of the instance whose certificate ends first; empty without TLS.",
            "s",
            "min(advsentry_tls_certificate_expiry_timestamp_seconds{HERE} - time())",
            bad_below=14 * 86400,
        ),
        _stat(
            "Restarts in the last hour",
            "Workers and processes that ended unasked and were replaced.",
            "none",
            "(sum(increase(advsentry_worker_restarts_total{HERE}[1h])) or vector(0)) "
            "+ (sum(increase(advsentry_process_restarts_total{HERE}[1h])) or vector(0))",
            bad_above=1,
        ),
        Panel(
            title="Alerts that fire",
            description="All of them, also those for whom watches attacks; docs/deploy.md says what to do.",
            unit="none",
            queries=[Query(expr='ALERTS{alertstate="firing", alertname=~"Advsentry.*"}')],
            kind="table",
            width=12,
            height=6,
        ),
        Panel(
            title="What is served, on what",
            description="Bundle and execution provider of each instance. Several bundles for long are an alert.",
            unit="none",
            queries=[
                Query(
                    expr="advsentry_model_info{HERE} * on (job, instance) group_left (device, provider) "
                    "advsentry_execution_provider_info{HERE}"
                )
            ],
            kind="table",
            width=12,
            height=6,
        ),
    ],
)

TRAFFIC = Row(
    title="Traffic",
    panels=[
        Panel(
            title="Calls by status",
            description="Calls of the detection services that ended, by gRPC status.",
            unit="reqps",
            queries=[
                Query(expr="sum by (code) (rate(advsentry_requests_total{HERE}[$__rate_interval]))", legend="{{code}}")
            ],
            is_stacked=True,
        ),
        Panel(
            title="Images answered, by instance",
            description="Uneven lines mean that connections are spread unevenly, or that one instance is worse off.",
            unit="cps",
            queries=[Query(expr=ANSWERED, legend="{{instance}}")],
        ),
        Panel(
            title="Images without a detection, by reason",
            description="INTERNAL is ours; OVERLOADED and DEADLINE are load; the others are the callers'.",
            unit="cps",
            queries=[
                Query(
                    expr="sum by (reason) (rate(advsentry_image_errors_total{HERE}[$__rate_interval]))",
                    legend="{{reason}}",
                )
            ],
            is_stacked=True,
        ),
    ],
)

TIME = Row(
    title="Time",
    panels=[
        Panel(
            title="Time of a call",
            description="Calls of one message with images, all instances; streams last as long as their callers like.",
            unit="s",
            queries=[
                Query(
                    expr=_quantile(share, 'grpc_server_handling_seconds_bucket{HERE, grpc_type="unary"}', "job"),
                    legend=f"{share:.0%}",
                )
                for share in (0.5, 0.95, 0.99)
            ],
        ),
        Panel(
            title="95th percentile of an image, by stage",
            description="queue grows with load, inference with the graph and the batch, decode with the images.",
            unit="s",
            queries=[Query(expr=_quantile(0.95, "advsentry_stage_seconds_bucket{HERE}", "stage"), legend="{{stage}}")],
        ),
        Panel(
            title="95th percentile in the queue, by instance",
            description="The line is a quarter of an answer's 250 ms, from which on there is an alert.",
            unit="s",
            queries=[
                Query(
                    expr=_quantile(0.95, 'advsentry_stage_seconds_bucket{HERE, stage="queue"}', "instance"),
                    legend="{{instance}}",
                )
            ],
            bad_above=0.0625,
        ),
    ],
)

LOAD = Row(
    title="Load",
    panels=[
        Panel(
            title="Share turned away or too late, by instance",
            description="Of the images that wanted in. The line is the alert's.",
            unit="percentunit",
            queries=[Query(expr=f"{REFUSED} / ({REFUSED} + {ANSWERED})", legend="{{instance}}")],
            bad_above=0.01,
        ),
        Panel(
            title="Images that did not run, by reason",
            description="overload: refused at the door; deadline, cancelled: nobody waits; shutdown: the server ended.",
            unit="cps",
            queries=[
                Query(
                    expr="sum by (reason) (rate(advsentry_dropped_total{HERE}[$__rate_interval]))", legend="{{reason}}"
                )
            ],
            is_stacked=True,
        ),
        Panel(
            title="Images waiting, by instance",
            description="At its limit (--queue-items) an instance refuses.",
            unit="none",
            queries=[Query(expr="sum by (instance) (advsentry_queue_items{HERE})", legend="{{instance}}")],
        ),
        Panel(
            title="Bytes waiting, by instance",
            description="At its limit (--queue-bytes) an instance refuses.",
            unit="bytes",
            queries=[Query(expr="sum by (instance) (advsentry_queue_bytes{HERE})", legend="{{instance}}")],
        ),
        Panel(
            title="Images in one run of the graph",
            description="The mean, by instance. It grows with load, and throughput with it.",
            unit="none",
            queries=[
                Query(
                    expr="sum by (instance) (rate(advsentry_batch_size_sum{HERE}[$__rate_interval])) "
                    "/ sum by (instance) (rate(advsentry_batch_size_count{HERE}[$__rate_interval]))",
                    legend="{{instance}}",
                )
            ],
        ),
        Panel(
            title="How late the event loop wakes, by instance",
            description="Above 20 ms the processor is not enough, or somebody else has it.",
            unit="s",
            queries=[Query(expr="max by (instance) (advsentry_loop_lag_seconds{HERE})", legend="{{instance}}")],
            bad_above=0.02,
        ),
    ],
)

ONCALL = Board(
    uid="advsentry-oncall",
    title="advsentry: on call",
    description="Is it well, does it answer, does it keep up, and which instance does not.",
    rows=[WELL, TRAFFIC, TIME, LOAD],
)
