from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from sipserver.accounts.credentials import Keyring
from sipserver.accounts.faults import AccountError
from sipserver.accounts.subscribers import Fault, RefusedImportError, Subscribers
from sipserver.sip.digest import ha1
from sipserver.storage.database import StoreError, sqlite

ALICE = "alice@example.com"


def count(connection: sqlite.Connection, table: str) -> int:
    (number,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert isinstance(number, int)
    return number


def import_text(subscribers: Subscribers, folder: Path, text: str | bytes) -> int:
    path = folder / "people.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return subscribers.import_csv(path)


def faults(subscribers: Subscribers, folder: Path, text: str | bytes) -> list[Fault]:
    with pytest.raises(RefusedImportError) as caught:
        import_text(subscribers, folder, text)
    return list(caught.value.faults)


def test_added_subscriber_has_credentials_and_a_party(
    subscribers: Subscribers, connection: sqlite.Connection, keyring: Keyring
) -> None:
    alice = subscribers.add("sip:alice@EXAMPLE.com;transport=tcp", "secret", name=" Alice ", email="", country="DE")
    assert (alice.address, alice.name, alice.email, alice.company, alice.country) == (ALICE, "Alice", None, None, "DE")
    assert alice.party is not None
    assert alice.party.startswith("p_")
    assert not alice.disabled
    assert alice.created_at == alice.updated_at
    rows = connection.execute("SELECT algorithm, key_id, sealed FROM credentials ORDER BY algorithm").fetchall()
    opened = {algorithm: keyring.unseal(ALICE, algorithm, key_id, sealed) for algorithm, key_id, sealed in rows}
    assert opened == {
        algorithm: ha1("alice", "example.com", "secret", algorithm) for algorithm in ("MD5", "SHA-256", "SHA-512-256")
    }


def test_password_and_ha1_are_nowhere_in_the_files(
    subscribers: Subscribers, connection: sqlite.Connection, tmp_path: Path
) -> None:
    subscribers.add(ALICE, "rosebud-and-more")
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"rosebud" not in content
    for algorithm in ("MD5", "SHA-256", "SHA-512-256"):
        assert ha1("alice", "example.com", "rosebud-and-more", algorithm).encode() not in content


def test_address_exists_once(subscribers: Subscribers) -> None:
    subscribers.add(ALICE, "secret")
    with pytest.raises(AccountError, match=r"alice@example\.com exists already"):
        subscribers.add("alice@Example.Com", "other")


@pytest.mark.parametrize("text", ["", "alice", "example.com", "@example.com", "alice@", "a b@example.com", "alice@-"])
def test_text_that_is_no_address_is_refused(subscribers: Subscribers, text: str) -> None:
    with pytest.raises(AccountError, match=r"is not an address like alice@example\.com"):
        subscribers.add(text, "secret")


@pytest.mark.parametrize(("password", "said"), [("", "empty"), ("\udcff", "not valid UTF-8")])
def test_bad_password_is_refused(subscribers: Subscribers, password: str, said: str) -> None:
    with pytest.raises(AccountError, match=said):
        subscribers.add(ALICE, password)
    subscribers.add(ALICE, "good")
    with pytest.raises(AccountError, match=said):
        subscribers.passwd(ALICE, password)


def test_passwd_replaces_every_credential(
    subscribers: Subscribers, connection: sqlite.Connection, keyring: Keyring
) -> None:
    subscribers.add(ALICE, "secret")
    subscribers.passwd(ALICE, "other")
    for algorithm, key_id, sealed in connection.execute("SELECT algorithm, key_id, sealed FROM credentials"):
        expected = ha1("alice", "example.com", "other", algorithm)
        assert keyring.unseal(ALICE, algorithm, key_id, sealed) == expected


def test_disable_and_enable(subscribers: Subscribers) -> None:
    subscribers.add(ALICE, "secret")
    assert subscribers.disable(ALICE).disabled
    assert subscribers.show(ALICE).disabled
    assert not subscribers.enable(ALICE).disabled


def test_remove_leaves_nothing(subscribers: Subscribers, connection: sqlite.Connection) -> None:
    subscribers.add(ALICE, "secret")
    subscribers.add("bob@example.com", "secret")
    subscribers.remove(ALICE)
    assert [count(connection, table) for table in ("subscribers", "credentials", "parties")] == [1, 3, 1]
    assert [subscriber.address for subscriber in subscribers.listing()] == ["bob@example.com"]


@pytest.mark.parametrize("action", ["show", "remove", "disable", "enable"])
def test_unknown_address_is_said_so(subscribers: Subscribers, action: str) -> None:
    with pytest.raises(AccountError, match=r"nobody@example\.com is not a subscriber"):
        getattr(subscribers, action)("nobody@example.com")
    with pytest.raises(AccountError, match="is not a subscriber"):
        subscribers.passwd("nobody@example.com", "secret")


def test_listing_is_by_address(subscribers: Subscribers) -> None:
    for user in ("carol", "alice", "bob"):
        subscribers.add(f"{user}@example.com", "secret")
    listed = [subscriber.address for subscriber in subscribers.listing()]
    assert listed == ["alice@example.com", "bob@example.com", "carol@example.com"]
    assert subscribers.listing()[0] == subscribers.show(ALICE)


def test_store_held_by_another_is_said_so(subscribers: Subscribers, connection: sqlite.Connection) -> None:
    connection.execute("PRAGMA query_only = 1")
    with pytest.raises(StoreError, match=r"accounts\.db: attempt to write a readonly database"):
        subscribers.add(ALICE, "secret")


def test_import_takes_columns_in_any_order(subscribers: Subscribers, tmp_path: Path) -> None:
    text = '\ufeffPassword, address ,company\r\nsecret,alice@example.com,"Big, Ltd"\r\n\r\nother,bob@example.com,\r\n'
    assert import_text(subscribers, tmp_path, text) == 2
    assert subscribers.show(ALICE).company == "Big, Ltd"
    assert subscribers.show("bob@example.com").company is None


def test_import_of_a_header_alone_adds_nobody(subscribers: Subscribers, tmp_path: Path) -> None:
    assert import_text(subscribers, tmp_path, "address,password\n") == 0


def test_import_names_the_line_of_every_fault_and_adds_nobody(
    subscribers: Subscribers, connection: sqlite.Connection, tmp_path: Path
) -> None:
    subscribers.add("old@example.com", "secret")
    text = (
        "address,password,name\n"
        "good@example.com,secret,Good\n"
        "bad address,secret,\n"
        'multi@example.com,secret,"two\nlines"\n'
        "old@example.com,secret,\n"
        "GOOD@example.com,,\n"
        "sip:good@EXAMPLE.com,secret,\n"
        "\n"
        "short@example.com,secret\n"
        "good@example.com,,\n"
        'quoted@example.com,"sec"ret,x\n'
        "last@example.com,,\n"
    )
    assert faults(subscribers, tmp_path, text) == [
        Fault(3, "'bad address' is not an address like alice@example.com"),
        Fault(6, "old@example.com exists already"),
        Fault(7, "the password is empty"),
        Fault(8, "good@example.com stands in line 2 already"),
        Fault(10, "has 2 fields where the header has 3"),
        Fault(11, "good@example.com stands in line 2 already"),
        Fault(11, "the password is empty"),
        Fault(12, "is not valid CSV: ',' expected after '\"'"),
        Fault(13, "the password is empty"),
    ]
    assert [count(connection, table) for table in ("subscribers", "credentials", "parties")] == [1, 3, 1]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "lacks address and password"),
        ("address;password", "lacks address and password"),
        ("address", "lacks password"),
        ("address,password,phone", "unknown column 'phone'"),
        ("address,password,password", "names a column twice"),
        ('"address,password', "is not valid CSV"),
    ],
)
def test_import_explains_a_wrong_header(subscribers: Subscribers, tmp_path: Path, header: str, said: str) -> None:
    (fault,) = faults(subscribers, tmp_path, header)
    assert fault.line == 1
    assert said in fault.sentence


