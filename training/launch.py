"""What torchrun tells a process before any are connected."""

import os

__all__ = ["is_first"]


def is_first() -> bool:
    """Whether this is the first process of torchrun's, or no torchrun is there; asked before and after connecting."""
    return os.environ.get("RANK", "0") == "0"
