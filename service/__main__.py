"""Command line of the service side: `advsentry`."""
