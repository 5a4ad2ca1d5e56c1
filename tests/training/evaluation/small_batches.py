"""`advsentry-train` that attacks few images at once: `python -m tests.training.evaluation.small_batches COMMAND ...`.

Where ADVSENTRY_TEST_FAILS names the rank of a process, that process cannot prepare `robustness`.
"""

import os
import sys

from service.errors import SetupError
from training.__main__ import main
from training.evaluation import attacking, robustness, withstanding

BATCH = 8


def shrink() -> None:
    """Small batches from now on in this process."""
    attacking.attack_images.__kwdefaults__["batch"] = BATCH
    withstanding._BATCH = BATCH


if __name__ == "__main__":
    shrink()
    if os.environ.get("ADVSENTRY_TEST_FAILS") == os.environ["RANK"]:

        def fail(*_: object) -> withstanding.Ready:
            raise SetupError("nothing here")

        robustness.prepare = fail
    sys.exit(main(sys.argv[1:]))
