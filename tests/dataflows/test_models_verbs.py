"""`quantstream models`: every verb in text and JSON, its exit codes, and what it leaves on disk."""

import json
import os

import pytest
from typer.testing import CliRunner

from dataflows.cli.main import app
from dataflows.cli.output import ExitCode
from dataflows.prepare import start_stack
from dataflows.registry import SHIPPED, load_voting, open_registry
from dataflows.stack import EFFECTIVE_NAME
from infra.models.manifest import Status
from infra.models.registry import Registry
from infra.models.signing import create_key, load_signer
from infra.settings import Settings, load_settings, write_settings
from infra.stack.supervise import ManagedProcess, Supervisor
from schemas.settings import PROJECT_KEYS
from tests.infra.models.artefacts import write_artefact
from tests.infra.models.test_registry import files_of, flip

MODEL = "xgboost_1h"
VERBS = (
    "list", "show", "verify", "add", "activate", "rollback", "prune", "sign", "shadow", "retire",
)  # fmt: skip


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTSTREAM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("QUANTSTREAM_KAFKA__EMBEDDED_PORT", "9")
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    return lambda *arguments: runner.invoke(
        app, ["models", *(str(one) for one in arguments)], env={"COLUMNS": "200"}
    )


def document(result):
    assert result.stdout.count("\n") == 1, result.output
    return json.loads(result.stdout)


def artefact(tmp_path, seed, **changes):
    return write_artefact(tmp_path / f"made-{seed}", name=MODEL, seed=seed, **changes)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(cli, verb):
    result = cli(verb, "--help")
    assert result.exit_code == ExitCode.OK
    assert "--json" in result.output


def test_the_shipped_registry_is_signed_by_the_project_and_whole():
    assert Registry(SHIPPED, PROJECT_KEYS).verify() == []


@pytest.mark.acceptance("S-110", criterion="inventory lists every model: role, version, hash")
def test_the_inventory_names_every_version_and_every_voter(cli, measured):
    found = document(cli("list", "--json"))
    manifest = Registry(SHIPPED, PROJECT_KEYS).read()
    assert [(row["model"], row["version"], row["content_hash"]) for row in found["models"]] == [
        (entry.model, entry.version, entry.content_hash) for entry in manifest.entries()
    ]
    voters = load_settings().settings.models
    measured(f"{len(found['models'])} versions, {len(found['voters'])} voters")
    assert [row["voter"] for row in found["voters"]] == sorted(voters)
    assert found["registry"]["signer"] == "project"


@pytest.mark.acceptance("S-089", criterion="the versions listed as serving are those that serve")
def test_what_is_listed_as_serving_is_what_is_loaded(cli, measured):
    found = document(cli("list", "--json"))
    loaded = load_voting(load_settings().settings)
    listed = {
        row["voter"]: (row["version"], row["content_hash"])
        for row in found["voters"]
        if row["kind"] == "onnx"
    }
    measured(listed)
    assert listed == {name: (one.version, one.session.content_hash) for name, one in loaded.items()}
    text = cli("list").output
    assert all(version in text for version, _ in listed.values())


def test_the_first_change_makes_a_registry_of_ones_own_and_the_shipped_one_stays(cli, tmp_path):
    before = files_of(SHIPPED)
    added = document(cli("add", artefact(tmp_path, 1), "--json"))
    assert (added["ok"], added["status"], added["model"]) == (True, "candidate", MODEL)
    assert files_of(SHIPPED) == before
    root = document(cli("list", "--json"))["registry"]["root"]
    assert root == str(tmp_path / "state" / "models")
    assert document(cli("verify", "--json"))["signer"] == "local"


