"""Small real artefacts: a linear model with a card that tells the truth."""

from hashlib import sha256

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from infra.models.registry import Registry, Stamp
from infra.models.signing import Signer, create_key, load_signer
from infra.onnx_session import CLASSES, ModelCard
from schemas.features import FEATURE_SCHEMAS

SCHEMA = FEATURE_SCHEMAS["fs34"]
WIDTH = len(SCHEMA)


def linear_model(seed, width=WIDTH):
    rows = np.random.default_rng(seed).normal(size=(width, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["input", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 3])],
        [numpy_helper.from_array(rows, "weights")],
    )
    imports = [helper.make_opsetid("", 15)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8), rows


def write_artefact(folder, *, name="lightgbm", seed=1, passed=True, model=None, **changes):
    """Write an artefact into the new folder `folder` and return the folder."""
    proto, weights = linear_model(seed)
    content = model if model is not None else proto.SerializeToString()
    inputs = np.random.default_rng(2).normal(size=(2, WIDTH)).astype(np.float32)
    powers = np.exp(inputs @ weights)
    digest = sha256(content).hexdigest()
    card = ModelCard(
        name=name,
        version=f"1.{digest[:8]}",
        timeframe="1h",
        feature_schema=SCHEMA.name,
        feature_schema_hash=SCHEMA.schema_hash,
        input_view="scale-free",
        classes=CLASSES,
        opset=15,
        files={"model.onnx": digest},
        self_test_inputs=inputs.tolist(),
        self_test_probabilities=(powers / powers.sum(axis=1, keepdims=True)).tolist(),
        training={"data": {"first_open_ns": 1, "last_close_ns": 2, "provenance": "recorded"}},
        evaluation={},
        beats_prior=False,
        beats_prior_of_direction=False,
        gate={"passed": passed, "spread": 0.2} if passed is not None else {},
    )
    card = msgspec.structs.replace(card, **changes)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    (folder / "card.json").write_bytes(msgspec.json.encode(card))
    return folder


def new_signer(path, name="local") -> Signer:
    path.parent.mkdir(parents=True, exist_ok=True)
    create_key(path)
    return load_signer(path, name)


class World:
    """An empty registry, its key, and a source of new versions."""

    def __init__(self, tmp_path, versions_kept=10):
        self.path = tmp_path
        self.signer = new_signer(tmp_path / "keys" / "registry.pem")
        self.root = tmp_path / "models"
        self.keys = {"local": self.signer.public_text}
        self.registry = Registry(self.root, self.keys, versions_kept)
        self.registry.create(self.signer)
        self.clock = 0
        self.seed = 0

    def stamp(self, reason="drill"):
        self.clock += 1
        return Stamp(signer=self.signer, now_ns=self.clock, reason=reason)

    def artefact(self, name="lightgbm", **changes):
        self.seed += 1
        folder = self.path / "made" / f"{name}-{self.seed}"
        return write_artefact(folder, name=name, seed=self.seed, **changes)

    def add(self, name="lightgbm", **changes):
        return self.registry.add(self.artefact(name, **changes), self.stamp("new")).version

    def statuses(self, name="lightgbm"):
        found = self.registry.read().model(name).versions
        return {version: entry.status.value for version, entry in found.items()}
