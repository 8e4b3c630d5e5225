"""The plan of the runs of claims: ids, flags, overrides; and what is refused before any starts."""

import pathlib

import pytest
from support.commands import exit_code
from support.example_claims import EXAMPLE, EXAMPLES

from cnn_papers import doors
from cnn_papers.claims import catalogue, plan
from cnn_papers.claims.plan import EXACT, make_job
from cnn_papers.errors import UserError
from cnn_papers.facts import Scale


def test_an_id_is_the_same_everywhere_and_for_any_order():
    overrides = {"seed": 0, "model.pool": (3, 2), "optim.lr": 0.01}
    job = make_job("configs/alexnet.py:cifar10", overrides)
    assert job.id == "alexnet-b279de4a44"
    assert job == make_job("configs/alexnet.py:cifar10", dict(reversed(overrides.items())))
    assert job.overrides == (("model.pool", (3, 2)), ("optim.lr", 0.01), ("seed", 0))


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        ("configs/alexnet.py:cifar10", {"seed": 1}),
        ("configs/alexnet.py:cifar10", {"model.pool": (2, 2)}),
        ("configs/alexnet.py:cifar10", {"model.lrn": False}),
        ("configs/alexnet.py", {}),
    ],
)
def test_an_id_differs_where_anything_does(config, changed):
    overrides = {"seed": 0, "model.pool": (3, 2)}
    assert (
        make_job(config, overrides | changed).id
        != make_job("configs/alexnet.py:cifar10", overrides).id
    )


def test_the_recipe_without_a_name_is_desk():
    assert make_job("configs/alexnet.py:desk", {}) == make_job("configs/alexnet.py", {})


def test_flags_of_a_job():
    job = make_job("configs/alexnet.py", {"seed": 3, "model.pool": (3, 2), "data.train_device": ""})
    assert plan.flags_of(job) == [
        "--config=configs/alexnet.py",
        "--config.data.train_device=",
        "--config.model.pool=(3, 2)",
        "--config.seed=3",
    ]


def test_a_run_that_starts_from_another_is_planned_with_it():
    """Of the same seed; what the other one does is part of what this one is."""
    start = {"config": "configs/lenet.py:mnist", "total_steps": 2}
    first = {"config": "configs/lenet.py", "total_steps": 3, "start": start}
    claim = EXAMPLE._replace(
        arms={"fresh": {"start": None}, "tuned": {}, "other": {"start": {**start, "seed": 9}}},
        scales={"desk": Scale(first)},
    )
    found = plan.jobs(claim, "desk", [0, 1])
    job = found["tuned"][1]
    assert job.start == make_job("configs/lenet.py:mnist", {"total_steps": 2, "seed": 1})
    assert job == make_job("configs/lenet.py", {"total_steps": 3, "seed": 1}, job.start)
    assert job.chain == [job.start, job] and job.start.chain == [job.start]
    assert found["fresh"][1].start is None
    ids = [arm[1].id for arm in found.values()]
    assert len({*ids, found["tuned"][0].id}) == 3  # `seed` of the sweep is that of the start too
    assert ids[1] == ids[2]
    folder = pathlib.Path("/runs")
    assert plan.flags_of(job, folder) == [
        *plan.flags_of(job),
        f"--config.init_from=/runs/{job.start.id}",
    ]
    assert plan.flags_of(job.start, folder) == plan.flags_of(job.start)


def test_the_jobs_of_a_claim_are_by_arm_and_seed():
    found = plan.jobs(EXAMPLE, "desk", range(3))
    assert {arm: [dict(job.overrides)["seed"] for job in jobs] for arm, jobs in found.items()} == {
        "apart": [0, 1, 2],
        "overlapping": [0, 1, 2],
    }
    assert dict(found["apart"][1].overrides) == {
        "eval.analyses": "dead_units",
        "model.pool": (2, 2),
        "seed": 1,
        "total_steps": 3,
    }
    assert {job.config for jobs in found.values() for job in jobs} == {"configs/alexnet.py"}


