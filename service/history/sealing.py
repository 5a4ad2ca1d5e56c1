"""What leaves the process is sealed: without the secret nobody can read it, make it up or change it.

Encrypt-then-MAC of the standard library's primitives: the content is XORed with SHAKE-256 of a key and a random nonce,
which is a key stream as long as no nonce comes twice, and nonce and ciphertext get a tag by BLAKE2b under another key.
"""

import hashlib
import hmac
import os

import numpy as np

from service.history.fingerprints import KEY_BYTES

__all__ = ["SEAL_BYTES", "Seal"]

NONCE_BYTES = 16
TAG_BYTES = 16
SEAL_BYTES = NONCE_BYTES + TAG_BYTES


class Seal:
    """Seals and opens under one key."""

    def __init__(self, key: bytes) -> None:
        """Takes `KEY_BYTES` secret bytes."""
        self._stream_key = hashlib.blake2b(key=key, digest_size=KEY_BYTES, person=b"stream").digest()
        self._tag_key = hashlib.blake2b(key=key, digest_size=KEY_BYTES, person=b"tag").digest()

    def sealed(self, content: bytes) -> bytes:
        """`SEAL_BYTES` more than the content; no two are alike."""
        nonce = os.urandom(NONCE_BYTES)
        hidden = nonce + self._mixed(nonce, content)
        return hidden + self._tag(hidden)

    def opened(self, sealed: bytes) -> bytes:
        """The content.

        Raises:
            ValueError: it was not sealed under this key, or was changed.
        """
        hidden, tag = sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]
        if len(sealed) < SEAL_BYTES or not hmac.compare_digest(tag, self._tag(hidden)):
            raise ValueError(f"expected a sealed entry, got {len(sealed)} bytes that are none under this secret")
        return self._mixed(hidden[:NONCE_BYTES], hidden[NONCE_BYTES:])

    def _mixed(self, nonce: bytes, content: bytes) -> bytes:
        stream = hashlib.shake_256(self._stream_key + nonce).digest(len(content))
        return (np.frombuffer(content, np.uint8) ^ np.frombuffer(stream, np.uint8)).tobytes()

    def _tag(self, hidden: bytes) -> bytes:
        return hashlib.blake2b(hidden, key=self._tag_key, digest_size=TAG_BYTES).digest()
