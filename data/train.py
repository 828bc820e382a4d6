"""Write this folder: digits, and models trained on data of scikit-learn: ``python data/train.py [--out DIR]``.

It needs torch, safetensors and scikit-learn, and about ten seconds on one core. On one machine, with one set of
library versions, it writes the same bytes every time.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save as safetensors_of
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = 0
HELD_OUT = 0.2
"""Share of the samples that training does not see."""

NORMS = nn.BatchNorm1d | nn.BatchNorm2d | nn.RMSNorm

CNN, TRANSFORMER, MLP = "digits-cnn.pt", "digits-transformer", "breast-cancer-mlp.pt"
DIGITS = "digits.npz"

CONFIG = {
    "architectures": ["DigitsTransformer"],
    "model_type": "digits_transformer",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_labels": 10,
    "rms_norm_eps": 1e-6,
}
"""config.json of the transformer, and what it is built from."""


# ------------------------------------------------------------------------------------------------------- data


class Samples(NamedTuple):
    """Samples and their classes, split into what is trained on and what is held out."""

    train: Tensor
    train_classes: Tensor
    test: Tensor
    test_classes: Tensor


def digits() -> Samples:
    """Scans of handwritten digits: 1797 of 8 by 8 pixels, scaled to 0...1."""
    pixels, classes = _loaded("load_digits")
    return _split(pixels.reshape(-1, 8, 8) / 16, classes)


def breast_cancer() -> Samples:
    """569 tumours by 30 measured features, in their own units: variances from 7e-6 to 3e5."""
    return _split(*_loaded("load_breast_cancer"))


def save_digits(path: Path) -> None:
    """Write all digits as they are: images (1797, 8, 8) of 0...16 and classes, as uint8, in scikit-learn's order."""
    pixels, classes = _loaded("load_digits")
    images = pixels.reshape(-1, 8, 8)
    np.savez_compressed(path, images=images.astype(np.uint8), classes=classes.astype(np.uint8))


def _loaded(name: str) -> tuple[Any, Any]:
    try:
        from sklearn import datasets  # noqa: PLC0415 - the models can be built without it
    except ImportError:
        sys.exit("data/train.py: the data come with scikit-learn, which is not installed: pip install scikit-learn")
    found = getattr(datasets, name)()
    return found.data, found.target


def _split(samples: Any, classes: Any) -> Samples:
    from sklearn.model_selection import train_test_split  # noqa: PLC0415 - as above

    parts = train_test_split(samples, classes, test_size=HELD_OUT, random_state=SEED, stratify=classes)
    train, test = (torch.tensor(part, dtype=torch.float32) for part in parts[:2])
    return Samples(train, torch.tensor(parts[2]), test, torch.tensor(parts[3]))


