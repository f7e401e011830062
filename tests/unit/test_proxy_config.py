"""`antiphon proxy-config`: what it writes is accepted by the real programs, and nothing typed adds a directive."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate
from command_line import commands, run_antiphon
from programs import haproxy, nginx

from antiphon.config import ServerConfig
from antiphon.errors import ConfigError
from antiphon.http.edge.connections import MAX_HEAD_BYTES
from antiphon.proxies.addresses import Address, backend_address, listen_address, server_name
from antiphon.proxies.haproxy import add_server_commands
from antiphon.proxies.settings import ProxySettings

ONE = ("--backend", "10.0.0.5:8000")
PROXIES = ("nginx", "haproxy")


def run(proxy: str, *arguments: str) -> Any:
    return run_antiphon("proxy-config", proxy, *arguments)


def written(proxy: str, *arguments: str) -> str:
    result = run(proxy, *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return str(result.output)


def directives(text: str) -> list[str]:
    """The lines without comments."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def check(proxy: str, file: Path) -> subprocess.CompletedProcess[str]:
    command = [nginx(), "-t", "-c", str(file)] if proxy == "nginx" else [haproxy(), "-c", "-f", str(file)]
    return subprocess.run(command, capture_output=True, text=True)


VARIANTS: dict[str, list[str]] = {
    "plain": [],
    "two": ["--backend", "[::1]:8000", "--listen", "127.0.0.1:8081", "--listen", "[::1]:8081"],
    "named": ["--server-name", "chat.example.org", "--server-name", "*.lan.example"],
    "below": ["--path", "/tools/chat.v1/", "--metrics-listen", "off"],
    "unix": ["--backend", "unix:/run/antiphon-1.sock", "--listen", "unix:{folder}/front.sock"],
    "tls": ["--certificate", "{folder}/both.pem", "--listen", "127.0.0.1:8443"],
    "names": ["--backend", "server-2.lan:8000", "--nameserver", "10.0.0.1:53"],
    "affinity": ["--affinity", "{affinity}"],
    "limits": ["--max-body-size", "1000", "--max-connections", "10", "--keep-alive-timeout", "5", "--max-wait", "0"],
}


FILES = [(proxy, each) for proxy in PROXIES for each in VARIANTS if (proxy, each) != ("nginx", "names")]


@pytest.mark.parametrize(("proxy", "variant"), FILES)
def test_the_program_accepts_the_file_without_a_warning(proxy: str, variant: str, tmp_path: Path):
    cert, key = certificate(tmp_path)
    (tmp_path / "both.pem").write_text(cert.read_text() + key.read_text())
    affinity = "prefix" if proxy == "haproxy" else "none"
    options = [each.format(folder=tmp_path, affinity=affinity) for each in VARIANTS[variant]]
    file = tmp_path / "proxy.conf"
    written(proxy, *ONE, *options, "--runtime-dir", str(tmp_path), "--user", "", "--output", str(file))
    reply = check(proxy, file)
    assert reply.returncode == 0, reply.stderr
    assert "warn" not in reply.stderr.lower()
    if proxy == "nginx":
        command = [str(Path(sys.executable).parent / "gixy"), str(file)]
        linted = subprocess.run(command, capture_output=True, text=True)
        assert (linted.returncode, "No issues found" in linted.stdout) == (0, True), linted.stdout


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_servers_own_limits_are_in_the_file(proxy: str):
    defaults = ServerConfig()
    text = written(proxy, *ONE)
    assert str(defaults.max_body_bytes) in text
    assert f"--keep-alive-timeout {defaults.keep_alive_timeout:g}" in text
    idle = ProxySettings((Address("a", 1),), (Address("b", 2),)).idle_seconds
    assert 0 < idle < defaults.keep_alive_timeout
    assert f"{idle}s" in text
    longest = {"nginx": "proxy_read_timeout 3600s;", "haproxy": "timeout server 3600000ms"}
    assert longest[proxy] in directives(text)
    other = written(proxy, *ONE, "--max-body-bytes", "77777", "--answer-timeout", "400", "--drain-seconds", "60")
    assert "77777" in other
    assert str(defaults.max_body_bytes) not in other
    assert {"nginx": "worker_shutdown_timeout 60s;", "haproxy": "hard-stop-after 60s"}[proxy] in directives(other)


def test_nginx_takes_heads_that_the_servers_take():
    assert f"large_client_header_buffers 4 {MAX_HEAD_BYTES >> 10}k;" in directives(written("nginx", *ONE))


ODD = (
    "evil;",
    "a b",
    "a\nb",
    "a{b}",
    "$host",
    "a'b",
    'a"b',
    "a#b",
    "a\\b",
    "%[src]",
    "a\tb",
    "\u00e9",
    "a\x00b",
)
FLAGS = {
    "--backend": "{}:80",
    "--listen": "{}:80",
    "--server-name": "{}",
    "--certificate": "/etc/{}.pem",
    "--path": "/{}/",
    "--runtime-dir": "/run/{}",
    "--user": "x{}",
    "--access-log": "/var/{}",
    "--metrics-listen": "{}:80",
}


