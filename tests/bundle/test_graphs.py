"""A graph in a bundle computes; it reaches no file beside it and brings no code of its own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from mla_serve.bundle.manifest import Bundle, Manifest, write_manifest
from mla_serve.bundle.predictor import Predictor
from mla_serve.bundle.runtime import DEVICES, open_session
from mla_serve.errors import BundleError


def graph(location: str | None = None, domain: str = "", operator: str = "Add") -> bytes:
    """Write a graph that adds a constant, which may lie in another file, by an operator that may be of any domain."""
    tensor = helper.make_tensor("constant", TensorProto.FLOAT, [4], np.zeros(4, np.float32).tobytes(), raw=True)
    if location is not None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": "0", "length": "16"}.items():
            tensor.external_data.add(key=key, value=value)
    node = helper.make_node(operator, ["values", "constant"], ["features"], domain=domain)
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("values", "features")]
    opsets = [helper.make_opsetid("", 20)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(
        helper.make_graph([node], "g", value[:1], value[1:], [tensor]), opset_imports=opsets, ir_version=10
    )
    content: bytes = model.SerializeToString()
    return content


def test_the_graph_itself_is_fine() -> None:
    assert open_session(graph(), DEVICES["cpu"], 1).run(np.ones((2, 4), np.float32)).shape == (2, 4)


@pytest.mark.parametrize("where", ["absolute", "beside", "above"])
def test_a_graph_may_not_read_other_files(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    secret = tmp_path / ("inner" if where == "beside" else "") / "secret.bin"
    secret.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    monkeypatch.chdir(tmp_path / "inner")  # the folder that a server runs in is known to whoever made the bundle
    location = {"absolute": str(secret), "beside": "secret.bin", "above": f"..{os.sep}secret.bin"}[where]
    with pytest.raises(Exception, match=r"(?i)external"):
        open_session(graph(location), DEVICES["cpu"], 1)


@pytest.mark.parametrize("domain", ["attacker.example", "ai.onnx.contrib", "com.microsoft.extensions"])
def test_a_graph_may_not_bring_operators(domain: str) -> None:
    with pytest.raises(Exception, match=r"(?i)not a registered|no opset|domain|not find|custom"):
        open_session(graph(domain=domain, operator="Run"), DEVICES["cpu"], 1)


def test_a_bundle_with_such_a_graph_is_refused(bundle_copy: Path) -> None:
    (bundle_copy / "vector.onnx").write_bytes(graph("/etc/hostname"))
    manifest = Manifest.model_validate_json((bundle_copy / "manifest.json").read_bytes())
    write_manifest(bundle_copy, manifest)  # hashes that fit, as an attacker would write them
    with pytest.raises(BundleError, match=r"vector\.onnx"):
        Predictor(Bundle.load(bundle_copy))


def test_nothing_that_is_served_unpickles() -> None:
    import mla_serve

    package = Path(mla_serve.__file__).parent
    served = [
        path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in ("train", "export", "bulk")
    ]
    for path in served:
        text = path.read_text(encoding="utf-8")
        for word in (
            "import pickle",
            "allow_pickle=True",
            "import marshal",
            "import shelve",
            "joblib",
            "eval(",
            "exec(",
        ):
            assert word not in text, (path.name, word)
