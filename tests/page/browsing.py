"""Tabs of a real browser, with all that they ask for and complain of."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: the page is not tried in a browser")
NAMES = ["wave", "kick", "sit down", "<b>stand</b> up", "throw"]  # of the page that all tests look at


def watched(browser: Any, address: str, **options: Any) -> tuple[Any, list[str], list[str]]:
    """A tab on the page, ready; all addresses that it asks for, and what it complains of."""
    tab = browser.new_context(**options).new_page()
    asked: list[str] = []
    errors: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(address)
    tab.wait_for_selector("body[data-ready]", timeout=60_000)
    return tab, asked, errors
