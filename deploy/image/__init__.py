"""The container image: what is installed into it, and `make test-image`, which builds, runs and looks into it."""
