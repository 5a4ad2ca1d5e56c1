"""Attacks on several domains at once: many networks, many images with one perturbation, many transformations."""
