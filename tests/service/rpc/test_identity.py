"""service/rpc/identity.py and access.py: who is known, what the file may say, and what a method takes."""

import time
from pathlib import Path
from typing import Any

import pytest

from service.errors import PermissionRefused, SetupError, Unauthenticated
from service.rpc import watched
from service.rpc.access import SCOPE_OF, Access
from service.rpc.call import ANONYMOUS, Scope, current_call
from service.rpc.identity import IdentityFile, parse_identities, token_digest
from service.rpc.reflection import FILES

TOKEN = "advsentry_x"
DIGEST = token_digest(TOKEN).hex()
ENTRY = f'[[identity]]\nname = "a"\nsha256 = "{DIGEST}"\nscopes = ["detect"]\n'
CERTIFICATE = '[[identity]]\nname = "c"\ncertificate = "c.example.org"\nscopes = ["info", "detect.scores"]\n'
DETECT, INFO = "/advsentry.v1.DetectorService/Detect", "/advsentry.v1.DetectorService/GetModelInfo"


class Context:
    """What of a call's context is looked at."""

    def __init__(self, *metadata: tuple[str, str | bytes], **shown: list[bytes]) -> None:
        self.metadata = metadata
        self.shown = shown

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self.metadata

    def peer(self) -> str:
        return "ipv4:192.0.2.1:1"

    def auth_context(self) -> dict[str, list[bytes]]:
        return self.shown


def test_a_token_is_known_by_its_digest_and_a_certificate_by_its_name() -> None:
    made = parse_identities(ENTRY + "images_per_s = 5\nburst = 9.5\n" + CERTIFICATE)
    caller = made.of_token(TOKEN)
    assert (caller.name, caller.scopes, caller.images_per_s, caller.burst) == ("a", {Scope.DETECT}, 5.0, 9.5)
    assert made.of_certificate(["x", "c.example.org"]).scopes == {Scope.INFO, Scope.SCORES}
    for token in ("", TOKEN + "x", TOKEN[:-1], DIGEST):
        with pytest.raises(Unauthenticated, match="unknown"):
            made.of_token(token)
    for names in ([], ["x"], ["C.example.org"], [""]):
        with pytest.raises(Unauthenticated, match="nobody who is known"):
            made.of_certificate(names)


def test_an_identity_ends_when_its_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = "not_after = 2030-01-01T00:00:00Z\n", "not_after = 2030-01-01T01:00:00+01:00\n"  # the same instant
    made = parse_identities(ENTRY + ends[0] + CERTIFICATE + ends[1])
    monkeypatch.setattr(time, "time", lambda: 1893455999.0)  # a second before
    assert made.of_token(TOKEN).name == "a"
    assert made.of_certificate(["c.example.org"]).name == "c"
    monkeypatch.setattr(time, "time", lambda: 1893456001.0)
    with pytest.raises(Unauthenticated, match="this token has ended"):
        made.of_token(TOKEN)
    with pytest.raises(Unauthenticated, match="this certificate has ended"):
        made.of_certificate(["c.example.org"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected at least one"),
        ("x = 1", "expected \\[\\[identity\\]\\] entries and nothing else"),
        ("identity = 3", "entries and nothing else"),
        ("[[identity]", "Expected"),
        (ENTRY + "role = 1", "entry 1 \\(a\\): unknown key 'role'"),
        (ENTRY + ENTRY, "entry 2 \\(a\\): its token or certificate is also"),
        (CERTIFICATE + CERTIFICATE, "entry 2 \\(c\\)"),
        (ENTRY.replace("sha256", "certificate") + f'sha256 = "{DIGEST}"', "expected one of"),
        ('[[identity]]\nname = "a"\nscopes = ["detect"]', "expected one of sha256 and certificate"),
        (ENTRY.replace(DIGEST, TOKEN), "sha256: expected 64 hexadecimal digits"),
        (ENTRY.replace('"a"', '""'), "name: expected 1 to 64"),
        (ENTRY.replace('"a"', '"a\\n"'), "name: expected 1 to 64 printable"),
        (ENTRY.replace('"a"', "7"), "name: expected"),
        (ENTRY.replace('["detect"]', "[]"), "scopes: expected some of detect, detect.scores, info"),
        (ENTRY.replace('["detect"]', '["root"]'), "scopes: expected"),
        (ENTRY.replace('["detect"]', '"detect"'), "scopes: expected"),
        (ENTRY + "images_per_s = -1", "images_per_s: expected a number from 0 on, got -1"),
        (ENTRY + "burst = nan", "burst: expected"),
        (ENTRY + "burst = true", "burst: expected"),
        (ENTRY + "not_after = 2030-01-01", "not_after: expected a time with its zone"),
        (ENTRY + 'not_after = "soon"', "not_after: expected a time with its zone"),
    ],
    ids=str,
)
def test_what_is_wrong_in_the_file_is_named(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parse_identities(text)
    assert DIGEST not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_new_file_is_taken_and_a_broken_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watched, "LOOK_S", 0.0)
    path = tmp_path / "identities.toml"
    path.write_text(ENTRY)
    file = IdentityFile(path, takes_tokens=True, takes_certificates=False)
    assert file.now().of_token(TOKEN).name == "a"
    path.write_text(ENTRY.replace('"a"', '"another"'))
    assert file.now().of_token(TOKEN).name == "another"
    path.write_text("nonsense")
    assert file.now().of_token(TOKEN).name == "another"
    path.write_text(CERTIFICATE)  # nobody could call
    assert file.now().of_token(TOKEN).name == "another"
    path.unlink()
    assert file.now().of_token(TOKEN).name == "another"
    assert caplog.text.count("the old ones stay") == 3
    path.write_text(ENTRY.replace(DIGEST, "0" * 64))
    with pytest.raises(Unauthenticated):
        file.now().of_token(TOKEN)


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        (ENTRY, {"takes_tokens": False}, "in plaintext over a network"),
        (CERTIFICATE, {"takes_certificates": False}, "are asked for with --tls-client-ca"),
        ("", {}, r"identities .*f\.toml: expected at least one"),
    ],
)
def test_a_file_that_does_not_fit_the_server_is_refused(
    tmp_path: Path, text: str, options: dict[str, bool], says: str
) -> None:
    path = tmp_path / "f.toml"
    path.write_text(text)
    with pytest.raises(SetupError, match=says):
        IdentityFile(path, **{"takes_tokens": True, "takes_certificates": True, **options})
    with pytest.raises(SetupError, match=r"identities .*nope: cannot be read"):
        IdentityFile(tmp_path / "nope", takes_tokens=True, takes_certificates=True)


