"""What a server says of a folder of images, of any size: python folder.py HOST:PORT FOLDER."""

import sys
from pathlib import Path

from service.client import Client
from service.errors import AdvsentryError

with Client(sys.argv[1]) as client:
    for path, result in client.detect_folder(Path(sys.argv[2])):
        print(path.name, result if isinstance(result, AdvsentryError) else f"{result.top.label} {result.verdict}")
