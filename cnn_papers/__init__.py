"""The convolutional-network canon, AlexNet (2012) to DenseNet (2017), reproduced in JAX."""
