"""Clients of a server: images in, detections out; `Client` blocks, `AsyncClient` is for asyncio.

with Client("127.0.0.1:50051") as client:
    detection = client.detect(Path("cat.png"))
    print(detection.top.label, detection.verdict, detection.p_value)

    for path, result in client.detect_folder(Path("photos")):
        print(path, result if isinstance(result, AdvsentryError) else result.verdict)
"""

from service.client.aio import AsyncClient
from service.client.blocking import Client
from service.client.channel import DEFAULT_TARGET
from service.client.messages import Image
from service.files import find_images
from service.rpc.read_answers import Options, ServerInfo

__all__ = ["DEFAULT_TARGET", "AsyncClient", "Client", "Image", "Options", "ServerInfo", "find_images"]
