"""The house keeps its promises: documents, derived pages, pins, sizes, and nothing of any machine."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dataflows.cli import reference
from infra.settings import load_settings
from schemas.ddl import table_name
from schemas.ticks import DeadLetterReason, TickLine
from schemas.topics import message_topics
from schemas.trading import DenialReason
from tests.documents import ROOT, blocks, find_fault, links, marked, name_of, pages, shell_lines

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
CODE = ("schemas", "operators", "infra", "onnx_models", "dataflows")
LINES_MAX = 450
FILES = ("run", "dev", "train")
"""Pinned packages, each of them with all of the one before."""
HOSTS = {
    "127.0.0.1", "localhost", "json-schema.org", "www.apache.org", "clickhouse.example.com",
}  # fmt: skip
"""Hosts that a file may name; none of them is where packages come from."""
TEXT = {".py", ".md", ".toml", ".txt", ".sql", ".json", ".ipynb", ".j2", ".lock", ".in", ""}


def committed_files():
    tops = [*CODE, "tests", "docs", "requirements", ".ci"]
    found = [path for top in tops for path in sorted((ROOT / top).rglob("*"))]
    found += [path for path in ROOT.iterdir() if not path.name.startswith(".")]
    return [
        path
        for path in found
        if path.is_file() and "__pycache__" not in path.parts and path.suffix in TEXT
    ]


def test_every_command_in_the_documents_exists_with_its_options():
    typed = [(page, words) for page, words in shell_lines() if words[:1] == ["quantstream"]]
    assert len(typed) > 40
    faults = {(page, " ".join(words)): find_fault(words) for page, words in typed}
    assert {key: fault for key, fault in faults.items() if fault} == {}


@pytest.mark.parametrize(
    "words",
    [["quantstream", "fly"], ["quantstream", "why", "--moment", "x"], ["quantstream", "--x"]],
)
def test_a_command_that_does_not_exist_is_found(words):
    assert find_fault(words)


def test_every_make_verb_in_the_documents_exists_and_says_what_it_does():
    verbs = set(re.findall(r"^([a-z-]+):.*## \S", MAKEFILE, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (\S+)$", MAKEFILE, re.MULTILINE))
    typed = {words[1] for _, words in shell_lines() if words[:1] == ["make"] and words[1:]}
    assert typed <= verbs
    assert phony == verbs


def test_every_verb_of_the_command_is_explained_outside_its_reference():
    text = "\n".join(page.read_text() for page in pages() if page.name != "cli.md")
    missing = [
        name
        for name in re.findall(r"^## `quantstream (\S+)`$", reference.render_cli(), re.MULTILINE)
        if f"quantstream {name}" not in text and f"`{name}`" not in text
    ]
    assert missing == []


def test_every_link_inside_the_repository_resolves():
    broken = [
        f"{name_of(page)}: {target}"
        for page, target in links()
        if not (page.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("reason", [*DenialReason, *DeadLetterReason])
def test_every_reason_is_documented(reason):
    text = (ROOT / "docs/reference/reasons.md").read_text()
    assert re.search(rf"^\| `{reason.value}` \| \S.{{10,}}", text, re.MULTILINE)


def test_no_reason_is_documented_that_does_not_exist():
    text = (ROOT / "docs/reference/reasons.md").read_text()
    written = set(re.findall(r"^\| `([A-Z_]+)` \|", text, re.MULTILINE))
    assert written == {*DenialReason, *DeadLetterReason}


def test_reference_pages_are_what_the_code_renders():
    rendered = reference.render_all(ROOT / "docs", ROOT / "README.md")
    stale = [name_of(path) for path, text in rendered.items() if path.read_text() != text]
    assert stale == [], "run make render"


def test_every_setting_says_what_it_means():
    rows = [line for line in reference.render_settings().splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []


def test_readme_without_its_marks_is_refused():
    with pytest.raises(ValueError, match="flow: begin"):
        reference.place_flow("# nothing here")


def test_changelog_begins_with_the_version_of_the_project():
    first = re.search(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == PROJECT["project"]["version"]


def test_step_ids_of_the_dataflows_stand_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    flows = "".join(path.read_text() for path in (ROOT / "dataflows").glob("*.py"))
    steps = re.findall(r"run_machine\(\s*\"(\w+)\"", flows)
    assert steps
    assert [step for step in steps if f"`{step}`" not in changelog] == []


def test_licence_is_the_whole_apache_licence():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text.splitlines()[1]
    assert "END OF TERMS AND CONDITIONS" in text


def test_decisions_are_numbered_without_a_gap_and_listed():
    folder = ROOT / "docs" / "decisions"
    files = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [int(name[:3]) for name in files] == list(range(1, len(files) + 1))
    index = (folder / "README.md").read_text()
    for name in files:
        assert f"({name})" in index
        headings = re.findall(r"^## (.*)$", (folder / name).read_text(), re.MULTILINE)
        assert headings == ["Context", "Choice", "Cost"]


def test_import_rules_are_configured():
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["type"] == "layers")
    assert layers["layers"] == ["dataflows", "onnx_models", "infra | operators", "schemas"]


@pytest.mark.parametrize(
    ("file", "extras", "left_out"),
    [
        ("run", (), set()),
        ("dev", ("dev", "train"), {"torch"}),
        ("train", ("dev", "train"), set()),
    ],
)
def test_every_dependency_is_pinned_to_a_version_that_fits(file, extras, left_out):
    text = (ROOT / "requirements" / f"{file}.txt").read_text()
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE)
    asked = list(PROJECT["project"]["dependencies"])
    for extra in extras:
        asked += PROJECT["project"]["optional-dependencies"][extra]
    for requirement in map(Requirement, asked):
        versions = [pin for name, pin in pins if name == canonicalize_name(requirement.name)]
        assert (not versions) == (requirement.name in left_out), requirement
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_every_pin_has_a_hash_and_what_is_added_agrees_with_run_time():
    run, dev, train = (
        dict(re.findall(r"^([a-z0-9-]+==[^\\]+?) ?\\\n    (--hash=sha256:)", text, re.MULTILINE))
        for text in ((ROOT / f"requirements/{file}.txt").read_text() for file in FILES)
    )
    for file, found in zip(FILES, (run, dev, train), strict=True):
        text = (ROOT / f"requirements/{file}.txt").read_text()
        assert len(found) == len(re.findall(r"^[a-z0-9-]+==", text, re.MULTILINE))
    assert set(run) <= set(dev) <= set(train)


def test_no_file_names_a_machine_or_a_package_registry():
    machine = re.compile(r"/(?:root|home|Users)/[\w.]|[A-Z]:\\Users")
    registry = re.compile(r"--(?:extra-)?index-url|--find-links")
    found = []
    for path in committed_files():
        text = path.read_text(encoding="utf-8", errors="replace")
        hosts = set(re.findall(r"https?://([A-Za-z0-9][A-Za-z0-9.-]*[A-Za-z0-9])", text)) - HOSTS
        if path != Path(__file__) and (hosts or machine.search(text) or registry.search(text)):
            found.append((name_of(path), sorted(hosts)))
    assert found == []


@pytest.mark.parametrize("folder", CODE)
def test_no_module_is_longer_than_a_reader_can_hold(folder):
    sizes = {name_of(p): len(p.read_text().splitlines()) for p in (ROOT / folder).rglob("*.py")}
    assert {name: size for name, size in sizes.items() if size > LINES_MAX} == {}


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: name_of(block.page))
def test_every_python_example_compiles(block):
    compile(block.text, name_of(block.page), "exec")


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda block: name_of(block.page))
def test_every_settings_example_is_valid(block, tmp_path):
    file = tmp_path / "quantstream.toml"
    file.write_text(block.text)
    assert load_settings(file, {}).settings


def test_the_documented_tick_is_one():
    import msgspec

    lines = [block.text for block in blocks("json") if '"kind"' in block.text]
    assert lines
    for line in lines:
        assert msgspec.json.decode(line, type=TickLine).kind == "trade"


def test_notebooks_are_valid_and_hold_no_output():
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        notebook = json.loads(path.read_text())
        assert notebook["nbformat"] == 4
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert cells
        for cell in cells:
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            compile("".join(cell["source"]), path.name, "exec")


def test_tables_and_views_in_the_documents_exist():
    migrations = "".join(path.read_text() for path in (ROOT / "infra/migrations").glob("*.sql"))
    known = set(
        re.findall(r"(?:TABLE IF NOT EXISTS|VIEW IF NOT EXISTS|REPLACE VIEW) (\w+)", migrations)
    )
    assert {table_name(topic.name) for topic in message_topics()} <= known
    texts = [page.read_text() for page in pages()]
    texts += [path.read_text() for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")]
    named = {
        name
        for text in texts
        for name in re.findall(r"\b(?:FROM|(?<!ARRAY )JOIN) ([a-z]\w+)", text)
    }
    assert len(named) > 5
    assert named <= known


def test_the_documented_listing_is_one():
    from schemas.market import InstrumentListed

    text = marked("docs/how-to/own-symbols.md", "listing")
    held = {}
    exec(text.partition("producer =")[0], held)
    assert isinstance(held["listing"], InstrumentListed)


def test_continuous_integration_runs_what_the_readme_says():
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()
    assert "make test" in (ROOT / "README.md").read_text()
