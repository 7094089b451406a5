"""Tests in several processes do not take each other's ports."""

from reco_assets_tests.ports import quiet_port, share_of


def test_no_port_is_given_to_two_workers_and_none_is_left_over() -> None:
    shares = [set(share_of(f"gw{number}", "3")) for number in range(3)]
    assert len(set.union(*shares)) == sum(map(len, shares))
    assert set.union(*shares) == set(share_of(None, None))


def test_no_port_is_given_twice() -> None:
    ports = [quiet_port() for _ in range(50)]
    assert len(set(ports)) == 50
