"""FedFTG: fine-tuning of the global model on generated hard samples (Zhang et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.integrations.federated.generated_samples import (
    class_shares,
    client_cross_entropy,
    diversity_loss,
    label_distribution,
    model_discrepancy,
)
from instil.modules.eval_mode import eval_mode


class HardSampleFineTuning:
    """Fine-tuning of a global model without data (Zhang et al. 2022, Algorithm 1, server).

    A generator and the global model play ``min_w max_g L_md - a L_cls - b L_dis``. The generator
    searches images on which global model and clients differ, which the clients assign to the
    sampled class, and which differ from each other. The global model learns the clients' outputs
    for them. Each client counts by its share of the samples of the class. The generator and its
    optimizer are kept from round to round.

    Args:
        generator: network with the attribute ``latent`` that maps codes (N, latent) to images. The
            last ``num_classes`` numbers of a code are the class, the others are noise.
        num_classes: number of classes.
        iterations: batches of noise and labels per round.
        generator_steps: updates of the generator per batch.
        student_steps: updates of the global model per batch.
        batch_size: images per update.
        student_lr: learning rate of SGD for the global model.
        generator_lr: learning rate of Adam for the generator.
        classification_weight: weight a of the cross-entropy of the clients.
        diversity_weight: weight b of the similarity of the images.
        seed: seed of noise and labels.

    Raises:
        ValueError: if the generator's codes are too narrow.
    """

    def __init__(
        self,
        generator: nn.Module,
        num_classes: int,
        *,
        iterations: int = 10,
        generator_steps: int = 1,
        student_steps: int = 5,
        batch_size: int = 64,
        student_lr: float = 0.1,
        generator_lr: float = 0.01,
        classification_weight: float = 1.0,
        diversity_weight: float = 1.0,
        seed: int = 0,
    ) -> None:
        latent = getattr(generator, "latent", None)
        if not isinstance(latent, int) or latent <= num_classes:
            raise ValueError(
                f"generator: wrong width of the codes. Expected an attribute 'latent' above "
                f"{num_classes}, the number of classes, got {latent}. Build it with noise and "
                "classes: networks.generator.generator(channels, size, latent=100 + num_classes)"
            )
        self.generator = generator
        self.num_classes = num_classes
        self.num_noise = latent - num_classes
        self.iterations = iterations
        self.generator_steps = generator_steps
        self.student_steps = student_steps
        self.batch_size = batch_size
        self.student_lr = student_lr
        self.classification_weight = classification_weight
        self.diversity_weight = diversity_weight
        self.random = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.Adam(generator.parameters(), lr=generator_lr)

    def __call__(self, student: nn.Module, clients: Sequence[nn.Module], counts: Tensor) -> None:
        """Fine-tune the global model for one round; it is left in eval mode.

        Args:
            student: global model, which is trained in place on its device.
            clients: local models on the same device, which do not change.
            counts: number of samples of each client and class (K, num_classes).

        Raises:
            ValueError: if the counts do not fit the clients and classes.
        """
        self._check(clients, counts)
        device = next(student.parameters()).device
        self.generator.to(device)
        shares = class_shares(counts).to(device)
        probabilities = label_distribution(counts)
        optimizer = torch.optim.SGD(student.parameters(), lr=self.student_lr)
        for client in clients:
            client.eval()
        for _ in range(self.iterations):
            noise, labels = self._draw(probabilities, device)
            for _ in range(self.generator_steps):
                self._update_generator(student, clients, noise, labels, shares[:, labels])
            for _ in range(self.student_steps):
                self._update_student(optimizer, student, clients, noise, labels, shares[:, labels])
        student.eval()

    def generate(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Generate images of classes.

        Args:
            noise: (N, Z), where Z is the width of the codes minus the number of classes.
            labels: class of each image (N,).
        """
        one_hot = F.one_hot(labels, self.num_classes).to(noise.dtype)
        images: Tensor = self.generator(torch.cat([noise, one_hot], 1))
        return images

    def _check(self, clients: Sequence[nn.Module], counts: Tensor) -> None:
        expected = (len(clients), self.num_classes)
        if tuple(counts.shape) != expected or not clients:
            raise ValueError(
                f"counts: wrong shape. Expected {expected}, one row for each client and one column "
                f"for each class, got {tuple(counts.shape)}"
            )

    def _draw(self, probabilities: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        labels = probabilities.multinomial(self.batch_size, replacement=True, generator=self.random)
        noise = torch.randn(self.batch_size, self.num_noise, generator=self.random)
        return noise.to(device), labels.to(device)

    def _update_generator(
        self,
        student: nn.Module,
        clients: Sequence[nn.Module],
        noise: Tensor,
        labels: Tensor,
        shares: Tensor,
    ) -> None:
        """Search images on which the global model differs from the clients."""
        self.generator.train()
        images = self.generate(noise, labels)
        # In eval mode BatchNorm does not adopt the statistics of generated images.
        with eval_mode(student):
            student_logits = student(images)
        client_logits = torch.stack([client(images) for client in clients])
        loss = -model_discrepancy(student_logits, client_logits, shares).mean()
        agreement = client_cross_entropy(client_logits, labels, shares).mean()
        loss = loss + self.classification_weight * agreement
        loss = loss + self.diversity_weight * diversity_loss(images, noise)
        parameters = list(self.generator.parameters())
        # Not backward(): it would also fill the gradients of the global model and the clients.
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters), strict=True
        ):
            parameter.grad = gradient
        self.optimizer.step()

    def _update_student(
        self,
        optimizer: torch.optim.Optimizer,
        student: nn.Module,
        clients: Sequence[nn.Module],
        noise: Tensor,
        labels: Tensor,
        shares: Tensor,
    ) -> None:
        """Learn the outputs of the clients for the generated images."""
        self.generator.eval()
        with torch.no_grad():
            images = self.generate(noise, labels)
            client_logits = torch.stack([client(images) for client in clients])
        student.train()
        optimizer.zero_grad()
        loss = model_discrepancy(student(images), client_logits, shares).mean()
        torch.autograd.backward(loss)
        optimizer.step()
