"""The machine that is installed on: what is there, and doing the steps of a plan.

Owns: every look at files, users and systemd, and every change of them; writing a file whole or not at all. It must not
decide what is to be done: `plan` does. Read `installation/self_check` next.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from logrelay.errors import RelayError
from logrelay.installation.plan import (
    SERVICE,
    SOCKET,
    DeleteUser,
    File,
    Found,
    MakeDirectory,
    Places,
    Remove,
    Run,
    SetMode,
    Step,
    Unit,
    Write,
)
from logrelay.installation.unit_files import read_traders

COMMAND_TIMEOUT_S = 150.0
"""Longer than the units allow a relay to start (60 s) and to stop (20 s), one after the other, and a busy machine."""

SHOWN_LINES = 8
"""Of what a failed service said last."""


class InstallError(RelayError):
    """A step of an installation failed, or the machine is not one that it can be done on."""


def look(places: Places, *, traders: Iterable[str] = ()) -> Found:
    """Return what is there. `traders` are users of interest besides those that the installation names.

    Raises InstallError where systemd does not answer.
    """
    files = {path: file for path in places.files if (file := _read(path)) is not None}
    of_file = files.get(places.sysusers) if places.sysusers is not None else None
    names = {"logrelay", *traders, *(read_traders(of_file.text) if of_file is not None else ())}
    directories = {path.rpartition("/")[0] for path in places.files}
    service = _unit(places, SERVICE)
    return Found(
        files=files,
        directories=frozenset(path for path in directories if Path(path).is_dir()),
        service=service,
        socket=_unit(places, SOCKET),
        users=frozenset(name for name in names if _user_exists(name)),
        members=_members(),
        systemd=_version(places),
        is_outdated=service.active and _is_outdated(places),
    )


def _read(path: str) -> File | None:
    try:
        mode = stat.S_IMODE(Path(path).stat().st_mode)
        return File(Path(path).read_text("utf-8", "replace"), mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        return File("", 0o600)  # root's, and only looked at by `--dry-run`
    except OSError as error:
        raise InstallError(f"{path} cannot be read: {error.strerror or error}") from None


def _unit(places: Places, unit: str) -> Unit:
    shown = properties(places, unit, "ActiveState", "UnitFileState")
    active = shown["ActiveState"] in ("active", "activating", "reloading", "deactivating")
    return Unit(active=active, enabled=shown["UnitFileState"] == "enabled")


def properties(places: Places, unit: str, *names: str) -> dict[str, str]:
    """Return properties of a unit; empty strings where systemd does not know them. Raises InstallError."""
    said = output((*places.systemctl, "show", "--timestamp=unix", *(f"--property={name}" for name in names), unit))
    found = dict.fromkeys(names, "")
    for line in said.splitlines():
        name, _, value = line.partition("=")
        found[name] = value
    return found


def _version(places: Places) -> int:
    digits = output((*places.systemctl, "--version")).split()[1:2]
    return int(digits[0]) if digits and digits[0].isdigit() else 0


def _is_outdated(places: Places) -> bool:
    """Tell whether the relay was started before the program was installed."""
    since = properties(places, SERVICE, "ActiveEnterTimestamp")["ActiveEnterTimestamp"].removeprefix("@")
    installed = Path(__file__).parents[1].joinpath("__init__.py").stat().st_mtime
    return since.isdigit() and int(since) < installed


def _user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _members() -> frozenset[str]:
    try:
        return frozenset(grp.getgrnam("logrelay").gr_mem)
    except KeyError:
        return frozenset()


def leftovers(places: Places) -> dict[str, tuple[str, ...]]:
    """Return what an installation leaves besides its files, see `plan.uninstall`."""
    drop_ins = (f"{places.service}.d", f"{places.socket}.d")
    kept = (f"{path}.before-install" for path in places.files)
    data = (places.runtime, places.settings.rpartition("/")[0], places.state)
    return {
        "drop-ins": tuple(path for path in drop_ins if Path(path).is_dir()),
        "kept": tuple(path for path in kept if Path(path).is_file()),
        "data": tuple(path for path in data if Path(path).is_dir()),
    }


def in_use(address: tuple[str, int]) -> str | None:
    """Return why a viewers' address cannot be taken, in words; None: it can, or nobody can tell yet."""
    host, port = address
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            return f"{host}:{port} cannot be listened on: {error.strerror or error}"
    return None


