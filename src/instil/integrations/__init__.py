"""Distillation in training loops of other libraries.

``DistillationLoss`` is the loss of an offline scheme as a module, for any loop.
``hf_trainer.DistillationTrainer`` is a ``Trainer`` of transformers and
``lightning_module.DistillationModule`` a ``LightningModule``; ``trackers`` writes records of
``fit`` to TensorBoard, Weights & Biases and MLflow.
"""

from instil.integrations.distillation_loss import DistillationLoss, LossOutputs

__all__ = ["DistillationLoss", "LossOutputs"]
