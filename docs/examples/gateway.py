"""Asks about many images at once from asyncio, as a web server would: python gateway.py HOST:PORT IMAGE..."""

import asyncio
import sys
from pathlib import Path

from service.client import AsyncClient, Options
from service.errors import AdvsentryError


async def main(target: str, *files: str) -> None:
    """Prints one line a file."""
    async with AsyncClient(target) as client:
        asked = [client.detect(Path(file), Options(top_k=1)) for file in files]
        for file, result in zip(files, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if isinstance(result, AdvsentryError):
                print(Path(file).name, result)
            elif isinstance(result, BaseException):
                raise result
            else:
                print(Path(file).name, result.top.label, result.verdict)


asyncio.run(main(*sys.argv[1:]))
