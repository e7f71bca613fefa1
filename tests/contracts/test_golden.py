import msgspec
import pytest

from schemas.codec import CONTRACT_VERSION, decode, encode
from schemas.exports import contract_classes
from tests.contracts.growth import describe_fields, has_grown
from tests.contracts.samples import GOLDEN, samples

CLASSES = {each.__name__: each for each in contract_classes()}
RELEASED_FIELDS = msgspec.json.decode((GOLDEN / "fields.json").read_bytes())


def test_every_message_has_golden_bytes_of_this_version():
    assert GOLDEN.name == f"v{CONTRACT_VERSION}"
    assert {path.stem for path in GOLDEN.glob("*.json")} == {*CLASSES, "fields"}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_golden_bytes_are_decoded_and_encoded_to_themselves(name):
    golden = (GOLDEN / f"{name}.json").read_bytes().strip()
    message = decode(CLASSES[name], golden)
    # Fields that came later stand behind the released ones and hold their defaults.
    assert like(msgspec.json.decode(golden), msgspec.json.decode(encode(message)))


def like(released, today):
    """Return whether `today` holds everything that `released` holds, and nothing else in lists."""
    if isinstance(released, dict):
        return all(name in today and like(kind, today[name]) for name, kind in released.items())
    if isinstance(released, list):
        return len(released) == len(today) and all(map(like, released, today))
    return released == today


@pytest.mark.parametrize("name", sorted(RELEASED_FIELDS))
def test_released_fields_never_change(name):
    today = describe_fields(CLASSES[name])
    for field, description in RELEASED_FIELDS[name].items():
        assert field in today, f"{name}.{field} was released"
        released, now = (msgspec.json.decode(text) for text in (description, today[field]))
        assert has_grown(released, now), f"{name}.{field} was released"


ENUM, STRING = {"enum": ["a", "b"]}, {"type": "string"}


@pytest.mark.parametrize(
    ("released", "today", "grown"),
    [
        (ENUM, {"enum": ["a", "b", "c"]}, True),
        (ENUM, {"enum": ["a"]}, False),
        (STRING, {"type": "integer"}, False),
        (STRING, {"type": "string", "pattern": "a"}, False),
        ({"required": True, "schema": STRING}, {"required": False, "schema": STRING}, False),
        ({"properties": {"x": STRING}}, {"properties": {"x": STRING, "y": {"default": 1}}}, True),
        ({"properties": {"x": STRING}}, {"properties": {"x": STRING, "y": STRING}}, False),
        ({"properties": {"x": STRING}}, {"properties": {"y": {"default": 1}}}, False),
        ({"properties": {"x": ENUM}}, {"properties": {"x": {"enum": []}}}, False),
    ],
)
def test_a_contract_may_gain_values_and_optional_fields_and_nothing_else(released, today, grown):
    assert has_grown(released, today) is grown


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_fields_that_came_after_the_release_are_optional(name):
    for field, description in describe_fields(CLASSES[name]).items():
        if field not in RELEASED_FIELDS[name]:
            assert '"required":false' in description, f"{name}.{field} must have a default"


@pytest.mark.parametrize("message", samples(), ids=lambda each: type(each).__name__)
def test_a_reader_ignores_fields_of_a_newer_writer(message):
    newer = msgspec.json.decode(encode(message)) | {"added_later": {"nested": [1, None]}}
    assert decode(type(message), msgspec.json.encode(newer)) == message