def test_import_names_the_line_that_is_no_utf8(subscribers: Subscribers, tmp_path: Path) -> None:
    text = b"address,password\nalice@example.com,x\nb\xfcrger@example.com,x\n"
    assert faults(subscribers, tmp_path, text) == [Fault(3, "is not UTF-8 text")]


def test_import_of_a_file_that_is_not_there_is_said_so(subscribers: Subscribers, tmp_path: Path) -> None:
    with pytest.raises(AccountError, match=r"none\.csv cannot be read"):
        subscribers.import_csv(tmp_path / "none.csv")


def test_import_that_collides_with_another_adds_nobody(
    subscribers: Subscribers, connection: sqlite.Connection, tmp_path: Path
) -> None:
    path = tmp_path / "people.csv"
    path.write_text("address,password\nalice@example.com,x\nbob@example.com,x\n")

    def somebody_else(done: int, total: int) -> None:
        subscribers.add("bob@example.com", "first")

    with pytest.raises(AccountError, match="nothing was imported"):
        subscribers.import_csv(path, somebody_else)
    assert [subscriber.address for subscriber in subscribers.listing()] == ["bob@example.com"]


def test_import_of_ten_thousand_takes_seconds(
    subscribers: Subscribers, connection: sqlite.Connection, tmp_path: Path
) -> None:
    path = tmp_path / "people.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["address", "password", "name"])
        writer.writerows([f"user{number}@example.com", f"pass{number}", f"User {number}"] for number in range(10_000))
    seen: list[tuple[int, int]] = []
    began = time.process_time()
    assert subscribers.import_csv(path, lambda done, total: seen.append((done, total))) == 10_000
    assert time.process_time() - began < 3.0
    assert seen[-1] == (10_000, 10_000)
    assert [count(connection, table) for table in ("subscribers", "credentials", "parties")] == [10_000, 30_000, 10_000]
