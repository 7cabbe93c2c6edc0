"""A git repository of a test's own, with a use case in it."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mill:
    """A repository of its own that holds a use case: `pump_care` under another name, so that no import of it is left over."""

    root: Path

    def git(self, *arguments: str) -> str:
        """Run git there; who commits does not depend on the machine."""
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *who, *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that is there."""
        path = self.root / "mill" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def commit(self) -> str:
        """Commit everything and return the commit."""
        self.git("add", "-A")
        self.git("commit", "-qm", "a change")
        return self.git("rev-parse", "HEAD")