def access(tmp_path: Path, **options: Any) -> Access:
    path = tmp_path / "identities.toml"
    path.write_text(ENTRY + CERTIFICATE)
    made = IdentityFile(path, takes_tokens=True, takes_certificates=True)
    return Access(**{"identities": made, **options})


def begin(made: Access, method: str, *metadata: tuple[str, str | bytes], **shown: list[bytes]) -> str:
    context: Any = Context(*metadata, **shown)
    call = made.begin(method, context)
    assert call is current_call()
    return call.caller.name


BEARER = ("authorization", f"Bearer {TOKEN}")


def test_a_call_needs_a_token_and_its_scope(tmp_path: Path) -> None:
    made = access(tmp_path)
    assert begin(made, DETECT, ("x", "y"), BEARER) == "a"
    assert begin(made, DETECT, ("authorization", f"bearer  {TOKEN} ")) == "a"
    assert begin(made, "/grpc.health.v1.Health/Check") == ANONYMOUS.name
    with pytest.raises(PermissionRefused, match="takes the scope 'info', which a does not have"):
        begin(made, INFO, BEARER)
    with pytest.raises(PermissionRefused):
        begin(made, "/x.Y/Z", BEARER)
    with pytest.raises(Unauthenticated):
        begin(made, "/x.Y/Z")
    for wrong in (
        [],
        [("authorization", TOKEN)],
        [("authorization", f"Basic {TOKEN}")],
        [("authorization", "Bearer ")],
        [("authorization", b"Bearer x")],
        [BEARER, BEARER],
        [("authorization-bin", f"Bearer {TOKEN}".encode())],
    ):
        with pytest.raises(Unauthenticated) as caught:
            begin(made, DETECT, *wrong)  # type: ignore[arg-type]
        assert TOKEN not in str(caught.value)


def test_a_certificate_is_as_good_as_a_token_which_beats_it(tmp_path: Path) -> None:
    made = access(tmp_path, asks_for_certificates=True)
    shown = {"x509_subject_alternative_name": [b"127.0.0.1", b"c.example.org"]}
    assert begin(made, INFO, **shown) == "c"
    assert begin(made, DETECT, BEARER, **shown) == "a"
    with pytest.raises(PermissionRefused):
        begin(made, DETECT, **shown)
    with pytest.raises(Unauthenticated, match="the token is unknown"):
        begin(made, INFO, ("authorization", "Bearer x"), **shown)
    assert begin(made, INFO, x509_common_name=[b"c.example.org"]) == "c"
    with pytest.raises(Unauthenticated, match="nobody who is known"):  # a name that anybody may choose
        begin(made, INFO, x509_common_name=[b"c.example.org"], x509_subject_alternative_name=[b"d"])


def test_without_a_file_every_certificate_that_is_signed_may_do_everything() -> None:
    made = Access(asks_for_certificates=True)
    assert begin(made, DETECT, x509_common_name=[b"x"]) == "x"
    assert begin(made, INFO) == "certificate"
    assert current_call().caller.scopes == set(Scope)
    with pytest.raises(Unauthenticated, match="the token is unknown"):
        begin(made, INFO, BEARER, x509_common_name=[b"x"])


def test_without_identities_everybody_may() -> None:
    assert begin(Access(), DETECT) == begin(Access(), "/x.Y/Z", BEARER) == ANONYMOUS.name
    assert current_call().key == "192.0.2.1"


def test_every_method_of_ours_has_its_scope() -> None:
    services = [service for file in FILES for service in file.services_by_name.values()]
    assert {f"/{service.full_name}/{method.name}" for service in services for method in service.methods} <= {*SCOPE_OF}
    assert len(services) == 4
