"""Federated distillation of small classifiers: five clients with few digits each.

python benchmarks/federated.py DATA

DATA has ``mnist10k.npz`` (``images`` uint8 (10000, 28, 28) and ``labels``; rows 0 to 6999 train,
to 7999 validation, then test). Images are averaged to 14 x 14 pixels. Five clients share 1,000
labelled images; the shares of each digit are drawn from a Dirichlet distribution. The 1,000 public
images have no labels. All arms have the same network, rounds and passes over the labelled images.
Each arm has the best of three settings by validation accuracy, mean of two seeds. The test images
are read with this choice and five new seeds, which also draw new clients. The clients run in this
process on Flower (extra ``federated``). Writes ``federated.json``.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from instil import Optimization, Training
from instil.files.json_files import write_json
from instil.integrations.federated import HardSampleFineTuning, LocalClient, predict
from instil.integrations.federated.client_apps import averaging_app, consensus_app
from instil.integrations.federated.in_process_grid import InProcessGrid
from instil.integrations.federated.strategies import FedDF, FedFTG, FedMD
from instil.networks.generator import generator
from instil.networks.mlp import mlp
from instil.plan.statistics import paired_gain, summarize

RESULT = Path(__file__).with_name("federated.json")
NUM_CLIENTS = 5
NUM_PRIVATE = 1000
NUM_PUBLIC = 1000
NUM_CLASSES = 10
CONCENTRATION = 0.1
SMALLEST_CLIENT = 20
ROUNDS = 5
EPOCHS = 5
SIDE = 14
SEARCH_SEEDS = [100, 101]
FINAL_SEEDS = [0, 1, 2, 3, 4]
RATES = [{"lr": 3e-3}, {"lr": 1e-2}, {"lr": 3e-2}]
SETTINGS: dict[str, list[dict[str, float]]] = {
    "joint training": RATES,
    "alone": RATES,
    "FedAvg": RATES,
    "FedDF": [{"lr": 1e-2, "steps": 50}, {"lr": 1e-2, "steps": 200}, {"lr": 3e-2, "steps": 200}],
    "FedMD": [{"lr": 1e-2, "epochs": 1}, {"lr": 1e-2, "epochs": 3}, {"lr": 3e-2, "epochs": 1}],
    "FedFTG": [
        {"lr": 1e-2, "student_lr": 0.01},
        {"lr": 1e-2, "student_lr": 0.1},
        {"lr": 3e-2, "student_lr": 0.1},
    ],
}
"""Three settings of each arm: learning rate of the clients, and an option of the method."""
REFERENCES = ("alone", "FedAvg")


@dataclass(frozen=True)
class Data:
    """Images and labels of all parts.

    Attributes:
        clients: images and labels of each client.
        public: images without labels.
        held_out: images and labels of the validation or test part.
    """

    clients: list[tuple[Tensor, Tensor]]
    public: Tensor
    held_out: tuple[Tensor, Tensor]


def read(folder: Path) -> tuple[Tensor, Tensor]:
    """Read the images (10000, 1, 14, 14) in [0, 1] and their labels."""
    with np.load(folder / "mnist10k.npz") as arrays:
        image, label = arrays["images"], arrays["labels"]
    small = image.reshape(-1, SIDE, 2, SIDE, 2).mean((2, 4)).astype(np.float32) / 255
    return torch.from_numpy(small).unsqueeze(1), torch.from_numpy(label).long()


def split(image: Tensor, label: Tensor, seed: int, part: str) -> Data:
    """Draw the clients and the public images of a seed."""
    draws = np.random.default_rng(seed)
    rows = draws.permutation(7000)[: NUM_PRIVATE + NUM_PUBLIC]
    private, public = rows[:NUM_PRIVATE], rows[NUM_PRIVATE:]
    owners = draw_owners(label[private].numpy(), draws)
    parts = [private[owners == client] for client in range(NUM_CLIENTS)]
    start, end = (7000, 8000) if part == "validation" else (8000, 10000)
    clients = [(image[index], label[index]) for index in parts]
    return Data(clients, image[public], (image[start:end], label[start:end]))


def draw_owners(label: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Client of each image: the shares of each digit are drawn from a Dirichlet distribution."""
    while True:
        owners = np.zeros(len(label), dtype=np.int64)
        for digit in range(NUM_CLASSES):
            shares = draws.dirichlet([CONCENTRATION] * NUM_CLIENTS)
            of_digit = label == digit
            owners[of_digit] = draws.choice(NUM_CLIENTS, int(of_digit.sum()), p=shares)
        if np.bincount(owners, minlength=NUM_CLIENTS).min() >= SMALLEST_CLIENT:
            return owners


def network(seed: int) -> nn.Module:
    """Network of all clients and of the server."""
    torch.manual_seed(seed)
    return mlp(NUM_CLASSES, size=SIDE, width=64)


def local_client(
    images: Tensor, labels: Tensor, model: nn.Module, epochs: int, lr: float, seed: int
) -> LocalClient:
    """Client with a loader whose order goes on from round to round."""
    order = torch.Generator().manual_seed(seed)
    data = TensorDataset(images, labels)
    loader = DataLoader(data, 50, shuffle=True, generator=order)
    return LocalClient(model, loader, training(lr, epochs=epochs))


def training(lr: float, **length: int) -> Training:
    """AdamW with a constant learning rate."""
    optimizer = Optimization("adamw", {"lr": lr})
    return Training(optimizer=optimizer, schedule="constant", device="cpu", **length)


def accuracy(model: nn.Module, data: Data) -> float:
    """Accuracy on the validation or test images."""
    image, label = data.held_out
    return float((predict(model, image).argmax(1) == label).float().mean())


