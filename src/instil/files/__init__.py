"""Files written atomically and verified by checksums."""
