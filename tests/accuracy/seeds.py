"""Which generated scans may be looked at while the analysis is developed, and which are set aside.

The rule, written down before the analysis was developed against generated scans:

- Seeds below `FIRST_SET_ASIDE` are for development: constants and thresholds may be chosen on them.
- Seeds from `FIRST_SET_ASIDE` on are set aside. Only `make accuracy` draws them, and only its tables show what came
  of them. Whoever changes the analysis after having seen those tables moves `FIRST_SET_ASIDE` up by `STEP`, so that
  the next tables come from scans that nobody has looked at.
- The numbers of a set-aside scan (pose, warp, atrophy, noise, lesions and so on) follow from its seed alone.
"""

FIRST_SET_ASIDE = 300_000
STEP = 100_000


def set_aside(table: int, count: int) -> list[int]:
    """Return ``count`` set-aside seeds; each ``table`` (0, 1, ...) has seeds of its own, up to 1,000.

    Raises:
        ValueError: more than 1,000 seeds, or a table whose seeds would run into the next step.
    """
    if not 0 <= count <= 1_000 or not 0 <= table < STEP // 1_000:
        raise ValueError(f"table {table} has no {count} seeds of its own")
    first = FIRST_SET_ASIDE + 1_000 * table
    return list(range(first, first + count))
