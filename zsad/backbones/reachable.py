"""Whether weights can be fetched, asked once: the client of the hub tries for a minute."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request

from zsad.errors import gist

SECONDS = 5  # that one answer is waited for
_PROXIES = ("https_proxy", "HTTPS_PROXY")


def is_offline(asked: bool) -> bool:
    """Whether nothing may be fetched: because that was ``asked`` for, or by ``HF_HUB_OFFLINE``."""
    return asked or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")


def unreachable(host: str, *, hub: bool) -> str:
    """Return '' if ``host`` answers, else the reason.

    ``hub``: files come from the hub, so that ``HF_ENDPOINT`` stands in place of the host.  A
    mirror or a proxy is asked by one request: no answer, and an error of the server's own
    (5xx), are reasons; a missing page is not.
    """
    mirror = os.environ.get("HF_ENDPOINT", "").strip() if hub else ""
    proxy = next((name for name in _PROXIES if os.environ.get(name)), "")
    if not mirror and not proxy:
        try:
            socket.create_connection((host, 443), timeout=SECONDS).close()
        except OSError as error:
            return f"no connection to {host}: {gist(error)}"
        return ""
    address = mirror or f"https://{host}"
    named = f"HF_ENDPOINT={mirror}" if mirror else f"{host} through {proxy}"
    try:
        request = urllib.request.Request(address, method="HEAD")
        with urllib.request.urlopen(request, timeout=SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        return f"{named} answers {error.code} {error.reason}" if error.code >= 500 else ""
    except (OSError, ValueError) as error:  # ValueError: no address
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        return f"no connection to {named}: {gist(why) if isinstance(why, Exception) else why}"
