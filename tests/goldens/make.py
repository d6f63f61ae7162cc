#!/usr/bin/env python3
"""Makes the golden files: what PyTorch computes for whole models, for the engine to be compared with.

    pip install torch==2.15.0 torchvision timm numpy
    python make.py [--seed 1] [--out DIR] [--only MODEL ...]

One JSON file per model (and image size), and `generator.json` with known values of the random number generator.
Everything runs on the CPU in float32 on one thread; the same is run in float64, and the distance between the two
is printed and stored (`float64`), because a comparison with a float32 golden means something only where that
distance is far below the tolerance.

No weight and no image is stored. Both come from the counter-based generator of `src/rng.rs` (Threefry-2x32-20),
which is reimplemented here. In what follows `u` is `Stream::named(seed, STREAM).uniform(i)`, a multiple of 2^-24
in [0, 1); values are computed in float64 and rounded to float32 once.

Weights: STREAM is `"weights/" + KEY` with KEY the state_dict key, and `i` runs over the tensor in PyTorch's layout,
row-major. By key, where the part before the last dot names the module (a batch-norm is a module whose own name
starts with `bn`, or that ends in `downsample.1`; a convolution's weight has four dimensions, a linear layer's two):

    convolution weight     (2u - 1) * sqrt(6 / fan_in)     fan_in = in channels * kernel height * kernel width
    linear weight          (2u - 1) / sqrt(fan_in)         fan_in = in features
    convolution or
    linear bias            (2u - 1) * 0.1
    batch-norm weight      1 + 0.2 * (2u - 1)
        of the last batch-norm of a residual block (key ends in LAST_BN[model]):
                           0.3 * (1 + 0.2 * (2u - 1))
    (and so any other weight of one dimension)
    batch-norm bias        0.2 * (2u - 1)
    running_mean           0.1 * (2u - 1)
    running_var            0.75 + 0.5 * u
    num_batches_tracked    ignored

Then `moved` of the golden replaces single elements. A ReLU whose input is within rounding of zero passes the
gradient in one program and stops it in another, a max-pool whose two largest inputs are within rounding of each other
sends it to one place or the other, and one such element in a million moves the gradient of a bias by several
thousandths. So where a ReLU's input on batch 0 comes close to zero, the bias of that channel is moved by the little
that puts zero into a gap, and where two inputs of a max-pool come close, a weight of that channel's convolution is moved
by a thousandth. How close is too close follows from how far float32 is from float64 in that place: see MARGIN. These few
values are the only weights that are stored.

Batch b: images of shape [N, H, W, C] with elements `2u - 1` from `"batch/<b>/images"`, counted in that order;
label n is `words([n, 0])[0] % classes` of `"batch/<b>/labels"`.

U-Nets have masks instead of labels: 1 where the uniform numbers of `"batch/<b>/masks"` are below 0.4, counted in the order
N, H, W; their loss is binary cross-entropy plus soft Dice (smoothing 1, the mean over images), their logits are maps.

Each tensor (gradient, running statistic) is stored as a summary, computed in float64 from the float32 values:
`norm`, its L2 norm; `projections`, for j in 0..8 its dot product with `sqrt(3) * (2u - 1)` from
`"projection/<j>/" + KEY`, elements counted as for weights; `indices` and `samples`, the elements
`words([n, 0])[0] % len` of `"sample/" + KEY` for n in 0..16. The projections have unit variance per element, so the
root mean square of `p_j(g) - p_j(g')` over j estimates the L2 distance of g and g'. A gradient that is zero but for
rounding has `vanishes`.
"""

import argparse
import json
import math
import pathlib

import numpy as np
import torch
import torchvision
from torch import nn

