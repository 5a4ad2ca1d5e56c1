"""Scripts that make the published figures of the related systems."""
