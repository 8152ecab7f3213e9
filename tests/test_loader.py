"""plugins.toml: which plugins are made of it, and what a file is told that can't be used."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from seatws.errors import ConfigError
from seatws.loader import load_plugins
from tests.harness import ROOT, unique
from tests.sample_plugins.broken import SECRET
from tests.sample_plugins.lists import Lists
from tests.sample_plugins.tokens import Tokens

SAMPLES = "tests.sample_plugins"


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A conf directory; what `module` writes into it can be imported."""
    return tmp_path


def write(conf: Path, text: str) -> None:
    (conf / "plugins.toml").write_text(textwrap.dedent(text), encoding="utf-8")


def module(conf: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    """A new module with this text; its name."""
    name = unique("plugin_of_a_test")
    (conf / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
    monkeypatch.syspath_prepend(str(conf))
    return name


def table(use: str, *settings: str) -> str:
    return "\n".join(["[[plugin]]", f"use = {json.dumps(use)}", *settings, ""])


def problem(conf: Path, text: str) -> str:
    """The one problem of a file, without the file's name, which it must begin with."""
    write(conf, text)
    with pytest.raises(ConfigError) as caught:
        load_plugins(conf)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{conf / 'plugins.toml'}: ")
    assert SECRET not in line
    return line.removeprefix(f"{conf / 'plugins.toml'}: ")


def test_plugins_are_made_in_the_order_of_the_file(conf: Path) -> None:
    """Each of its own table, by its module or by a class in it; one may stand there twice."""
    write(
        conf,
        table(f"{SAMPLES}.lists", 'refuse = ["join a"]', "deadline_seconds = 0.05")
        + table(f"{SAMPLES}.tokens:Tokens", "deadline_seconds = 30")
        + table(f"{SAMPLES}.lists:Lists"),
    )
    one, two, three = load_plugins(conf)
    assert [type(each.plugin) for each in (one, two, three)] == [Lists, Tokens, Lists]
    assert one.use == f"{SAMPLES}.lists"
    assert one.plugin.settings == one.settings == Lists.Settings(refuse=("join a",))
    assert three.plugin.settings == Lists.Settings()
    assert [each.deadline_s for each in (one, two, three)] == [0.05, 30.0, 2.0]


def test_an_empty_file_means_no_plugins(conf: Path) -> None:
    """Open mode; said by a file that is there, which a byte order mark may begin."""
    for text in ("", "# nothing\n", "\ufeff# nothing\n", "plugin = []\n"):
        write(conf, text)
        assert load_plugins(conf) == []


def test_nobody_opens_a_server_by_losing_the_file(conf: Path) -> None:
    """It must be there; what an empty one would mean is said."""
    with pytest.raises(ConfigError, match=r"plugins.toml: no such file; an empty one means no"):
        load_plugins(conf)
    (conf / "plugins.toml").mkdir()
    with pytest.raises(ConfigError, match=r"plugins.toml: cannot be read \(Is a directory\)"):
        load_plugins(conf)


def test_a_disabled_table_is_not_looked_at(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither imported nor checked, whatever else is in it."""
    name = module(conf, monkeypatch, "raise SystemExit('imported')")
    write(
        conf,
        table(name, "enabled = false", "deadline_seconds = 'long'", "no_such_setting = 1")
        + "[[plugin]]\nenabled = false\n"
        + table(f"{SAMPLES}.lists", "enabled = true"),
    )
    assert [each.use for each in load_plugins(conf)] == [f"{SAMPLES}.lists"]
    assert name not in sys.modules


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('[[plugin]\nuse = "x"', "not valid TOML: ", id="broken TOML"),
        pytest.param("a" * 5 + " = " + "[" * 5000, "not valid TOML: ", id="deep TOML"),
        pytest.param(
            '[plugin]\nuse = "x"', "plugin: expected [[plugin]] tables and", id="one table"
        ),
        pytest.param('plugin = ["x"]', "plugin: expected [[plugin]] tables and", id="no tables"),
        pytest.param("plugin = 5", "plugin: expected [[plugin]] tables and", id="no list"),
        pytest.param(
            "[[plugins]]", "plugins: expected [[plugin]] tables and", id="a misspelt table"
        ),
        pytest.param("open = true", "open: expected [[plugin]] tables and", id="a setting outside"),
        pytest.param("[[plugin]]", "plugin 1: use: expected a module, as in", id="no use"),
        pytest.param("[[plugin]]\nuse = 5", "plugin 1: use: expected a module", id="use a number"),
        pytest.param(table(""), "plugin 1: use: expected a module", id="use empty"),
        pytest.param(table("plugins/x.py"), "plugin 1: use: expected a module", id="use a path"),
        pytest.param(table(".x"), "plugin 1: use: expected a module", id="use relative"),
        pytest.param(table("x:"), "plugin 1: use: expected a module", id="use without its class"),
    ],
)
def test_a_file_that_can_not_be_read_says_what_to_write(
    conf: Path, text: str, expected: str
) -> None:
    """The file, where in it, and what was expected there."""
    assert problem(conf, text).startswith(expected)


LISTS = f"{SAMPLES}.lists"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("enabled = 'false'", "enabled: expected true or false, without quotes"),
        ("enabled = 0", "enabled: expected true or false, without quotes"),
        ("deadline_seconds = 0.04", "deadline_seconds: expected a number from 0.05 to 30"),
        ("deadline_seconds = 30.1", "deadline_seconds: expected a number from 0.05 to 30"),
        ("deadline_seconds = nan", "deadline_seconds: expected a number from 0.05 to 30"),
        ("deadline_seconds = true", "deadline_seconds: expected a number from 0.05 to 30"),
        ("deadline_seconds = '2'", "deadline_seconds: expected a number from 0.05 to 30"),
        ("refuze = []", "refuze: no such setting; did you mean refuse?"),
        ("refuse = ['join']", "refuse: expected a list of ACTION ROOM [CLIENT], got"),
    ],
)
def test_a_wrong_setting_names_the_plugin(conf: Path, settings: str, expected: str) -> None:
    """The file, the table's number and plugin, the key, what was expected."""
    told = problem(conf, table(f"{SAMPLES}.tokens") + table(LISTS, settings))
    assert told.startswith(f"plugin 2 ({LISTS}): {expected}")


def test_every_plugin_with_a_problem_is_told(conf: Path) -> None:
    """At once, in the order of the file."""
    write(conf, table("no.such") + table(LISTS) + table(LISTS, "a = 1", "b = 2"))
    with pytest.raises(ConfigError) as caught:
        load_plugins(conf)
    places = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert places == ["plugin 1 (no.such)", f"plugin 3 ({LISTS})", f"plugin 3 ({LISTS})"]


PLUGIN = "from seatws.plugins import Plugin\nfrom tests.sample_plugins.lists import Lists\n"


@pytest.mark.parametrize(
    ("text", "class_name", "expected"),
    [
        pytest.param(
            "import no_such_package", "", "there is no module no_such_package", id="imports"
        ),
        pytest.param("\n\ndef :", "", "SyntaxError at {file}:3; mend the plugin", id="no Python"),
        pytest.param(
            f"\nraise OSError('{SECRET}')", "", "OSError at {file}:2; mend the plugin", id="fails"
        ),
        pytest.param("raise SystemExit", "", "SystemExit at {file}:1; mend the plugin", id="ends"),
        pytest.param("", "", "there is no plugin in {name}; write a class that", id="none"),
        pytest.param(PLUGIN, "", "there is no plugin in {name}; write a class", id="only imports"),
        pytest.param(
            PLUGIN + "class A(Plugin): pass\nclass B(A): pass",
            "",
            "expected one Plugin subclass in {name}, found A, B; say which one is meant: "
            'use = "{name}:A"',
            id="several",
        ),
        pytest.param(
            PLUGIN + "class Mine(Plugin): pass", "Mien", "did you mean {name}:Mine?", id="misspelt"
        ),
        pytest.param(
            PLUGIN + "class Mine(Plugin): pass",
            "X",
            "{name} has no plugin class X; it has Mine",
            id="another class",
        ),
        pytest.param(
            PLUGIN + "class X: pass", "X", "{name} has no plugin class X;", id="no plugin"
        ),
        pytest.param("X = 5", "X", "{name} has no plugin class X; it has none", id="no class"),
    ],
)
def test_a_module_that_is_no_plugin_says_what_to_mend(
    conf: Path, monkeypatch: pytest.MonkeyPatch, text: str, class_name: str, expected: str
) -> None:
    """Which it is, and where in it; never an exception's text, where a secret may stand."""
    name = module(conf, monkeypatch, text)
    use = f"{name}:{class_name}" if class_name else name
    told = problem(conf, table(use))
    assert told.startswith(f"plugin 1 ({use}): ")
    assert expected.format(name=name, file=conf / f"{name}.py") in told


def test_a_module_that_is_not_there_is_told_where_it_is_looked_for(conf: Path) -> None:
    """With the name that is missing, which may be that of a folder."""
    told = problem(conf, table("no_such.plugin"))
    assert "there is no module no_such; plugins.x is the file plugins/x.py beside run.py" in told


def test_the_only_plugin_of_a_module_may_have_two_names(
    conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And may have imported others: what it defines counts, once."""
    name = module(conf, monkeypatch, PLUGIN + "class Mine(Lists): pass\nOurs = Mine")
    for use in (name, f"{name}:Mine", f"{name}:Ours"):
        write(conf, table(use))
        (loaded,) = load_plugins(conf)
        assert type(loaded.plugin).__name__ == "Mine"


def test_a_plugin_that_came_later_is_found(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was not there, or was broken, when the server started."""
    name = module(conf, monkeypatch, "def :")
    problem(conf, table(name))
    (conf / f"{name}.py").write_text(PLUGIN + "class Mine(Plugin): pass")
    write(conf, table(name))
    assert len(load_plugins(conf)) == 1


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("raises", "can't be made: RuntimeError at {file}:"),
        ("unconfigured", "there is no such key; make one\nnor a second one"),
    ],
)
def test_a_plugin_that_can_not_be_made_says_why(conf: Path, how: str, expected: str) -> None:
    """Its own ConfigError line by line, any other exception by kind and line alone."""
    write(conf, table(f"{SAMPLES}.broken", "hook = 'make'", f"how = '{how}'"))
    with pytest.raises(ConfigError) as caught:
        load_plugins(conf)
    place = f"{conf / 'plugins.toml'}: plugin 1 ({SAMPLES}.broken): "
    file = ROOT / "tests/sample_plugins/broken.py"
    for line, start in zip(
        str(caught.value).splitlines(), expected.format(file=file).splitlines(), strict=True
    ):
        assert line.startswith(place + start)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"def conflict(self): raise RuntimeError('{SECRET}')",
        f"def __post_init__(self): raise RuntimeError('{SECRET}')",
        "a: NoSuchType = 5",
    ],
    ids=["in its conflict", "in its making", "in its types"],
)
def test_settings_that_fail_are_the_plugin_s_bug(
    conf: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """A line as for any other: the server doesn't fall over it."""
    whole = (
        "from __future__ import annotations\nimport msgspec\nfrom seatws.plugins import Plugin\n"
        f"class Mine(Plugin):\n    class Settings(msgspec.Struct):\n        {text}\n"
    )
    name = module(conf, monkeypatch, whole)
    assert "can't be made: " in problem(conf, table(name))
    name = module(conf, monkeypatch, PLUGIN + "class Mine(Plugin): Settings = dict")
    assert "can't be made: " in problem(conf, table(name))


def test_paths_start_at_the_conf_directory(
    conf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keys called `file` or `..._file`, in the table and below it, defaults too; no other key."""
    text = """
        import msgspec
        from seatws.plugins import Plugin
        class Key(msgspec.Struct):
            secret_file: str = ""
            profile: str = ""
        class Mine(Plugin):
            class Settings(msgspec.Struct):
                keys: list[Key] = []
                key: Key = msgspec.field(default_factory=Key)
                file: str = "rules.toml"
                other_file: str = ""
    """
    name = module(conf, monkeypatch, text)
    write(
        conf,
        table(name, 'key = { secret_file = "sub/a", profile = "b" }')
        + '[[plugin.keys]]\nsecret_file = "../c"\n[[plugin.keys]]\nsecret_file = "/d"\n',
    )
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    (loaded,) = load_plugins(conf)
    settings = loaded.plugin.settings
    assert settings.file == str(conf / "rules.toml")
    assert settings.other_file == ""
    assert (settings.key.secret_file, settings.key.profile) == (str(conf / "sub/a"), "b")
    assert [key.secret_file for key in settings.keys] == [str(conf / "../c"), "/d"]
    monkeypatch.chdir(conf.parent)
    (loaded,) = load_plugins(Path(conf.name))
    assert loaded.plugin.settings.file == str(conf / "rules.toml")


def test_a_server_that_can_not_load_a_plugin_does_not_start(conf: Path) -> None:
    """`run.py`, and `--check`: the problems alone, exit code 2, and no plugin is started."""
    (conf / "seatws.toml").write_text("")
    for more, code in (("", 0), (table("no.such"), 2)):
        hook = table(f"{SAMPLES}.broken", "hook = 'start'")
        write(conf, hook + more)
        done = subprocess.run(
            [sys.executable, ROOT / "run.py", "--conf", conf, "--check"],
            cwd=conf,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        assert len((done.stdout + done.stderr).splitlines()) == 1
        assert SECRET not in done.stdout + done.stderr
