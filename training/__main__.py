"""Command line of the training side: `advsentry-train`."""
