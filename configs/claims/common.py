"""Settings that the claims of several papers share."""

# The split that ResNet's paper chooses its schedule on (§4.2); the test images stay unseen.
CIFAR10 = {
    "data.name": "cifar10",
    "data.train_split": "train[:45000]",
    "data.eval_split": "train[45000:]",
    "data.train_host": "decode|resize(32)",
    "data.train_device": "standardize|pad_crop(4)|flip",
    "data.eval_host": "decode|resize(32)",
    "data.eval_device": "standardize",
    "eval.mirror": True,
}
# About a tenth of it, in whole batches of 64, for two CPU cores.
SMALL_CIFAR10 = CIFAR10 | {
    "data.train_split": "train[:5120]",
    "data.eval_split": "train[48000:]",
    "checkpoint.every_steps": 1000,
}

# AlexNet with every option that claims change, so that claims share the runs they have in common.
_ALEXNET = {
    "model.variant": "paper",
    "model.activation": "relu",
    "model.dropout": 0.5,
    "optim.weight_decay": 5e-4,
}
# Smaller: an eighth as wide, 2,048 images of CIFAR-10 enlarged to 67 pixels, twenty epochs.
ALEXNET_DESK = {
    **SMALL_CIFAR10,
    **_ALEXNET,
    "data.train_split": "train[:2048]",
    "data.train_host": "decode|resize(67)",
    "data.eval_host": "decode|resize(67)",
    "data.train_device": "standardize",
    "model.width": 0.125,
    "model.weight_init": "he",
    "batch_size": 32,
    "total_epochs": 20.0,
    "log_every_steps": 32,
    "eval.every_epochs": 5.0,
    "optim.lr": 0.01,
    "optim.lr_batch": 32,
    "checkpoint.every_steps": 1000,
}
# Smaller: half as wide, CIFAR-10 enlarged to 67 pixels, sixty epochs.
ALEXNET_GPU = {
    **ALEXNET_DESK,
    "data.train_split": "train[:45000]",
    "data.eval_split": "train[45000:]",
    "data.train_device": "standardize|pad_crop(8)|flip",
    "model.width": 0.5,
    "batch_size": 128,
    "total_epochs": 60.0,
    "log_every_steps": 50,
    "optim.lr_batch": 128,
}
ALEXNET_PAPER = {**_ALEXNET, "model.weight_init": "paper"}

# The Fisher vector with a quarter of the paper's words, fitted to fewer descriptors: 256 words
# on 50,000 would take a minute more than on 20,000. Its own classifier, which no claim reads, has
# one epoch.
SMALL_IFV = {
    "config": "configs/ifv.py",
    "model.variant": "256",
    "model.width": 0.25,
    "model.dims": 64,
    "model.sample": 20_000,
    "data.train_device": "",
    "data.eval_device": "",
    "total_epochs": 1.0,
    "checkpoint.every_steps": 1000,
}
# The embedded scenes as images of several classes, for what the papers ask of VOC: 1,000 to train
# on, and 400 to test.
SCENES = {
    "task": "multilabel",
    "data.name": "digits/scenes",
    "data.train_split": "train[:1000]",
    "data.eval_split": "test",
    "eval.mirror": False,
    "checkpoint.every_steps": 1000,
}
SCENES_IFV = {
    **SCENES,
    **SMALL_IFV,
    "data.train_host": "decode|resize(128)|dense_sift(bin_size=4, scales=(1.0, 0.707))",
    "data.eval_host": "decode|resize(128)|dense_sift(bin_size=4, scales=(1.0, 0.707))",
    "batch_size": 50,
    "eval.protocol": "svm('fisher')",
}
