"""Start a service, ask it once, let it run on for a while, and end it: python -m tests.offline.once PORT SECONDS COMMAND..."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

PATIENCE_S = 120
FORM = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nseven\r\n--x--\r\n'


def ask(address: str) -> bytes:
    """Classify a text."""
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(f"{address}/predict", FORM, headers)
    content: bytes = urllib.request.urlopen(request, timeout=30).read()
    return content


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until the service is ready."""
    deadline = time.monotonic() + PATIENCE_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{address}/readyz", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the service did not come up")


def main() -> None:
    """Run."""
    port, seconds, *command = sys.argv[1:]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command) as server:
        try:
            wait_for(address, server)
            print(ask(address).decode())
            time.sleep(float(seconds))
        finally:
            server.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