@pytest.mark.parametrize("flag", FLAGS)
def test_nothing_typed_adds_a_directive(flag: str):
    for odd in ODD[:2]:
        result = run("nginx", *(() if flag == "--backend" else ONE), flag, FLAGS[flag].format(odd))
        assert isinstance(result.exception, ConfigError), result.output
        assert flag in result.exception.message
    for odd in ODD:
        with pytest.raises(ConfigError, match=flag):
            give(flag, FLAGS[flag].format(odd))


def give(flag: str, value: str) -> None:
    """Set one option, as the command does."""
    parsers = {"--backend": backend_address, "--listen": listen_address, "--metrics-listen": listen_address}
    parsers |= {"--server-name": server_name}
    if flag in parsers:
        parsers[flag](flag, value)
        return
    ProxySettings((Address("a", 1),), (Address("b", 2),), **{flag[2:].replace("-", "_"): value})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--backend", "10.0.0.5"], "10.0.0.5:8000"),
        (["--backend", "10.0.0.5:0"], "an address is like"),
        (["--backend", "10.0.0.5:65536"], "an address is like"),
        (["--backend", "http://10.0.0.5:8000"], "an address is like"),
        (["--backend", "::1:8000"], "an address is like"),
        (["--backend", "[fe80::1%eth0]:8000"], "an address is like"),
        (["--backend", "*:8000"], "server's own address"),
        (["--backend", "a:1", "--backend", "a:1"], "twice"),
        ([*ONE, "--listen", "unix:relative"], "absolute path"),
        ([*ONE, "--listen", f"unix:/{'a' * 120}"], "at most 107"),
        ([*ONE, "--answer-timeout", "200"], "above --max-wait, 300"),
        ([*ONE, "--drain-seconds", "nan"], "--drain-seconds is nan"),
        ([*ONE, "--drain-seconds", "inf"], "--drain-seconds is inf"),
        ([*ONE, "--max-body-bytes", "0"], "from 1"),
        ([*ONE, "--max-connections", "1"], "from 2"),
        ([*ONE, "--affinity", "cookie"], "none, prefix"),
        ([*ONE, "--path", "/chat"], "begin and end with /"),
        ([*ONE, "--path", "/a/../b/"], "begin and end with /"),
        ([*ONE, "--key", "/etc/key.pem"], "needs --certificate"),
        ([*ONE, "--nameserver", "10.0.0.1:53"], "every --backend is an IP address"),
        (["--backend", "server:80", "--nameserver", "dns:53"], "an IP address and port"),
        ([*ONE, "--listen", "127.0.0.1:8404"], "which --listen has too"),
        ([*ONE, "--output", "/no/such/folder/file"], "--output /no/such/folder/file cannot be written"),
    ],
)
def test_what_cannot_work_is_refused_by_name(arguments: list[str], says: str):
    result = run("nginx", *arguments)
    assert isinstance(result.exception, ConfigError), result.output
    assert says in result.exception.message


def test_what_only_one_of_the_two_can_do_is_refused_by_the_other():
    affinity = run("nginx", *ONE, "--affinity", "prefix").exception
    assert "needs HAProxy" in str(affinity)
    lookups = run("nginx", "--backend", "server:80", "--nameserver", "10.0.0.1:53").exception
    assert "needs HAProxy" in str(lookups)
    log = run("haproxy", *ONE, "--access-log", "/var/log/x").exception
    assert "is for nginx" in str(log)
    assert run("apache", *ONE).exit_code == 2


def test_haproxy_finds_the_key_beside_the_certificate_or_says_how():
    beside = written("haproxy", *ONE, "--certificate", "/etc/a.crt", "--key", "/etc/a.key")
    assert "ssl-load-extra-del-ext" in directives(beside)
    written("haproxy", *ONE, "--certificate", "/etc/a.pem", "--key", "/etc/a.pem.key")
    error = run("haproxy", *ONE, "--certificate", "/etc/a.pem", "--key", "/etc/b.pem").exception
    assert "cat /etc/a.pem /etc/b.pem > FILE" in str(error)


def test_without_a_certificate_only_this_machine_can_connect_by_default():
    assert "listen 127.0.0.1:8080;" in directives(written("nginx", *ONE))
    assert "bind 127.0.0.1:8080" in directives(written("haproxy", *ONE))
    assert "listen *:443 ssl http2;" in directives(written("nginx", *ONE, "--certificate", "/etc/a.pem"))


def test_the_document_has_every_option_and_the_commands_that_add_a_server():
    text = (Path(__file__).parents[2] / "docs" / "proxies.md").read_text()
    table = text.partition("## Options")[2].partition("\n## ")[0]
    command = commands().commands["proxy-config"]
    options = {each.opts[0] for each in command.params if each.param_type_name == "option"} - {"--help"}
    assert options == set(
        re.findall(r"`(--[a-z-]+)`", "".join(row.split("|")[1] for row in table.splitlines() if "|" in row))
    )
    settings = ProxySettings((Address("10.0.0.5", 8000),), (Address("127.0.0.1", 8080),))
    for line in add_server_commands(settings, "s3", Address("10.0.0.7", 8000)):
        assert f'haproxy_do "{line}"' in text


def test_the_output_file_is_replaced_as_a_whole(tmp_path: Path):
    file = tmp_path / "nginx.conf"
    file.write_text("old")
    assert written("nginx", *ONE, "--output", str(file)) == ""
    assert file.read_text() == written("nginx", *ONE)
    assert list(tmp_path.iterdir()) == [file]
