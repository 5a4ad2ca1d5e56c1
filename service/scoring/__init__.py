"""Scoring of millions of images: what `advsentry score` does, on one machine or on a Ray cluster."""
