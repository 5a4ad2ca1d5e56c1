"""`advsentry-train analyse`: the papers' analyses of finished runs. A new one: one file, one field of `RunAnalysis`."""
