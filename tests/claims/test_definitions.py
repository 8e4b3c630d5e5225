"""The digest of what a claim asks: it follows every change of the question, and nothing else."""

import pytest
from support.example_claims import EXAMPLES

from cnn_papers.claims import definitions, plan
from cnn_papers.claims.plan import EXACT
from cnn_papers.facts import Claim, Scale
from cnn_papers.runs import config_files

ARMS = {"slow": {"optim.lr": 0.01}, "fast": {"optim.lr": 0.02}}
CLAIM = Claim(
    "A statement.",
    "Table 1",
    ARMS,
    "last('val/top1_error')",
    "lower",
    "numbers",
    {
        "desk": Scale({"config": "configs/resnet.py"}),
        EXACT: Scale({"config": "configs/resnet.py"}),
    },
)


def at_desk(**overrides: object) -> dict[str, Scale]:
    return {"desk": Scale({"config": "configs/resnet.py", **overrides})}


@pytest.mark.parametrize(
    "change",
    [
        {"statement": "In other words.", "source": "§1", "paper": "p", "paper_delta": -1.0},
        {"arms": {"a": ARMS["slow"], "b": ARMS["fast"]}},
        {"scales": at_desk(**{"optim.lr": 0.5})},  # which both arms override
        {"scales": at_desk(**{"optim.nesterov": False})},  # as the recipe has it
        {"scales": at_desk(**{"checkpoint.every_steps": 7, "seed": 3})},
    ],
)
def test_the_digest_does_not_change_with_words(change):
    changed = CLAIM._replace(**change)
    assert definitions.digest(changed, "desk") == definitions.digest(CLAIM, "desk")


@pytest.mark.parametrize(
    "change",
    [
        {"metric": "last('val/top5_error')"},
        {"expect": "higher"},
        {"expect": "at_most", "bound": -1.0},
        {"ratio": True},
        {"arms": dict(reversed(ARMS.items()))},
        {"arms": ARMS | {"fast": {"optim.lr": 0.03}}},
        {"scales": at_desk(**{"batch_size": 32})},
        {"scales": at_desk(**{"optim.nesterov": True})},
        {"scales": at_desk(**{"log_every_steps": 10})},
    ],
)
def test_the_digest_changes_with_the_question(change):
    changed = CLAIM._replace(**change)
    assert definitions.digest(changed, "desk") != definitions.digest(CLAIM, "desk")


def test_the_digest_changes_with_the_run_that_an_arm_starts_from():
    start = {"config": "configs/lenet.py", "total_steps": 5}
    scales = [
        at_desk(),
        at_desk(start=None),  # the same
        at_desk(start=start),
        at_desk(start=start | {"total_steps": 6}),
        at_desk(start=start | {"start": start}),
        at_desk(start=start, init_from="runs/lenet"),  # of which the sweep takes no notice
    ]
    digests = [definitions.digest(CLAIM._replace(scales=scale), "desk") for scale in scales]
    assert digests[0] == digests[1] and digests[2] == digests[5] and len({*digests}) == 4


def test_the_digest_changes_with_the_recipe_behind_the_same_overrides(monkeypatch):
    before = definitions.digest(CLAIM, "desk")

    def load(job: plan.Job) -> object:
        return config_files.read(job.config, [*job.overrides, ("optim.weight_decay", 0.5)])

    monkeypatch.setattr(plan, "load", load)
    assert definitions.digest(CLAIM, "desk") != before


def test_a_key_that_is_new_and_off_changes_no_question(monkeypatch):
    before = definitions.digest(CLAIM, "desk")

    def load(job: plan.Job) -> object:
        config = config_files.read(job.config, job.overrides).unlock()
        config.optim.new, config.data.new = 0.0, ""
        return config

    monkeypatch.setattr(plan, "load", load)
    assert definitions.digest(CLAIM, "desk") == before


def test_the_task_that_all_claims_had_before_it_was_a_key_changes_no_question():
    config = plan.load(plan.make_job("configs/resnet.py", {}))
    asked = definitions.asked_of(config, "desk")
    assert config.task == "classify" and "task" not in asked
    with config.unlocked():
        config.task = "regress"
    assert definitions.asked_of(config, "desk") == asked | {"task": "regress"}


def test_where_nothing_is_trained_only_the_network_and_its_input_are_asked_of():
    asked = [
        definitions.asked_of(
            plan.load(plan.make_job("configs/resnet.py", {"data.eval_host": host})), EXACT
        )
        for host in (
            "decode|resize(32)",
            "decode|resize(32, method='bilinear')",
            "decode|resize(64)",
        )
    ]
    assert {key.partition(".")[0] for key in asked[0]} == {"model_name", "model", "input"}
    assert asked[0]["input"] == (32, 32, 3)
    assert asked[0] == asked[1] != asked[2]


def test_digests_are_short_and_differ_between_scales():
    for claim in EXAMPLES.values():
        digests = [definitions.digest(claim, scale) for scale in claim.scales]
        assert {len(digest) for digest in digests} == {definitions.DIGITS}
        assert len(set(digests)) == len(digests)