def test_activate_and_rollback_without_a_running_dataflow_count_from_the_next_start(cli, tmp_path):
    version = document(cli("add", artefact(tmp_path, 1), "--json"))["version"]
    shipped = open_registry(load_settings().settings).read().model(MODEL).active
    activated = document(cli("activate", MODEL, version, "--reason", "better", "--json"))
    assert activated == {
        "ok": True, "action": "activate", "model": MODEL, "version": version,
        "previous_version": shipped,
    }  # fmt: skip
    scorers = load_voting(load_settings().settings)
    assert version in {one.version for one in scorers.values()}
    result = cli("rollback", MODEL)
    assert result.exit_code == ExitCode.OK
    assert f"{MODEL} {shipped} serves; no dataflow was told" in " ".join(result.output.split())
    shown = document(cli("show", MODEL, version, "--json"))
    assert shown["entry"]["status"] == "retired"
    assert [change["action"] for change in shown["changes"]][-2:] == ["activate", "rollback"]
    # The version that the shipped one replaced is there as well; before it there was none.
    assert cli("rollback", MODEL).exit_code == ExitCode.OK
    assert cli("rollback", MODEL).exit_code == ExitCode.USAGE


@pytest.fixture
def supervised(tmp_path):
    """A supervisor of the state folder whose flow was started for the environment `mydata`."""
    state = tmp_path / "state"
    state.mkdir()
    flow = ManagedProcess(name="trading", arguments=("-c", "import time; time.sleep(120)"))
    found = Supervisor(state)
    write_settings(Settings(environment="mydata", state_dir=state), state / EFFECTIVE_NAME)
    found.start([flow], environment=os.environ, foreground=False)
    yield found
    found.stop()


@pytest.mark.parametrize("verb", [["activate", MODEL, "9.9"], ["rollback", MODEL]])
def test_a_change_for_the_lanes_of_another_environment_is_refused_before_it_is_made(
    cli, supervised, tmp_path, verb
):
    refused = cli(*verb, "--json")
    assert refused.exit_code == ExitCode.USAGE
    error = document(refused)["error"]
    assert "'mydata'; found 'paper'" in error
    assert "--env mydata" in error
    assert not (tmp_path / "state" / "models").exists()


def test_a_change_that_no_broker_can_pass_on_is_refused_before_it_is_made(
    cli, supervised, tmp_path
):
    version = document(cli("add", artefact(tmp_path, 1), "--json"))["version"]
    before = files_of(tmp_path / "state" / "models")
    refused = cli("activate", MODEL, version, "--env", "mydata", "--json")
    assert refused.exit_code == ExitCode.FAILED
    assert files_of(tmp_path / "state" / "models") == before


def test_a_second_start_leaves_the_settings_of_what_runs(supervised, tmp_path):
    state = tmp_path / "state"
    with pytest.raises(RuntimeError, match="already runs"):
        start_stack(Settings(environment="other", state_dir=state), (), foreground=False)
    assert load_settings(state / EFFECTIVE_NAME, environ={}).settings.environment == "mydata"


@pytest.mark.acceptance("S-089", criterion="candidate, shadow, active, retired: one verb each")
def test_a_version_goes_through_every_standing(cli, tmp_path, measured):
    version = document(cli("add", artefact(tmp_path, 1), "--json"))["version"]
    served = open_registry(load_settings().settings).read().model(MODEL).active

    def standings():
        rows = document(cli("list", "--json"))["models"]
        return {row["version"]: row["status"] for row in rows if row["model"] == MODEL}

    seen = [standings()]
    shadowed = document(cli("shadow", MODEL, version, "--reason", "two weeks", "--json"))
    assert (shadowed["action"], shadowed["root"]) == ("shadow", str(tmp_path / "state" / "models"))
    seen.append(standings())
    assert version not in {one.version for one in load_voting(load_settings().settings).values()}
    cli("activate", MODEL, version)
    seen.append(standings())
    text = " ".join(cli("retire", MODEL, version).output.split())
    assert f"{MODEL} {version} is retired; no version serves from the next start on" in text
    seen.append(standings())
    assert [(one[version], one[served]) for one in seen] == [
        ("candidate", "active"), ("shadow", "active"), ("active", "retired"),
        ("retired", "retired"),
    ]  # fmt: skip
    assert cli("retire", MODEL, version).exit_code == ExitCode.USAGE
    assert document(cli("verify", "--json"))["signer"] == "local"
    measured([one[version] for one in seen])


