import shutil
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from infra.onnx_session import ModelCard, ModelRefusedError, OnnxSession, load_card

SHIPPED = Path(__file__).parents[2] / "onnx_models" / "artefacts" / "objects"
ARTEFACT = next((SHIPPED / "lightgbm_1h").iterdir())
WIDTH = 34


@pytest.fixture
def folder(tmp_path):
    """A copy of the shipped artefact."""
    copy = Path(shutil.copytree(ARTEFACT, tmp_path / "artefact"))
    for path in copy.iterdir():
        path.chmod(0o644)
    return copy


def change_card(folder, **changes):
    card = msgspec.json.decode((folder / "card.json").read_bytes()) | changes
    (folder / "card.json").write_bytes(msgspec.json.encode(card))


def write_model(folder, model: bytes):
    """Replace the model and make the card agree with its bytes."""
    (folder / "model.onnx").write_bytes(model)
    change_card(folder, files={"model.onnx": sha256(model).hexdigest()})


def linear_model(width=WIDTH, classes=3, opset=15, name="probabilities") -> onnx.ModelProto:
    rows = np.random.default_rng(1).normal(size=(width, classes)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["input", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], [name], axis=1),
        ],
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, classes])],
        [numpy_helper.from_array(rows, "weights")],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def refuses(folder, text):
    with pytest.raises(ModelRefusedError, match=text):
        OnnxSession(folder)


def test_the_shipped_artefact_loads_and_answers_distributions():
    session = OnnxSession(ARTEFACT)
    found = session.score(np.random.default_rng(3).normal(size=(50, WIDTH)).astype(np.float32))
    assert found.shape == (50, 3)
    assert found.min() >= 0
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-5
    assert session.content_hash == load_card(ARTEFACT).files["model.onnx"]


def test_a_row_scores_the_same_alone_as_in_any_batch():
    session = OnnxSession(ARTEFACT)
    rows = np.random.default_rng(4).normal(scale=0.1, size=(300, WIDTH)).astype(np.float32)
    whole = session.score(rows)
    for size in (1, 2, 7, 64, 299):
        parts = [session.score(rows[at : at + size]) for at in range(0, len(rows), size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_a_large_batch_is_scored_in_parts_with_the_same_answers(monkeypatch):
    session = OnnxSession(ARTEFACT)
    run, sizes = session._run, []

    def note(batch):
        sizes.append(len(batch))
        return run(batch)

    monkeypatch.setattr(session, "_run", note)
    rows = np.random.default_rng(5).normal(size=(1_001, *session.input_shape)).astype(np.float32)
    together = session.score(rows)
    assert sizes == [128] * 7 + [108]
    assert np.array_equal(together, np.concatenate([session.score(row[None]) for row in rows]))
    assert session.score(rows[:0]).shape == (0, 3)


def test_a_flipped_byte_is_refused(folder):
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)
    refuses(folder, "file 'model.onnx' must hash to")


def test_another_feature_schema_hash_is_refused(folder):
    change_card(folder, feature_schema_hash="0123456789abcdef")
    refuses(folder, "feature schema 'fs34' must hash to .*0123456789abcdef")


def test_an_unknown_feature_schema_is_refused(folder):
    change_card(folder, feature_schema="fs35")
    refuses(folder, "feature schema 'fs35'")


def test_tensors_outside_the_file_are_refused_even_if_every_hash_agrees(folder):
    model = linear_model()
    onnx.save_model(
        model,
        str(folder / "model.onnx"),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    files = {one: sha256((folder / one).read_bytes()).hexdigest() for one in FILES_WITH_EXTERNAL}
    change_card(folder, files=files)
    refuses(folder, "must keep every tensor inside the file")


FILES_WITH_EXTERNAL = ("model.onnx", "weights.bin")


def test_a_file_that_the_card_does_not_name_is_refused(folder):
    (folder / "weights.bin").write_bytes(b"\0")
    refuses(folder, "must hold exactly the files of its card")


def test_a_missing_model_is_refused(folder):
    (folder / "model.onnx").unlink()
    refuses(folder, "must hold exactly the files of its card")


def test_a_missing_folder_or_card_is_refused(folder):
    (folder / "card.json").unlink()
    refuses(folder, "must have a readable card.json")
    refuses(folder / "nowhere", "must have a readable card.json")


@pytest.mark.parametrize("card", [b"", b"{}", b"[]", b"\xff", b'{"name": 3}'])
def test_a_broken_card_is_refused(folder, card):
    (folder / "card.json").write_bytes(card)
    refuses(folder, "must have a readable card.json")


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, -1])
def test_a_truncated_model_is_refused_even_if_the_hash_agrees(folder, kept):
    model = (folder / "model.onnx").read_bytes()
    count = int(len(model) * kept) if isinstance(kept, float) else kept
    write_model(folder, model[:count])
    with pytest.raises(ModelRefusedError):
        OnnxSession(folder)


def test_another_input_width_is_refused(folder):
    write_model(folder, linear_model(width=WIDTH - 1).SerializeToString())
    refuses(folder, r"must read one tensor\(float\) \(rows, \*\(34,\)\)")


def test_another_number_of_classes_is_refused(folder):
    write_model(folder, linear_model(classes=2).SerializeToString())
    refuses(folder, "must answer `probabilities`")


def test_another_output_is_refused(folder):
    write_model(folder, linear_model(name="scores").SerializeToString())
    refuses(folder, "must answer `probabilities`")


def test_another_order_of_classes_is_refused(folder):
    change_card(folder, classes=["buy", "hold", "sell"])
    refuses(folder, "classes must be")


def test_an_operator_set_above_that_of_the_card_is_refused(folder):
    write_model(folder, linear_model(opset=17).SerializeToString())
    refuses(folder, "must need operator sets .*at most opset 15")


def test_a_model_that_answers_its_self_test_differently_is_refused(folder):
    write_model(folder, linear_model().SerializeToString())
    refuses(folder, "must answer its self test within")


def test_a_model_without_a_self_test_is_refused(folder):
    change_card(folder, self_test_inputs=[], self_test_probabilities=[])
    refuses(folder, "must have a self test")


def test_another_model_with_a_card_of_its_own_is_served(folder):
    write_model(folder, linear_model().SerializeToString())
    rows = np.random.default_rng(2).normal(size=(2, WIDTH)).astype(np.float32)
    weights = numpy_helper.to_array(linear_model().graph.initializer[0])
    powers = np.exp(rows @ weights)
    expected = powers / powers.sum(axis=1, keepdims=True)
    change_card(folder, self_test_inputs=rows.tolist(), self_test_probabilities=expected.tolist())
    np.testing.assert_allclose(OnnxSession(folder).score(rows), expected, atol=1e-6)


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((2, WIDTH)),
        np.zeros((2, WIDTH - 1), dtype=np.float32),
        np.zeros(WIDTH, dtype=np.float32),
    ],
)
def test_inputs_of_another_shape_or_type_are_refused(matrix):
    with pytest.raises(ValueError, match=r"must be float32 \(rows, \*\(34,\)\)"):
        OnnxSession(ARTEFACT).score(matrix)


def test_card_survives_encoding():
    card = load_card(ARTEFACT)
    assert msgspec.json.decode(msgspec.json.encode(card), type=ModelCard) == card
