"""The dashboard of whoever watches attacks: how many images are adversarial, by what, and may one believe it."""

from deploy.boards.board import Board, Panel, Query, Row

__all__ = ["ATTACKS"]

ADVERSARIAL = 'advsentry_verdicts_total{HERE, verdict="adversarial"}'
JUDGED = "advsentry_verdicts_total{HERE}"
SMALL = (0.001, 0.01, 0.1)
"""Bounds of small p-values; each is a bucket's."""


def _share(window: str, by: str = "", offset: str = "") -> str:
    """Of the images judged in a window, the adversarial ones; 0 where there are none."""
    grouped = f"sum by ({by}) " if by else "sum"
    of, found = (f"{grouped}(rate({metric}[{window}]{offset}))" for metric in (JUDGED, ADVERSARIAL))
    return f"({found} or 0 * {of}) / {of}"


def _stat(title: str, description: str, unit: str, expr: str, bad_above: float | None = None) -> Panel:
    return Panel(
        title=title,
        description=description,
        unit=unit,
        queries=[Query(expr=expr)],
        kind="stat",
        width=6,
        height=4,
        bad_above=bad_above,
    )


NOW = Row(
    title="Now",
    panels=[
        _stat(
            "Adversarial, last 10 minutes",
            "Share of the images judged. What callers ask for as target_fpr is expected of clean images alone.",
            "percentunit",
            _share("10m"),
        ),
        _stat(
            "Against the day before",
            "That share divided by the share of the day before; 3 and more with over 20 such images is an alert.",
            "x",
            f"({_share('10m')}) / ({_share('1d', offset=' offset 10m')})",
            bad_above=3,
        ),
        _stat(
            "Instances that raise the alarm",
            "On them far more images are adversarial than target_fpr lets expect of clean ones.",
            "none",
            "sum(advsentry_adversarial_share_alarm{HERE})",
            bad_above=1,
        ),
        _stat(
            "Detectors out of calibration",
            "By any instance's own count over an hour. While one is, read shares of adversarial images with care.",
            "none",
            "count(max by (detector) (advsentry_calibration_drift_alarm{HERE}) == 1) or vector(0)",
            bad_above=1,
        ),
    ],
)

VERDICTS = Row(
    title="Adversarial images",
    panels=[
        Panel(
            title="Adversarial images a second",
            description="All instances, and the same time a day ago.",
            unit="cps",
            queries=[
                Query(expr=f"sum(rate({ADVERSARIAL}[$__rate_interval]))", legend="now"),
                Query(expr=f"sum(rate({ADVERSARIAL}[$__rate_interval] offset 1d))", legend="a day ago"),
            ],
        ),
        Panel(
            title="Share of adversarial images",
            description="Over 10 minutes, all instances, and the same time a day ago.",
            unit="percentunit",
            queries=[
                Query(expr=_share("10m"), legend="now"),
                Query(expr=_share("10m", offset=" offset 1d"), legend="a day ago"),
            ],
        ),
        Panel(
            title="Share of adversarial images, by instance",
            description="One line above the others: one caller, whose connection ends there.",
            unit="percentunit",
            queries=[Query(expr=_share("10m", by="instance"), legend="{{instance}}")],
        ),
        Panel(
            title="Flags by reason",
            description="What the detectors that fired noticed. One flag is an explanation, not a verdict.",
            unit="cps",
            queries=[
                Query(
                    expr="sum by (reason) (rate(advsentry_flagged_total{HERE}[$__rate_interval]))", legend="{{reason}}"
                )
            ],
            is_stacked=True,
        ),
        Panel(
            title="Small fused p-values, times what clean images have",
            description="1 is what clean images give at each bound. Strong attacks raise the smallest bound first; "
            "all bounds alike are rather a change of the images.",
            unit="x",
            queries=[
                Query(
                    expr=f'sum(rate(advsentry_detector_p_value_bucket{{HERE, detector="fused", le="{bound}"}}[10m])) '
                    f'/ sum(rate(advsentry_detector_p_value_count{{HERE, detector="fused"}}[10m])) / {bound}',
                    legend=f"at most {bound}",
                )
                for bound in SMALL
            ],
        ),
        Panel(
            title="Fused p-values of the last hour",
            description="How many images had at most that. On clean traffic the counts grow as the bounds do.",
            unit="none",
            queries=[
                Query(
                    expr='sum by (le) (increase(advsentry_detector_p_value_bucket{HERE, detector="fused"}[1h]))',
                    legend="{{le}}",
                )
            ],
            kind="bargauge",
        ),
    ],
)

