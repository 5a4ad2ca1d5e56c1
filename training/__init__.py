"""Trains robust classifiers, fits detectors, exports and evaluates bundles."""