CLASSES = 7
STEPS = 10
PROJECTIONS = 8
SAMPLES = 16
# Adam's first steps are lr * sign(gradient), so rounding is amplified step by step, the more the deeper the net: at
# these rates ten losses in float32 and float64 stay within 1e-4 of each other, and still move by 1 to 10 %.
LEARNING_RATE = {"simple-cnn": 1e-4, "resnet18": 1e-4, "resnet50": 3e-5, "resnet50-se": 3e-5, "seresnet50": 1e-4}
LEARNING_RATE |= {"resnet34": 3e-5, "resnet101": 1e-5, "resnet152": 2e-6}
LEARNING_RATE |= {"inception-resnet-v2": 1e-5, "efficientnet-b0": 1e-4, "vit-small-16": 1e-4}
LEARNING_RATE |= {"unet-small": 1e-4, "unet": 1e-5, "unet-resnet18": 2e-5}
# A ReLU's input must be this far from zero, or twice the largest distance between its float32 and its float64 if that is
# more; the two largest inputs of a max-pool must be three times that distance apart.
MARGIN = 1e-4
RELU_ROUNDING = 2
POOL_ROUNDING = 3
# How far a weight is moved for a max-pool.
NUDGE = 1e-3
# The gamma of a residual block's last batch-norm is made small, so that the blocks' sum keeps its scale with depth.
LAST_BN = {
    "simple-cnn": None,
    "resnet18": ".bn2.weight",
    "resnet34": ".bn2.weight",
    "resnet50": ".bn3.weight",
    "resnet101": ".bn3.weight",
    "resnet152": ".bn3.weight",
    "resnet50-se": ".bn3.weight",
    "seresnet50": ".bn3.weight",
    "inception-resnet-v2": None,
    "efficientnet-b0": None,
    "vit-small-16": None,
    "unet-small": None,
    "unet": None,
    "unet-resnet18": ".bn2.weight",
}
# (file stem, model, height, width, batch)
GOLDENS = [
    ("simple-cnn", "simple-cnn", 32, 32, 4),
    ("resnet18", "resnet18", 64, 64, 4),
    ("resnet18-75x61", "resnet18", 75, 61, 3),
    ("resnet34", "resnet34", 64, 64, 4),
    ("resnet50", "resnet50", 64, 64, 4),
    ("resnet101", "resnet101", 64, 64, 4),
    ("resnet152", "resnet152", 64, 64, 4),
    ("resnet50-se", "resnet50-se", 64, 64, 4),
    ("seresnet50", "seresnet50", 64, 64, 4),
    ("inception-resnet-v2", "inception-resnet-v2", 128, 128, 4),
    ("efficientnet-b0", "efficientnet-b0", 64, 64, 4),
    ("vit-small-16", "vit-small-16", 64, 64, 3),
    ("unet-small", "unet-small", 32, 48, 2),
    ("unet", "unet", 32, 32, 2),
    ("unet-resnet18", "unet-resnet18", 48, 64, 2),
]


# ---------------------------------------------------------------------------------------------------------------
# The generator of src/rng.rs


def threefry2x32(key, c0, c1):
    """Threefry-2x32-20 of one key (two ints) over arrays of counter words; returns both output words."""
    rotations = ((13, 15, 26, 6), (17, 29, 16, 24))
    ks = [np.uint32(key[0]), np.uint32(key[1]), np.uint32(0x1BD11BDA ^ key[0] ^ key[1])]
    with np.errstate(over="ignore"):
        x0 = c0 + ks[0]
        x1 = c1 + ks[1]
        for group in range(5):
            for r in rotations[group % 2]:
                x0 += x1
                high = x1 << np.uint32(r)
                x1 >>= np.uint32(32 - r)
                x1 |= high
                x1 ^= x0
            x0 += ks[(group + 1) % 3]
            x1 += ks[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1


class Stream:
    """`Stream::named(seed, name)`: its number is the 32-bit FNV-1a hash of the name."""

    def __init__(self, seed, name):
        h = 0x811C9DC5
        for byte in name.encode():
            h = ((h ^ byte) * 0x01000193) & 0xFFFFFFFF
        self.key = (seed, h)

    def words(self, start, stop):
        """First and second words at counters [i, i >> 32] for i in start..stop (stop < 2^32)."""
        c0 = np.arange(start, stop, dtype=np.uint32)
        return threefry2x32(self.key, c0, np.zeros_like(c0))

    def uniform(self, start, stop):
        """Numbers start..stop, uniform in [0, 1) with 24 bits, as float64 (which holds them exactly)."""
        return (self.words(start, stop)[0] >> np.uint32(8)).astype(np.float64) / 16777216.0


CHUNK = 1 << 15  # keeps the generator's working set in the cache


def chunks(n):
    return ((a, min(a + CHUNK, n)) for a in range(0, n, CHUNK))


def filled(seed, name, shape, function):
    """A float32 array of `function(u)` over the stream `name`, row-major."""
    stream = Stream(seed, name)
    out = np.empty(math.prod(shape), np.float32)
    for a, b in chunks(out.size):
        out[a:b] = function(stream.uniform(a, b))
    return out.reshape(shape)


# ---------------------------------------------------------------------------------------------------------------
# Models


class SimpleCnn(nn.Module):
    """Three valid 3x3 convolutions with pooling, as in Keras: flattened in H, W, C order. Dropout is left out."""

    def __init__(self, height, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.conv3 = nn.Conv2d(64, 128, 3)
        for _ in range(3):
            height, width = (height - 2) // 2, (width - 2) // 2
        self.fc1 = nn.Linear(height * width * 128, 128)
        self.fc2 = nn.Linear(128, CLASSES)
        self.relu = nn.ReLU()

    def forward(self, x):
        for conv in (self.conv1, self.conv2, self.conv3):
            x = torch.max_pool2d(self.relu(conv(x)), 2)
        x = x.permute(0, 2, 3, 1).flatten(1)
        return self.fc2(self.relu(self.fc1(x)))


class Double(nn.Module):
    """Twice a 3x3 convolution, batch-norm and ReLU."""

    def __init__(self, channels, filters, bias):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, padding=1, bias=bias)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=bias)
        self.bn2 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU()

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)))


