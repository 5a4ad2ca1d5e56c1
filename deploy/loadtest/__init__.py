"""Load on a server, and what a fleet of them bears: `python -m deploy.loadtest`, `python -m deploy.loadtest.fleet`."""
