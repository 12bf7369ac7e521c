"""The code blocks of the pages of modalities run, with small generated data."""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

import instil
from instil import recipe as recipes
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from tests import test_code_blocks as pages
from tests.prompted import sam_config
from tests.test_code_blocks import blocks, short_result

empty_folder = pages.empty_folder
user_module = pages.user_module
GRAPHS = "modalities/graphs.md"
RANKING = "modalities/ranking.md"
DIFFUSION = "modalities/diffusion.md"


def last_losses() -> dict[str, float]:
    """Losses of the last line of ``metrics.jsonl``."""
    lines = Path("out/metrics.jsonl").read_text().splitlines()
    losses: dict[str, float] = json.loads(lines[-1])["losses"]
    return losses


def test_recipe_of_cross_modal(empty_folder: Path) -> None:
    (text,) = blocks("modalities/cross_modal.md", "yaml")
    result = short_result(text, "teacher_train.epochs=1")
    assert result["headline"] == "accuracy"
    assert "student/kd" in last_losses()


def test_pruning_of_compression(empty_folder: Path) -> None:
    text = blocks("compression.md", "yaml")[0]
    Path("my.yaml").write_text(text)
    assert len(recipes.stages(recipes.load("my.yaml"))) == 3
    short_result(text, "train.epochs=3", "teacher_train.epochs=1", "teacher.options.width=8")
    student = instil.load("out").net.model
    widths = [part.out_channels for part in student.modules() if isinstance(part, nn.Conv2d)]
    assert widths == [2, 2, 4, 4, 8, 8]


def test_changes_of_compression(empty_folder: Path) -> None:
    common = {"data": "digits", "teacher": "cnn", "objectives": {"cross_entropy": {}, "kd": {}}}
    texts = blocks("compression.md", "yaml")[1:]
    exported = []
    for text in texts:
        sections = yaml.safe_load(text)
        if "scheme" in sections:
            sections["teacher"] = None
        *_, (_, scheme, _) = dry_run(Experiment.from_recipe(recipes.build(common | sections)))
        exported.append(scheme.export().model)
    sparse, integers, simulated, subnet = exported
    assert float((sparse.stages[1][1].weight == 0).float().mean()) == 0.5
    assert integers.stages[1][1].weight_quantizer.upper == 7
    assert len(simulated.stages[0][0].weight.flatten(1)[0].unique()) <= 15
    assert subnet.widths == [8, 16, 32]
    assert subnet.depth == 1


def write_album(folder: Path) -> None:
    """Pictures of three colours in two tables."""
    from PIL import Image

    for split, count in (("train", 24), ("test", 9)):
        lines = ["file,caption,kind"]
        for i in range(count):
            colour = ("red", "green", "blue")[i % 3]
            name = f"{split}-{i}.png"
            Image.new("RGB", (8, 8), colour).save(folder / name)
            lines.append(f"{name},a {colour} picture,{colour}")
        (folder / f"{split}.csv").write_text("\n".join(lines))


def test_recipe_of_image_text(empty_folder: Path) -> None:
    write_album(empty_folder)
    text = blocks("modalities/image_text.md", "yaml")[0]
    result = short_result(text, "data.size=8", "teacher_train.epochs=1", "export=false")
    assert result["headline"] == "accuracy"
    assert set(last_losses()) >= {"student/clip_feature", "student/affinity_mimicking"}


def test_weight_inheritance_of_image_text(empty_folder: Path) -> None:
    write_album(empty_folder)
    first, text = blocks("modalities/image_text.md", "yaml")
    pytest.importorskip("open_clip")
    sections = yaml.safe_load(first) | yaml.safe_load(text)
    vision = {"layers": 2, "width": 512, "head_width": 64, "patch_size": 4, "image_size": 8}
    words = {"context_length": 16, "vocab_size": 512, "width": 16, "heads": 2, "layers": 4}
    options = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": words}
    sections["teacher"] = {"model": "open_clip:CLIP", "options": options}
    result = short_result(
        yaml.safe_dump(sections), "data.size=8", "teacher_train.epochs=1", "export=false"
    )
    assert result["cost"]["student"]["parameters"] < result["cost"]["teacher"]["parameters"] / 2


def test_recipe_of_video(empty_folder: Path) -> None:
    (text,) = blocks("modalities/video.md", "yaml")
    short_result(text, "data.size=10", "teacher_train.epochs=1")
    assert set(last_losses()) >= {"student/kd", "student/fitnet"}


def test_recipe_of_representation(empty_folder: Path) -> None:
    text, several, stages = blocks("modalities/representation.md", "yaml")
    result = short_result(text, "teacher_train.epochs=1")
    assert "knn" in result["distilled"]
    assert "student/simreg" in last_losses()
    shutil.rmtree("out")
    result = short_result(stages)
    assert result["labels"]["student"] == 0
    assert set(last_losses()) == {"student/simreg"}
    if importlib.util.find_spec("timm"):
        shutil.rmtree("out")
        short_result(several, "teacher_train.epochs=1")
        assert set(last_losses()) == {"student/am_radio"}