BELIEF = Row(
    title="May one believe it?",
    panels=[
        Panel(
            title="Share of p-values of at most 0.1, by detector",
            description="Over an hour and all instances; a tenth on images like those of the calibration. Outside 0.07 "
            "to 0.13 the calibration is not right for these images, or there is a flood of attacks.",
            unit="percentunit",
            queries=[
                Query(
                    expr='sum by (detector) (increase(advsentry_detector_p_value_bucket{HERE, le="0.1"}[1h])) '
                    "/ sum by (detector) (increase(advsentry_detector_p_value_count{HERE}[1h]))",
                    legend="{{detector}}",
                )
            ],
            bad_above=0.13,
            bad_below=0.07,
            width=12,
        ),
        Panel(
            title="The same by instance, of the worst detector",
            description="As each instance counts it; missing below 1000 images. One instance alone gets other images.",
            unit="percentunit",
            queries=[Query(expr="max by (instance) (advsentry_calibration_drift{HERE})", legend="{{instance}}")],
            bad_above=0.13,
            width=12,
        ),
    ],
)

PROBES = Row(
    title="Probing",
    panels=[
        Panel(
            title="Calls refused to their caller",
            description="No identity, no right, or over the rate: somebody tries, or a token has ended.",
            unit="reqps",
            queries=[
                Query(
                    expr="sum by (grpc_code) (rate(grpc_server_handled_total{HERE, "
                    'grpc_code=~"UNAUTHENTICATED|PERMISSION_DENIED|RESOURCE_EXHAUSTED"}[$__rate_interval]))',
                    legend="{{grpc_code}}",
                )
            ],
            width=12,
        ),
        Panel(
            title="Images that are none, by reason",
            description="A query attack sends good images; a search for holes in the decoder sends these.",
            unit="cps",
            queries=[
                Query(
                    expr="sum by (reason) (rate(advsentry_image_errors_total{HERE, "
                    'reason!~"INTERNAL|OVERLOADED|DEADLINE|REFUSED"}[$__rate_interval]))',
                    legend="{{reason}}",
                )
            ],
            is_stacked=True,
            width=12,
        ),
    ],
)

HISTORY = Row(
    title="Searches",
    panels=[
        Panel(
            title="Images that look like steps of a search",
            description="By whether they stand out among their client's own or among everyone's. Of harmless images at "
            "most --history-level do.",
            unit="cps",
            queries=[
                Query(
                    expr="sum by (scope) (rate(advsentry_history_flags_total{HERE}[$__rate_interval]))",
                    legend="{{scope}}",
                )
            ],
            is_stacked=True,
        ),
        Panel(
            title="Clients watched, and cut off",
            description="Those with such images within the window; `advsentry history` names them. Each of the servers "
            "that share a history counts all of them.",
            unit="none",
            queries=[Query(expr="sum by (state) (advsentry_history_clients{HERE})", legend="{{state}}")],
        ),
        Panel(
            title="Share of images that the history missed",
            description="More came than it can observe, or it failed. Above a tenth is an alert.",
            unit="percentunit",
            queries=[
                Query(
                    expr="sum by (instance) "
                    '(rate(advsentry_history_queries_total{HERE, outcome="unobserved"}[$__rate_interval])) '
                    "/ sum by (instance) (rate(advsentry_history_queries_total{HERE}[$__rate_interval]))",
                    legend="{{instance}}",
                )
            ],
            bad_above=0.1,
        ),
        Panel(
            title="Histories that see less than they should",
            description="1 while one fails, hangs or is without the others that share it; the log says why.",
            unit="none",
            queries=[Query(expr="max by (instance) (advsentry_history_degraded{HERE})", legend="{{instance}}")],
            bad_above=1,
        ),
    ],
)

ATTACKS = Board(
    uid="advsentry-attacks",
    title="advsentry: attacks",
    description="How many images are adversarial, by what, and may one believe it.",
    rows=[NOW, VERDICTS, BELIEF, HISTORY, PROBES],
)
