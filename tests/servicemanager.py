"""A stand-in for systemd: reads the units, opens the socket, hands over keys, and waits for what the service says."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PATIENCE = 60.0
STILL = 1.0
# A program of the script's: hands its words to the manager, prints the answer, ends with the code.
SHIM = """#!{python} -S
import json, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect({address!r})
line.sendall(json.dumps([{name!r}, *sys.argv[1:]]).encode() + b"\\n")
code, text = json.loads(line.makefile().read())
sys.stdout.write(text)
sys.exit(code)
"""
# Puts the socket at descriptor 3 and its own number into the environment, then becomes the service.
BECOME = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); "
    "os.environ.update(LISTEN_PID=str(os.getpid())); os.execvp(sys.argv[2], sys.argv[2:])"
)


class Manager:
    """Answers `systemctl` and `journalctl` of a script whose PATH begins with `folder / "bin"`.

    `here` turns a path or an address of the units into the one that is meant on this machine.
    """

    def __init__(self, folder: Path, units: Path, here: Callable[[str], str]) -> None:
        self._folder = folder
        self._units = units
        self._here = here
        self._states: list[tuple[float, dict[str, str]]] = []
        self._changed = threading.Condition()
        self._front: socket.socket | None = None
        self._service: subprocess.Popen[bytes] | None = None
        self._journal = folder / "journal"
        self._journal.touch()
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(folder / "notify"))
        self._calls = socket.socket(socket.AF_UNIX)
        self._calls.bind(str(folder / "calls"))
        self._calls.listen()
        (folder / "bin").mkdir(exist_ok=True)
        for name in ("systemctl", "journalctl"):
            path = folder / "bin" / name
            path.write_text(SHIM.format(python=sys.executable, address=str(folder / "calls"), name=name))
            path.chmod(0o755)
        for work in (self._hear, self._serve):
            threading.Thread(target=work, daemon=True).start()

    def close(self) -> None:
        """End what still runs."""
        for each in (self._notify, self._calls, self._front):
            if each is not None:
                each.close()
        if self._service is not None and self._service.poll() is None:
            self._service.kill()
            self._service.wait(10)

    def _hear(self) -> None:
        while True:
            try:
                message = self._notify.recv(4096).decode()
            except OSError:
                return
            with self._changed:
                self._states.append((time.monotonic(), dict(line.split("=", 1) for line in message.splitlines())))
                self._changed.notify_all()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._calls.accept()
            except OSError:
                return
            with caller:
                program, *words = json.loads(caller.makefile().readline())
                try:
                    answer = (0, self._journals(words)) if program == "journalctl" else self._control(words)
                except (OSError, LookupError, TimeoutError, AssertionError) as error:
                    answer = (1, f"{program} {shlex.join(words)}: {error!r}\n")
                caller.sendall(json.dumps(answer).encode())

    def _journals(self, words: list[str]) -> str:
        # Lines are written four times a second, and less often by a process that gets no CPU.
        while time.time() - self._journal.stat().st_mtime < STILL:
            time.sleep(0.05)
        lines = self._journal.read_text().splitlines(keepends=True)
        last = int(words[words.index("-n") + 1]) if "-n" in words else len(lines)
        return "".join(lines[-last:])

    def _control(self, words: list[str]) -> tuple[int, str]:
        verb, *names = [word for word in words if not word.startswith("--")]
        if verb == "is-active":
            alive = self._service is not None and self._service.poll() is None
            return (0, "active\n") if alive else (3, "inactive\n")
        if verb == "status":
            status = next(state["STATUS"] for _, state in reversed(self._states) if "STATUS" in state)
            return 0, f'     Status: "{status}"\n'
        for name in names or [""]:
            work: Mapping[tuple[str, str], Callable[[], None]] = {
                ("daemon-reload", ""): lambda: None,
                ("enable", "sluiceway.socket"): self._open,
                ("start", "sluiceway"): self._start,
                ("reload", "sluiceway"): self._reload,
                ("restart", "sluiceway"): self._restart,
                ("stop", "sluiceway"): self._stop,
                ("stop", "sluiceway.socket"): self._shut,
            }
            work[verb, name]()
        return 0, ""

    def _setting(self, unit: str, name: str) -> list[str]:
        """The values of an option of the unit and of what is dropped in beside it."""
        files = [self._units / unit, *sorted((self._units / f"{unit}.d").glob("*.conf"))]
        text = "\n".join(self._here(file.read_text()) for file in files)
        return re.findall(rf"^{name}=(.*)$", text, re.M)

    def _open(self) -> None:
        host, port = self._setting("sluiceway.socket", "ListenStream")[-1].rsplit(":", 1)
        self._front = socket.create_server((host, int(port)), backlog=4096)

    def _shut(self) -> None:
        assert self._front is not None, "the socket is not open"
        self._front.close()
        self._front = None

    def _environment(self) -> dict[str, str]:
        given = self._folder / "credentials"
        given.mkdir(exist_ok=True)
        for line in self._setting("sluiceway.service", "LoadCredential"):
            name, source = line.split(":", 1)
            (given / name).write_text(Path(source).read_text())
        return {
            "PATH": f"{self._folder}/bin:{os.environ['PATH']}",
            "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": self._setting("sluiceway.socket", "FileDescriptorName")[-1],
            "NOTIFY_SOCKET": str(self._folder / "notify"),
            "CREDENTIALS_DIRECTORY": str(given),
            "INVOCATION_ID": "1",
            "STATE_DIRECTORY": str(self._folder),
        }

    def _start(self) -> None:
        assert self._front is not None, "the socket is not open"
        fd = self._front.fileno()
        line = shlex.split(self._setting("sluiceway.service", "ExecStart")[-1])
        began = time.monotonic()
        with self._journal.open("ab") as journal:
            self._service = subprocess.Popen(
                [sys.executable, "-c", BECOME, str(fd), *line],
                env=self._environment(),
                cwd="/",
                pass_fds=(fd,),
                stdout=journal,
                stderr=journal,
            )
        self._until(lambda at, state: at >= began and state.get("READY") == "1")

    def _reload(self) -> None:
        """As for `Type=notify-reload`: ready again after a reload that began after the signal."""
        assert self._service is not None
        sent = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._service.send_signal(signal.SIGHUP)
        began = self._until(lambda at, state: int(state.get("MONOTONIC_USEC", 0)) >= sent)
        self._until(lambda at, state: at >= began and state.get("READY") == "1")

    def _stop(self) -> None:
        assert self._service is not None
        self._service.terminate()
        code = self._service.wait(PATIENCE)
        assert code == 0, f"exit code {code}"

    def _restart(self) -> None:
        self._stop()
        self._start()

    def _until(self, claim: Callable[[float, Mapping[str, str]], bool]) -> float:
        """When the service said something of which this holds; it may still say it."""
        assert self._service is not None
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while True:
                for at, state in self._states:
                    if claim(at, state):
                        return at
                if self._service.poll() is not None or time.monotonic() > deadline:
                    raise TimeoutError(f"the service says nothing of the sort: {self._journal.read_text()[-2000:]}")
                self._changed.wait(0.1)
