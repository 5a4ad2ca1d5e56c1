"""Enough of PromQL, and of our rule files, to say which metrics and labels a query names; no Prometheus needed."""

import re
from dataclasses import dataclass

KEYWORDS = {"and", "or", "unless", "bool", "offset", "on", "ignoring", "by", "without", "group_left", "group_right"}
GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
METRIC = re.compile(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?![\w:])\s*(\{[^}]*\})?(?!\s*\()")
TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True)
class Named:
    """A metric in a query, with the labels that its selector names."""

    metric: str
    labels: frozenset[str]


def named(query: str) -> set[Named]:
    """Every metric of a query.

    >>> sorted(one.metric for one in named('sum by (job) (rate(a_total{x="b"}[5m] offset 1d)) > 2 * c:d and up'))
    ['a_total', 'c:d', 'up']
    """
    bare = TEXT.sub('""', query)
    bare = re.sub(r"\[[^\]]*\]", "", GROUPING.sub(" ", bare))
    bare = re.sub(r"\boffset\s+\S+?(?=[\s)]|$)", "", bare)
    found = set()
    for metric, selector in METRIC.findall(bare):
        if metric not in KEYWORDS:
            found.add(Named(metric, frozenset(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))))
    return found


def rules(text: str) -> dict[str, str]:
    """The queries of a rule file, by the name of the alert or of the record; each stands in a block after `expr: |`."""
    found = {}
    for name, indent, block in re.findall(r"- (?:alert|record): (\S+)\n( +)expr: \|\n((?:\2  .*\n)+)", text):
        assert indent
        found[name] = block
    return found
