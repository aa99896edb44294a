"""Notice at once that the Hugging Face Hub cannot be reached."""

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies

logger = logging.getLogger(__name__)

SECONDS: Final = 2.5  # to open a connection
_KEPT: Final = 60  # seconds for which an answer holds
_PORTS: Final = {"http": 80, "https": 443}


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Switch huggingface_hub to its offline mode if the Hub does not answer, and log that in a sentence.

    Otherwise each request would be repeated for half a minute. Files that were downloaded before are still found. With
    a proxy, nothing is tried.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    address = urlsplit(constants.ENDPOINT)
    has_proxy = getproxies().keys() & {"http", "https", "all"}
    if not before and not has_proxy:
        port = address.port or _PORTS.get(address.scheme, 443)
        constants.HF_HUB_OFFLINE = not _is_reachable(address.hostname or "", port, int(time.monotonic() / _KEPT))
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@lru_cache(1)
def _is_reachable(host: str, port: int, _period: int) -> bool:
    try:
        socket.create_connection((host, port), SECONDS).close()
    except OSError as error:
        logger.warning("%s cannot be reached (%s): only downloaded files are used", host, error.strerror or error)
        return False
    return True
