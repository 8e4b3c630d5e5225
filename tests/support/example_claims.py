"""Two small claims for tests: one at scale desk, one that needs no training."""

from cnn_papers.claims.plan import EXACT
from cnn_papers.facts import Claim, Scale

EXAMPLES = {
    "example": Claim(
        "Pooling windows that overlap lower the error.",
        "AlexNet §3.4",
        {"apart": {"model.pool": (2, 2)}, "overlapping": {"model.pool": (3, 2)}},
        "last('val/top1_error')",
        "lower",
        "0.4 points of top-1 error",
        {
            "desk": Scale(
                {"config": "configs/alexnet.py", "total_steps": 3, "eval.analyses": "dead_units"}
            )
        },
        paper_delta=-0.4,
    ),
    "exact_example": Claim(
        "GoogLeNet has about a twelfth of AlexNet's parameters.",
        "GoogLeNet §1",
        {
            "alexnet": {"config": "configs/alexnet.py:imagenet2012"},
            "googlenet": {"config": "configs/googlenet.py:imagenet2012", "model.aux_heads": False},
        },
        "parameters()",
        "at_most",
        "12 times fewer",
        {EXACT: Scale({})},
        ratio=True,
        bound=1 / 8,
    ),
}
EXAMPLE = EXAMPLES["example"]
