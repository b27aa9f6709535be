"""Questions to name servers, which are real here and answer whatever the test wants."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from sipserver.sip.locate import Naptr, Records, Srv
from sipserver.transport.nameservers import (
    LONGEST_ANSWER,
    MAX_RECORDS,
    NameServers,
    NoAnswer,
    WatchedFile,
    hosts_of,
    system_servers,
)
from support.names import NameServer, sip_zone

ZONE = {
    **sip_zone("far.test", ("sip1.far.test", 5070), ("sip2.far.test", 5072)),
    ("sip1.far.test", "AAAA"): ["2001:db8::1"],
    ("alias.test", "CNAME"): ["other.test."],
    ("other.test", "CNAME"): ["sip1.far.test."],
    ("round.test", "CNAME"): ["round.test."],
    ("bad.test", "A"): ["224.0.0.1", "0.0.0.0", "192.0.2.1", "255.255.255.255"],
    ("many.test", "A"): [f"192.0.2.{number}" for number in range(1, 60)],
    ("_sip._udp.none.test", "SRV"): ["0 0 0 ."],
}


async def ask(server: NameServer, name: str, kind: str, patience: float = 5.0) -> Records:
    return (await NameServers([server.server], patience).ask((name, kind))).records


async def test_records_of_each_kind_are_read() -> None:
    with NameServer(ZONE) as server:
        assert await ask(server, "far.test", "NAPTR") == Records(
            naptr=[Naptr(10, 50, "s", "SIP+D2U", "", "_sip._udp.far.test")]
        )
        found = await ask(server, "_sip._udp.far.test", "SRV")
        assert sorted(found.srv, key=lambda each: each.priority) == [
            Srv(1, 10, 5070, "sip1.far.test"), Srv(2, 10, 5072, "sip2.far.test"),
        ]  # fmt: skip
        assert await ask(server, "sip1.far.test", "A") == Records(addresses=["127.0.0.1"])
        assert await ask(server, "sip1.far.test", "AAAA") == Records(addresses=["2001:db8::1"])
        assert (await ask(server, "_sip._udp.none.test", "SRV")).srv == [Srv(0, 0, 0, "")]
        assert {each[2] for each in server.asked} == {"udp"}


async def test_what_is_not_there_holds_as_long_as_the_zone_says() -> None:
    with NameServer(ZONE) as server:
        servers = NameServers([server.server])
        for name in ("sip2.far.test", "nothing.test"):
            answer = await servers.ask((name, "AAAA"))
            # The minimum of the SOA is 30, its own TTL 900 (RFC 2308 §5).
            assert (answer.records, answer.ttl) == (Records(), 30)
        assert (await servers.ask(("far.test", "NAPTR"))).ttl == 300


async def test_aliases_are_followed_within_the_answer_and_no_further_than_they_lead() -> None:
    with NameServer(ZONE) as server:
        assert await ask(server, "alias.test", "A") == Records(addresses=["127.0.0.1"])
        with pytest.raises(NoAnswer):
            await ask(server, "round.test", "A", 0.3)


async def test_an_answer_that_was_cut_short_is_asked_for_over_tcp() -> None:
    with NameServer(ZONE) as server:
        server.truncates = True
        assert await ask(server, "sip1.far.test", "A") == Records(addresses=["127.0.0.1"])
        assert server.asked == [("sip1.far.test", "A", "udp"), ("sip1.far.test", "A", "tcp")]


async def test_an_answer_that_is_too_long_is_none() -> None:
    zone = {("long.test", "SRV"): [f"1 1 5060 host{number}.{'x' * 60}.test." for number in range(400)]}
    with NameServer(zone) as server:
        server.truncates = True
        query = dns.message.make_query("long.test", "SRV").to_wire()
        assert len(server.answer(query, "tcp").to_wire(max_size=65_535)) > LONGEST_ANSWER
        with pytest.raises(NoAnswer):
            await ask(server, "long.test", "SRV", 0.3)


async def test_of_many_records_some_are_looked_at_and_of_these_what_is_one_hosts() -> None:
    with NameServer(ZONE) as server:
        assert len((await ask(server, "many.test", "A")).addresses) == MAX_RECORDS
        assert await ask(server, "bad.test", "A") == Records(addresses=["192.0.2.1"])


async def test_datagrams_that_are_no_answer_are_passed_over() -> None:
    other = dns.message.make_response(dns.message.make_query("sip1.far.test", "A"))
    with NameServer(ZONE) as server:
        # Bytes, the question itself, and the answer to a question with another number.
        server.forged = [b"\x00" * 40, b"", other.to_wire(), b"\xff" * 600]
        assert await ask(server, "sip1.far.test", "A") == Records(addresses=["127.0.0.1"])


async def test_a_server_that_fails_is_passed_over_for_the_next_and_asked_last_from_then_on() -> None:
    with NameServer(ZONE) as broken, NameServer(ZONE) as server:
        broken.rcode = dns.rcode.SERVFAIL
        servers = NameServers([broken.server, server.server])
        assert (await servers.ask(("sip1.far.test", "A"))).records.addresses == ["127.0.0.1"]
        await servers.ask(("sip2.far.test", "A"))
        assert (len(broken.asked), len(server.asked)) == (1, 2)


async def test_silence_ends_after_the_time_out() -> None:
    with NameServer(ZONE) as server:
        server.silent = True
        began = time.monotonic()
        with pytest.raises(NoAnswer):
            await ask(server, "sip1.far.test", "A", 0.2)
        assert time.monotonic() - began < 2


async def test_where_nobody_listens_there_is_no_answer() -> None:
    with NameServer(ZONE) as server:
        gone = server.server
    with pytest.raises(NoAnswer):
        await NameServers([gone], 0.3).ask(("far.test", "NAPTR"))


@pytest.mark.parametrize("name", ["a" * 70 + ".test", "a..test", ".".join(["label"] * 50)])
async def test_what_is_no_name_is_not_asked_for(name: str) -> None:
    with NameServer(ZONE) as server:
        assert await ask(server, name, "A") == Records()
        assert server.asked == []


async def test_the_systems_servers_are_read_anew_when_they_change(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    servers = NameServers(timeout=0.2, resolv_conf=file)
    with pytest.raises(NoAnswer):
        await servers.ask(("far.test", "A"))
    file.write_text("search test\n# comment\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver x\noptions a\n")
    assert system_servers(file.read_text()) == [("192.0.2.53", 53), ("fe80::1%eth0", 53)]
    watched = WatchedFile(file)
    assert (watched.changed(), watched.changed()) == (True, False)
    assert "192.0.2.53" in watched.text()


def test_names_of_the_hosts_file_have_its_addresses() -> None:
    text = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n192.0.2.7\tPBX.example pbx # ours\nbroken line\n"
    assert hosts_of(text + "#1.2.3.4 x\n") == {
        "localhost": ["127.0.0.1", "::1"], "ip6-localhost": ["::1"], "pbx.example": ["192.0.2.7"],
        "pbx": ["192.0.2.7"],
    }  # fmt: skip


async def test_many_questions_at_once_find_their_answers() -> None:
    zone = {(f"host{number}.test", "A"): [f"192.0.2.{number}"] for number in range(1, 41)}
    with NameServer(zone) as server:
        servers = NameServers([server.server])
        found = await asyncio.gather(*(servers.ask((f"host{number}.test", "A")) for number in range(1, 41)))
        assert [each.records.addresses for each in found] == [[f"192.0.2.{number}"] for number in range(1, 41)]
