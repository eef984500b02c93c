"""The documentation site: it builds, without broken links."""

import subprocess
import sys
from pathlib import Path

from hundredfold.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--quiet"]
    subprocess.run([*command, "--site-dir", str(tmp_path)], cwd=ROOT, check=True, timeout=120)
    commands = (tmp_path / "commands.html").read_text()
    for name in COMMANDS:
        assert f'<h2 id="{name}">' in commands
        assert f"usage: hundredfold {name}" in commands
    library = (tmp_path / "library.html").read_text()
    assert 'id="hundredfold.train"' in library
    assert "../benchmarks" not in (tmp_path / "LOG.html").read_text()
