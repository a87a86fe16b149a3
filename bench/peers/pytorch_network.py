"""The network of bench/peers/pytorch.py: how its parameters are made of ours, its loss, and the two
terms of it by example."""

import math

import torch
from torch.nn import functional

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


def from_bytes(shape, values):
    return torch.frombuffer(values, dtype=torch.float32).reshape(shape)


def twice_kl(mu, logvar):
    """By dimension, of q(z given x) from N(0, I)."""
    return mu * mu + torch.expm1(logvar) - logvar


class Network(torch.nn.Module):
    """The encoder and the decoder, as lists of weights and biases."""

    def __init__(self, given, device):
        super().__init__()
        self.given, self.device = given, device
        self.activation = ACTIVATIONS[given.model["activation"]]
        self.bounds = given.model["logvar_min"], given.model["logvar_max"]
        self.initial = []
        self.take_initial()
        self.values = torch.nn.ParameterList(
            [torch.nn.Parameter(value.clone()) for value in self.initial])

    def take_initial(self):
        """The parameters that reset() goes back to are those of the dump."""
        self.initial = self.tensors(self.given.tensors)

    def names(self):
        """Of each of our parameters, the names of the dump's that it is made of."""
        heads = [["encoder.mu.weight", "encoder.logvar.weight"],
                 ["encoder.mu.bias", "encoder.logvar.bias"]]
        encoder = [[name] for pair in self.given.layers("encoder") for name in pair]
        decoder = [[name] for pair in self.given.layers("decoder") for name in pair]
        return encoder + heads + decoder + [["decoder.out.weight"], ["decoder.out.bias"]]

    def tensors(self, stored):
        """The parameters of a file of vae, on the device."""
        return [torch.cat([from_bytes(*stored[name]) for name in names]).to(self.device)
                for names in self.names()]

    def load(self, stored):
        self.assign(self.tensors(stored))

    def reset(self):
        self.assign(self.initial)

    @torch.no_grad()
    def assign(self, values):
        """Where they are."""
        for value, new in zip(self.values, values):
            value.copy_(new)

    def chain(self, h, first, count):
        for i in range(first, first + 2 * count, 2):
            h = self.activation(functional.linear(h, self.values[i], self.values[i + 1]))
        return h

    def outputs(self, x, epsilon):
        """recon[B, draws], mu and logvar[B, latent] and z[B, draws, latent] of the batch
        x[B, pixels] with epsilon[B, draws, latent]."""
        encoder, decoder = len(self.given.layers("encoder")), len(self.given.layers("decoder"))
        h = self.chain(x, 0, encoder)
        at = 2 * encoder
        heads = functional.linear(h, self.values[at], self.values[at + 1]).float()
        mu, logvar = heads.chunk(2, dim=1)
        logvar = logvar.clamp(*self.bounds)
        z = mu[:, None] + torch.exp(0.5 * logvar)[:, None] * epsilon
        h = self.chain(z.flatten(0, 1), at + 2, decoder)
        logits = functional.linear(h, self.values[-2], self.values[-1]).float()
        logits = logits.view(*epsilon.shape[:2], -1)
        targets = x[:, None].expand_as(logits)
        recon = functional.binary_cross_entropy_with_logits(
            logits, targets, reduction="none").sum(-1)
        return recon, mu, logvar, z

    def forward(self, x, epsilon):
        """The mean loss over the batch."""
        recon, mu, logvar, z = self.outputs(x, epsilon)
        if self.given.is_iwae:
            ratio = 0.5 * (z * z - epsilon * epsilon - logvar[:, None]).sum(-1)
            log_w = -recon - self.given.beta * ratio
            return (math.log(self.given.samples) - torch.logsumexp(log_w, 1)).mean()
        kl = 0.5 * twice_kl(mu, logvar).sum()
        return (recon.sum() + self.given.beta * kl) / x.shape[0]

    @torch.no_grad()
    def terms(self, x, epsilon):
        """recon, a mean over the draws, and kl, in closed form, of each example, [2, B]: what
        `vae evaluate` means by them. Neither is weighted."""
        recon, mu, logvar, _ = self.outputs(x, epsilon)
        return torch.stack([recon.mean(1), 0.5 * twice_kl(mu, logvar).sum(1)])
