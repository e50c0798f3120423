"""One recipe seed, one derived seed a stage."""

import hashlib


def derive_seed(seed: int, stage: str) -> int:
    """A 31-bit seed for a stage, by its name: adding a stage to a recipe changes no other stage's randomness."""
    digest = hashlib.sha256(f"{seed}/{stage}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
