"""The data set is built once for all tests of the networks."""

import pytest

from tests.onnx_models.networks.small import recorded_hours


@pytest.fixture(scope="session")
def hours(tmp_path_factory):
    return recorded_hours(tmp_path_factory.mktemp("hours"))
