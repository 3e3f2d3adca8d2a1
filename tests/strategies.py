"""Hypothesis strategies for the vocabulary of Fr."""

from hypothesis import strategies as st

from fr_twisted.link import wire

ITEM_IDS = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,40}\Z")
NODES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,40}\Z")
CODES = st.from_regex(r"\A[a-z][a-z0-9-]{0,39}\Z")
SHAS = st.from_regex(r"\A[0-9a-f]{64}\Z")
COUNTS = st.integers(0, 2**53 - 1)
POSITIVES = st.integers(1, 2**53 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
METAS = st.dictionaries(
    TEXTS,
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False)
        | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)

_BOTH = st.just(wire.Ping()) | st.just(wire.Pong()) | st.builds(wire.Goodbye, code=CODES, reason=TEXTS)
FRAMES_FROM_SENDER = (
    st.builds(wire.SenderHello, proto=st.just(wire.PROTO), node=NODES)
    | st.builds(wire.Offer, id=ITEM_IDS, kind=st.just("scan"), size=COUNTS, sha256=SHAS, meta=METAS)
    | st.builds(wire.Data, id=ITEM_IDS, offset=COUNTS, size=POSITIVES)
    | _BOTH
)
FRAMES_FROM_RECEIVER = (
    st.builds(
        wire.ReceiverHello,
        proto=st.just(wire.PROTO),
        node=NODES,
        window=POSITIVES,
        chunk=POSITIVES,
        max_item=POSITIVES,
    )
    | st.builds(wire.Go, id=ITEM_IDS, offset=COUNTS)
    | st.builds(wire.Kept, id=ITEM_IDS, offset=COUNTS)
    | st.builds(wire.Ack, id=ITEM_IDS, sha256=SHAS, duplicate=st.booleans())
    | st.builds(wire.Nack, id=ITEM_IDS, code=CODES, retry=st.booleans(), reason=TEXTS)
    | _BOTH
)