def is_answered(path: str) -> bool:
    """Tell whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(path)
        return True
    return False


def carry_out(steps: Sequence[Step], tell: Callable[[str], None]) -> None:
    """Do the steps in order; `tell` is told of each before it is done, and of what may fail.

    Raises InstallError at the first that fails: it says what had been done by then and what had not.
    """
    for number, step in enumerate(steps):
        tell(str(step))
        try:
            _do(step, tell)
        except (OSError, InstallError) as error:
            why = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            later = "; ".join(map(str, steps[number + 1 :]))
            left = f" Not done: {later}." if later else ""
            raise InstallError(
                f"could not {step}: {why}\n"
                f"Done before: {number} of {len(steps)} steps.{left}\n"
                "Mend what is wrong and give the same command again: it goes on from here."
            ) from None


def _do(step: Step, tell: Callable[[str], None]) -> None:
    match step:
        case MakeDirectory(path=path, mode=mode):
            Path(path).mkdir(parents=True, exist_ok=True)
            Path(path).chmod(mode)
        case Write(path=path, text=text, mode=mode, keep=keep):
            if keep:
                shutil.copy2(path, f"{path}.before-install")
            _write(path, text, mode)
        case SetMode(path=path, mode=mode):
            Path(path).chmod(mode)
        case Remove(path=path, empty=True):
            with contextlib.suppress(OSError):  # something else is in it, or it is gone
                Path(path).rmdir()
        case Remove(path=path, tree=True):
            shutil.rmtree(path)
        case Remove(path=path):
            Path(path).unlink(missing_ok=True)
        case DeleteUser(name=name):
            _delete_user(name, tell)
        case Run(argv=argv, may_fail=may_fail):
            try:
                output(argv)
            except InstallError as error:
                if not may_fail:
                    raise
                tell(f"  (not needed: {error})")


def _write(path: str, text: str, mode: int) -> None:
    """Write a file whole: nobody sees a part of it, and none with another mode."""
    new = Path(f"{path}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _delete_user(name: str, tell: Callable[[str], None]) -> None:
    try:
        output(("userdel", name))
    except InstallError as error:
        tell(f"  it stays: {error}")
        return
    with contextlib.suppress(KeyError):
        grp.getgrnam(name)
        output(("groupdel", name))


def output(argv: Sequence[str]) -> str:
    """Run a command; return what it said. Raises InstallError with its words, and those of a service that failed."""
    try:
        # English words, and no pager that waits for a key.
        environ = os.environ | {"LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
        done = subprocess.run(  # noqa: S603  (the commands are those of the plan)
            argv, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, env=environ, check=False
        )
    except FileNotFoundError:
        raise InstallError(f"there is no command {argv[0]} on this machine") from None
    except subprocess.TimeoutExpired:
        raise InstallError(f"`{' '.join(argv)}` has not ended in {COMMAND_TIMEOUT_S:.0f} s") from None
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise InstallError(said + _last_words(argv))
    return done.stdout


def _last_words(argv: Sequence[str]) -> str:
    """Return what the service wrote to the journal before it failed to start."""
    if SERVICE not in argv or not {"start", "restart"} & set(argv):
        return ""
    which = ("--user-unit" if "--user" in argv else "--unit", SERVICE)
    with contextlib.suppress(InstallError):  # only root may ask
        output(("journalctl", "--sync"))  # it takes what a service said in its own time
    with contextlib.suppress(InstallError):
        said = output(("journalctl", *which, "--output=cat", "--no-pager", f"--lines={SHOWN_LINES}"))
        return "".join(f"\n    {line}" for line in said.splitlines())
    return ""
