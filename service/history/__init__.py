"""The queries of late, and whether some of them belong to a search for an adversarial image.

`History.observe` (service/history/history.py) is the one entry. Below it: `fingerprints` and `projections` make the two
views of a query, `postings` finds the queries that share a key, `store` keeps queries within bounds, `components` joins
those that are near each other, `evidence` says how unlike benign traffic a component is, and `calibrate` learns that
from benign streams. Numpy and the standard library only; used from one thread.
"""
