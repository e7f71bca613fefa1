import json
import time
import urllib.error
import urllib.request

import pytest

from infra.serve import Workload, start_server
from infra.stack.process import find_free_port


@pytest.fixture
def served():
    workload = Workload("trading", "test", stale_after_seconds=0)
    port = find_free_port()
    stop = start_server(workload, "127.0.0.1", port)
    yield workload, f"http://127.0.0.1:{port}"
    stop()


@pytest.fixture
def patient():
    return Workload("trading", "test", stale_after_seconds=1)


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_show_counts_lag_and_event_time(served):
    workload, url = served
    workload.observe("ticks", 7)
    workload.observe("event_time_ns", 2_000_000_000)
    workload.lag("market.ticks", 3, 11)
    status, text = get(f"{url}/metrics")

    assert status == 200
    assert 'quantstream_records_total{environment="test",flow="trading",kind="ticks"} 7.0' in text
    assert 'quantstream_event_time_seconds{environment="test",flow="trading"} 2.0' in text
    assert 'partition="3",topic="market.ticks"} 11.0' in text


def test_health_fails_when_work_waits_and_none_is_done(served):
    workload, url = served
    assert get(f"{url}/health")[0] == 200
    workload.lag("market.ticks", 0, 5)
    time.sleep(0.01)
    status, text = get(f"{url}/health")

    assert status == 503
    assert json.loads(text)["lag_records"] == 5


def test_health_is_ok_again_once_nothing_waits(served):
    workload, url = served
    workload.lag("market.ticks", 0, 5)
    workload.lag("market.ticks", 0, 0)
    assert get(f"{url}/health")[0] == 200


def test_health_fails_until_the_broker_answers_and_when_it_falls_silent(patient):
    assert patient.health()["ok"]
    patient.expect_broker()
    assert not patient.health()["ok"]
    assert patient.health()["seconds_since_broker_answered"] is None
    patient.broker_answered()
    assert patient.health()["ok"]
    time.sleep(1.1)
    found = patient.health()
    assert (found["ok"], found["lag_records"]) == (False, 0)
    patient.broker_answered()
    assert patient.health()["ok"]


def test_a_broker_that_answers_does_not_excuse_work_left_undone(patient):
    patient.expect_broker()
    patient.lag("trade.signals", 0, 1)
    time.sleep(1.1)
    patient.broker_answered()
    assert not patient.health()["ok"]


def test_event_time_never_goes_back(served):
    workload, url = served
    workload.observe("event_time_ns", 5)
    workload.observe("event_time_ns", 3)
    assert json.loads(get(f"{url}/health")[1])["event_time_ns"] == 5


def test_another_path_is_not_found(served):
    assert get(f"{served[1]}/other")[0] == 404
