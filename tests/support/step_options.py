"""Another value for every key of the config that the train step or the optimiser reads."""

# A new option needs a line here.
STEP_OPTIONS = {
    "loss.aux_weight": 0.5,
    "loss.ranking": True,
    "optim.accumulate": 2,
    "optim.bn_group": 4,
    "optim.constant_lr": (".*/bias",),
    "optim.ema_decay": 0.9,
    "optim.frozen": "fc",
    "optim.lr": 0.3,
    "optim.lr_batch": 96,
    "optim.lr_mults": ((".*/bias", 2.0),),
    "optim.max_loss": 5.0,
    "optim.max_norms": (("fc/kernel", 1.0),),
    "optim.momentum": 0.5,
    "optim.momentum_form": "torch",
    "optim.move_frozen_statistics": True,
    "optim.nesterov": True,
    "optim.schedule": "poly",
    "optim.warmup_epochs": 2.0,
    "optim.warmup_until_error": (80.0, 0.1),
    "optim.wd_mults": ((".*/bias", 0.0),),
    "optim.weight_decay": 0.2,
}
