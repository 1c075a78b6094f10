"""A person at a browser: goes to pages, clicks, and takes offence at anything that the console, the network or the
content security policy has to say."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from django.conf import settings
from django.test import Client

STATUS = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")
LEFT_BEHIND = "net::ERR_ABORTED"
"""How Chromium calls a request that it dropped itself: a poll when its page is left, a page that became a download."""


class Visitor:
    """One person, one page. What may never happen is kept in `offences`; `expected` are statuses that may be met."""

    def __init__(self, browser: Any, address: str, user: Any = None, **options: Any) -> None:
        self.address = address
        self.context = browser.new_context(**{"reduced_motion": "reduce", **options})
        self.offences: list[str] = []
        self.expected: set[int] = set()
        if user is not None:
            self.sign_in_quietly(user)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self._note(f"a script failed: {error}"))
        self.page.on("requestfailed", self._lost)
        self.page.on("response", self._answered)
        self.page.on("dialog", self._asked)

    def sign_in_quietly(self, user: Any) -> None:
        """A session without the sign-in page, for stories that are about something else."""
        client = Client()
        client.force_login(user)
        cookie = client.cookies[settings.SESSION_COOKIE_NAME].value
        self.context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": cookie, "url": self.address}])

    def _note(self, words: str) -> None:
        self.offences.append(f"{self.page.url}: {words}")

    def _hear(self, message: Any) -> None:
        status = STATUS.match(message.text)
        if not (status and int(status[1]) in self.expected):
            self._note(f"the console says: {message.text}")

    def _lost(self, request: Any) -> None:
        if request.failure != LEFT_BEHIND:
            self._note(f"{request.url} failed: {request.failure}")

    def _answered(self, response: Any) -> None:
        if response.status >= 400 and response.status not in self.expected:
            self._note(f"{response.url} answered {response.status}")
        if not response.url.startswith((self.address, "data:")):
            self._note(f"{response.url} is not ours")

    def _asked(self, dialog: Any) -> None:
        self._note(f"a dialog says: {dialog.message}")
        dialog.dismiss()

    def goes_to(self, path: str) -> Any:
        """The page at this path of the site."""
        self.page.goto(self.address + path)
        return self.page

    @property
    def path(self) -> str:
        return self.page.url.removeprefix(self.address)

    @property
    def words(self) -> str:
        """The visible text of the page, every run of white space as one blank."""
        return " ".join(self.page.locator("body").inner_text().split())

    def keeps_a_picture(self, name: str) -> None:
        """A picture of the whole page in the folder LUMIGATOR_SCREENSHOTS, if the environment names one: to look at."""
        if folder := os.environ.get("LUMIGATOR_SCREENSHOTS"):
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True, timeout=60_000)

    def leaves(self) -> None:
        self.context.close()
