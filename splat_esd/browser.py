"""A page of this machine and its browser: opens it, and tells its own requests from others'."""

import os
import sys
import webbrowser

LOCAL = "127.0.0.1"  # servers' own default is often every network this machine is on


def open_in_browser(url: str) -> bool:
    """Opens a page in the browser of this desktop; returns whether that was possible."""
    desktop = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not desktop:
        return False  # a browser for terminals would take this one
    return webbrowser.open(url)


def is_local(hosts: list[str], origins: list[str]) -> bool:
    """Returns whether a request's Host is this machine, and its Origin, if it has one, that Host.

    Arguments:
        hosts, origins: All values of either header.
    """
    if len(hosts) != 1 or len(origins) > 1:
        return False
    name, _, port = hosts[0].partition(":")
    if name not in (LOCAL, "localhost") or not (port == "" or port.isdigit()):
        return False
    return not origins or origins[0] == f"http://{hosts[0]}"
