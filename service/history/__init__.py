"""Query history (issue 8); numpy and the standard library only."""
