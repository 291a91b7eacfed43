"""What a model thought, handed to a client and read back when it returns: signed, so that nobody else wrote it.

A blob is ``sy1.<text, deflated>.<HMAC-SHA256 of what stands before>``, both parts in base64 for URLs. It is not
encrypted: what it holds is the caller's own answer.
"""

import hmac
import secrets
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode

VERSION = "sy1"


class Seal:
    """Signs with the first of ``keys`` and knows what any of them has signed; without any, with a new one."""

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        self._keys = tuple(key.encode() for key in keys) or (secrets.token_bytes(32),)

    def sign(self, text: str) -> str:
        """The text as a blob."""
        signed = f"{VERSION}.{urlsafe_b64encode(zlib.compress(text.encode())).decode()}"
        return f"{signed}.{_signature(self._keys[0], signed)}"

    def read(self, blob: str) -> str | None:
        """The text of a blob; None for what was not signed here."""
        signed, _, signature = blob.rpartition(".")
        version, _, text = signed.partition(".")
        if version != VERSION or not blob.isascii():
            return None
        if not any(hmac.compare_digest(_signature(key, signed), signature) for key in self._keys):
            return None
        return zlib.decompress(urlsafe_b64decode(text)).decode()


def _signature(key: bytes, signed: str) -> str:
    return urlsafe_b64encode(hmac.digest(key, signed.encode(), "sha256")).decode()
