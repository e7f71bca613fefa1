"""A registry in a folder of the test's own."""

import pytest

from tests.infra.models.artefacts import World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)
