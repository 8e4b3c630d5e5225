"""Speed of test protocols: both contenders run the whole test, and differ in views a batch."""

from typing import Any

import pytest
from support.measured import FACTS

from cnn_papers.benchmarks import protocol_speed, wording, workload
from cnn_papers.benchmarks.timing import Speed
from cnn_papers.errors import UserError
from cnn_papers.evaluation import passes


def tiny() -> workload.Workload:
    fields = {"blocks": (1,), "widths": (4,)}
    work = workload.from_paper("resnet", "cifar-8", 40, 8, "float32")
    return work._replace(model=work.model | fields, devices=1)


def test_views_run_in_batches_and_one_by_one(monkeypatch):
    shapes: list[tuple[int, ...]] = []
    make = passes.make_programs

    def recorded(*network: Any) -> Any:
        programs = make(*network)

        def program(score: Any, mirrored: bool, shape: tuple[int, ...]) -> Any:
            shapes.append((mirrored, *shape))
            return programs(score, mirrored, shape)

        return program

    def speeds_of(contenders: Any, images: int) -> dict[str, Speed]:
        assert images == protocol_speed.IMAGES == 4
        for run in contenders.values():
            shapes.append(())
            run(1)
        return {"batches": Speed(6.0, [6.0, 6.0]), "one_by_one": Speed(2.0, [2.0, 3.0])}

    monkeypatch.setattr(passes, "make_programs", recorded)
    results = protocol_speed.measure(tiny(), "ten_crop(8, 9)|single_view", speeds_of)
    of_ten_crop = [(), (True, 20, 8, 8, 3), (), *[(True, 1, 8, 8, 3)] * 20]
    of_single_view = [(), (False, 4, 8, 8, 3), (), *[(False, 1, 8, 8, 3)] * 4]
    assert shapes == of_ten_crop + of_single_view
    assert list(results) == ["ten_crop(8, 9)", "single_view"]
    assert results["single_view"]["one_by_one"]["ratio"] == 2.5


def test_the_line_of_a_protocol():
    speed = {"images_per_second": 6.0, "windows": [5.0, 6.0]}
    one_by_one = {**speed, "ratio": 2.5, "ratios": [2.0, 3.0]}
    protocols = {"ten_crop": {**speed, "one_by_one": one_by_one}}
    assert wording.as_text(FACTS | {"protocols": protocols}).splitlines()[-1] == (
        "      ten_crop  6.0 images/s (5.0 to 6.0 in 2 windows), "
        "2.50 times as fast as one view at a time (2.00 to 3.00)"
    )


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("spp_full", "spp_full needs a network with a spatial pyramid"),
        ("svm('fc')", r"--protocols: svm\('fc'\) fits SVMs, which is not measured"),
    ],
)
def test_protocols_that_cannot_be_measured(protocol, message):
    with pytest.raises(UserError, match=message):
        protocol_speed.measure(tiny(), protocol, lambda contenders, images: {})