def test_what_the_recipe_says_anyway_makes_no_other_job():
    said = {
        "optim.lr": 0.01,
        "total_epochs": 12,
        "data.eval_device": "standardize",
    }  # as in configs/alexnet.py
    scale = EXAMPLE.scales["desk"]
    wordy = EXAMPLE._replace(scales={"desk": scale._replace(overrides=said | scale.overrides)})
    assert plan.jobs(wordy, "desk", [0, 1]) == plan.jobs(EXAMPLE, "desk", [0, 1])
    other = EXAMPLE._replace(
        scales={"desk": scale._replace(overrides=scale.overrides | {"total_epochs": 6})}
    )
    assert ("total_epochs", 6.0) in plan.jobs(other, "desk", [0])["apart"][0].overrides


def test_an_unknown_key_is_refused_before_anything_is_planned():
    claim = EXAMPLE._replace(arms={"apart": {"model.pol": (2, 2)}})
    with pytest.raises(
        UserError, match=r"there is no config key config.model.pol; did you mean 'pool'"
    ):
        plan.jobs(claim, "desk", [0])


def test_an_exact_claim_has_one_job_an_arm():
    assert [
        len(jobs) for jobs in plan.jobs(EXAMPLES["exact_example"], EXACT, range(5)).values()
    ] == [1, 1]


def test_the_arms_of_a_scale_take_the_place_of_the_claims_own():
    claim = EXAMPLE._replace(
        scales={"gpu": Scale({"config": "configs/alexnet.py"}, {"only": {"model.width": 0.5}})}
    )
    assert plan.arms_of(claim, "gpu") == {
        "only": {"config": "configs/alexnet.py", "model.width": 0.5}
    }


def test_an_arm_overrides_its_scale():
    claim = EXAMPLE._replace(
        scales={"desk": Scale({"config": "configs/alexnet.py", "model.pool": (9, 9)})}
    )
    assert plan.arms_of(claim, "desk")["apart"]["model.pool"] == (2, 2)


def test_a_scale_at_which_a_claim_is_not_asked():
    with pytest.raises(UserError, match="has no runs at scale 'paper'; it has runs at: desk"):
        plan.jobs(EXAMPLE, "paper", [0])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.pol": (3, 2)}, "there is no config key config.model.pol; did you mean 'pool'?"),
        ({"zork": 1}, "there is no config key config.zork; there are: batch_size, "),
        ({"optim.lr.x": 1}, "config.optim.lr is a value, not a group: it has no key 'x'"),
        ({"optim.lr": "fast"}, "config.optim.lr='fast' is str, not float"),
        ({"model.pool": [3, 2]}, r"config.model.pool=\[3, 2\] is list, not tuple"),
        ({"model.lrn": 1}, "config.model.lrn=1 is int, not bool"),
        ({"seed": True}, "config.seed=True is bool, not int"),
        ({"model.width": None}, "config.model.width=None is NoneType, not float"),
    ],
)
def test_overrides_that_no_flag_would_take_are_refused(overrides, message):
    with pytest.raises(UserError, match=f"^{message}"):
        plan.load(make_job("configs/alexnet.py", overrides))


def test_a_whole_number_does_for_a_float():
    config = plan.load(make_job("configs/alexnet.py", {"total_epochs": 2}))
    assert config.total_epochs == 2.0 and isinstance(config.total_epochs, float)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("configs/alexnett.py", "there is no config file 'configs/alexnett.py'"),
        ("configs/alexnet.py:cifar11", "configs/alexnet.py has no recipe 'cifar11'"),
    ],
)
def test_a_job_of_a_config_that_is_not_there(config, message):
    with pytest.raises(UserError, match=message):
        plan.load(make_job(config, {}))


def test_an_unknown_claim_is_refused_with_the_list(monkeypatch, capsys):
    monkeypatch.setattr(catalogue, "claims_of", lambda: {"alexnet": EXAMPLES})
    assert catalogue.find("example") is EXAMPLE
    assert exit_code(lambda: doors.run(lambda argv: catalogue.find("exampel"), lambda: None)) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: there is no claim 'exampel'; did you mean 'example'? there are 2:",
        "  example        Pooling windows that overlap lower the error.",
        "  exact_example  GoogLeNet has about a twelfth of AlexNet's parameters.",
    ]


def test_two_claims_of_one_name_are_refused(monkeypatch):
    monkeypatch.setattr(
        catalogue, "claims_of", lambda: {"alexnet": {"a": EXAMPLE}, "vgg": {"a": EXAMPLE}}
    )
    with pytest.raises(UserError, match=r"configs/claims/vgg.py: another file has a claim 'a' too"):
        catalogue.all_claims()
