"""Recipes: defaults, error messages, overrides, round trips and stages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from instil.core import Schedule
from instil.data.paths import MissingPath
from instil.objectives.logits.kd import KD
from instil.recipe import build, build_objectives, build_options, fingerprint, load, stages, to_yaml
from instil.recipe.errors import RecipeError, error_context
from instil.recipe.input_section import InputConfig
from instil.recipe.overrides import merge, override, parse
from instil.recipe.sections import ModelConfig, TeacherConfig
from instil.recipe.yaml_text import to_text

SMALL: dict[str, Any] = {
    "data": {"name": "digits", "num_labeled": 100},
    "teacher": {"model": "networks:cnn"},
    "student": {"model": "networks:mlp", "options": {"width": 16}},
    "objectives": {"cross_entropy": None, "kd": {"temperature": 4}},
    "train": {"epochs": 3},
}


def problem(*changes: str, **sections: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        build(override(SMALL | sections, changes))
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "objectives.dkd={alfa: 1}",
            "objectives.dkd.alfa: unknown option. DKD has alpha, beta, temperature, "
            "standardize. Did you mean alpha?",
        ),
        ("objectives.dkd={alpha: two}", "objectives.dkd.alpha: a number was expected, not 'two'"),
        (
            "student={model: cnn, options: {widht: 8}}",
            "student.options.widht: unknown option. cnn has classes, channels, width, stages, "
            "depth, norm, dropout. Did you mean width?",
        ),
        (
            "student.taps={featurs: [stages.0]}",
            "student.taps.featurs: unknown role. Expected a role that an objective, scheme or "
            "metric reads, such as features or embedding. Did you mean features?",
        ),
        (
            "teacher.taps={my_role: head}",
            "teacher.taps.my_role: unknown role. Expected a role that an objective, scheme or "
            "metric reads, such as features or embedding.",
        ),
        (
            "student.options.width=wide",
            "student.options.width: a whole number was expected, not 'wide'",
        ),
        (
            "teacher=[{model: mlp}, {model: mlp, options: {dept: 2}}]",
            "teacher.1.options.dept: unknown option. mlp has classes, channels, size, width, "
            "depth, features. Did you mean depth?",
        ),
        (
            "scheme={type: dafl, generator: {model: generator, options: {latnet: 8}}}",
            "scheme.generator.options.latnet: unknown option. generator has channels, size, "
            "latent, width, norm, end. Did you mean latent?",
        ),
        (
            "objectives.kd.temperature=true",
            "objectives.kd.temperature: a number was expected, not True",
        ),
        (
            "objectives.kd.temperature=0",
            "objectives.kd.temperature: a number greater than 0 was expected, not 0",
        ),
        (
            "objectives.kd.temperature=.inf",
            "objectives.kd.temperature: a finite number was expected, not inf",
        ),
        ("objectives.kd.scale=3", "objectives.kd.scale: true or false was expected, not 3"),
        (
            "objectives.kd.temperature={start: 0, end: 4}",
            "objectives.kd.temperature: a number greater than 0 was expected, not 0",
        ),
        (
            "objectives.kd.temperature={start: 1, end: -4}",
            "objectives.kd.temperature: a number greater than 0 was expected, not -4",
        ),
        (
            "objectives.kd.weight={start: 1, emd: 2}",
            "objectives.kd.weight: a schedule has start, end and, if you like, after and "
            "until, not start, emd",
        ),
        (
            "objectives.kd.weight={start: 1, end: 2, until: half}",
            "objectives.kd.weight: until of a schedule is a share of the training between 0 "
            "and 1, not 'half'",
        ),
        (
            "objectives.kd.weight={start: 1, end: 2, until: 3}",
            "objectives.kd.weight: a schedule needs 0 <= after <= until <= 1, not after=0.0, "
            "until=3",
        ),
        ("objectives.kd.weight=much", "objectives.kd.weight: a number was expected, not 'much'"),
        ("objectives.dkdd={}", "objectives.dkdd: No objective named 'dkdd'. Did you mean dkd, "),
        (
            "objectives.mutual={}",
            "objectives.mutual: No objective named 'mutual'; 'mutual' is a scheme",
        ),
        (
            "objectives.fitnet={pairs: 3}",
            "objectives.fitnet.pairs: 'auto' or a list was expected, not 3",
        ),
        (
            "objectives.fitnet={pairs: [[1, a]]}",
            "objectives.fitnet.pairs.0.1: a whole number was expected, not 'a'",
        ),
        ("scheme=mutul", "scheme: No scheme named 'mutul'. Did you mean mutual?"),
        (
            "scheme={type: mutual}",
            "scheme.peers: missing. Expected Sequence[network]: any number of networks of ",
        ),
        (
            "scheme={type: mutual, peers: [{model: a, weighs: b}]}",
            "scheme.peers.0.weighs: unknown option. scheme.peers.0 has ",
        ),
        ("task.kin=multi", "task.kin: unknown option. Classification has kind. Did you mean kind?"),
        ("train.epoch=4", "train.epoch: unknown option. train has "),
        (
            "trian.epochs=4",
            "trian: unknown option. A recipe has ",
        ),
        ("train.epochs=1.5", "train.epochs: a whole number was expected, not 1.5"),
        ("train.epochs=0", "train.epochs: a number of at least 1 was expected, not 0"),
        (
            "train.precision=float16",
            "train.precision: 'float32' or 'bfloat16' was expected, not 'float16'",
        ),
        ("train.optimizer.lrr=1", "train.optimizer.lrr: unknown option. AdamW has "),
        (
            "train.optimizer.type=adamm",
            "train.optimizer: No optimizer named 'adamm' in torch.optim. Did you mean adam, ",
        ),
        (
            "train.optimizers={critic: {lr: a}}",
            "train.optimizers.critic.lr: a number was expected, not 'a'",
        ),
        (
            "train.optimizers={critic: {lr: -1}}",
            "train.optimizers.critic.lr: a number greater than 0 was expected, not -1",
        ),
        (
            "stages=[{train: {optimizers: {critic: {groups: [{lr: 3}]}}}}]",
            "stages.0.train.optimizers.critic.groups.0: match is missing. Expected a pattern for "
            "names of parameters, such as head.*",
        ),
        (
            "train.optimizer.groups=[{lr: 1}]",
            "train.optimizer.groups.0: match is missing. Expected a pattern for names of "
            "parameters, such as head.*",
        ),
        ("data=null", "data: a mapping was expected, not None"),
        ("student.taps=[1]", "student.taps: a mapping was expected, not [1]"),
        (
            "student.input.std=[0]",
            "student.input.std.0: a number greater than 0 was expected, not 0",
        ),
        (
            "student.input.size=[3, 4, 5]",
            "student.input.size: a whole number or a list of at most 2 was expected, not [3, 4, 5]",
        ),
        (
            "train.schedule={type: OneCycleLR, max_lr: -1}",
            "train.schedule: OneCycleLR: its options {'max_lr': -1} give the learning rate ",
        ),
        ("teacher=[networks:cnn, 3]", "teacher.1: a mapping was expected, not 3"),
        (
            "student=previous",
            "student.model: 'previous' is the network of the previous stage, but this is the "
            "first stage",
        ),
        ("seeds=[]", "seeds: a list of at least 1 was expected, not []"),
        ("seeds=[a]", "seeds.0: a whole number was expected, not 'a'"),
        (
            "baselines=[alon]",
            "baselines.0: No baseline named 'alon'. Did you mean alone or blobs?",
        ),
        ("imports=[no_such_module_here]", "imports: no module 'no_such_module_here' in "),
        (
            "stages=[{train: {epochs: x}}]",
            "stages.0.train.epochs: a whole number was expected, not 'x'",
        ),
        (
            "stages=[{trane: {}}]",
            "stages.0.trane: unknown option. A stage has ",
        ),
        (
            "stages=[{repeat: 0}]",
            "stages.0.repeat: a number of at least 1 and at most 10000 was expected, not 0",
        ),
        (
            "stages=[{teacher: previous}]",
            "stages.0.teacher.model: 'previous' is the network of the previous stage, but this "
            "is the first stage",
        ),
        ("stages=[3]", "stages.0: a mapping was expected, not 3"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(change: str, message: str) -> None:
    text = problem(change)
    assert text.startswith(message) if message.endswith(" ") else text == message


def test_an_unknown_task_with_a_folder_of_transformers() -> None:
    model = {"model": "transformers:folder"}
    text = problem(task="langauge", teacher=model, student=model)
    assert text == "task: No task named 'langauge'. Did you mean language or ranking?"


def test_all_problems_are_told_at_once_and_none_twice() -> None:
    message = problem(
        "objectives.dkdd={}",
        "train.clip=-1",
        "seeds=[a]",
        "objectives.kd.alfa=1",
        "train.optimizer.betas=x",
    )
    assert sorted(re.sub(r"(mean dkd), .*", r"\1", line) for line in message.splitlines()) == [
        "objectives.dkdd: No objective named 'dkdd'. Did you mean dkd",
        "objectives.kd.alfa: unknown option. KD has temperature, scale, multi_label, standardize.",
        "seeds.0: a whole number was expected, not 'a'",
        "train.clip: a number greater than 0 was expected, not -1",
        "train.optimizer.betas: a list was expected, not 'x'",
    ]


def test_a_name_that_is_no_name_is_refused() -> None:
    assert (
        problem(objectives={"a.b": {"type": "kd"}})
        == "objectives.a.b: a name of letters, digits and _ was expected, not 'a.b'"
    )


SECTIONS = [
    "task",
    "data",
    "teacher",
    "student",
    "scheme",
    "objectives",
    "train",
    "teacher_train",
    "stages",
    "seeds",
    "baselines",
    "imports",
]


@pytest.mark.parametrize(
    "value", [3, [3], [[3]], {"x": 3}, [None], {"type": 3, "name": 3, "model": 3}]
)
def test_a_section_of_the_wrong_shape_is_no_crash(value: Any) -> None:
    for section in SECTIONS:
        if (section, value) != ("seeds", [3]):
            assert "pydantic" not in problem(**{section: value})


def test_shorthands_and_defaults_are_written_out() -> None:
    recipe = build(SMALL | {"objectives": {"cross_entropy": None, "kd": 0.5}})
    assert recipe.task.name == "classification"
    assert recipe.task.options == {"kind": "single"}
    assert (
        build(SMALL | {"teacher": "networks:cnn"}).teachers
        == recipe.teachers
        == [TeacherConfig(model="networks:cnn")]
    )
    assert recipe.scheme.type == "offline"
    assert recipe.objectives["kd"].weight == 0.5
    assert recipe.objectives["kd"].options["temperature"] == 2.0
    assert recipe.baselines == ["alone", "label_smoothing", "pseudo_labels"]
    assert recipe.teacher_train == recipe.train
    assert build(SMALL | {"teacher": None}).teacher_train is None
    assert build(SMALL | {"train": {}}).train.epochs == 20


def test_a_copy_of_the_teacher_reads_its_inputs() -> None:
    teacher = {"model": "cnn", "input": {"mean": [0.5], "std": [0.2]}, "reads": {"image": "rgb"}}
    student = {"model": "teacher", "input": {"size": 16}}
    recipe = build(SMALL | {"teacher": [teacher, "cnn"], "student": student})
    assert recipe.student.input == InputConfig(size=16, mean=[0.5], std=[0.2])
    assert recipe.student.reads == {"image": "rgb"}
    student |= {"input": {"mean": None, "std": None}, "reads": {"image": "depth"}}
    recipe = build(SMALL | {"teacher": teacher, "student": student})
    assert recipe.student.input == InputConfig()
    assert recipe.student.reads == {"image": "depth"}
    recipe = build(SMALL | {"teacher": teacher, "student": "cnn"})
    assert recipe.student.input == InputConfig()
    assert recipe.student.reads == {}


def test_label_smoothing_is_no_baseline_where_it_is_undefined() -> None:
    assert build(override(SMALL, ["task.kind=multi"])).baselines == ["alone", "pseudo_labels"]


@pytest.mark.parametrize("name", ["seq2seq", "speech_recognition"])
def test_sequences_have_pseudo_labels_as_a_baseline_without_a_kind_in_the_recipe(name: str) -> None:
    small = SMALL | {"data": "pairs", "objectives": {"kd": {}}}
    assert build(small | {"task": name}).baselines == ["alone", "pseudo_labels"]
    assert build(small | {"task": {"name": name}}).baselines == ["alone", "pseudo_labels"]


def test_training_of_the_teacher_is_the_students_unless_said() -> None:
    recipe = build(
        override(SMALL, ["train.clip=2", "teacher_train={steps: 7, optimizer: {lr: 0.5}}"])
    )
    assert recipe.teacher_train is not None
    assert (recipe.teacher_train.steps, recipe.teacher_train.epochs, recipe.teacher_train.clip) == (
        7,
        None,
        2.0,
    )
    assert recipe.teacher_train.optimizer.lr == 0.5
    assert recipe.train.optimizer.lr == 1e-3


def test_one_learner_can_have_an_optimizer_of_its_own() -> None:
    train = build(
        override(
            SMALL,
            ["train.optimizer={type: sgd, momentum: 0.9}", "train.optimizers={critic: {lr: 1e-4}}"],
        )
    ).train
    assert train.optimizer_of("critic").lr == 1e-4
    assert train.optimizer_of("critic").options == {"momentum": 0.9}
    assert train.optimizer_of("student").lr == 1e-3


def test_objectives_are_built_with_their_weights_and_schedules() -> None:
    chosen = {
        "soft": {
            "type": "kd",
            "weight": {"start": 0, "end": 1, "until": 0.2},
            "temperature": {"start": 1, "end": 4},
        },
        "cross_entropy": {},
    }
    objectives = build_objectives(build(SMALL | {"objectives": chosen}).objectives)
    assert isinstance(objectives["soft"], KD)
    assert objectives.schedules == [(objectives["soft"], "temperature", Schedule(1.0, 4.0))]
    assert objectives["soft"].temperature == 1.0
    assert objectives.weights == {"soft": Schedule(0.0, 1.0, 0.2), "cross_entropy": 1.0}
    logits, batch = (
        torch.randn(4, 3),
        {"label": torch.tensor([0, 1, 2, -100]), "progress": torch.tensor(0.5)},
    )
    assert set(
        objectives({"logits": logits}, {"logits": logits}, {"image": logits} | batch).losses
    ) == {"soft", "cross_entropy"}


def test_a_message_of_the_objective_itself_has_the_path() -> None:
    recipe = build(
        override(SMALL, ["objectives.kd.standardize=true", "objectives.kd.multi_label=true"])
    )
    with pytest.raises(RecipeError, match=r"^objectives\.kd: standardize, multi_label: "):
        build_objectives(recipe.objectives)


def test_options_come_back_as_the_types_of_the_signature() -> None:
    options = build_options("objective", "kd", {"temperature": 3}, "here")
    assert options == {"temperature": 3.0}
    assert isinstance(options["temperature"], float)
    assert build_options("scheme", "mutual", {"peers": ["networks:cnn"]}, "scheme") == {
        "peers": [ModelConfig(model="networks:cnn")]
    }


# --- overrides


def test_overrides_reach_shorthands_lists_and_new_sections() -> None:
    changes = [
        "train.steps=7",
        "teacher.pretrained=true",
        "objectives.kd=null",
        "objectives.dkd={}",
        "data.batch_size=8",
        "seeds=[5]",
        "seeds.0=6",
    ]
    changes += ["student.taps.features=[0, 2]", "train.optimizer.lr=1e-4"]
    folder = Path(__file__).parent
    path = folder / "no_such.yaml"
    with pytest.raises(FileNotFoundError, match="no such recipe"):
        load(path)
    recipe = load("digits", changes)
    assert (recipe.train.steps, recipe.train.epochs) == (7, None)
    assert recipe.teachers[0].pretrained
    assert list(recipe.objectives) == ["cross_entropy", "dkd"]
    assert recipe.data.batch_size == 8
    assert recipe.seeds == [6]
    assert recipe.student.taps == {"features": [0, 2]}
    assert recipe.train.optimizer.lr == 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "epochs",
            "'epochs': invalid change of the recipe. Expected key=value, for example",
        ),
        (
            "=3",
            "'=3': invalid change of the recipe. Expected key=value, for example",
        ),
        (
            "a..b=3",
            "'a..b=3': invalid change of the recipe. Expected key=value, for example",
        ),
        ("list.7=1", "list: is a list of 2, which has no entry '7' (the first is 0)"),
        ("list.x=1", "list: is a list of 2, which has no entry 'x' (the first is 0)"),
        ("text.x=1", "text: is 'abc', so nothing inside it can be set"),
        ("a={b: [}", "the value of a, line 1: "),
    ],
)
def test_an_override_that_leads_nowhere(change: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        override({"list": [1, 2], "text": "abc"}, [change])
    assert str(caught.value).startswith(message)


keys = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True).filter(
    lambda key: key not in ("epochs", "steps", "objectives")
)
leaves = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8), st.none()
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.lists(keys, min_size=1, max_size=4), value=values)
@example(path=["a"], value="0E0")
def test_any_value_can_be_set_at_any_path(path: list[str], value: Any) -> None:
    text = to_text(value, default_flow_style=True, width=10**9).removesuffix("\n...\n").strip()
    changed = override({"kept": 1}, [f"{'.'.join(['top', *path])}={text}"])
    assert changed["kept"] == 1
    for key in ("top", *path):
        changed = changed[key]
    assert changed == value  # type: ignore[comparison-overlap]


def test_overrides_and_merges_leave_their_input_alone() -> None:
    data = {"a": {"b": [1, 2]}}
    override(data, ["a.b.0=9", "a.c=1"])
    merge(data, {"a": {"b": [3]}})["a"]["b"].append(4)
    assert data == {"a": {"b": [1, 2]}}


# --- files


def test_yaml_errors_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("data: {name: digits}\nstudent: [a\nobjectives: {}\n")
    with pytest.raises(RecipeError, match=r"broken\.yaml, line 3: expected ',' or '\]'"):
        load(path)
    path.write_text("data: {name: digits}\ndata: {name: mnist}\n")
    with pytest.raises(RecipeError, match=r"broken\.yaml, line 2: the key 'data' is given twice"):
        load(path)
    path.write_text("just text\n")
    with pytest.raises(RecipeError, match=r"a recipe is a mapping .*, not str$"):
        load(path)
    path.write_text("!!python/object/apply:os.system ['true']\n")
    with pytest.raises(RecipeError, match="could not determine a constructor"):
        load(path)


def test_numbers_are_numbers() -> None:
    assert parse("[1e-3, 1E5, -2e+3, .5e1, 1.5, 1e3x, 12]", "") == [
        1e-3,
        1e5,
        -2e3,
        5.0,
        1.5,
        "1e3x",
        12,
    ]


def test_an_unknown_recipe_is_answered_with_the_closest() -> None:
    with pytest.raises(
        RecipeError, match=r"^No recipe named 'digit', and no such file\. .*Did you mean digits, "
    ):
        load("digit")


CHANGED = [
    [],
    [
        "objectives.kd.weight={start: 0, end: 1, until: 0.2}",
        "objectives.dkd={alpha: {start: 1, end: 2}, weight: 3}",
    ],
    [
        "stages=[{train: {steps: 5}, objectives: {cross_entropy: {}}}, {teacher: previous, "
        "repeat: 2}]"
    ],
    ["scheme={type: mutual, peers: [networks:cnn]}", "teacher=null"],
    [
        "teacher=[networks:cnn, {model: networks:mlp}]",
        "train.optimizer.groups=[{match: head.*, lr: 1e-5}]",
    ],
]


@pytest.mark.parametrize("changes", CHANGED)
def test_the_resolved_recipe_reads_back_to_itself(changes: list[str], tmp_path: Path) -> None:
    recipe = load("digits", changes)
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert load(tmp_path) == recipe
    assert to_yaml(load(tmp_path / "recipe.yaml")) == to_yaml(recipe)


def test_paths_and_modules_are_found_from_the_recipes_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "weights.pt").touch()
    (tmp_path / "loss_for_recipe_test.py").write_text(
        "from instil.core import Card, Objective\n"
        "class SoftLoss(Objective):\n"
        "    '''``power``: how steep.'''\n"
        "    card = Card('Mine')\n"
        "    def __init__(self, power: float = 2.0):\n"
        "        super().__init__()\n"
        "        self.power = power\n"
    )
    text = yaml.safe_dump(
        SMALL | {"imports": ["loss_for_recipe_test"], "objectives": {"soft_loss": {"power": 3}}}
    )
    (tmp_path / "mine.yaml").write_text(text)
    recipe = load(tmp_path / "mine.yaml")
    assert recipe.name == "mine"
    assert recipe.locate("weights.pt") == tmp_path / "weights.pt"
    assert build_objectives(recipe.objectives)["soft_loss"].power == 3.0
    with pytest.raises(MissingPath, match=r"no 'wieghts\.pt' in .*Did you mean weights\.pt\?"):
        recipe.locate("wieghts.pt")
    with pytest.raises(MissingPath, match=r"no 'other\.pt' in /none, and no such folder"):
        recipe.locate("/none/other.pt")


# --- stages and fingerprints


def test_stages_change_the_recipe_and_are_repeated() -> None:
    changes = (
        "stages=[{train: {steps: 5}, objectives: {fitnet: {}}}, {teacher: previous, repeat: 2, "
        "train: {optimizer: {lr: 0.1}}}]"
    )
    hint, *born_again = stages(build(override(SMALL, [changes])))
    assert (hint.train.steps, hint.train.epochs, list(hint.objectives)) == (5, None, ["fitnet"])
    assert hint.objectives["fitnet"].type == "fitnet"
    assert len(born_again) == 2
    for stage in born_again:
        assert [net.model for net in stage.teachers] == ["previous"]
        assert (stage.train.epochs, stage.train.optimizer.lr, list(stage.objectives)) == (
            3,
            0.1,
            ["cross_entropy", "kd"],
        )
    plain = build(SMALL)
    assert stages(plain) == [plain]


def test_a_fingerprint_changes_with_its_parts_alone() -> None:
    recipe = build(SMALL)
    mark = fingerprint(recipe.task, recipe.data, recipe.teachers, recipe.teacher_train)
    assert len(mark) == 16
    assert mark == fingerprint(
        *[part.model_copy(deep=True) for part in (recipe.task, recipe.data)],
        recipe.teachers,
        recipe.teacher_train,
    )
    other = build(
        override(SMALL, ["student.options.width=3", "objectives.kd.temperature=2", "seeds=[4]"])
    )
    assert mark == fingerprint(other.task, other.data, other.teachers, other.teacher_train)
    wider = build(override(SMALL, ["teacher.options.width=3"]))
    assert mark != fingerprint(wider.task, wider.data, wider.teachers, wider.teacher_train)


def test_samples_are_weighted_and_losses_balanced() -> None:
    recipe = load("digits", ["objectives.kd.sample_weight=entropy", "balance={type: uncertainty}"])
    assert recipe.objectives["kd"].sample_weight.options == {"temperature": 3.0, "prefer": "unsure"}
    objectives = build_objectives(recipe.objectives, recipe.balance)
    assert type(objectives["kd"].sample_weight).__name__ == "Entropy"
    assert type(objectives.balance).__name__ == "Uncertainty"
    assert build(parse(to_yaml(recipe), "text")) == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "objectives.kd.sample_weight=entropi",
            "objectives.kd.sample_weight: No weighting named 'entropi'. Did you mean entropy",
        ),
        (
            "objectives.kd.sample_weight={type: entropy, temp: 3}",
            "objectives.kd.sample_weight.temp: unknown option. Entropy has ",
        ),
        ("balance=gradient", "balance: No balance named 'gradient'. Did you mean gradient_norm"),
    ],
)
def test_wrong_weights_of_samples_and_losses(override: str, message: str) -> None:
    assert message in problem(override)


def test_a_loss_of_the_whole_batch_has_no_weights_of_samples() -> None:
    recipe = load("digits", ["objectives.rkd={sample_weight: entropy}"])
    with pytest.raises(
        RecipeError,
        match=r"objectives\.rkd\.sample_weight: RKD has one loss for the batch, whose samples",
    ):
        build_objectives(recipe.objectives)


def test_a_file_that_is_not_there_is_answered_with_the_closest(tmp_path: Path) -> None:
    (tmp_path / "language.yaml").touch()
    with pytest.raises(
        FileNotFoundError, match=r"no such recipe: .*langage\.yml\. Did you mean language\.yaml"
    ):
        load(tmp_path / "langage.yml")


def test_a_change_reaches_into_a_section_that_the_change_before_it_named() -> None:
    read = load("digits", ["scheme=ema", "scheme.decay=0.5", "data=digits"])
    assert read.scheme.type == "ema"
    assert read.scheme.options == {"decay": 0.5}
    assert read.data.name == "digits"


def test_a_path_that_a_message_has_already_is_not_repeated() -> None:
    for message in ("scheme.sampling: wrong", "scheme: wrong"):
        with pytest.raises(RecipeError, match=rf"^{message}$"), error_context("scheme"):
            raise ValueError(message)
    with pytest.raises(RecipeError, match=r"^scheme: schemes: wrong$"), error_context("scheme"):
        raise ValueError("schemes: wrong")


def test_a_change_of_one_section_leaves_its_alias_unchanged(tmp_path: Path) -> None:
    """YAML reads an anchor and its aliases as one object."""
    file = tmp_path / "alias.yaml"
    file.write_text(
        "data: {name: digits, num_labeled: 100}\n"
        "teacher: &net {model: cnn, options: {width: 16}}\n"
        "student: *net\n"
        "objectives: {kd: {}}\n"
    )
    recipe = load(file, ["student.options.width=4"])
    assert recipe.student.options == {"width": 4}
    assert recipe.teachers[0].options == {"width": 16}


def test_the_recipe_of_a_run_names_the_packages_that_are_missing(tmp_path: Path) -> None:
    text = yaml.safe_dump(SMALL | {"objectives": {"of_a_plugin": {}}})
    (tmp_path / "recipe.yaml").write_text(text)
    versions = {"torch": "2.0", "no-such-plugin": "1.2"}
    (tmp_path / "environment.json").write_text(json.dumps({"versions": versions}))
    with pytest.raises(RecipeError) as caught:
        load(tmp_path)
    first, second = str(caught.value).splitlines()
    assert first.startswith("objectives.of_a_plugin: No objective named 'of_a_plugin'.")
    assert second.startswith("environment.json: the run used no-such-plugin 1.2, not installed")
    (tmp_path / "environment.json").write_text("[")
    with pytest.raises(RecipeError, match=r"^objectives\.of_a_plugin: [^\n]*$"):
        load(tmp_path)
