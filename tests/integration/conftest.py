"""What the integration tests share: one server that speaks the MongoDB protocol, one database a test."""

from collections.abc import Iterator

import pytest

from tests import store_servers

_WORDS = {
    "given": f"the server of {store_servers.GIVEN}",
    "container": "mongo:8 in a container, a replica set of one",
    "embedded": "the embedded server (no Docker engine answers)",
}


def pytest_report_header() -> str:
    """Say which server the tests use."""
    return f"store: {_WORDS[store_servers.which()]}"


@pytest.fixture(scope="session")
def mongo_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URI of a live server, without a database of ours."""
    with store_servers.server(tmp_path_factory.mktemp("store") / "data") as uri:
        yield uri


@pytest.fixture
def database_uri(mongo_uri: str) -> Iterator[str]:
    """Return the URI of a new database, which is dropped after the test."""
    with store_servers.database(mongo_uri) as uri:
        yield uri


@pytest.fixture
def clean_reactor() -> Iterator[None]:
    """Fail a test that leaves something scheduled in the reactor."""
    yield
    from twisted.internet import reactor

    left = [str(call) for call in reactor.getDelayedCalls() if call.active()]
    assert not left, f"left in the reactor: {left}"
