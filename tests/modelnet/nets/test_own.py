"""Code of a person's own: what is executed, what is refused, and whose mistakes are whose."""

import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from modelnet.nets.own import OwnChange, OwnCode, blame, check_network, read_code
from modelnet.nets.registry import build_network
from modelnet.options.code import CodeName
from pipeline.errors import CodeError, OptionsError, RunError
from tests.support.own_code import CHANGE, NETWORK

BODY = "from torch import nn\nimport torch\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def code(source: str, name: str = "Net", path: str = "net.py") -> OwnCode:
    return OwnCode(Path(path), name, source.encode())


def network_of(source: str, **arguments: object) -> nn.Module:
    return build_network("net.py:Net", 2, 64, code(source), arguments)


def test_a_network_is_made_with_classes_and_arguments() -> None:
    torch.manual_seed(3)
    network = network_of(NETWORK, width=7)
    torch.manual_seed(3)
    expected = nn.Conv2d(3, 7, 8, 8)

    assert network.training
    assert torch.equal(network.get_parameter("body.0.weight"), expected.weight)
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 2)


def test_the_passes_that_check_a_network_change_nothing() -> None:
    torch.manual_seed(0)
    network = network_of(NETWORK)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    untouched = code(NETWORK).load()(2)

    assert torch.equal(state, torch.get_rng_state())
    assert all(map(torch.equal, network.state_dict().values(), untouched.state_dict().values()))


def test_a_function_and_lazy_layers_make_networks_too() -> None:
    lazy = "Net = lambda classes: nn.Sequential(nn.LazyConv2d(4, 8, 8), nn.Flatten(), nn.LazyLinear(classes))"
    assert build_network("net.py:tiny", 5, 64, code(NETWORK, "tiny"))(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    torch.manual_seed(1)
    weights = network_of(BODY + lazy).state_dict()
    torch.manual_seed(1)
    assert all(map(torch.equal, weights.values(), network_of(BODY + lazy).state_dict().values()))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "class Net(nn.Linear):\n  def __init__(self, c): super().__init__(64, c)",
            r"in evaluation, .* \(1, 3, 64, 2\)",
        ),
        ("Net = lambda c: nn.Sequential(nn.Flatten(), nn.Linear(12288, c + 1))", r"made \(1, 3\) of .* not \(1, 2\)"),
        (
            "class Net(nn.Linear):\n  def __init__(s, c): super().__init__(1, c)\n  def forward(s, x): return x, x",
            "a tuple",
        ),
        (
            "class Net(nn.Linear):\n  def __init__(s, c): super().__init__(12288, c)\n"
            "  def forward(s, x):\n    y = super().forward(x.flatten(1))\n    return (y, y) if s.training else y",
            "in training, Net made a tuple",
        ),
        ("Net = lambda c: nn.Flatten()", "has no parameters"),
        ("Net = lambda c: 'net'", "returned a str"),
        ("def Net(): pass", "takes 0 positional arguments but 1 was given"),
        ("Net = nn.Linear", "defines no Net; there is no class and no function"),
        ("def Other(c): pass", "defines no Net; there is Other"),
        ("Net = 3", "defines no Net"),
        ("def Net(c) return", "line 3: def Net"),
        ("1 / 0", "line 3 in <module>: 1 / 0; ZeroDivisionError"),
        ("x = '\0'", r"net\.py: \w+Error: source code string cannot contain null bytes"),
        (
            "def Net(c): return Net(c)",
            r"^your code raised .*?: net\.py: (line 3 in Net: [^;]*; ){3}\d+ more; (line 3 in [^;]*; ){3}Recursion",
        ),
        ("import sys\nsys.exit(0)", r"line 4 in <module>: sys\.exit\(0\); SystemExit: 0"),
    ],
)
def test_what_is_no_network_is_refused_by_file_and_reason(body: str, said: str) -> None:
    with pytest.raises(CodeError, match=said) as raised:
        network_of(BODY + body)
    assert raised.value.path == Path("net.py")


