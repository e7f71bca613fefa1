import json

import pytest
from typer import Typer
from typer.testing import CliRunner

from dataflows.cli.report import register
from tests.infra.report.test_session import write_folder


@pytest.fixture
def report():
    """Run the verb with its arguments."""
    app = Typer()
    register(app)
    return lambda *arguments: CliRunner().invoke(app, [str(each) for each in arguments])


def test_report_of_a_folder_is_written_beside_its_tables(report, tmp_path):
    write_folder(tmp_path)
    found = report("--folder", tmp_path, "--json")
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert document["counts"]["fills"] == 6
    assert (tmp_path / "report.html").stat().st_size == document["report_bytes"]


def test_report_goes_where_it_is_told(report, tmp_path):
    write_folder(tmp_path)
    found = report("--folder", tmp_path, "--out", tmp_path / "page.html")
    assert found.exit_code == 0, found.output
    assert (tmp_path / "page.html").exists()
    assert "PAPER" in found.stdout


def test_two_sources_are_a_usage_error(report, tmp_path):
    assert report("--folder", tmp_path, "--environment", "paper", "--json").exit_code == 2


def test_absent_folder_fails_in_one_line(report, tmp_path):
    found = report("--folder", tmp_path / "absent", "--json")
    assert found.exit_code == 1
    assert "must exist" in json.loads(found.stdout)["error"]
