"""Training of the networks that paint sensors, on the shared loop: WGAN-GP, and the losses of IEA-GAN."""
