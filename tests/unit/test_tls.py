"""The two files of a certificate: what is accepted, and what is said of what is not."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys

import pytest

from logrelay.errors import ConfigError
from logrelay.tls import RENEW_DAYS, TlsFiles, read_validity, tls_files
from tests.support.certificates import Authority
from tests.support.waiting import DEADLINE_S


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("ca"))
    made.issue("one")
    made.issue("two")
    return made


def handshake(context, authority):
    """Do a handshake in memory; return the client's connection."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authority.client().wrap_bio(to_client, to_server, server_hostname="localhost")
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(6):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return client


def test_a_certificate_is_served_and_exchanged(authority, tmp_path):
    """A handshake after `reload` gets the new one, and what cannot be used changes nothing."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    served = []

    def use(name):
        cert.write_bytes((authority.folder / f"{name}.pem").read_bytes())
        key.write_bytes((authority.folder / f"{name}.key").read_bytes())
        key.chmod(0o600)

    use("one")
    files = TlsFiles(str(cert), str(key))
    for step in (None, "two", "broken"):
        if step == "broken":
            cert.write_text("no certificate")
            with pytest.raises(ConfigError, match="cannot be used"):
                files.reload()
        elif step:
            use(step)
            files.reload()
        client = handshake(files.context, authority)
        served.append(dict(pair[0] for pair in client.getpeercert()["subject"])["commonName"])
    assert served == ["one", "two", "two"]
    assert (client.version(), client.selected_alpn_protocol()) == ("TLSv1.3", None)


def test_nothing_older_than_tls_1_2(authority):
    """And of that only what has forward secrecy."""
    context = TlsFiles(str(authority.folder / "one.pem"), str(authority.folder / "one.key")).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert all(cipher["name"].startswith(("TLS_", "ECDHE-")) for cipher in context.get_ciphers())


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o666])
def test_a_key_that_others_may_read_is_refused(authority, tmp_path, mode):
    """With the command that cures it; a group may read."""
    key = tmp_path / "key.pem"
    key.write_bytes((authority.folder / "one.key").read_bytes())
    key.chmod(mode)
    with pytest.raises(ConfigError, match=f"has mode {mode:04o}.*chmod 600"):
        TlsFiles(str(authority.folder / "one.pem"), str(key))
    key.chmod(0o440)
    TlsFiles(str(authority.folder / "one.pem"), str(key))


def test_files_that_do_not_fit_or_are_not_there(authority, tmp_path):
    """Each with the names of the files."""
    one, key = authority.folder / "one.pem", authority.folder / "one.key"
    locked, old_locked, half, words = (tmp_path / name for name in ("locked.key", "old.key", "half.key", "words"))
    authority._openssl("pkey", "-in", str(key), "-aes256", "-passout", "pass:x", "-out", str(locked))
    authority._openssl("ec", "-in", str(key), "-aes256", "-passout", "pass:x", "-out", str(old_locked))
    half.write_text(key.read_text()[:80] + "\n-----END PRIVATE KEY-----\n")
    words.write_text("no PEM")
    for path in (locked, old_locked, half, words):
        path.chmod(0o600)
    mistakes = {
        (one, authority.folder / "two.key"): "they do not belong to each other",
        (key, one): "they are swapped: the first has a private key",
        (one, locked): r"locked\.key has a passphrase.* openssl pkey -in .*locked\.key -out NEW-KEY",
        (one, old_locked): r"old\.key has a passphrase",
        (one, half): "both have to be PEM, and whole",
        (one, words): "words has no private key in PEM form",
        (words, key): "words has no certificate in PEM form",
        (key, key): r"one\.key has no certificate in PEM form",
    }
    for (cert, with_key), words_of_it in mistakes.items():
        with pytest.raises(ConfigError, match=words_of_it) as caught:
            TlsFiles(str(cert), str(with_key))
        assert str(caught.value).startswith(f"the TLS certificate {cert} and the key {with_key} cannot be used: ")
    for cert, with_key, which in ((one, tmp_path / "gone", "gone"), (tmp_path / "gone", key, "gone")):
        with pytest.raises(ConfigError, match=rf"{which}.* cannot be read: No such file"):
            TlsFiles(str(cert), str(with_key))
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        TlsFiles(str(one), str(directory(tmp_path)))


def directory(place):
    made = place / "directory"
    made.mkdir(mode=0o700)
    return made


DROPS = """
import os, sys
from logrelay.tls import TlsFiles
os.setgroups([])
os.setresuid(65534, 65534, 65534)
TlsFiles(*sys.argv[1:])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become somebody who may not read a file")
def test_files_that_may_not_be_read(authority):
    """The words of the system, and which file."""
    files = [str(authority.folder / name) for name in ("one.pem", "one.key")]
    done = subprocess.run([sys.executable, "-c", DROPS, *files], capture_output=True, text=True, timeout=DEADLINE_S)
    assert f"the TLS file {files[1]} cannot be read: Permission denied" in done.stderr


def test_one_of_the_two_is_not_enough():
    """Neither is plain text; half of it is a mistake."""
    assert tls_files(None, None) is None
    with pytest.raises(ConfigError, match="tls_cert is set and tls_key is not"):
        tls_files("/c", None)
    with pytest.raises(ConfigError, match="tls_key is set and tls_cert is not"):
        tls_files(None, "/k")


DAY_S = 86_400


def test_a_certificate_that_clients_refuse_is_told_of(authority, tmp_path):
    """Before its time, when it should be renewed, and when it has expired; what cannot be read is told of elsewhere."""
    cert, key = map(str, authority.issue("short", days=30))
    files = TlsFiles(cert, key)
    begins, ends = read_validity(authority.folder / "short.pem")
    assert ends - begins == 30 * DAY_S
    soon = ends - RENEW_DAYS * DAY_S
    assert "is not valid before 20" in files.warning(begins - 1)
    assert files.warning(begins) is files.warning(soon - 1) is None
    assert "expires soon (20" in files.warning(soon)
    assert "has expired (20" in files.warning(ends)
    (authority.folder / "short.pem").write_bytes((authority.folder / "ca.pem").read_bytes())
    assert files.warning(ends) != files.warning(begins), "the file is read anew each time"


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_has_no_validity(tmp_path, text):
    path = tmp_path / "c.pem"
    path.write_text(text)
    assert read_validity(path) is None
    assert read_validity(tmp_path / "missing.pem") is None


@pytest.mark.parametrize("year", ["2049", "2051"])
def test_both_forms_of_a_time_are_read(tmp_path, year):
    """Until 2049 a year has two digits in a certificate, then four; openssl is told the date where it can be."""
    made = Authority(tmp_path)
    options = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=x")
    days = (int(year) - 2026) * 366 + 366
    made._openssl(*options, "-keyout", "x.key", "-out", "x.pem", "-days", str(days))
    validity = read_validity(tmp_path / "x.pem")
    assert validity.ends - validity.begins == days * DAY_S
