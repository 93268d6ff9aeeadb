"""Key names and store addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc.errors import ConfigError
from sbc.store.keys import Keys, is_member, member_of
from sbc.store.url import Cluster, Sentinels, StoreAddress, parse_store_url


@given(st.text())
def test_no_text_of_a_peer_stands_in_a_key(text: str) -> None:
    member = member_of(text)
    assert is_member(member)
    assert member.isascii()
    assert set(member) <= set("~abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    assert len(member) <= 64
    assert member_of(member) == member


def test_our_own_call_ids_stay_readable_and_others_do_not_collide() -> None:
    assert member_of("aarfm2yk7q3x5z7abcdefgh2") == "aarfm2yk7q3x5z7abcdefgh2"
    assert member_of("a") != member_of("a ")
    assert member_of("ä") != member_of("a")
    assert member_of("").startswith("~")


def test_all_keys_of_a_node_share_a_hash_tag() -> None:
    keys = Keys("sbc1")
    names = [keys.call("x"), keys.bad("x"), keys.shard(3), keys.cdr_stream, keys.marker]
    assert all(name.startswith("sbc:{sbc1}:") for name in names)
    assert len(set(names)) == len(names)


def test_addresses() -> None:
    assert parse_store_url("embedded", "/run/sbc") == StoreAddress(path="/run/sbc/store.sock")
    assert parse_store_url("unix:///a/b.sock?db=2", "") == StoreAddress(path="/a/b.sock", database=2)
    assert parse_store_url("redis://h", "") == StoreAddress(host="h", port=6379)
    with_password = parse_store_url("redis://user:p%40ss@[::1]:7000/4", "")
    assert with_password == StoreAddress(host="::1", port=7000, username="user", password="p@ss", database=4)
    assert parse_store_url("rediss://h:1", "").tls is not None
    assert "p@ss" not in repr(with_password) + str(with_password)


def test_addresses_of_those_who_know_the_master() -> None:
    url = "sentinel://u:p%40ss@a,[::1]:7,b:26380/my%20store/2?sentinel_user=w&sentinel_password=wa%20tch"
    address = parse_store_url(url, "")
    ends = (("a", 26379), ("::1", 7), ("b", 26380))
    sentinels = Sentinels(ends, "my store", None, "w", "wa tch")
    assert address == StoreAddress(username="u", password="p@ss", database=2, via=sentinels)
    assert str(address) == "sentinel://a:26379,[::1]:7,b:26380/my store/2"
    assert not any(secret in repr(address) for secret in ("p@ss", "wa tch"))
    assert str(address.at("::2", 9)) == "redis://[::2]:9/2"
    assert address.at("h", 9) == StoreAddress(host="h", port=9, username="u", password="p@ss", database=2)
    secure = parse_store_url("sentinel+tls://a/s", "")
    assert isinstance(secure.via, Sentinels)
    assert secure.tls is not None
    assert secure.via.tls is secure.tls
    half = parse_store_url("sentinel+tls://a/s?sentinel_tls=no", "")
    assert isinstance(half.via, Sentinels)
    assert half.tls is not None
    assert half.via.tls is None
    cluster = parse_store_url("cluster://u:p@a,b:7000", "")
    assert cluster == StoreAddress(username="u", password="p", via=Cluster((("a", 6379), ("b", 7000))))
    assert (str(cluster), str(cluster.at("c", 1))) == ("cluster://a:6379,b:7000", "redis://c:1")
    assert parse_store_url("cluster+tls://a", "").tls is not None


@pytest.mark.parametrize(
    "url",
    [
        *["", "http://x", "redis://", "redis://h:99999", "redis://h/x", "unix://", "redis://a,b", "redis://h?db=1"],
        *["sentinel://", "sentinel://a", "sentinel:///s", "sentinel://a,,b/s", "sentinel://a/s/x", "sentinel://a:x/s"],
        *["sentinel://a/s?sentinel_tls=maybe", "sentinel://a/s?password=x", "cluster://", "cluster://a/1"],
        "cluster://" + ",".join(f"h{n}" for n in range(40)),
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_store_url(url, "")
    assert refused.value.faults[0].startswith("store: ")


def test_a_fault_never_shows_the_password() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_store_url("http://u:secret@h", "")
    assert "secret" not in str(refused.value)
