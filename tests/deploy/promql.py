"""Enough of PromQL, and of our rule files, to say which metrics and labels a query names; no Prometheus needed."""

import re
from dataclasses import dataclass

KEYWORDS = {"and", "or", "unless", "bool", "offset", "on", "ignoring", "by", "without", "group_left", "group_right"}
GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
METRIC = re.compile(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?![\w:])\s*(\{[^}]*\})?(?!\s*\()")
SELECTED = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"(\d+)"')
TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True)
class Named:
    """A metric in a query, with the labels that its selector names."""

    metric: str
    wanted: frozenset[tuple[str, str]]
    """Label and value of its selector, whatever they are compared by; of a regular expression each alternative."""

    @property
    def labels(self) -> frozenset[str]:
        """Without their values."""
        return frozenset(label for label, _ in self.wanted)


def named(query: str) -> set[Named]:
    """Every metric of a query.

    >>> sorted(one.metric for one in named('sum by (job) (rate(a_total{x="b"}[5m] offset 1d)) > 2 * c:d and up'))
    ['a_total', 'c:d', 'up']
    """
    texts = list[str]()

    def numbered(found: re.Match[str]) -> str:
        texts.append(found[0][1:-1])
        return f'"{len(texts) - 1}"'

    bare = TEXT.sub(numbered, query)
    bare = re.sub(r"\[[^\]]*\]", "", GROUPING.sub(" ", bare))
    bare = re.sub(r"\boffset\s+\S+?(?=[\s)]|$)", "", bare)
    found = set()
    for metric, selector in METRIC.findall(bare):
        if metric not in KEYWORDS:
            pairs = SELECTED.findall(selector)
            found.add(Named(metric, frozenset((label, one) for label, n in pairs for one in texts[int(n)].split("|"))))
    return found


def rules(text: str) -> dict[str, str]:
    """The queries of a rule file, by the name of the alert or of the record; each stands in a block after `expr: |`."""
    found = {}
    for name, indent, block in re.findall(r"- (?:alert|record): (\S+)\n( +)expr: \|\n((?:\2  .*\n)+)", text):
        assert indent
        found[name] = block
    return found
