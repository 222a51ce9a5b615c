"""Signatures of releases: what minisign makes is read here, what is made here is read by minisign, and no change passes."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from catalunya.errors import UsageError
from catalunya.operations.integrity.verification import new_key
from catalunya.publication.signature import BadSignature, PublicKey, SecretKey, known_keys, verify
from tests.project import missing

DATA = b"0" * 64 + b"  release.json\n"
# Made by minisign 0.11: `minisign -G -W`, then `minisign -S`.
SECRET = """\
untrusted comment: minisign encrypted secret key
RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAnWP1F/LB4Gb2wWuCQO4C4RfWocdqqRkbT+d58DyEwP9bXQplsyX2wIcsO9gJO/eyDunGm4e2Qm4JYrQFEOe9xgDVdfdVgHliAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
"""
PUBLIC = """\
untrusted comment: minisign public key 66E0C1F217F5639D
RWSdY/UX8sHgZocsO9gJO/eyDunGm4e2Qm4JYrQFEOe9xgDVdfdVgHli
"""
SIGNATURE = """\
untrusted comment: signature from minisign secret key
RUSdY/UX8sHgZvwsGlMTNcfN6TabIfJYtSCY67bPEBgYsodnwvagcWWDwk0rOf4TlhmG2zEufpmkDxaHGFZlYxFSOCrJdMUtEAQ=
trusted comment: timestamp:1795748779	file:SHA256SUMS	hashed
poo0V6Ybz4CFVJEZg6N0kpN+BgOLnF5ri9f679fpKyG5Kj406WLuE1Rz2cxDZQrcYEydM0g+vK3oGITgz/vdBg==
"""


@pytest.fixture(scope="module")
def key() -> SecretKey:
    return SecretKey.generate()


@pytest.fixture
def minisign() -> str:
    return shutil.which("minisign") or missing("minisign is not installed (Debian: apt-get install minisign)")


def test_a_signature_of_minisign_is_read():
    public = PublicKey.parse(PUBLIC, "PUBLIC")
    found, comment = verify(DATA, SIGNATURE, [public])
    assert found == public
    assert "file:SHA256SUMS" in comment
    with pytest.raises(BadSignature, match="not a signature of this content"):
        verify(DATA + b" ", SIGNATURE, [public])


def test_a_secret_key_of_minisign_signs_as_it_does():
    secret = SecretKey.parse(SECRET, "SECRET")
    assert secret.public == PublicKey.parse(PUBLIC, "PUBLIC")
    assert secret.file().splitlines()[1] == SECRET.splitlines()[1]
    assert secret.public.file().splitlines()[1] == PUBLIC.splitlines()[1]
    comment = SIGNATURE.splitlines()[2].removeprefix("trusted comment: ")
    # Ed25519 has no random part: the same key signs the same bytes the same.
    assert secret.sign(DATA, comment).splitlines()[1:] == SIGNATURE.splitlines()[1:]
    assert SECRET.splitlines()[1] not in repr(secret)


def test_minisign_itself_accepts_what_is_signed_here(key, minisign, tmp_path):
    (tmp_path / "SHA256SUMS").write_bytes(DATA)
    (tmp_path / "SHA256SUMS.minisig").write_text(key.sign(DATA, "release:x"))

    def check(*public: str) -> subprocess.CompletedProcess[str]:
        command = [minisign, "-Vm", "SHA256SUMS", *public]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    (tmp_path / "key.pub").write_text(key.public.file())
    accepted = check("-P", str(key.public)), check("-p", "key.pub")
    assert [done.returncode for done in accepted] == [0, 0], accepted
    assert "Trusted comment: release:x" in accepted[0].stdout
    (tmp_path / "SHA256SUMS").write_bytes(DATA.replace(b"0", b"1", 1))
    assert check("-p", "key.pub").returncode == 1
    (tmp_path / "key.key").write_text(key.file())
    signed = subprocess.run(
        [minisign, "-Sm", "SHA256SUMS", "-s", "key.key"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert signed.returncode == 0, signed.stderr
    assert check("-p", "key.pub").returncode == 0


def test_every_changed_character_of_a_signature_is_found(key):
    good = key.sign(DATA, "release:x")
    start = len(good.splitlines()[0]) + 1
    for place in range(start, len(good) - 1):
        other = "B" if good[place] == "A" else "A"
        with pytest.raises(BadSignature):
            verify(DATA, good[:place] + other + good[place + 1 :], [key.public])
    for cut in (0, 1, start, len(good) // 2):
        with pytest.raises(BadSignature, match="empty, cut or changed"):
            verify(DATA, good[:cut], [key.public])


def test_after_a_rotation_both_keys_are_known_and_another_is_not(key):
    old, stranger = SecretKey.generate(), SecretKey.generate()
    known = known_keys([str(old.public)], key.file())
    for signer in (old, key):
        assert verify(DATA, signer.sign(DATA, "x"), known)[0] == signer.public
    with pytest.raises(
        BadSignature, match=f"of the key {stranger.public.name}, known are: {old.public.name}"
    ):
        verify(DATA, stranger.sign(DATA, "x"), known)
    forged = SecretKey(key.key_id, stranger.seed)
    with pytest.raises(BadSignature, match="not a signature of this content"):
        verify(DATA, forged.sign(DATA, "x"), known)


@pytest.mark.parametrize(
    "text", ["", "x", "RWQ", "untrusted comment: x\n", "a\nb\n", "\x00", "é", PUBLIC[:-3]]
)
def test_what_is_no_key_is_refused_by_the_name_of_its_variable(text):
    for parse in (SecretKey.parse, PublicKey.parse):
        with pytest.raises(UsageError, match="VARIABLE: ") as caught:
            parse(text, "VARIABLE")
        assert len(text) < 3 or text not in str(caught.value)


@pytest.mark.parametrize("name", [".", "mine.pub"])
def test_a_name_of_which_no_other_can_be_made_is_refused(tmp_path: Path, name: str):
    with pytest.raises(UsageError, match="cannot be the name of a secret key"):
        new_key(Path(name) if name == "." else tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_new_key_is_secret_and_never_overwrites_another(tmp_path: Path):
    path = tmp_path / "catalunya.key"
    public, beside = new_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PublicKey.parse(beside.read_text(), "x") == public == SecretKey.parse(path.read_text(), "x").public
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        new_key(path)
    assert path.read_bytes() == before
