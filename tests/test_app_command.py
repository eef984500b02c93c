"""The command that starts the app."""

import http.client
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.making import Train

from hundredfold import Predictor
from hundredfold.app.serve import make_app
from hundredfold.app.served_model import make_served_model
from hundredfold.cli.main import main
from hundredfold.support.errors import UserError


def test_sigterm_ends_the_server_despite_open_connections(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "hundredfold", "app", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)}
    ) as process:
        assert process.stdout
        address = urlsplit(process.stdout.readline().split()[1]).netloc
        held, upload = (http.client.HTTPConnection(address) for _ in range(2))
        held.request("GET", "/")
        assert held.getresponse().read().startswith(b"<!doctype html>")
        upload.putrequest("POST", "/api/explain")
        upload.putheader("Content-Length", "1000000")
        upload.endheaders(b"the beginning of a picture")
        process.terminate()
        assert process.wait(60) == 143
        for connection in (held, upload):
            connection.close()
    assert not list(temporary.iterdir())


def test_the_command_explains_mistakes(
    trained: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["app", "--port", str(taken.getsockname()[1])]) == 2
        assert "Cannot listen on 127.0.0.1" in capsys.readouterr().err
    assert main(["app", "--port", "70000"]) == 2
    assert main(["app", "--host", ""]) == 2
    assert "--host is empty" in capsys.readouterr().err
    assert main(["app", "nowhere"]) == 2
    monkeypatch.setattr("hundredfold.cli.serving._run", lambda *_: None)
    assert main(["app", str(trained().path), "--port", "0"]) == 0
    output = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "Continuing without examples and similar training pictures: There is no file" in output
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "hundredfold.app.endpoint")
    with pytest.raises(UserError, match=r"pip install 'hundredfold\[app\]'"):
        make_app(make_served_model("strong", Predictor.load("strong"), None))


def test_the_command_prints_an_ipv6_address_in_brackets(
    trained: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hundredfold.cli.app.bind", lambda *_: socket.socket())
    monkeypatch.setattr("hundredfold.cli.serving._run", lambda *_: None)
    assert main(["app", str(trained().path), "--host", "fe80::1"]) == 0
    assert "Open http://[fe80::1]:" in capsys.readouterr().out
