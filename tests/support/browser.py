"""A headless Chromium: Debian's packages chromium and chromium-driver, looked for where those put them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = "no Chromium here: `make setup` as root installs the Debian packages chromium and chromium-driver"
ARGUMENTS = (
    "--headless",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    # Nobody but the page's own server is called.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    # Names of sites that are this machine too, and which a browser does not trust as it does localhost.
    "--host-resolver-rules=MAP *.example 127.0.0.1, MAP paper-exchange 127.0.0.1",
)


@contextmanager
def chromium(profile: str, width: int = 1400, height: int = 1000) -> Iterator[webdriver.Chrome]:
    """A browser with an empty profile in the directory `profile`; what the page logs is kept."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (*ARGUMENTS, f"--window-size={width},{height}", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()
