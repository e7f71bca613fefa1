import re

import msgspec
import pytest

from schemas.features import FEATURE_SCHEMAS, FEATURES, FS34, FS64, FeatureKind

GOLDEN_HASHES = {"fs34": "aaea078cbed43bf5", "fs64": "4dfd3d9bd3ece08e"}
"""A changed hash needs a new schema version: models trained on the old one must be refused."""

PREDECESSOR_INPUTS = 25
PREDECESSOR_UNIFIED = 49


def test_fs34_holds_34_names_and_fs64_holds_64():
    assert (len(FS34), len(set(FS34))) == (34, 34)
    assert (len(FS64), len(set(FS64))) == (64, 64)


def test_predecessor_lists_come_first():
    assert FS34[PREDECESSOR_INPUTS] == "stoch_k"
    assert FS64[PREDECESSOR_UNIFIED] == "divergence_bps"
    assert all(FEATURES[name].kind is not FeatureKind.EXTERNAL for name in FS64[:49])


@pytest.mark.parametrize("name", ["fs34", "fs64"])
def test_schema_hash_is_the_committed_one(name):
    assert FEATURE_SCHEMAS[name].schema_hash == GOLDEN_HASHES[name]


@pytest.mark.parametrize("field", ["name", "unit", "formula", "warm_up_bars", "kind"])
def test_schema_hash_changes_with_every_field_of_a_feature(field):
    schema = FEATURE_SCHEMAS["fs34"]
    other = FEATURES["lead_lag_ms"]
    changed = msgspec.structs.replace(schema.features[0], **{field: getattr(other, field)})

    renamed = msgspec.structs.replace(schema, features=(changed, *schema.features[1:]))

    assert renamed.schema_hash != schema.schema_hash


def test_schema_hash_changes_with_the_order():
    schema = FEATURE_SCHEMAS["fs34"]

    turned = msgspec.structs.replace(schema, features=schema.features[::-1])

    assert turned.schema_hash != schema.schema_hash


def test_schema_survives_json():
    schema = FEATURE_SCHEMAS["fs64"]

    assert msgspec.json.decode(msgspec.json.encode(schema), type=type(schema)) == schema


def test_every_feature_belongs_to_a_schema_and_states_its_formula():
    assert set(FEATURES) == set(FS34) | set(FS64)
    assert all(len(feature.formula) > 5 and feature.unit for feature in FEATURES.values())
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in FEATURES)


def test_only_external_features_have_no_warm_up():
    for feature in FEATURES.values():
        assert (feature.warm_up_bars == 0) == (feature.kind is FeatureKind.EXTERNAL)
