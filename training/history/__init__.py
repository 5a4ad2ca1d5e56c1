"""The calibration of the query history, as part of a bundle: benign streams, made and real, and what they give.

`pools` takes images that neither the network nor the detectors learned from, `kinds` makes streams of them, `traffic`
mixes these into hours, `folders` reads an operator's own, `queries` asks the bundle's graph, `making` calibrates,
`checking` measures false positives on streams of other images.
"""
