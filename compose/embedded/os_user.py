"""As whom Postgres runs: it refuses to be root.

An ordinary user is himself. Root becomes another user inside a user namespace, where every file of
root's stays reachable; where there are none, the user nobody, with files moved to where he can go.
"""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from compose.embedded.problems import RuntimeProblem

STAND_IN = 1000
UNSHARE = ("unshare", "--user", f"--map-user={STAND_IN}", f"--map-group={STAND_IN}")
PUBLIC = Path("/var/tmp")


@dataclass(frozen=True)
class OsUser:
    """How a command is made to run as somebody: words before it, and user and group ids."""

    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None

    def folder(self, wanted: Path) -> Path:
        """The folder itself, or another one that this account can reach."""
        if self.user is None:
            return wanted
        instead = outside(wanted)
        try:
            wanted.mkdir(parents=True, exist_ok=True)
            if reachable(wanted):
                return wanted
            instead.mkdir(mode=0o711, exist_ok=True)
        except OSError as error:
            raise RuntimeProblem(
                f"User nobody, who runs Postgres, cannot reach {wanted}."
            ) from error
        if instead.is_symlink() or instead.stat().st_uid != os.geteuid():
            raise RuntimeProblem(
                f"{instead} belongs to somebody else; Postgres's data cannot go there."
            )
        return instead

    def give(self, path: Path) -> None:
        """Makes the account the owner of a file or of a whole folder."""
        if self.user is None or self.group is None:
            return
        os.chown(path, self.user, self.group)
        if path.is_dir():
            for each in path.rglob("*"):
                os.chown(each, self.user, self.group, follow_symlinks=False)


def choose() -> OsUser:
    if os.geteuid() != 0:
        return OsUser()
    return in_namespace() or nobody()


def in_namespace() -> OsUser | None:
    """The way of user namespaces, if this system lets us."""
    if shutil.which(UNSHARE[0]) is None:
        return None
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False)
    return OsUser(prefix=UNSHARE) if tried.returncode == 0 else None


def nobody() -> OsUser:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError as error:
        raise RuntimeProblem(
            "Postgres does not run as root, and there is no user nobody: start as another user, or "
            "name a running Postgres with --postgres."
        ) from error
    return OsUser(user=entry.pw_uid, group=entry.pw_gid)


def reachable(folder: Path) -> bool:
    """Whether everybody may go through the folders above this one."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in folder.absolute().parents)


def outside(folder: Path) -> Path:
    """Where the contents of a folder are kept that nobody cannot reach."""
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    return PUBLIC / f"streamledger-{name}"
