"""One target under atheris: `python -m deploy.fuzz.harness TARGET [libFuzzer's arguments]`; ends with its process."""

import sys

import atheris

__all__: list[str] = []


def main() -> None:
    """Hands over to libFuzzer, which never comes back."""
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["service", "PIL"]):
        from deploy.fuzz import targets
    targets.run(name, b"")  # the bundles are loaded before memory and time count

    def one(data: bytes) -> None:
        targets.run(name, data)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