def test_recipe_of_promptable_segmentation(empty_folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    (text,) = blocks("modalities/promptable_segmentation.md", "yaml")
    instances = np.zeros((12, 32, 32), np.uint8)
    instances[:, 4:12, 6:20] = 1
    instances[:, 16:30, 2:10] = 2
    pixels = np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3), np.uint8)
    np.savez("scenes.npz", image=pixels, instances=instances)
    config = sam_config(channels=3)
    del config["model_type"]
    transformers.SamModel(transformers.SamConfig(**config)).save_pretrained("sam-vit-base")
    result = short_result(text, "student.changes.image_encoder={width: 4, stages: 2, size: 12}")
    assert result["headline"] == "miou"
    assert set(last_losses()) == {"student/edge_sam"}


def graph_arrays() -> dict[str, np.ndarray]:
    """A ring of 40 nodes with three classes."""
    ring = np.arange(40)
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(40, 5)).astype(np.float32),
        "edge_index": np.stack([ring, (ring + 1) % 40]),
        "y": ring % 3,
        "split": np.arange(40) % 4 % 3,
    }


def test_recipe_of_graphs(empty_folder: Path) -> None:
    np.savez("graph.npz", **graph_arrays())
    text = blocks(GRAPHS, "yaml")[0]
    result = short_result(text, "teacher_train.epochs=1")
    assert result["classes"] == ["0", "1", "2"]
    assert "student/kd" in last_losses()


def test_links_of_graphs(empty_folder: Path) -> None:
    np.savez("graph.npz", **graph_arrays())
    result = short_result(blocks(GRAPHS, "yaml")[1], "teacher_train.epochs=1")
    assert result["headline"] == "mrr"
    assert set(last_losses()) >= {"student/pair_cross_entropy", "student/llp"}


def test_recipe_of_tabular(empty_folder: Path) -> None:
    pytest.importorskip("sklearn")
    lines = ["age,trade,income"]
    for age in range(20, 60):
        lines.append(f"{age},{('dyer', 'weaver')[age % 2]},{('low', 'high')[age > 40]}")
    Path("people.csv").write_text("\n".join(lines) + "\n")
    text = blocks("modalities/tabular.md", "yaml")[0]
    result = short_result(text, "teacher.options.n_estimators=5")
    assert result["classes"] == ["high", "low"]


def test_recipe_of_a_forest_as_student(empty_folder: Path) -> None:
    pytest.importorskip("skops")
    text = blocks("modalities/tabular.md", "yaml")[1]
    result = short_result(text, "teacher.options.n_estimators=5", "student.options.n_estimators=2")
    assert result["training"] == {"fitted": True}


def test_recipe_of_detection(empty_folder: Path) -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("pycocotools")
    from tests.data.sources.test_coco import write

    write(empty_folder / "pictures", "../annotations.json", count=12)
    text = blocks("modalities/detection.md", "yaml")[0]
    result = short_result(text, "teacher_train.epochs=1", "export=true")
    assert result["headline"] == "map"
    assert set(last_losses()) == {"student/own_loss", "student/crosskd"}
    code = blocks("modalities/detection.md", "python")[1]
    names: dict[str, Any] = {}
    exec(code.replace("runs/boxes", "out"), names)
    assert names["boxes"].shape == (len(names["scores"]), 4)
    assert set(names["names"]) <= {"cat", "dog"}


def test_yolo_of_detection(empty_folder: Path) -> None:
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip("needs the package ultralytics")
    from tests.data.sources.test_coco import write

    write(empty_folder / "pictures", "../annotations.json", count=12)
    scales = [f"{part}.options.scale=[0.33,0.0625,1024]" for part in ("teacher", "student")]
    text = blocks("modalities/detection.md", "yaml")[1]
    result = short_result(text, "teacher_train.epochs=1", *scales)
    assert result["headline"] == "map"
    assert set(last_losses()) == {"student/own_loss", "student/pkd"}
    code = blocks("modalities/detection.md", "python")[0]
    exec(code.replace("runs/yolo", "out"), {})
    import ultralytics  # after the library, which restores what the import changes

    (shown,) = ultralytics.YOLO("student.pt").predict("pictures/0.png", imgsz=64, verbose=False)
    assert shown.names == {0: "cat", 1: "dog"}


def test_recipe_of_depth(empty_folder: Path) -> None:
    text = blocks("modalities/depth.md", "yaml")[0]
    result = short_result(text, "teacher_train.epochs=1")
    assert result["headline"] == "delta1"
    names = ("scale_invariant_log", "affine_invariant", "logit_mae")
    assert set(last_losses()) == {f"student/{name}" for name in names}