class UNet(nn.Module):
    """Four levels of `width` to 8 * `width` filters and a bottleneck; transposed convolutions cut as Keras does ("same").
    Dropout is left out."""

    def __init__(self, width, up, bias):
        super().__init__()
        channels = 3
        for level in range(4):
            setattr(self, f"encoder{level + 1}", Double(channels, width << level, bias))
            setattr(self, f"up{level + 1}", nn.ConvTranspose2d(width << (level + 1), width << level, up, stride=2))
            setattr(self, f"decoder{level + 1}", Double(width << (level + 1), width << level, bias))
            channels = width << level
        self.bottleneck = Double(channels, width << 4, bias)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x):
        skips = []
        for level in range(4):
            x = getattr(self, f"encoder{level + 1}")(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottleneck(x)
        for level in reversed(range(4)):
            skip = skips[level]
            x = getattr(self, f"up{level + 1}")(x)[:, :, : skip.shape[2], : skip.shape[3]]
            x = getattr(self, f"decoder{level + 1}")(torch.cat([x, skip], 1))
        return self.head(x)


class UNetResNet18(nn.Module):
    """torchvision's ResNet-18 as encoder; decoder and names as in segmentation_models_pytorch."""

    class Block(nn.Module):
        def __init__(self, channels, filters):
            super().__init__()
            layer = lambda c: nn.Sequential(
                nn.Conv2d(c, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()
            )
            self.conv1, self.conv2 = layer(channels), layer(filters)

        def forward(self, x):
            return self.conv2(self.conv1(x))

    def __init__(self):
        super().__init__()
        self.encoder = torchvision.models.resnet18(weights=None)
        del self.encoder.fc
        self.decoder = nn.Module()
        channels = [512 + 256, 256 + 128, 128 + 64, 64 + 64, 32]
        self.decoder.blocks = nn.ModuleList(self.Block(c, f) for c, f in zip(channels, [256, 128, 64, 32, 16]))
        self.segmentation_head = nn.Sequential(nn.Conv2d(16, 1, 3, padding=1))

    def forward(self, x):
        e = self.encoder
        skips = [None, e.relu(e.bn1(e.conv1(x)))]
        y = e.maxpool(skips[-1])
        for layer in (e.layer1, e.layer2, e.layer3, e.layer4):
            y = layer(y)
            skips.append(y)
        skips.pop()
        for block in self.decoder.blocks:
            skip = skips.pop()
            y = nn.functional.interpolate(y, size=(x if skip is None else skip).shape[2:], mode="nearest")
            y = block(y if skip is None else torch.cat([y, skip], 1))
        return self.segmentation_head(y)


class SqueezeExcite(nn.Module):
    """Global average pool -> C/16, ReLU -> C, sigmoid -> scale; both linear layers have a bias."""

    def __init__(self, channels):
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // 16)
        self.fc2 = nn.Linear(channels // 16, channels)

    def forward(self, x):
        s = x.mean((2, 3))
        s = torch.sigmoid(self.fc2(torch.relu(self.fc1(s))))
        return x * s[:, :, None, None]


class ResNetSe(torchvision.models.ResNet):
    """ResNet-50 with one squeeze-excite block (`se`) on the final feature map, before the pooling."""

    def __init__(self):
        super().__init__(torchvision.models.resnet.Bottleneck, [3, 4, 6, 3], num_classes=CLASSES)
        self.se = SqueezeExcite(2048)

    def _forward_impl(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.se(self.layer4(self.layer3(self.layer2(self.layer1(x)))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class SeBottleneck(torchvision.models.resnet.Bottleneck):
    """SE-ResNet's bottleneck: squeeze-excite (`se`) after the last batch-norm, before the addition."""

    def __init__(self, inplanes, planes, *args, **kwargs):
        super().__init__(inplanes, planes, *args, **kwargs)
        self.se = SqueezeExcite(planes * self.expansion)

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.se(self.bn3(self.conv3(out)))
        return self.relu(out + identity)


def build(model, height, width, classes=CLASSES):
    if model == "simple-cnn":
        return SimpleCnn(height, width)
    if model in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
        return getattr(torchvision.models, model)(weights=None, num_classes=classes)
    if model == "resnet50-se":
        return ResNetSe()
    if model == "seresnet50":
        return torchvision.models.ResNet(SeBottleneck, [3, 4, 6, 3], num_classes=classes)
    if model == "inception-resnet-v2":
        # Here, because importing it takes seconds.
        import timm

        return timm.create_model("inception_resnet_v2", pretrained=False, num_classes=classes)
    if model == "efficientnet-b0":
        net = torchvision.models.efficientnet_b0(weights=None, num_classes=classes)
        for module in net.modules():
            if isinstance(module, nn.Dropout | torchvision.ops.StochasticDepth):
                module.p = 0.0
        return net
    if model == "vit-small-16":
        import timm

        assert height == width
        return timm.create_model("vit_small_patch16_224", pretrained=False, num_classes=classes, img_size=height)
    if model == "unet-small":
        return UNet(16, 3, True)
    if model == "unet":
        return UNet(64, 2, False)
    if model == "unet-resnet18":
        return UNetResNet18()
    raise ValueError(model)


def segments(model):
    return model.startswith("unet")


# ---------------------------------------------------------------------------------------------------------------
# Weights and batches


def weight_rule(model, key, shape):
    """The map from u to the value of the tensor `key`: the table at the top of this file."""
    module, kind = key.rsplit(".", 1) if "." in key else ("", key)
    batch_norm = module.rsplit(".", 1)[-1].startswith("bn") or module.endswith("downsample.1")
    batch_norm = batch_norm or (kind == "weight" and len(shape) == 1)
    if kind == "running_mean":
        return lambda u: 0.1 * (2 * u - 1)
    if kind == "running_var":
        return lambda u: 0.75 + 0.5 * u
    if batch_norm and kind == "weight":
        last = LAST_BN[model] is not None and key.endswith(LAST_BN[model])
        scale = 0.3 if last else 1.0
        return lambda u: scale * (1 + 0.2 * (2 * u - 1))
    if batch_norm and kind == "bias":
        return lambda u: 0.2 * (2 * u - 1)
    if kind == "bias":
        return lambda u: (2 * u - 1) * 0.1
    fan_in = math.prod(shape[1:])
    bound = math.sqrt(6 / fan_in) if len(shape) == 4 else 1 / math.sqrt(fan_in)
    return lambda u: (2 * u - 1) * bound


def weights(model, net, seed):
    """state_dict key -> float32 tensor."""
    return {
        key: torch.from_numpy(filled(seed, "weights/" + key, tuple(t.shape), weight_rule(model, key, tuple(t.shape))))
        for key, t in net.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def relus(net):
    """Each ReLU module with the layers whose biases shift its input, in the order of its calls: the bias's name, and how
    often it counts."""
    for name, owner in net.named_modules():
        prefix = name + "." if name else ""
        act, relu = (getattr(owner, attribute, None) for attribute in ("act", "relu"))
        if hasattr(owner, "conv2d") and isinstance(act or relu, nn.ReLU):
            # timm's Inception-ResNet: behind the sum of a block and `scale` times its last convolution.
            yield act or relu, [(prefix + "conv2d.bias", owner.scale)]
        elif isinstance(act, nn.ReLU):
            # timm's batch-norm with a ReLU of its own.
            yield act, [(prefix + "bias", 1.0)]
        elif isinstance(relu, nn.ReLU):
            if isinstance(owner, SimpleCnn):
                layers = ["conv1", "conv2", "conv3", "fc1"]
            else:
                layers = [child for child, _ in owner.named_children() if child.startswith("bn")]
            yield relu, [(prefix + layer + ".bias", 1.0) for layer in layers]
        elif isinstance(owner, nn.Sequential) and len(owner) == 3 and isinstance(owner[2], nn.ReLU):
            # A convolution, its batch-norm and the ReLU.
            yield owner[2], [(prefix + "1.bias", 1.0)]


def pools(net):
    """Each max-pooling module with the convolutions behind its inputs, in the order of its calls."""
    if isinstance(net, UNet):
        yield net.pool, [f"encoder{level + 1}.conv2.weight" for level in range(4)]
    elif isinstance(net, UNetResNet18):
        yield net.encoder.maxpool, ["encoder.conv1.weight"]
    elif isinstance(net, torchvision.models.ResNet):
        yield net.maxpool, ["conv1.weight"]
    elif type(net).__name__ == "InceptionResnetV2":
        yield net.maxpool_3a, ["conv2d_2b.conv.weight"]
        yield net.maxpool_5a, ["conv2d_4a.conv.weight"]
        yield net.mixed_6a.branch2, ["repeat.9.conv2d.weight"]
        yield net.mixed_7a.branch3, ["repeat_1.19.conv2d.weight"]
    else:
        assert not any(isinstance(module, nn.MaxPool2d) for module in net.modules())


def loaded(model, init, images, dtype, training):
    """The model in training or evaluation mode, with the weights `init`."""
    net = build(model, *images.shape[2:]).to(dtype).train(training)
    net.load_state_dict({k: v.to(dtype) for k, v in init.items()}, strict=False)
    return net


def rounding(model, init, images, training):
    """For each call of a ReLU or a max-pool the largest distance between its input in float32 and in float64."""
    inputs = []
    for dtype in (torch.float32, torch.float64):
        net, seen = loaded(model, init, images, dtype, training), []
        for module in net.modules():
            if isinstance(module, nn.ReLU | nn.MaxPool2d):
                # A copy: a ReLU may write over its input.
                module.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0].to(torch.float64, copy=True)))
        with torch.no_grad():
            net(images.to(dtype))
        inputs.append(seen)
    return [(a - b).abs().max().item() for a, b in zip(*inputs, strict=True)]


def part(model, init, images, training=True):
    """Moves elements of `init` until rounding decides nothing in a ReLU or a max-pool; returns {key: [element]}."""
    errors = rounding(model, init, images, training)
    moved = {}
    for attempt in range(50):
        net = loaded(model, init, images, torch.float64, training)
        changed = []
        error = iter(errors)

        def move(key, element, by):
            init[key].view(-1)[element] += by
            changed.append((key, element))

        def at_relu(keys):
            calls = iter(keys)

            def hook(_, inputs):
                key, factor = next(calls)
                margin = max(MARGIN, RELU_ROUNDING * next(error))
                x = inputs[0]
                by_channel = x.transpose(0, 1).flatten(1)
                shift = torch.zeros(len(by_channel), dtype=x.dtype)
                for c in torch.nonzero(by_channel.abs().amin(1) < margin).flatten().tolist():
                    near = by_channel[c][by_channel[c].abs() < 400 * margin]
                    # The smallest move, up or down, that leaves a gap half as wide again as is asked for.
                    k = next(
                        k for j in range(1, 800) for k in (j, -j) if (near + k * margin / 4).abs().min() > 1.5 * margin
                    )
                    shift[c] = k * margin / 4
                    move(key, c, (shift[c] / factor).float())
                return (x + shift.view(1, -1, *[1] * (x.dim() - 2)),)

            return hook

        def at_pool(keys):
            calls = iter(keys)

            def hook(pool, inputs):
                key, margin = next(calls), POOL_ROUNDING * next(error)
                x = nn.functional.pad(inputs[0], [pool.padding] * 4, value=-math.inf)
                windows = x.unfold(2, pool.kernel_size, pool.stride).unfold(3, pool.kernel_size, pool.stride).flatten(4)
                top = windows.topk(2, -1).values
                # Behind a ReLU many are zero, and equal: then nothing flows either way.
                tie = ((top[..., 0] - top[..., 1]) < margin) & (top[..., 0] > 0)
                size = init[key][0].numel()
                for c in torch.nonzero(tie.amax((0, 2, 3))).flatten().tolist():
                    move(key, c * size + attempt % size, NUDGE)

            return hook

        for relu, keys in relus(net):
            relu.register_forward_pre_hook(at_relu(keys))
        for pool, keys in pools(net):
            pool.register_forward_pre_hook(at_pool(keys))
        with torch.no_grad():
            net(images.double())
        assert next(error, None) is None
        if not changed:
            return {key: sorted(elements) for key, elements in moved.items()}
        for key, element in changed:
            moved.setdefault(key, set()).add(element)
    raise RuntimeError("weights were moved again and again")


def batch(seed, b, n, height, width, masks=False):
    """Images [N, C, H, W] (drawn in N, H, W, C order) in float32, and labels [N] or masks [N, 1, H, W]."""
    images = filled(seed, f"batch/{b}/images", (n, height, width, 3), lambda u: 2 * u - 1)
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    if masks:
        return images, torch.from_numpy(filled(seed, f"batch/{b}/masks", (n, 1, height, width), lambda u: u < 0.4))
    labels = Stream(seed, f"batch/{b}/labels").words(0, n)[0] % np.uint32(CLASSES)
    return images, torch.from_numpy(labels.astype(np.int64))


def loss_of(logits, truth):
    """The mean cross-entropy of labels; of masks the mean binary cross-entropy plus soft Dice."""
    if not truth.is_floating_point():
        return nn.functional.cross_entropy(logits, truth)
    truth = truth.to(logits.dtype)
    s, t = torch.sigmoid(logits).flatten(1), truth.flatten(1)
    dice = 1 - (2 * (s * t).sum(1) + 1) / (s.sum(1) + t.sum(1) + 1)
    return nn.functional.binary_cross_entropy_with_logits(logits, truth) + dice.mean()


# ---------------------------------------------------------------------------------------------------------------
# One run


def run(model, seed, height, width, n, init, dtype):
    """Everything a golden needs, in `dtype`: eval logits, train logits, loss, gradients, running statistics, losses."""

    def fresh():
        net = build(model, height, width).to(dtype)
        net.load_state_dict({k: v.to(dtype) for k, v in init.items()}, strict=False)
        return net

    result = {}
    x, y = batch(seed, 0, n, height, width, segments(model))
    x = x.to(dtype)
    net = fresh().eval()
    with torch.no_grad():
        result["eval"] = net(x)

    net = fresh().train()
    logits = net(x)
    loss = loss_of(logits, y)
    loss.backward()
    result["train"] = logits.detach()
    result["loss"] = loss.item()
    result["gradients"] = {k: p.grad for k, p in net.named_parameters()}
    result["running"] = {k: b.clone() for k, b in net.named_buffers() if "running_" in k}

    net = fresh().train()
    adam = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE[model])
    losses = []
    for step in range(STEPS):
        x, y = batch(seed, step, n, height, width, segments(model))
        adam.zero_grad()
        loss = loss_of(net(x.to(dtype)), y)
        loss.backward()
        adam.step()
        losses.append(loss.item())
    result["losses"] = losses
    return result


def distance(a, b):
    """Normalised L2 distance of a from the reference b."""
    a, b = a.double(), b.double()
    return ((a - b).norm() / b.norm()).item()


def vanishing(b):
    """The gradients that are zero but for rounding, as that of a bias which a batch-norm takes away again."""
    largest = max(t.norm().item() for t in b["gradients"].values())
    return {k for k, t in b["gradients"].items() if t.norm().item() < 1e-10 * largest}


def compare(a, b):
    """How far run `a` is from run `b`; gradients and running statistics by their worst tensor."""
    worst = max(a["gradients"].keys() - vanishing(b), key=lambda k: distance(a["gradients"][k], b["gradients"][k]))
    return {
        "eval": distance(a["eval"], b["eval"]),
        "train": distance(a["train"], b["train"]),
        "gradient": distance(a["gradients"][worst], b["gradients"][worst]),
        "gradient_of": worst,
        "running": max((distance(t, b["running"][k]) for k, t in a["running"].items()), default=0.0),
        "losses": max(abs(p - q) / abs(q) for p, q in zip(a["losses"], b["losses"])),
    }


# ---------------------------------------------------------------------------------------------------------------
# Files


def short(x):
    """The shortest decimal that reads back as the same float32."""
    return float(str(np.float32(x)))


def shorts(tensor):
    return [short(x) for x in tensor.flatten().tolist()]


def summary(seed, key, tensor):
    values = tensor.detach().numpy().astype(np.float64).ravel()
    streams = [Stream(seed, f"projection/{j}/{key}") for j in range(PROJECTIONS)]
    projections = np.zeros(PROJECTIONS)
    for a, b in chunks(values.size):
        for j, stream in enumerate(streams):
            projections[j] += np.dot(values[a:b], 2 * stream.uniform(a, b) - 1)
    indices = Stream(seed, "sample/" + key).words(0, SAMPLES)[0] % np.uint32(values.size)
    return {
        "name": key,
        "shape": list(tensor.shape),
        "norm": short(np.linalg.norm(values)),
        "projections": [short(p * math.sqrt(3)) for p in projections],
        "indices": indices.tolist(),
        "samples": [short(values[i]) for i in indices],
    }


def golden(stem, model, height, width, n, seed):
    net = build(model, height, width)
    init = weights(model, net, seed)
    moved = part(model, init, batch(seed, 0, n, height, width)[0])
    a = run(model, seed, height, width, n, init, torch.float32)
    b = run(model, seed, height, width, n, init, torch.float64)
    gap, zero = compare(a, b), vanishing(b)
    print(
        f"{stem} seed {seed}: float32 - float64: logits {gap['eval']:.1e} (eval) {gap['train']:.1e} (train), "
        f"gradients {gap['gradient']:.1e} ({gap['gradient_of']}), running {gap['running']:.1e}, "
        f"losses {gap['losses']:.1e}; losses {a['losses'][0]:.4f} .. {a['losses'][-1]:.4f}, "
        f"logits rms {a['eval'].square().mean().sqrt():.3f} (eval) {a['train'].square().mean().sqrt():.3f} (train)",
        flush=True,
    )
    return {
        "model": model,
        "seed": seed,
        "height": height,
        "width": width,
        "batch": n,
        "classes": 1 if segments(model) else CLASSES,
        "parameters": sum(p.numel() for p in net.parameters()),
        "learning_rate": LEARNING_RATE[model],
        "torch": torch.__version__,
        "float64": {k: float(f"{v:.2e}") if isinstance(v, float) else v for k, v in gap.items()},
        "moved": [
            {"name": k, "indices": elements, "values": shorts(init[k].view(-1)[elements])}
            for k, elements in moved.items()
        ],
        "eval": shorts(a["eval"]),
        "train": shorts(a["train"]),
        "loss": short(a["loss"]),
        "losses": [short(x) for x in a["losses"]],
        "gradients": [
            summary(seed, k, t) | ({"vanishes": True} if k in zero else {}) for k, t in a["gradients"].items()
        ],
        "running": [summary(seed, k, t) for k, t in a["running"].items()],
    }


def generator_values(seed):
    """Known values: for some streams the key, the first words and uniforms, and a few far into the stream."""
    out = []
    for name in ("weights/conv1.weight", "batch/0/images", "batch/3/labels", "projection/7/fc.weight", ""):
        stream = Stream(seed, name)
        at = [0, 1, 2, 3, 1000, 123_456_789, 4_294_967_294]
        words = [tuple(int(w[0]) for w in stream.words(i, i + 1)) for i in at]
        uniform = [float(stream.uniform(i, i + 1)[0]) for i in at]
        out.append({"name": name, "key": list(stream.key), "at": at, "words": words, "uniform": uniform})
    return {"seed": seed, "streams": out}


def write(path, value):
    """Compact JSON, one summary a line so that a change can be read."""
    lines = []
    for key, v in value.items():
        if isinstance(v, list) and v and isinstance(v[0], dict):
            rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in v)
            lines.append(f'"{key}":[\n{rows}\n]')
        else:
            lines.append(f'"{key}":{json.dumps(v, separators=(",", ":"))}')
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main():
    parser = argparse.ArgumentParser(description="Makes the golden files of the whole-model tests.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent)
    parser.add_argument("--only", nargs="*", choices=[g[0] for g in GOLDENS], help="make these only")
    args = parser.parse_args()
    # One thread: the order of float32 sums, and so the last digits, depends on the number of threads.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # Published known answers of Random123.
    assert [int(w[0]) for w in threefry2x32((0, 0), np.zeros(1, np.uint32), np.zeros(1, np.uint32))] == [
        0x6B200159,
        0x99BA4EFE,
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "generator.json", generator_values(args.seed))
    for stem, model, height, width, n in GOLDENS:
        if args.only and stem not in args.only:
            continue
        write(args.out / f"{stem}.json", golden(stem, model, height, width, n, args.seed))


if __name__ == "__main__":
    main()
