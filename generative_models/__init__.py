"""Week 9: generative models that draw in one step: VAE, GAN and VQ-VAE."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "gan": ["GAN"],
        "model": ["Decoder", "Discriminator", "Encoder"],
        "pipeline": ["Autoencoder", "Generator"],
        "vae": ["VAE", "gaussian_kl", "kl_term", "reparameterise"],
        "settings": ["GANSettings", "VAESettings", "VQSettings"],
        "vqvae": ["VQVAE"],
    },
)
