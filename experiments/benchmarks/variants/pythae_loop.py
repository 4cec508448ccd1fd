"""Pythae's trainer on a network of the same size."""

import logging
import tempfile

import torch
from pythae.data.datasets import BaseDataset, collate_dataset_output
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from experiments.benchmarks import cases
from experiments.benchmarks.cases import Network
from experiments.benchmarks.contender import Contender, Task, loss_steps
from experiments.benchmarks.variants.plain import LEARNING_RATE, chain, copies, device_memory, wait


class Encoder(BaseEncoder):
    """Mean and log variance."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.layers = chain(cases.encoder(network))

    def forward(self, x: Tensor) -> ModelOutput:
        loc, log_variance = self.layers(x).chunk(2, dim=-1)
        return ModelOutput(embedding=loc, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """Probabilities, as Pythae's binary cross-entropy takes them."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.layers = chain(cases.decoder(network))

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z).sigmoid())


def trainer_steps(task: Task) -> Contender:
    """`BaseTrainer`'s training of one epoch, the epoch being as long as a turn."""
    logging.disable(logging.INFO)
    network = task.case.network
    config = VAEConfig(input_dim=network.data_shape, latent_dim=network.latent_dim, reconstruction_loss="bce")
    model = VAE(config, Encoder(network), Decoder(network))
    data = torch.from_numpy(task.data)
    dataset = BaseDataset(data, torch.zeros(len(data)))
    trainer = BaseTrainer(model, dataset, training_config=_settings(task))
    trainer.prepare_training()

    def epoch(number: int) -> float:
        sampler = RandomSampler(dataset, replacement=True, num_samples=number * task.case.batch)
        trainer.train_loader = DataLoader(
            dataset, task.case.batch, sampler=sampler, collate_fn=collate_dataset_output
        )
        loss: float = trainer.train_step(epoch=1)
        trainer.callback_handler.on_epoch_end(training_config=trainer.training_config)
        wait(task.device)
        return loss

    def run(number: int) -> None:
        epoch(number)

    return Contender(
        run, lambda: epoch(loss_steps(task.case.batch)), lambda: copies(model), device_memory(task.device)
    )


def _settings(task: Task) -> BaseTrainerConfig:
    return BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(prefix="pythae-"),
        learning_rate=LEARNING_RATE,
        per_device_train_batch_size=task.case.batch,
        no_cuda=task.device == "cpu",
    )
