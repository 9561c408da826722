"""Keys are long, random and recognisable."""

import re

from llmhost.gateway.keys import digest, new_key


def test_key_has_256_random_bits_and_a_prefix() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"llmhost-[0-9a-f]{64}", key) for key in keys)


def test_digest_is_plain_sha256() -> None:
    # The first test vector of FIPS 180-2.
    assert digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