def test_folder_of_depth(empty_folder: Path) -> None:
    from tests.data.test_depth_pictures import write

    write(empty_folder / "rooms", count=12)
    text = blocks("modalities/depth.md", "yaml")[1]
    result = short_result(text, "teacher_train.epochs=1", "data.size=[8,12]")
    assert result["headline"] == "delta1"
    assert set(last_losses()) == {"student/scale_invariant_log", "student/affine_invariant"}


def test_recipe_of_pose(empty_folder: Path) -> None:
    text = blocks("modalities/pose.md", "yaml")[0]
    result = short_result(text, "teacher_train.epochs=1")
    assert result["headline"] == "pck"
    assert set(last_losses()) == {"student/simcc", "student/dwpose"}


def test_folder_of_pose(empty_folder: Path) -> None:
    pytest.importorskip("pycocotools")
    from tests.data.test_keypoint_pictures import PERSON, person, write

    category = PERSON | {"keypoints": [str(index) for index in range(17)]}
    keypoints = 17 * [12, 5, 2]
    for part, count in (("train2017", 12), ("val2017", 4)):
        rows = [person(index, keypoints=keypoints) for index in range(count)]
        write(empty_folder / "coco", part, rows, count, categories=[category])
    text = blocks("modalities/pose.md", "yaml")[1]
    result = short_result(text, "teacher_train.epochs=1")
    assert result["headline"] == "ap"
    assert {"pck", "ap", "ap_50", "ap_75", "ar"} <= set(result["distilled"])
    assert set(last_losses()) == {"student/simcc", "student/dwpose"}


def test_recipe_of_ranking(empty_folder: Path) -> None:
    pytest.importorskip("tokenizers")
    text = blocks(RANKING, "yaml")[0]
    small = ["data.rows=60", "data.num_labeled=20", "data.passages=3"]
    result = short_result(text, *small, "teacher_train.epochs=1")
    assert result["headline"] == "ndcg"
    expected = {"student/ranking_cross_entropy", "student/margin_mse", "student/kd"}
    assert set(last_losses()) >= expected


