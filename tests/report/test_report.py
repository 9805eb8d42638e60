"""Reports from small made-up run folders: numbers, files, honesty labels, damage."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sklearn import metrics as sk

import mexjax
from mexjax.errors import DataError, MexjaxError, WorkdirError
from mexjax.files import sealed
from mexjax.report.command import main
from mexjax.report.compare import compare, print_comparison
from mexjax.report.text import print_results
from mexjax.report.write import write_report

CLASSES = ("surprise", "happiness", "others")
RESULT_FILES = ("results.json", "predictions.csv", "report.md")
FIGURES = ("confusion.png", "subjects.png", "curves.png", "dynamic_images.png")


def make_run(
    folder: Path,
    *,
    seed: int = 0,
    skill: float = 1.5,
    datasets: tuple[str, ...] = ("synthetic",),
    num_subjects: int = 4,
    num_trained: int | None = None,
    with_inner: bool = False,
    has_figures: bool = False,  # most tests need none, and they take longest
    config: dict | None = None,
    info: dict | None = None,
) -> Path:
    """A run of `num_subjects` x 6 clips and 3 evaluations, as training leaves it."""
    folder.mkdir(parents=True)
    subjects = [f"{d}/{s:02d}" for d in datasets for s in range(1, num_subjects + 1)]
    clips = {s: [f"{s}/{s[-2:]}_{c:03d}" for c in range(6)] for s in subjects}
    folds = []
    for subject in subjects:
        others = [s for s in subjects if s != subject]
        inner = others[:1] if with_inner else []
        folds.append(
            {
                "name": subject,
                "train": [c for s in others if s not in inner for c in clips[s]],
                "validation": [c for s in inner for c in clips[s]],
                "test": clips[subject],
            }
        )
    content = {"schema": 1, "protocol": "loso", "classes": list(CLASSES), "folds": folds}
    trained = subjects[:num_trained]
    label = np.random.default_rng(7).integers(0, 3, len(subjects) * 6)[: len(trained) * 6]
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(label.size, 3, 3)).astype(np.float32)
    logits[np.arange(label.size), :, label] += skill
    inner = rng.random((len(trained), 3)).astype(np.float32)
    run_info = {
        "model": "fdp",
        "preset": "tiny",
        "dataset": datasets[0],
        "protocol": "loso",
        "seed": seed,
        "control": "none",
        "num_params": 1234,
        "timing": {"total_s": 75.0, "train_s": 60.5, "clips_per_s": 321.5},
        "environment": {"jax": "0.10", "devices": ["cpu"]},
    }
    run_config = {
        "seed": seed,
        "train": {"learning_rate": 0.001},
        "report": {"paper_results": {}, "has_figures": has_figures},
    }
    write_json(folder / "folds.json", content)
    write_json(folder / "run.json", run_info | (info or {}))
    write_json(folder / "config.json", run_config | (config or {}))
    np.savez(
        folder / "predictions.npz",
        logits=logits,
        label=label.astype(np.int32),
        clip=np.array([c for s in trained for c in clips[s]]),
        subject=np.repeat(trained, 6),
        fold=np.repeat(trained, 6),
        epoch=np.array([2, 4, 5], np.int32),
        classes=np.array(CLASSES),
        fold_names=np.array(trained),
        curve_loss=rng.random((len(trained), 5)).astype(np.float32),
        validation_accuracy=inner if with_inner else np.full_like(inner, np.nan),
    )
    image = rng.random((2, 8, 8)).astype(np.float32)
    np.savez(
        folder / "sheet.npz",
        frames=rng.integers(0, 256, (2, 4, 8, 8)).astype(np.uint8),
        target=image,
        constructed=image,
        title=np.array(["others, synthetic/01/01_000", "surprise, synthetic/02/02_000"]),
    )
    return folder


def write_json(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")


def read_arrays(folder):
    with np.load(folder / "predictions.npz") as file:
        return dict(file)


def rewrite(folder, **changes):
    """Replace arrays of predictions.npz; None removes one."""
    arrays = {**read_arrays(folder), **changes}
    kept = {name: array for name, array in arrays.items() if array is not None}
    np.savez(folder / "predictions.npz", **kept)


def text_of(show, *arguments):
    console = Console(width=120, record=True, file=io.StringIO())
    show(*arguments, console=console)
    return console.export_text()


def test_last_is_the_pooled_last_evaluation(tmp_path):
    folder = make_run(tmp_path / "run")
    found = write_report(folder)
    arrays = read_arrays(folder)
    label, prediction = arrays["label"], arrays["logits"][:, -1].argmax(-1)
    last = found["metrics"]["last"]
    assert last["acc"] == last["war"] == pytest.approx((label == prediction).mean(), abs=1e-6)
    assert last["uf1"] == pytest.approx(sk.f1_score(label, prediction, average="macro"), abs=1e-6)
    assert last["confusion"] == sk.confusion_matrix(label, prediction).tolist()
    assert last["ci95"]["uf1"][0] <= last["uf1"] <= last["ci95"]["uf1"][1]
    assert found["curves"]["acc"][-1] == last["acc"] and found["curves"]["epoch"] == [2, 4, 5]
    means = [fold["last"]["acc"] for fold in found["folds"]]
    assert last["subject_mean"]["acc"] == pytest.approx(np.mean(means), abs=1e-5)


def test_oracle_is_the_first_best_evaluation_of_each_fold(tmp_path):
    folder = make_run(tmp_path / "run")
    arrays = read_arrays(folder)
    is_right = arrays["logits"].argmax(-1) == arrays["label"][:, None]
    found = write_report(folder)
    total = 0
    for fold in found["folds"]:
        per_evaluation = is_right[arrays["fold"] == fold["name"]].sum(0).tolist()
        best = max(per_evaluation)
        total += best
        assert fold["oracle"]["epoch"] == [2, 4, 5][per_evaluation.index(best)]
        assert fold["oracle"]["acc"] == pytest.approx(best / 6, abs=1e-6)
        assert fold["last"]["epoch"] == 5
    oracle = found["metrics"]["oracle"]
    assert oracle["acc"] == pytest.approx(total / len(is_right), abs=1e-6)
    assert oracle["acc"] >= found["metrics"]["last"]["acc"]
    assert "selected on the test subjects" in oracle["note"]
    assert "selected" not in found["metrics"]


def test_selected_uses_inner_subjects_only(tmp_path):
    folder = make_run(tmp_path / "run", with_inner=True)
    found = write_report(folder)
    inner = read_arrays(folder)["validation_accuracy"]
    for fold, accuracy in zip(found["folds"], inner, strict=True):
        assert fold["selected"]["epoch"] == [2, 4, 5][accuracy.argmax()]
        assert fold["n_validation"] == 6
    assert list(found["metrics"]) == ["last", "selected", "oracle"]
    assert "inner (epoch selected on inner subjects)" in (folder / "report.md").read_text()


def test_predictions_csv(tmp_path):
    folder = make_run(tmp_path / "run")
    write_report(folder)
    rows = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
    arrays = read_arrays(folder)
    assert list(rows[0]) == [
        "clip",
        "subject",
        "fold",
        "label",
        "prediction",
        *(f"logit_{name}" for name in CLASSES),
    ]
    assert [row["clip"] for row in rows] == arrays["clip"].tolist()
    for row, label, logits in zip(rows, arrays["label"], arrays["logits"][:, -1], strict=True):
        assert row["label"] == CLASSES[label]
        assert row["prediction"] == CLASSES[logits.argmax()]
        written = [row[f"logit_{name}"] for name in CLASSES]
        assert written == [f"{np.float64(value):.6g}" for value in logits]


def test_same_files_in_same_bytes_out(tmp_path):
    one = make_run(tmp_path / "one", has_figures=True)
    two = make_run(tmp_path / "two")
    write_report(one)
    write_report(two)
    first = {name: (one / name).read_bytes() for name in RESULT_FILES}
    write_report(one)
    for name in RESULT_FILES:
        assert (one / name).read_bytes() == first[name]
    for name in RESULT_FILES[:2]:
        assert (two / name).read_bytes() == first[name]
    assert not [path for path in one.rglob("*") if "tmp" in path.name]
    assert sorted(path.name for path in (one / "figures").iterdir()) == sorted(FIGURES)


def test_results_json_is_what_is_returned_and_what_is_documented(tmp_path):
    folder = make_run(tmp_path / "run")
    found = write_report(folder)
    assert json.loads((folder / "results.json").read_text()) == found
    document = Path(__file__).parents[2] / "docs" / "results_format.md"
    example = json.loads(re.findall(r"```json\n(.*?)```", document.read_text(), re.S)[0])
    example["metrics"]["oracle"] = example["metrics"]["last"]
    compare_form(example, found, "results")


def compare_form(example, found, where):
    """Same keys and kinds; a null in either stands for a number."""
    if example is None or found is None:
        assert not isinstance(example or found, str | dict | list), where
    elif isinstance(example, dict):
        assert isinstance(found, dict), where
        if where.endswith(("timing", "environment")):
            return
        if where.endswith("per_class"):
            example, found = ({"class": next(iter(d.values()))} for d in (example, found))
        assert list(example) == list(found), where
        for key, value in example.items():
            compare_form(value, found[key], f"{where}.{key}")
    elif isinstance(example, list):
        compare_form(example[0], found[0], f"{where}[0]")
    else:
        kinds = [bool, str, int | float]
        kind = next(k for k in kinds if isinstance(example, k))
        assert isinstance(found, kind), where


def test_report_md_says_what_is_what(tmp_path):
    published = {"synthetic_3": {"acc": 87.5, "f1": 0.853, "kappa": 70}}
    config = {"report": {"paper_results": published, "has_figures": True}}
    folder = make_run(tmp_path / "run", config=config)
    found = write_report(folder)
    text = (folder / "report.md").read_text()
    assert found["paper_results"] == {"acc": 0.875, "f1": 0.853, "kappa": 0.7}
    assert "oracle (best epoch on the test subject; not comparable)" in text
    assert re.search(r"\| accuracy \| [\d.]+ \| [\d.]+ to [\d.]+ \| [\d.]+ \| 87.5 \|", text)
    assert "| F1 (as in the paper) | - | - | - | 85.3 |" in text
    assert "| kappa | - | - | - | 70.0 |" in text
    assert "partial" not in text and "CONTROL" not in text
    for name in FIGURES:
        assert f"(figures/{name})" in text and (folder / "figures" / name).stat().st_size > 1000


def test_no_figures_when_they_are_switched_off(tmp_path):
    folder = make_run(tmp_path / "run")
    write_report(folder)
    assert not (folder / "figures").exists()
    assert "## Figures" not in (folder / "report.md").read_text()


@pytest.mark.parametrize("control", ["static", "shuffled_labels"])
def test_control_runs_are_marked(tmp_path, control):
    folder = make_run(tmp_path / "run", info={"control": control})
    found = write_report(folder)
    assert "CONTROL RUN" in (folder / "report.md").read_text()
    assert "CONTROL RUN" in text_of(print_results, found)


def test_clips_that_were_left_out_are_counted_by_emotion(tmp_path):
    left_out = {"num_clips": 16, "num_clips_in_all": 60, "clips": {"fear": 8, "sadness": 8}}
    folder = make_run(tmp_path / "run", info={"left_out": left_out})
    found = write_report(folder)
    line = "60 clips, 16 left out: 8 fear, 8 sadness"
    assert (
        found["left_out"]
        == left_out
        == json.loads((folder / "results.json").read_text())["left_out"]
    )
    assert f"The dataset has {line}." in (folder / "report.md").read_text()
    assert line in text_of(print_results, found)
    odd = found | {"left_out": left_out | {"clips": {"[/x]": 16}}}
    assert "16 left out: 16 [/x]" in text_of(print_results, odd)


def test_a_run_that_left_nothing_out_does_not_speak_of_it(tmp_path):
    folder = make_run(tmp_path / "run", info={"left_out": {}})
    found = write_report(folder)
    assert "left_out" not in found and "left out" not in text_of(print_results, found)
    assert "left out" not in (folder / "report.md").read_text()


def test_partial_runs_are_marked(tmp_path):
    folder = make_run(tmp_path / "run", num_trained=1)
    found = write_report(folder)
    assert found["is_partial"] and found["num_folds"] == 1
    assert "partial: 1 of 4 folds" in (folder / "report.md").read_text()
    assert "partial: 1 of 4 folds" in text_of(print_results, found)
    # One subject gives no interval: null in JSON, a dash in the table.
    assert found["metrics"]["last"]["ci95"]["acc"] == [None, None]
    assert re.search(r"accuracy +[\d.]+ +- +[\d.]+", text_of(print_results, found))


def test_terminal_tables(tmp_path):
    found = write_report(make_run(tmp_path / "run"))
    text = text_of(print_results, found)
    assert "oracle (best epoch on" in text and "comparable)" in text  # the heading wraps
    text = " ".join(text.split())
    last, oracle = (100 * found["metrics"][name]["acc"] for name in ("last", "oracle"))
    assert re.search(rf"accuracy {last:.1f} [\d.]+ to [\d.]+ {oracle:.1f} ", text)
    assert "fdp (tiny) on synthetic, loso, 3 classes, seed 0" in text
    assert "24 held-out clips of 4 subjects" in text
    assert "mean over subjects" in text
    assert "Time: total 75.0 s, training 60.5 s, 322 training clips/s" in text


def test_several_datasets_get_a_table(tmp_path):
    folder = make_run(tmp_path / "run", datasets=("casme2", "samm"))
    found = write_report(folder)
    assert [entry["name"] for entry in found["datasets"]] == ["casme2", "samm"]
    assert [entry["n"] for entry in found["datasets"]] == [24, 24]
    assert "### By dataset" in (folder / "report.md").read_text()
    assert "casme2/01" in text_of(print_results, found)


def test_an_evaluation_that_is_not_finite_is_never_chosen(tmp_path):
    folder = make_run(tmp_path / "run")
    logits = read_arrays(folder)["logits"]
    label = read_arrays(folder)["label"]
    logits[:6, 0] = np.nan
    logits[:6, 1:] = -10 * np.eye(3)[label[:6], None]  # always wrong afterwards
    rewrite(folder, logits=logits)
    found = write_report(folder)
    assert found["folds"][0]["oracle"]["epoch"] == 4
    assert found["curves"]["acc"][0] is None and found["curves"]["acc"][1] is not None
    logits[3, 2] = np.inf
    rewrite(folder, logits=logits)
    with pytest.raises(DataError, match=r"not finite for 1 of 24 clips \(folds synthetic/01\)"):
        write_report(folder)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"logits": None}, "expected the array 'logits'"),
        ({"logits": np.zeros((24, 3))}, "expected 'logits' with 3 axes"),
        ({"logits": np.zeros((24, 3, 2), "f4")}, "'classes' has shape"),
        ({"logits": np.zeros((24, 0, 3), "f4")}, "at least one clip"),
        ({"label": np.zeros(24)}, "dtype of kind 'i'"),
        ({"label": np.full(24, 3)}, "labels must be in 0..2, found 3..3"),
        ({"label": np.zeros(5, int)}, "'label' has shape"),
        ({"epoch": np.array([2, 2, 5])}, "'epoch' must increase"),
        ({"classes": np.array(["a", "b", "c"])}, "different runs"),
        ({"subject": np.array(["synthetic/09"] * 24)}, "does not belong to subject"),
        ({"fold": np.array(["synthetic/02"] * 24)}, "holds it out in 'synthetic/01'"),
        ({"fold_names": np.array([f"synthetic/0{s}" for s in (2, 1, 3, 4)])}, "in its order"),
        ({"clip": np.array(["synthetic/01/01_000"] * 24)}, "holds out the clip"),
        ({"curve_loss": np.zeros((3, 5), "f4")}, "'curve_loss' must be"),
        ({"validation_accuracy": np.zeros((3, 5), "f4")}, "'validation_accuracy' must be"),
    ],
)
def test_wrong_predictions(tmp_path, changes, text):
    folder = make_run(tmp_path / "run")
    rewrite(folder, **changes)
    with pytest.raises(DataError, match=text):
        write_report(folder)


def test_an_unfinished_fold_is_noticed(tmp_path):
    folder = make_run(tmp_path / "run")
    arrays = read_arrays(folder)
    names = ("logits", "label", "clip", "subject", "fold")
    rewrite(folder, **{name: arrays[name][:-2] for name in names})
    with pytest.raises(DataError, match="predictions of 4 clips, expected 6"):
        write_report(folder)


def test_a_leaking_fold_is_noticed(tmp_path):
    folder = make_run(tmp_path / "run")
    content = json.loads((folder / "folds.json").read_text())
    content["folds"][0]["train"].append("synthetic/01/another")
    write_json(folder / "folds.json", content)
    with pytest.raises(DataError, match="tests on subject 'synthetic/01' and also uses it"):
        write_report(folder)


@pytest.mark.parametrize(
    ("config", "info", "text"),
    [
        ({"seed": 1}, {}, r"seed 0, but config\.json beside it says seed 1"),
        ({"model": {"name": "ac4au"}}, {}, r"model 'fdp', but config\.json .* model\.name 'ac4au'"),
        ({"protocol": {"task": "au"}}, {"task": "emotion"}, "task 'emotion', .* 'au'"),
        ({"data": {"control": "static"}}, {}, "control 'none', .* 'static'"),
        ({"data": {"name": "prepared"}}, {}, "dataset 'synthetic', .* 'prepared'"),
        ({}, {"protocol": "composite"}, r"protocol 'composite', but folds\.json .* 'loso'"),
        ({}, {"classes": list(CLASSES[::-1])}, r"classes .*, but folds\.json beside it says"),
        ({}, {"sha256": "0"}, r"run\.json is damaged or was changed"),
        ({}, {"digests": {}}, r"run\.json is damaged or was changed"),
    ],
)
def test_files_that_contradict_each_other(tmp_path, config, info, text):
    folder = make_run(tmp_path / "run", config=config, info=info)
    with pytest.raises(DataError, match=text):
        write_report(folder)


@pytest.mark.parametrize(
    ("digests", "text"),
    [
        ({"predictions.npz": "0"}, r"predictions\.npz is damaged or was changed after training"),
        ({"config.json": "0"}, r"config\.json is damaged or was changed after training"),
        ([], "expected an object 'digests'"),
    ],
)
def test_digests_of_other_files(tmp_path, digests, text):
    folder = make_run(tmp_path / "run")
    info = json.loads((folder / "run.json").read_text())
    write_json(folder / "run.json", sealed(info | {"digests": {"sheet.npz": None}}))
    with pytest.raises(DataError, match=r"sheet\.npz is damaged"):
        write_report(folder)
    write_json(folder / "run.json", sealed(info | {"digests": digests}))
    with pytest.raises(DataError, match=text):
        write_report(folder)
    write_json(folder / "run.json", sealed(info | {"digests": {}}))
    assert write_report(folder)["model"] == "fdp"


@pytest.mark.parametrize("name", ["config.json", "folds.json", "run.json", "predictions.npz"])
def test_missing_and_damaged_files(tmp_path, name):
    folder = make_run(tmp_path / "run")
    (folder / name).write_text("{ not what it should be")
    with pytest.raises(WorkdirError, match=f"{name} cannot be read"):
        write_report(folder)
    (folder / name).unlink()
    with pytest.raises(WorkdirError, match=f"{name} is missing.*Start the run again"):
        write_report(folder)
    assert not (folder / "results.json").exists()


def test_pickled_arrays_are_refused(tmp_path):
    folder = make_run(tmp_path / "run")
    rewrite(folder, clip=np.array([{"a": 1}] * 24, object))
    with pytest.raises(WorkdirError, match="npz file of plain arrays"):
        write_report(folder)


def test_other_wrong_files(tmp_path):
    folder = make_run(tmp_path / "run", info={"seed": "zero"})
    with pytest.raises(DataError, match="whole number 'seed'"):
        write_report(folder)
    write_json(folder / "run.json", {"model": 3})
    with pytest.raises(DataError, match="expected the text 'model', found 3"):
        write_report(folder)
    write_json(folder / "run.json", [])
    with pytest.raises(DataError, match="expected a JSON object"):
        write_report(folder)
    folder = make_run(tmp_path / "sheet")
    with np.load(folder / "sheet.npz") as file:
        arrays = dict(file)
    np.savez(folder / "sheet.npz", **{**arrays, "target": arrays["target"][:1]})
    with pytest.raises(DataError, match=r"'target' has shape .* there are 2 clips"):
        write_report(folder)
    with pytest.raises(WorkdirError, match="No run folder at"):
        write_report(tmp_path / "nowhere")


def test_comparison_groups_seeds_and_tests_pairs(tmp_path):
    faster = {"train": {"learning_rate": 0.01}}
    folders = [
        make_run(tmp_path / "a0", num_subjects=8, skill=3.0, config={"seed": 0}),
        make_run(tmp_path / "a1", num_subjects=8, skill=3.0, seed=1, config={"seed": 1}),
        make_run(tmp_path / "b", num_subjects=8, skill=0.3, seed=2, config={"seed": 2} | faster),
    ]
    found = compare(folders)
    one, two = found["groups"]
    assert one["seeds"] == [0, 1] and two["seeds"] == [2]
    values = [write_report(folder)["metrics"]["last"]["uf1"] for folder in folders[:2]]
    assert one["metrics"]["uf1"]["mean"] == pytest.approx(np.mean(values), abs=1e-5)
    assert one["metrics"]["uf1"]["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-5)
    assert two["metrics"]["uf1"]["sd"] is None
    assert two["differs_in"] == {"train.learning_rate": 0.01}
    (pair,) = found["pairs"]
    assert pair["num_clips"] == 48 and pair["mcnemar"] is None
    assert pair["metrics"]["acc"]["difference"] > 0.2
    assert pair["metrics"]["acc"]["p_permutation"] < 0.05
    text = text_of(print_comparison, found)
    assert "±" in text and "train.learning_rate=0.01" in text and "not corrected" in text
    (single,) = compare(folders[1:])["pairs"]
    assert single["mcnemar"]["only_a"] > single["mcnemar"]["only_b"]
    assert "McNemar" in text_of(print_comparison, compare(folders[1:]))


def test_the_place_of_the_data_is_no_difference_and_their_content_is(tmp_path):
    table = {"clip": ["a/1"], "emotion": ["fear"], "annotation": ["x"], "record": ["y"]}
    corrected = table | {"emotion": ["anger"]}
    folders = []
    for number, content in enumerate((table, table, corrected, None)):
        data = {"name": "prepared", "root": f"/place/{number}", "cache": f"/cache/{number}"}
        about = {"dataset": "prepared"}
        folder = make_run(tmp_path / str(number), config={"data": data}, info=about, seed=number)
        if content is not None:
            write_json(folder / "data.json", sealed({"table": content}))
        folders.append(folder)
    (same,) = compare(folders[:2])["groups"]
    assert same["differs_in"] == {} and len(same["workdirs"]) == 2
    one, two = compare(folders[1:3])["groups"]
    assert one["differs_in"].keys() == two["differs_in"].keys() == {"data.digest"}
    # Without a list of its data, or with a damaged one, a run is of its folder.
    (folders[2] / "data.json").write_text('{"table": 1, "sha256": "0"}')
    for other in folders[2:]:
        names = [
            group["differs_in"]["data.digest"] for group in compare([folders[0], other])["groups"]
        ]
        assert names[1] == f"unknown, from /place/{other.name}"


def test_comparison_of_runs_over_other_clips(tmp_path):
    one = make_run(tmp_path / "one")
    two = make_run(tmp_path / "two", num_subjects=5, config={"protocol": {"name": "loso"}})
    found = compare([one, two])
    assert "holds out other clips" in found["pairs"][0]["reason"]
    assert "No paired test" in text_of(print_comparison, found)
    with pytest.raises(DataError, match="given twice"):
        compare([one, one])


def test_command(tmp_path, capsys):
    one = make_run(tmp_path / "one")
    two = make_run(tmp_path / "two", seed=1, config={"seed": 1})
    assert main([str(one), str(two)]) == 0
    out = capsys.readouterr().out
    assert "standard deviation over seeds" in out and (two / "results.json").is_file()
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "No run folder at" in capsys.readouterr().err


def test_the_package_offers_the_function_under_the_name_of_the_module(tmp_path):
    folder = make_run(tmp_path / "run")
    assert mexjax.write_report(folder) == write_report(folder)
    assert issubclass(WorkdirError, MexjaxError)