def test_an_error_shows_the_persons_own_lines_and_no_others() -> None:
    source = BODY + "class Net(nn.Linear):\n  def __init__(self, c): super().__init__(5, c)\n"
    source += "  def forward(self, x):\n    return self.step(x)\n"
    source += "  def step(self, x):\n    return super().forward(x.flatten(1))\n"
    with pytest.raises(CodeError) as raised:
        network_of(source)

    assert raised.value.what == "your code raised an error"
    lines = "line 6 in forward: return self.step(x); line 8 in step: return super().forward(x.flatten(1))"
    torchs = "RuntimeError: (addmm: )?mat1 and mat2 shapes"  # torch 2.15 names the operation
    assert re.match(f"{re.escape(lines)}; {torchs}", raised.value.reason)


def test_an_error_while_training_is_theirs_and_one_elsewhere_is_not() -> None:
    network = build_network("net.py:tiny", 2, 64, code(NETWORK, "tiny"))
    own = code(BODY + "def Net(c): raise_it()\ndef raise_it(): [][1]")

    with pytest.raises(IndexError) as theirs:
        own.load()(1)
    with pytest.raises(IndexError) as ours:
        network(torch.zeros(1))  # a Sequential of PyTorch: no line of theirs

    found = blame(theirs.value)
    assert found is not None and "line 4 in raise_it" in str(found)
    assert blame(ours.value) is None


@pytest.mark.parametrize("line", ["import helper", "from helper import x", "from . import helper", "import parts.a"])
@pytest.mark.parametrize("inside", [False, True])
def test_the_import_of_a_file_beside_it_is_refused_by_name(line: str, inside: bool) -> None:
    Path("helper.py").write_text("x = 1")
    Path("parts").mkdir()
    Path("parts/a.py").write_text("")
    body = f"def Net(c):\n  {line}" if inside else f"{line}\ndef Net(c): pass"

    with pytest.raises(CodeError, match=r"more than one file: net.py: line \d imports .*, a file beside it"):
        network_of(BODY + body)


def test_libraries_and_this_project_may_be_imported_whatever_lies_beside(tmp_path: Path) -> None:
    for name in ("pipeline", "modelnet", "json"):
        Path(name).mkdir()
        Path(name, "__init__.py").touch()
    Path("timm").mkdir()  # a folder of downloads, say
    source = BODY + "import json, torchvision, timm\nfrom modelnet import ModelNet\ndef Net(c): return ModelNet(c, 64)"
    assert network_of(source)(torch.zeros(1, 3, 64, 64)).shape == (1, 2)


def test_a_name_alone_makes_no_file_run(tmp_path: Path) -> None:
    Path("net.py").write_text("open('ran', 'w')\n" + NETWORK)
    with pytest.raises(OptionsError, match=r"no such network: 'net\.py:Net'"):
        build_network("net.py:Net", 2, 64)
    assert not Path("ran").exists()


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(RunError, match=r"the code cannot be read: nowhere.py: No such file"):
        read_code(CodeName(Path("nowhere.py"), "Net"))


def test_a_module_that_was_given_is_checked_alike() -> None:
    check_network(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), 2, (8, 8))
    with pytest.raises(CodeError, match=r"your network does not fit: in evaluation, network made \(1, 3, 8, 5\)"):
        check_network(nn.Linear(8, 5), 2, (8, 8))


def test_a_change_of_images_survives_pickling_and_gives_the_same(tmp_path: Path) -> None:
    change = OwnChange(code(CHANGE, "speckle"))
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    again = pickle.loads(pickle.dumps(change))

    assert torch.equal(change(image, torch.Generator().manual_seed(1)), again(image, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def f(image, g): return image.float()", r"f made \(3, 8, 8\) torch.float32 of \(3, 8, 8\) torch.uint8"),
        ("def f(image, g): return image[:, 1:]", r"f made \(3, 7, 8\)"),
        ("def f(image, g): pass", "f made NoneType"),
        ("def f(image): return image", "takes 1 positional argument but 2 were given"),
        ("def f(image, g): return image.nothing", "line 3 in f: .*AttributeError"),
    ],
)
def test_a_change_that_returns_something_else_is_refused(body: str, said: str) -> None:
    with pytest.raises(CodeError, match=said):
        OwnChange(code(BODY + body, "f"))(torch.zeros(3, 8, 8, dtype=torch.uint8), torch.Generator())