def train_without_server(arm: str, data: Data, setting: dict[str, float], seed: int) -> float:
    """Accuracy of one network of all labelled images, or mean accuracy of the clients alone."""
    parts = data.clients
    if arm == "joint training":
        parts = [(torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]))]
    scores = []
    for index, (images, labels) in enumerate(parts):
        model = network(seed)
        local_client(images, labels, model, ROUNDS * EPOCHS, setting["lr"], seed + index).train()
        scores.append(accuracy(model, data))
    return float(np.mean(scores))


def clients_of(data: Data, lr: float, seed: int) -> Callable[[Context], LocalClient]:
    """Clients for Flower, which start from the same weights."""
    clients = [
        local_client(images, labels, network(seed), EPOCHS, lr, seed + index)
        for index, (images, labels) in enumerate(data.clients)
    ]
    return lambda context: clients[int(context.node_config["partition-id"])]


def train_with_server(arm: str, data: Data, setting: dict[str, float], seed: int) -> float:
    """Accuracy of the server's model after the last round, for FedMD the mean of the clients."""
    random.seed(seed)  # Flower samples the clients with it
    client_of = clients_of(data, setting["lr"], seed)
    if arm == "FedMD":
        digest = training(setting["lr"], epochs=int(setting["epochs"]))
        grid = grid_of(consensus_app(client_of, data.public, NUM_CLASSES, training=digest))
        FedMD().start(grid, ArrayRecord(), num_rounds=ROUNDS)
        states = [context.state["model"] for context in grid.contexts.values()]
    else:
        grid = grid_of(averaging_app(client_of, NUM_CLASSES))
        strategy = strategy_of(arm, data, setting, seed)
        start = ArrayRecord(network(seed).state_dict())
        states = [strategy.start(grid, start, num_rounds=ROUNDS).arrays]
    return float(np.mean([accuracy(model_of(state), data) for state in states]))


def grid_of(app: ClientApp) -> InProcessGrid:
    """All clients in this process."""
    return InProcessGrid(app, NUM_CLIENTS)


def strategy_of(arm: str, data: Data, setting: dict[str, float], seed: int) -> FedAvg:
    """Strategy of an arm, with all clients in each round."""
    if arm == "FedDF":
        optimizer = Optimization("adam", {"lr": 1e-3})
        fusion = Training(steps=int(setting["steps"]), optimizer=optimizer, device="cpu")
        return FedDF(network(seed), data.public, training=fusion)
    if arm == "FedFTG":
        torch.manual_seed(seed)
        images = generator(1, SIDE, latent=64 + NUM_CLASSES, width=16)
        tuning = HardSampleFineTuning(
            images, NUM_CLASSES, student_lr=setting["student_lr"], seed=seed
        )
        return FedFTG(network(seed), tuning)
    return FedAvg(fraction_evaluate=0.0)


def model_of(arrays: ArrayRecord) -> nn.Module:
    """Network with the weights of a record."""
    model = network(0)
    model.load_state_dict(arrays.to_torch_state_dict())
    return model


def scores_of(
    arm: str, source: tuple[Tensor, Tensor], setting: dict[str, float], seeds: Sequence[int]
) -> list[float]:
    """Accuracy of an arm for each seed, on test images for the final seeds."""
    part = "test" if list(seeds) == FINAL_SEEDS else "validation"
    train = train_without_server if arm in ("joint training", "alone") else train_with_server
    return [train(arm, split(*source, seed, part), setting, seed) for seed in seeds]


def measure(arm: str, source: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Choose the setting of an arm, and return its test accuracy with new seeds."""
    started = time.perf_counter()
    settings = SETTINGS[arm]
    validation = [
        float(np.mean(scores_of(arm, source, setting, SEARCH_SEEDS))) for setting in settings
    ]
    best = settings[int(np.argmax(validation))]
    values = scores_of(arm, source, best, FINAL_SEEDS)
    seconds = round(time.perf_counter() - started)
    entry = {"setting": best, "validation": validation, "accuracy": summarize(values)}
    return entry | {"sent": numbers_sent(arm), "seconds": seconds}


def numbers_sent(arm: str) -> int:
    """Numbers that a client sends in a round."""
    if arm in ("joint training", "alone"):
        return 0
    if arm == "FedMD":
        return NUM_PUBLIC * NUM_CLASSES
    return sum(parameter.numel() for parameter in network(0).parameters())


def write_result(arms: dict[str, Any]) -> None:
    """Write the results so far, with the gains over each reference."""
    for arm in arms.values():
        arm["gains"] = {
            name: paired_gain(arm["accuracy"]["values"], arms[name]["accuracy"]["values"])
            for name in REFERENCES
            if name in arms and arms[name] is not arm
        }
    sizes = {"clients": NUM_CLIENTS, "private": NUM_PRIVATE, "public": NUM_PUBLIC}
    schedule = {"rounds": ROUNDS, "epochs": EPOCHS, "concentration": CONCENTRATION}
    write_json(RESULT, {**sizes, **schedule, "seeds": FINAL_SEEDS, "arms": arms})


def main() -> None:
    """Measure all arms; those in the file of results are kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with mnist10k.npz")
    options = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    source = read(options.data)
    arms: dict[str, Any] = {}
    if RESULT.exists():
        arms = json.loads(RESULT.read_text(encoding="utf-8"))["arms"]
    for arm in SETTINGS:
        if arm not in arms:
            arms[arm] = measure(arm, source)
            write_result(arms)


if __name__ == "__main__":
    main()
