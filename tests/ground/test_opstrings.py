"""Op strings: what they mean, and one line for everything that is wrong with them."""

import sys

import pytest

from cnn_papers.errors import UserError
from cnn_papers.opstrings import Op, functions, parse

# The functions that the strings of this file name; `parse` looks into a module, and this one is at
# hand.


def double(x):
    return 2 * x


def add(x, amount: int, times: int = 1):
    return x + amount * times


def join(x, *words: str, between: str = " "):
    return between.join([x, *words])


def draw(x, low: float, high: float | None = None, *, rng):
    return x, low, high, rng


def pair(x, both: tuple[float, float] = (0.0, 1.0)):
    return x, both


def decay(epoch, loss, rate: float):
    return epoch, loss, rate


def _hidden(x):
    return x


@pytest.fixture
def here():
    """This module."""
    return sys.modules[__name__]


def read(text, here, leading=1):
    return parse(text, here, leading=leading, key="data.ops")


def refusal(text, here):
    """The message with which `text` is refused."""
    with pytest.raises(UserError) as caught:
        read(text, here)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_operations_come_in_order_with_their_literal_arguments(here):
    ops = read("double|add(3)|add(1, times=-2)|pair((0.5, 2))", here)
    assert ops == (
        Op("double", double, (), {}),
        Op("add", add, (3,), {}),
        Op("add", add, (1,), {"times": -2}),
        Op("pair", pair, ((0.5, 2),), {}),
    )
    x = 5
    for op in ops[:3]:
        x = op(x)
    assert x == 2 * 5 + 3 - 2
    assert ops[3](x) == (11, (0.5, 2))


def test_a_name_alone_is_a_call_without_arguments(here):
    assert read("double", here) == read("double()", here) == read(" double ( ) ", here)


def test_an_empty_text_has_no_operations(here):
    assert read("", here) == () == read("  ", here)


def test_a_bar_within_quotes_or_brackets_separates_nothing(here):
    (op,) = read("join('a|b', \"c')|d\", between='|')", here)
    assert op("x") == "x|a|b|c')|d"
    assert [op.args for op in read("pair(((1), (2)))|pair((3, 4))", here)] == [((1, 2),), ((3, 4),)]


def test_leading_arguments_come_before_those_of_the_string(here):
    (op,) = read("decay(0.5)", here, leading=2)
    assert op(7, 1.5) == (7, 1.5, 0.5)
    with pytest.raises(UserError, match="does not fit decay"):
        read("decay(0.5)", here, leading=1)


def test_an_operation_gets_of_the_context_what_it_names(here):
    drawing, plain = read("draw(1)|double", here)
    assert drawing.needs("rng") and not plain.needs("rng") and not drawing.needs("key")
    assert not drawing.needs("low")  # only keyword-only parameters are the pipeline's
    assert drawing("image", rng="generator", key="key") == ("image", 1, None, "generator")
    assert plain(4, rng="generator") == 8


def test_only_public_functions_of_the_module_itself_can_be_named(here):
    names = functions(here)
    assert names["double"] is double
    assert not {"_hidden", "parse", "functions", "pytest"} & set(names)
    assert "there is no '_hidden'" in refusal("_hidden", here)
    assert "there is no 'parse'" in refusal("parse", here)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "duble",
            "config.data.ops: there is no 'duble' (did you mean 'double'?); "
            "there are: add, decay, double,",
        ),
        ("xyzzy(3)", "config.data.ops: there is no 'xyzzy'; there are: add, decay, double, "),
        (
            "add",
            "'add' does not fit add(amount: int, times: int = 1): "
            "missing a required argument: 'amount'",
        ),
        (
            "add(1, 2, 3)",
            "'add(1, 2, 3)' does not fit add(amount: int, times: int = 1): "
            "too many positional arguments",
        ),
        ("add(1, amount=2)", "multiple values for argument 'amount'"),
        ("add(1, sizes=2)", "got an unexpected keyword argument 'sizes'"),
        (
            "draw(1, rng=2)",
            "'draw(1, rng=2)' does not fit draw(low: float, high: float | None = None): "
            "'rng' is filled in by the pipeline",
        ),
    ],
)
def test_a_wrong_name_or_arguments_that_do_not_fit_are_said_in_one_line(here, text, message):
    assert message in refusal(f"double|{text}", here)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("add('3')", "amount='3' is not int"),
        ("add(2.5)", "amount=2.5 is not int"),
        ("add(True)", "amount=True is not int"),
        ("add(1, times=None)", "times=None is not int"),
        ("join('a', 3)", "words=3 is not str"),
        ("draw('low')", "low='low' is not float"),
        ("draw(1, 'high')", "high='high' is not float | None"),
        ("pair(3)", "both=3 is not "),
        ("pair((1, 2, 3))", "both=(1, 2, 3) is not "),
        ("pair((1, 'b'))", "both=(1, 'b') is not "),
    ],
)
def test_arguments_of_another_type_than_annotated_are_refused(here, text, message):
    assert message in refusal(text, here)


def test_whole_numbers_pass_as_floats_and_none_where_it_may_stand(here):
    assert [op.args for op in read("draw(1)|draw(1.5, None)|draw(-1, 2)", here)] == [
        (1,),
        (1.5, None),
        (-1, 2),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "add(__import__('os').getpid())",
        "add(len('abc'))",
        "add(double(1))",
        "add(2 ** 8)",
        "add(amount)",
        "add(*[1, 2])",
        "add(**{'amount': 1})",
        "__import__('os').system('true')",
        "double.__globals__",
        "lambda x: x",
        "double(",
        "double)",
        "add(1))",
        "add(1) add(2)",
        "'double'",
        "3",
        "add({[]: 1})",
        "double\0",
        "(" * 5000 + ")" * 5000,
        "add(" + "-" * 100_000 + "1)",
    ],
)
def test_what_is_not_a_name_with_literals_is_refused_unevaluated(here, text, monkeypatch):
    monkeypatch.setattr("os.getpid", lambda: pytest.fail("evaluated"))
    monkeypatch.setattr("os.system", lambda _: pytest.fail("evaluated"))
    message = refusal(f"double|{text}", here)
    assert message.startswith("config.data.ops: cannot read '")