def graph_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the download of Planetoid, and PyTorch Geometric where it is not installed."""
    arrays = {name: torch.from_numpy(value) for name, value in graph_arrays().items()}
    split = arrays.pop("split")
    data = SimpleNamespace(
        **arrays, train_mask=split == 0, val_mask=split == 1, test_mask=split == 2
    )
    datasets: Any = ModuleType("torch_geometric.datasets")
    datasets.Planetoid = lambda root, name: {"Cora": [data]}[name]
    monkeypatch.setitem(sys.modules, datasets.__name__, datasets)
    if importlib.util.find_spec("torch_geometric") is None:
        models: Any = ModuleType("torch_geometric.nn.models")
        models.GCN = GCN
        for name in ("torch_geometric", "torch_geometric.nn"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, models.__name__, models)


class GCN(nn.Module):
    """Graph network with the arguments of the class of PyTorch Geometric."""

    def __init__(
        self, in_channels: int, hidden_channels: int, num_layers: int, out_channels: int
    ) -> None:
        super().__init__()
        widths = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(widths))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index
        for layer in self.layers:
            x = layer(x.index_add(0, target, x[source])).relu()
        return x


# PyTorch Geometric compiles functions with ``torch.jit.script`` on import.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_torch_geometric_of_graphs(
    empty_folder: Path,
    user_module: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph_stand_in(monkeypatch)
    user_module("my_graph", blocks(GRAPHS, "python")[0])
    lines = ['data: {name: "my_graph:cora"}', 'teacher: {model: "my_graph:teacher"}']
    assert all(f"`{line}`" in (pages.DOCS / GRAPHS).read_text() for line in lines)
    text = "\n".join(lines) + "\ntask: node_classification\nstudent: mlp\nobjectives: {kd: {}}\n"
    result = short_result(text, "teacher_train.epochs=1")
    assert result["classes"] == ["0", "1", "2"]
    # The stand-in and the class of PyTorch Geometric have 64 x 5 + 64 + 3 x 64 + 3 parameters.
    assert result["cost"]["teacher"]["parameters"] == 579


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_torch_geometric_links_of_graphs(
    empty_folder: Path,
    user_module: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph_stand_in(monkeypatch)
    user_module("my_links", blocks(GRAPHS, "python")[1])
    lines = ['data: {name: "my_links:cora"}', 'teacher: {model: "my_links:teacher"}']
    assert all(f"`{line}`" in (pages.DOCS / GRAPHS).read_text() for line in lines)
    student = "student: {model: link_predictor, options: {encoder: mlp}}\nobjectives: {llp: {}}\n"
    text = "\n".join(lines) + f"\ntask: link_prediction\n{student}"
    result = short_result(text, "teacher_train.epochs=1")
    # Encoder: 64 x 5 + 64 + 32 x 64 + 32. Decoder: 32 x 32 + 32 + 32 + 1.
    assert result["cost"]["teacher"]["parameters"] == 3553


@pytest.mark.parametrize("scored", [False, True])
def test_passages_of_ranking(empty_folder: Path, scored: bool) -> None:
    pytest.importorskip("tokenizers")
    for name, size in (("train", 40), ("test", 10)):
        rows = [
            {
                "question": f"what is {row}",
                "answer": f"{row} is a number",
                "others": ["a flower", "a river"],
                "teacher_scores": [3.0, -1.0, -2.0],
            }
            for row in range(size)
        ]
        Path(f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    teacher = "{model: recorded_scores, is_trained: true}"
    assert teacher in (pages.DOCS / RANKING).read_text()
    text = blocks(RANKING, "yaml")[1]
    tail = f"teacher: {teacher}\nobjectives: {{margin_mse: {{}}}}\n"
    if not scored:
        text = text.replace("  scores: teacher_scores\n", "")
        tail = "objectives: {ranking_cross_entropy: {}}\n"
    student = "student: {model: text_transformer, options: {width: 8, depth: 1}}\n"
    result = short_result(f"task: ranking\n{text}{student}{tail}")
    assert result["headline"] == "ndcg"


def test_interactions_of_ranking(empty_folder: Path) -> None:
    lines = ["user_id\titem_id\trating"]
    for user, step in itertools.product(range(20), range(9)):
        lines.append(f"{user}\t{(user + step) % 12}\t{step % 3 + 3}")
    Path("ratings.tsv").write_text("\n".join(lines) + "\n")
    text = blocks(RANKING, "yaml")[2]
    student = "student: {model: matrix_factorization, options: {width: 4}}\n"
    result = short_result(
        f"task: recommendation\n{text}{student}objectives: {{ranking_cross_entropy: {{}}}}\n"
    )
    assert 0 < result["distilled"]["ndcg"]["mean"] <= 1


@pytest.mark.slow
def test_recipe_and_sampler_of_diffusion(empty_folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    text = blocks(DIFFUSION, "yaml")[0]
    small = ["teacher_train.epochs=1", "task.num_samples=20", "export=true"]
    result = short_result(text, *small)
    assert result["distilled"]["steps"]["mean"] == 4
    Path("runs").mkdir()
    Path("out").rename("runs/few_steps")
    for code in blocks(DIFFUSION, "python")[:2]:
        names: dict[str, Any] = {}
        exec(compile(code, DIFFUSION, "exec"), names)
        assert names["images"].shape == (16, 1, 8, 8)


def test_denoiser_in_python() -> None:
    names: dict[str, Any] = {}
    exec(compile(blocks(DIFFUSION, "python")[2], DIFFUSION, "exec"), names)
    losses = names["result"].records[-1]["losses"]
    assert set(losses) == {"student/denoising"}


def test_network_of_diffusers(empty_folder: Path) -> None:
    pytest.importorskip("diffusers")
    text = blocks(DIFFUSION, "yaml")[1]
    Path("my.yaml").write_text(
        "task: diffusion\ndata: {name: digits, batch_size: 10}\nstudent: {model: teacher}\n"
        f"objectives: {{denoising: {{}}}}\n{text}"
    )
    experiment = Experiment.from_recipe(recipes.load("my.yaml"))
    net = build_network(experiment.recipe.teachers[0], experiment, "teacher")
    outputs = net(experiment.splits.train.__getitems__([0, 1]))
    assert outputs["denoised"].shape == (2, 1, 8, 8)


def test_pipeline_of_diffusers(empty_folder: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    network = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction")
    diffusers.DDPMPipeline(network, scheduler).save_pretrained("my_pipeline")
    text = blocks(DIFFUSION, "yaml")[2]
    Path("my.yaml").write_text(
        "task: diffusion\ndata: {name: digits, batch_size: 10}\nscheme: {type: progressive}\n"
        f"objectives: {{denoised_matching: {{}}}}\n{text}"
    )
    experiment = Experiment.from_recipe(recipes.load("my.yaml"))
    denoiser: Any = build_network(experiment.recipe.teachers[0], experiment, "teacher").model
    assert (denoiser.parameterisation.name, denoiser.schedule.name) == ("v", "betas")
    weights = network.conv_in.weight
    assert torch.equal(denoiser.network.model.conv_in.weight, weights)


def test_stages_of_diffusion() -> None:
    stages = recipes.stages(recipes.build(yaml.safe_load(blocks(DIFFUSION, "yaml")[3])))
    assert [stage.scheme.options["steps"] for stage in stages] == [8, 4]
    assert [stage.student.model for stage in stages] == ["teacher", "previous"]