# ----------------------------------------------------------------------------------------------------- models


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Make the layers."""
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return functional.relu(self.bn(self.conv(x)))


class DigitsCNN(nn.Module):
    """Three convolutions with batch norms, then the mean over the image."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.features = nn.Sequential(ConvBlock(1, 16, 1), ConvBlock(16, 32, 2), ConvBlock(32, 32, 1))
        self.classifier = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 8, 8) to logits (N, 10)."""
        return self.classifier(self.features(x[:, None]).mean((2, 3)))


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        """Make the projections."""
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, tokens, width) to the same shape."""
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers about a SiLU."""

    def __init__(self, width: int, inner: int) -> None:
        """Make the layers."""
        super().__init__()
        self.up_proj, self.down_proj = nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        return self.down_proj(functional.silu(self.up_proj(x)))


class TransformerBlock(nn.Module):
    """Attention and MLP, each behind an RMS norm and beside a residual connection."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Make the layers."""
        super().__init__()
        width, eps = config["hidden_size"], config["rms_norm_eps"]
        self.input_layernorm = nn.RMSNorm(width, eps=eps)
        self.self_attn = Attention(width, config["num_attention_heads"])
        self.post_attention_layernorm = nn.RMSNorm(width, eps=eps)
        self.mlp = Mlp(width, config["intermediate_size"])

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, tokens, width) to the same shape."""
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class DigitsTransformer(nn.Module):
    """A transformer whose tokens are the 8 rows of an image."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Make the layers that the config asks for."""
        super().__init__()
        width = config["hidden_size"]
        self.embed_rows = nn.Linear(8, width, bias=False)
        self.embed_positions = nn.Parameter(torch.randn(8, width) / width**0.5)
        self.layers = nn.ModuleList(TransformerBlock(config) for _ in range(config["num_hidden_layers"]))
        self.norm = nn.RMSNorm(width, eps=config["rms_norm_eps"])
        self.score = nn.Linear(width, config["num_labels"])

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 8, 8) to logits (N, 10)."""
        x = self.embed_rows(x) + self.embed_positions
        for layer in self.layers:
            x = layer(x)
        return self.score(self.norm(x).mean(1))


class BreastCancerMLP(nn.Module):
    """An MLP on raw features: its first batch norm does what standardising them would."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.input_norm = nn.BatchNorm1d(30)
        self.hidden = nn.Linear(30, 32, bias=False)
        self.hidden_norm = nn.BatchNorm1d(32)
        self.classifier = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, 30) to logits (N, 2)."""
        return self.classifier(functional.relu(self.hidden_norm(self.hidden(self.input_norm(x)))))


def digits_transformer() -> DigitsTransformer:
    """The transformer of `CONFIG`."""
    return DigitsTransformer(CONFIG)


# --------------------------------------------------------------------------------------------------- training


class Recipe(NamedTuple):
    """How a model is made."""

    build: Callable[[], nn.Module]
    samples: Callable[[], Samples]
    epochs: int
    batch: int
    decay: float


RECIPES = {
    CNN: Recipe(DigitsCNN, digits, epochs=15, batch=64, decay=0.01),
    TRANSFORMER: Recipe(digits_transformer, digits, epochs=60, batch=128, decay=0.1),
    MLP: Recipe(BreastCancerMLP, breast_cancer, epochs=40, batch=65, decay=0.1),
}


def train(recipe: Recipe, samples: Samples) -> nn.Module:
    """Train a new model with AdamW and one cycle of the learning rate; return it in eval mode."""
    torch.manual_seed(SEED)
    model = recipe.build()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=recipe.decay)
    per_epoch = len(samples.train) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=recipe.epochs * per_epoch)
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(samples.train))[: per_epoch * recipe.batch].split(recipe.batch):
            loss = functional.cross_entropy(model(samples.train[rows]), samples.train_classes[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def save(model: nn.Module, path: Path) -> None:
    """Write a state dict as its name says: a ``.pt`` file, or a directory in the layout of Hugging Face."""
    if path.suffix == ".pt":
        torch.save(model.state_dict(), path)
        return
    path.mkdir(exist_ok=True)
    (path / "model.safetensors").write_bytes(safetensors_of(model.state_dict(), metadata={"format": "pt"}))
    (path / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------- what low precision does


def norms_in(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy whose norms have gone through `dtype`: parameters and running statistics, not activations."""
    rounded = copy.deepcopy(model)
    for module in rounded.modules():
        if isinstance(module, NORMS):
            module.to(dtype).float()
    return rounded


@torch.no_grad()
def right(model: nn.Module, samples: Samples) -> int:
    """How many of the samples held out the model classifies right."""
    return int((model(samples.test).argmax(1) == samples.test_classes).sum())


@torch.no_grad()
def change(model: nn.Module, other: nn.Module, samples: Samples) -> float:
    """Relative L2 distance of another model's logits from the model's, on the samples held out."""
    logits = model(samples.test)
    return float((other(samples.test) - logits).norm() / logits.norm())


def report(name: str, model: nn.Module, samples: Samples) -> None:
    """Print the accuracy, as trained and with the norms cast, and by how much that changes the logits."""
    count, total = right(model, samples), len(samples.test)
    print(f"{name}: {count} of {total} held-out samples right ({count / total:.1%})")
    for dtype in (torch.float16, torch.bfloat16):
        cast = norms_in(model, dtype)
        moved = change(model, cast, samples)
        print(f"  norms cast to {dtype}: {right(cast, samples)} right, logits changed by {moved:.2g} (relative L2)")


def main(arguments: list[str] | None = None) -> None:
    """Write the digits; train and write every model."""
    parser = argparse.ArgumentParser(description="Train the models of this folder, and write the digits.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write them to")
    out = parser.parse_args(arguments).out
    if out.exists() and not out.is_dir():
        parser.error(f"--out {out} is not a folder")
    torch.set_num_threads(1)  # the order of sums, and so the last bits, would depend on it
    torch.use_deterministic_algorithms(mode=True)
    out.mkdir(parents=True, exist_ok=True)
    save_digits(out / DIGITS)
    for name, recipe in RECIPES.items():
        samples = recipe.samples()
        model = train(recipe, samples)
        save(model, out / name)
        report(name, model, samples)


if __name__ == "__main__":
    main()
