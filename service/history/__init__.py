"""The queries of late, and whether some of them belong to a search for an adversarial image.

`History.observe` (service/history/history.py) is the one entry. Below it: `fingerprints` and `projections` make the two
views of a query, `postings` finds the queries that share a key, `store` keeps queries within bounds, `components` joins
those that are near each other, `evidence` says how unlike benign traffic a component is, `calibration` ranks that, and
`calibrate` learns both from benign streams; `snapshot` keeps a history over a restart. Numpy and the standard library
only; used from one thread.
"""
