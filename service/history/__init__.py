"""The queries of late, and whether some of them belong to a search for an adversarial image.

`History.observe_all` (service/history/history.py) is the one entry. Below it: `fingerprints` and `projections` make the
two views of a query, `store` keeps queries within bounds, the last of them in `recent` and all others in an `index` of
`postings` by key, `search` finds the nearest of them for many queries at once, `components` joins those that are near
each other, `evidence` says how unlike benign traffic a component is, `calibration` ranks that, and `calibrate` learns
both from benign streams; `snapshot` keeps a history over a restart.

`opening` gives the history that the settings name. Where several processes have one, that is a `SharedHistory`
(`shared`): a history in each, which apply the same entries in the order of a stream in Redis (`link`), where they lie
as `records`, sealed (`sealing`). Numpy and the standard library, and redis in `link`; used from one thread.
"""
