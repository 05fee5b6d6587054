import pytest

from nodes import ENVIRONMENT
from troupe_process import Cluster


@pytest.fixture(scope="session")
def bard(tmp_path_factory):
    """One cluster for all tests that leave it as they found it."""
    with Cluster(tmp_path_factory.mktemp("bard"), environment=ENVIRONMENT) as cluster:
        yield cluster
