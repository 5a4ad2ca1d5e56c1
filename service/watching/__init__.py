"""The query history at work in a server: who is watched, what becomes of it, and what operators see.

`opening` makes a `HistoryWatch` (`watch.py`) of the settings and a bundle; the edge hands it each answered image. A
thread of its own (`observer.py`) owns the history, so that serving waits for it only where its mode says so. `ledger`
counts flags by client; `telling` has the log and health say what matters.
"""
