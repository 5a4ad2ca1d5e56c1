"""service/rpc/certificate.py against `cryptography`."""

import datetime
from pathlib import Path

import pytest

from deploy.reliability.certificates import Authority, now
from service.rpc.certificate import not_after


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.mark.parametrize("year", [1999, 2000, 2027, 2049, 2050, 2051, 9999])  # from 2050 on in another form
def test_the_end_is_what_was_signed(authority: Authority, year: int) -> None:
    ends = datetime.datetime(year, 11, 30, 23, 59, 58, tzinfo=datetime.UTC)
    made = authority.sign(f"y{year}", ends=ends, names=("a" * 60,) * 9)  # long, so that lengths take two bytes
    assert made.certificate.not_valid_after_utc == ends
    assert not_after(made.cert.read_bytes()) == ends.timestamp()


def test_the_first_certificate_of_a_chain_counts(authority: Authority) -> None:
    made = authority.sign("leaf", ends=now())
    chain = b"# the server's\n" + made.cert.read_bytes() + b"\n# the root's\n" + authority.ca.read_bytes()
    assert not_after(chain) == made.certificate.not_valid_after_utc.timestamp()
    assert not_after(chain) != not_after(authority.ca.read_bytes())


def test_what_is_no_certificate_is_refused(authority: Authority) -> None:
    with pytest.raises(ValueError, match="found none"):
        not_after(b"hello")
    with pytest.raises(ValueError, match="found none"):
        not_after(authority.sign("x").key.read_bytes())
    whole = Path(authority.ca).read_text().splitlines()
    for kept in (1, 2, 3):
        with pytest.raises(ValueError, match=r"cut short|damaged"):
            not_after("\n".join([*whole[: kept + 1], whole[-1]]).encode())
