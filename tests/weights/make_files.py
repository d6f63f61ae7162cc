#!/usr/bin/env python3
"""Makes small weight files with the original libraries, for the readers' tests.

    pip install torch               # or: pip install tensorflow keras h5py
    python make_files.py torch
    python make_files.py keras

Element i, row-major in the file's own layout, of a tensor of n elements is n + i/4: nothing is drawn, so there is no seed.
"""

import argparse
import pathlib

import numpy as np

HERE = pathlib.Path(__file__).parent


def filled(shape):
    n = int(np.prod(shape, dtype=int))
    return (n + np.arange(n, dtype=np.float32) / 4).reshape(shape)


def make_torch():
    import os
    import warnings

    import torch
    from torch import nn

    warnings.simplefilter("ignore")
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    state = model.state_dict()
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(filled(tuple(tensor.shape))))
    old = {"_use_new_zipfile_serialization": False}
    torch.save(state, HERE / "state.pth")
    torch.save(state, HERE / "state-legacy.pth", **old)
    torch.save(state, HERE / "state-protocol-4.pth", pickle_protocol=4)
    wrapped = {"epoch": 3, "best": 0.5, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    wrapped["optimizer"] = torch.optim.Adam(model.parameters()).state_dict()
    torch.save(wrapped, HERE / "checkpoint.pth")
    t = torch.from_numpy(filled((2, 3, 4)))
    views = {"t": t, "permuted": t.permute(2, 0, 1), "sliced": t[:, 1:, ::2], "expanded": torch.ones(1).expand(5)}
    views |= {"f16": t.half(), "bf16": t.bfloat16(), "f64": t.double(), "int": t.long(), "scalar": torch.tensor(2.5)}
    views |= {"empty": torch.zeros(0, 3), "parameter": nn.Parameter(t[1])}
    torch.save(views, HERE / "views.pth")
    torch.save(views, HERE / "views-legacy.pth", **old)
    torch.save(model, HERE / "module.pth")

    class Hostile:
        def __reduce__(self):
            return (os.system, ("touch hostile-code-was-run",))

    torch.save({"t": t, "x": Hostile()}, HERE / "hostile.pth")
    torch.save({"t": t, "x": Hostile()}, HERE / "hostile-legacy.pth", **old)


def make_keras():
    import h5py
    import keras
    from keras import layers

    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(2, 3, name="first_conv")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.BatchNormalization(scale=False)(x)
    backbone = keras.Model(inputs, layers.Flatten()(x), name="backbone")
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, layers.Dense(3, name="predictions")(backbone(inputs)))
    model.set_weights([filled(w.shape) for w in model.get_weights()])
    # Without the optimizer and the training configuration.
    model.save(HERE / "nested.keras")
    model.save_weights(HERE / "nested.weights.h5")
    model.save(HERE / "nested.h5")
    # As Keras 3.0 wrote it: the layers' names are in config.json alone.
    strip_names(HERE / "nested.keras", HERE / "nested-3.0.keras")
    with h5py.File(HERE / "chunked.h5", "w") as file:
        data = filled((10, 9))
        file.create_dataset("layer/deflated:0", data=data, chunks=(4, 5), compression="gzip", shuffle=True)
        file.create_dataset("layer/chunks", data=data.astype("f2"), chunks=(3, 9))
        file.create_dataset("layer/big_endian", data=data.astype(">f8"))
        file.create_dataset("layer/integers", data=np.arange(3))
        file["scalar"] = np.float32(1)
    with h5py.File(HERE / "latest.h5", "w", libver="latest") as file:
        file["layer/kernel"] = data
    with h5py.File(HERE / "latest-chunks.h5", "w", libver="latest") as file:
        file.create_dataset("layer/kernel", data=data, chunks=(4, 5))
    # Two layers of the same name, in the model and in a model inside it, as `save_weights` of Keras 3 lays them out.
    with h5py.File(HERE / "twins.weights.h5", "w") as file:
        for path, shape in [("layers/dense", (2, 3)), ("layers/functional/layers/dense", (3, 5))]:
            variables = file.create_group(f"{path}/vars")
            variables.attrs["name"] = "dense"
            variables["0"] = filled(shape)


def strip_names(source, target):
    import io
    import zipfile

    import h5py

    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith(".h5"):
                memory = io.BytesIO(data)
                with h5py.File(memory, "r+") as file:
                    file.visititems(lambda _, item: item.attrs.pop("name", None) and None)
                data = memory.getvalue()
            new.writestr(entry, data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=["torch", "keras"])
    {"torch": make_torch, "keras": make_keras}[parser.parse_args().library]()