def test_what_serves_is_not_put_on_trial(cli):
    served = Registry(SHIPPED, PROJECT_KEYS).read().model(MODEL).active
    assert cli("shadow", MODEL, served).exit_code == ExitCode.USAGE


def test_a_gate_that_was_not_passed_is_refused_without_a_reason_to_overrule_it(cli, tmp_path):
    version = document(cli("add", artefact(tmp_path, 1, passed=False), "--json"))["version"]
    refused = cli("activate", MODEL, version, "--json")
    assert refused.exit_code == ExitCode.REFUSED
    assert "must have passed its gate" in document(refused)["error"]
    done = cli("activate", MODEL, version, "--despite-gate", "drill of 3 June")
    assert done.exit_code == ExitCode.OK
    last = document(cli("show", MODEL, "--json"))["changes"][-1]
    assert (last["despite_gate"], last["reason"]) == (True, "drill of 3 June")


def test_damage_is_named_and_nothing_damaged_is_activated(cli, tmp_path):
    version = document(cli("add", artefact(tmp_path, 1), "--json"))["version"]
    flip(tmp_path / "state" / "models" / "objects" / MODEL / version / "model.onnx")
    found = cli("verify", "--json")
    assert found.exit_code == ExitCode.FAILED
    (fault,) = document(found)["faults"]
    assert (fault["model"], fault["version"], fault["file"]) == (MODEL, version, "model.onnx")
    assert "model.onnx" in cli("verify").output
    assert cli("activate", MODEL, version).exit_code == ExitCode.REFUSED
    assert cli("show", MODEL, version).exit_code == ExitCode.REFUSED
    assert cli("show", MODEL).exit_code == ExitCode.OK


def test_unknown_names_are_the_users_error(cli):
    assert cli("show", "nobody").exit_code == ExitCode.USAGE
    assert cli("activate", MODEL, "9.9").exit_code == ExitCode.USAGE
    assert cli("list", "--root", "nowhere").exit_code == ExitCode.USAGE


def test_a_manifest_changed_by_hand_is_refused_by_every_verb(cli, tmp_path):
    cli("add", artefact(tmp_path, 1))
    flip(tmp_path / "state" / "models" / "registry.json", -2)
    for arguments in (["list"], ["verify"], ["show", MODEL], ["rollback", MODEL], ["prune"]):
        assert cli(*arguments).exit_code == ExitCode.REFUSED, arguments
    assert all(one.session is None for one in load_voting(load_settings().settings).values())


def test_prune_keeps_what_it_is_told_to(cli, tmp_path):
    versions = [
        document(cli("add", artefact(tmp_path, seed), "--json"))["version"] for seed in range(4)
    ]
    removed = document(cli("prune", "--keep", "2", "--json"))["removed"]
    entries = Registry(SHIPPED, PROJECT_KEYS).read().entries()
    retired = {(each.model, each.version) for each in entries if each.status is Status.RETIRED}
    assert [one for one in removed if one[0] == MODEL] == [[MODEL, one] for one in versions]
    # Of the others only one that neither serves nor is what a rollback goes back to.
    assert {tuple(one) for one in removed if one[0] != MODEL} < retired


def test_a_registry_in_a_folder_of_ones_own_is_signed_with_ones_own_key(cli, tmp_path, monkeypatch):
    create_key(tmp_path / "mine.pem")
    public = load_signer(tmp_path / "mine.pem", "mine").public_text
    arguments = ["--root", "other", "--key", tmp_path / "mine.pem", "--signer", "mine"]
    assert cli("add", artefact(tmp_path, 1), *arguments).exit_code == ExitCode.REFUSED
    monkeypatch.setenv("QUANTSTREAM_REGISTRY__PUBLIC_KEYS", json.dumps({"mine": public}))
    assert cli("add", artefact(tmp_path, 2), *arguments).exit_code == ExitCode.OK
    assert document(cli("verify", "--root", "other", "--json"))["signer"] == "mine"
    assert cli("verify", "--root", SHIPPED).exit_code == ExitCode.REFUSED
    signed = document(cli("sign", "--root", "other", "--json"))
    assert signed["signer"] == "local"
    assert document(cli("verify", "--root", "other", "--json"))["signer"] == "local"
