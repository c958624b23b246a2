"The command line as a process and as a function: mistakes cost one line, nothing is half-written, options arrive where they should."
import gzip, importlib.util, json, os, subprocess, sys, types
from pathlib import Path

import numpy as np
import pytest

from mrbook import cli

MRBOOK = Path(sys.executable).parent / "mrbook"
def has(module, word=""):
    "Whether a module is there and its source holds a word, without importing it."
    try: spec = importlib.util.find_spec(module)
    except ModuleNotFoundError: return False
    return spec is not None and word in Path(spec.origin).read_text(encoding="utf-8")


has_dact = has("mrbook.methods.dact.dact", "def enhance_file")
has_weights = has("mrbook.learn.weights")
needs_dact = pytest.mark.skipif(not has_dact, reason="mrbook.methods.dact.dact is not built yet")


def one_line(capsys):
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("mrbook: error: ") and err.count("\n") == 1, (out, err)
    return err


@pytest.fixture
def scan(tmp_path):
    import nibabel as nib
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((24, 28, 6), dtype=np.float32), np.diag([3., 3., 6., 1.])), path)
    return path


@pytest.fixture
def fake(monkeypatch):
    "A stand-in for the solver that records how it was called."
    calls = []
    module = types.ModuleType("mrbook.methods.dact.dact")

    def enhance_file(source, target, **options):
        calls.append((Path(source), Path(target), options))
        Path(target).write_bytes(b"image")
        return dict(notes=["qform and sform differ: used the sform"])
    module.enhance_file = enhance_file
    monkeypatch.setitem(sys.modules, "mrbook.methods.dact.dact", module)
    return calls


def test_version(capsys):
    import mrbook
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"mrbook {mrbook.__version__}"


@pytest.mark.parametrize("command", ["", "reproduce", "studies", "enhance", "harmonize", "synthesize", "train", "train harmonize", "train fgsb", "weights", "weights list", "weights verify", "datasets", "datasets list", "datasets info", "datasets fetch", "doctor", "phantom"])
def test_help_teaches(command, capsys):
    assert cli.main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "Usage" in text and f"mrbook {command}".strip() in text
    if command not in ("", "train", "weights", "datasets"): assert "Example" in text


def test_a_process_reports_a_mistake_in_one_line(tmp_path):
    done = subprocess.run([MRBOOK, "enhance", "missing.nii.gz", "out.nii.gz", "--contrast", "t1w"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "mrbook: error: there is no file missing.nii.gz\n")


def test_without_a_command_help_is_shown():
    done = subprocess.run([MRBOOK], capture_output=True, text=True)
    assert done.returncode == 2 and "Usage" in done.stdout + done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("script", ["bash", "zsh", "fish"])
def test_shell_completion(script):
    done = subprocess.run([MRBOOK], capture_output=True, text=True, env=os.environ | {"_MRBOOK_COMPLETE": f"source_{script}"})
    assert done.returncode == 0 and "_MRBOOK_COMPLETE" in done.stdout


def test_completion_of_a_word():
    env = os.environ | {"_MRBOOK_COMPLETE": "complete_bash", "COMP_WORDS": "mrbook enhance in out --contrast t", "COMP_CWORD": "5"}
    assert subprocess.run([MRBOOK], capture_output=True, text=True, env=env).stdout.split() == ["t1w", "t2w"]


def test_enhance_passes_every_option_on(scan, fake, capsys):
    out = scan.with_name("out.nii.gz")
    assert cli.main(["enhance", str(scan), str(out), "--contrast", "t2w", "--variant", "instance", "--steps", "7", "--seed", "3", "--device", "cpu", "--head", "no", "--cohort", "a", "--cohort", "b.nii"]) == 0
    assert fake == [(scan, out, dict(contrast="t2w", variant="instance", steps=7, seed=3, device="cpu", head=False, progress=True, cohort=[Path("a"), Path("b.nii")], weights=None, batch_size=8, brain="auto", samples=1, uncertainty=None))]
    text = capsys.readouterr().out
    assert "note: qform and sform differ" in text and text.splitlines()[-1].startswith(str(out))


def test_enhance_defaults(scan, fake):
    assert cli.main(["enhance", str(scan), str(scan.with_name("out.nii")), "--contrast", "t1w"]) == 0
    options = fake[0][2]
    assert (options["variant"], options["steps"], options["seed"], options["head"], options["cohort"]) == ("mix", 50, 0, None, []) and options["device"] in ("cpu", "cuda")


BAD_OPTIONS = [(["--contrast", "t3w"], "t3w"), ([], "--contrast"), (["--contrast", "t1w", "--variant", "best"], "best"), (["--contrast", "t1w", "--steps", "0"], "--steps"),
               (["--contrast", "t1w", "--steps", "x"], "--steps"), (["--contrast", "t1w", "--device", "gpu"], "gpu"), (["--contrast", "t1w", "--head", "maybe"], "maybe"), (["--contrast", "t1w", "--colour"], "--colour")]


@pytest.mark.parametrize("options, word", BAD_OPTIONS)
def test_a_wrong_option(scan, fake, capsys, options, word):
    out = scan.with_name("out.nii.gz")
    assert cli.main(["enhance", str(scan), str(out), *options]) == 2
    assert word in one_line(capsys) and not fake and not out.exists()


def test_output_is_not_overwritten(scan, fake, capsys):
    out = scan.with_name("out.nii.gz"); out.write_bytes(b"older")
    arguments = ["enhance", str(scan), str(out), "--contrast", "t1w", "--device", "cpu"]
    assert cli.main(arguments) == 2 and "--force" in one_line(capsys) and out.read_bytes() == b"older"
    assert cli.main([*arguments, "--force"]) == 0 and out.read_bytes() == b"image"


def test_a_neighbouring_json_is_not_overwritten(scan, fake, capsys):
    sidecar = scan.with_name("sub-01_T1w.json"); sidecar.write_text("{}")
    assert cli.main(["enhance", str(scan), str(scan.with_name("sub-01_T1w.nii.gz")), "--contrast", "t1w"]) == 2
    assert "sub-01_T1w.json exists" in one_line(capsys) and not fake and sidecar.read_text() == "{}"


@pytest.mark.parametrize("target, word", [("scan.nii.gz", "same file"), ("no/out.nii.gz", "does not exist"), ("out.txt", ".nii"), ("folder.nii", "folder"), ("scan.nii.gz/out.nii", "does not exist")])
def test_output_that_cannot_be(scan, fake, capsys, target, word):
    (scan.parent / "folder.nii").mkdir()
    assert cli.main(["enhance", str(scan), str(scan.parent / target), "--contrast", "t1w", "--force"]) == 2
    assert word in one_line(capsys) and not fake


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root can write into")
def test_output_folder_is_not_writable(scan, fake, capsys):
    assert cli.main(["enhance", str(scan), "/proc/self/out.nii.gz", "--contrast", "t1w"]) == 2
    assert "cannot write into /proc/self" in one_line(capsys) and not fake


@pytest.mark.parametrize("error", [ValueError("4-D image\nof shape (2, 2, 2, 2)"), OSError("no space left on device"), FileNotFoundError("gone")])
def test_errors_of_the_solver_cost_one_line(scan, fake, capsys, monkeypatch, error):
    def fail(*a, **k): raise error
    monkeypatch.setattr(sys.modules["mrbook.methods.dact.dact"], "enhance_file", fail)
    arguments = ["enhance", str(scan), str(scan.with_name("out.nii.gz")), "--contrast", "t1w", "--device", "cpu"]
    assert cli.main(arguments) == 2 and " ".join(str(error).split()) in one_line(capsys)
    monkeypatch.setenv("MRBOOK_TRACEBACK", "1")
    with pytest.raises(type(error)): cli.main(arguments)


def test_a_fault_of_ours_keeps_its_traceback(scan, fake, monkeypatch):
    def fail(*a, **k): raise KeyError("bug")
    monkeypatch.setattr(sys.modules["mrbook.methods.dact.dact"], "enhance_file", fail)
    with pytest.raises(KeyError): cli.main(["enhance", str(scan), str(scan.with_name("out.nii.gz")), "--contrast", "t1w", "--device", "cpu"])


def bad_input(kind, path):
    "Write an input that must be refused."
    import nibabel as nib
    shape = dict(four=(8, 8, 8, 2), one=(1, 1, 1)).get(kind, (16, 16, 4))
    data = np.random.default_rng(0).random(shape, dtype=np.float32)
    if kind == "zeros": data[:] = 0
    if kind == "nan": data[:] = np.nan
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    if kind == "text": path.write_bytes(gzip.compress(b"this is no image"))
    if kind == "cut": path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    if kind == "empty": path.write_bytes(b"")


@needs_dact
@pytest.mark.parametrize("kind", ["four", "one", "zeros", "nan", "text", "cut", "empty"])
def test_an_input_that_cannot_be_used(tmp_path, capsys, kind):
    path = tmp_path / "in.nii.gz"; bad_input(kind, path)
    assert cli.main(["enhance", str(path), str(tmp_path / "out.nii.gz"), "--contrast", "t1w", "--device", "cpu"]) == 2
    one_line(capsys)
    assert [p.name for p in tmp_path.iterdir()] == ["in.nii.gz"]


@needs_dact
@pytest.mark.parametrize("kind, word", [("four", "4"), ("zeros", ""), ("nan", ""), ("cut", ""), ("missing", "does not exist"), ("folder", "holds no"), ("coarse", "pixels of 5 mm")])
def test_a_cohort_that_cannot_be_used(scan, tmp_path, capsys, kind, word):
    import nibabel as nib
    home = tmp_path / "cohort"; home.mkdir(); path = home / "site.nii.gz"
    if kind == "coarse": nib.save(nib.Nifti1Image(np.random.default_rng(0).random((32, 32, 8), np.float32), np.diag([5., 5, 5, 1])), path)
    elif kind not in ("missing", "folder"): bad_input(kind, path)
    place = home if kind == "folder" else path
    assert cli.main(["enhance", str(scan), str(tmp_path / "out.nii.gz"), "--contrast", "t1w", "--device", "cpu", "--cohort", str(place)]) == 2
    assert word in one_line(capsys) and not list(tmp_path.glob("out*"))


@needs_dact
def test_enhance_for_real(tmp_path):
    import nibabel as nib
    from mrbook.mri.phantom import image, phantom
    from mrbook.mri.physics import Contrast
    anatomy = phantom(3, spacing=4.)
    low = image(anatomy, Contrast.parse("t1w@0.2T"), noise=0.02, seed=1)
    z = low.shape[2] // 2
    affine = anatomy.affine.copy(); affine[:3, 3] += affine[:3, 2] * (z - 1)
    source, target = tmp_path / "in.nii.gz", tmp_path / "out.nii.gz"
    nib.save(nib.Nifti1Image(low[:, :, z - 1:z + 2], affine), source)
    done = subprocess.run([MRBOOK, "enhance", source, target, "--contrast", "t1w", "--steps", "3", "--device", "cpu", "--head", "no"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = nib.load(target)
    assert found.get_data_dtype() == np.float32 and np.isfinite(found.get_fdata()).all() and found.ndim == 3
    if found.shape == low[:, :, z - 1:z + 2].shape: np.testing.assert_array_equal(found.affine, affine)
    [provenance] = [p for p in tmp_path.iterdir() if p.suffix == ".json"]
    assert json.loads(provenance.read_text(encoding="utf-8"))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".") or p.suffix == ".tmp"]


@pytest.mark.skipif(not has_weights, reason="mrbook.learn.weights is not built yet")
def test_weights(capsys):
    assert cli.main(["weights", "verify"]) == 0
    assert cli.main(["weights", "list"]) == 0
    assert "network" in capsys.readouterr().out


@pytest.mark.skipif(not (Path(cli.mrbook.__file__).parent / "weights/manifest.json").exists(), reason="no weights are shipped yet")
def test_doctor(capsys):
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("python", "torch", "cpu", "weights", "data", "disk", "studies"))


def test_doctor_finds_what_is_broken(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    assert cli.main(["doctor"]) == 1
    assert "FAIL  nibabel" in capsys.readouterr().out


def test_datasets(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MRBOOK_DATA", str(tmp_path))
    assert cli.main(["datasets", "list"]) == 0 and "ulf055" in capsys.readouterr().out
    assert cli.main(["datasets", "info", "ulf055"]) == 0 and "CC0-1.0" in capsys.readouterr().out
    assert cli.main(["datasets", "info", "nothing"]) == 2 and "nothing" in one_line(capsys)
    assert cli.main(["datasets", "fetch", "hcp"]) == 2 and "humanconnectome" in one_line(capsys)


def test_studies_of_this_book(capsys):
    from mrbook.cli import find_root
    found = list((find_root() / "nbs/studies").glob("*.ipynb"))
    assert cli.main(["studies"]) == (0 if found else 2)
    text = capsys.readouterr().out
    assert all(p.stem in text for p in found)


def test_outside_a_clone_the_studies_are_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.mrbook, "__file__", str(tmp_path / "site-packages/mrbook/__init__.py"))
    assert cli.main(["reproduce"]) == 2 and "clone" in one_line(capsys)


def test_a_run_that_is_interrupted(monkeypatch, capsys):
    def stop(*a, **k): raise KeyboardInterrupt
    monkeypatch.setattr(cli, "find_root", stop)
    assert cli.main(["studies"]) == 130
    assert capsys.readouterr().err == "mrbook: interrupted\n"


@pytest.mark.parametrize("ours", [True, False])
def test_a_kernel_that_is_done_is_not_interrupted(ours):
    "jupyter_client interrupts a kernel before it asks it to leave, which the kernel may report as an error. Ours only asks."
    import asyncio, signal
    from jupyter_client.manager import AsyncKernelManager

    async def signals():
        manager = cli._quiet_kernel()["kernel_manager_class"]() if ours else AsyncKernelManager()
        await manager.start_kernel()
        sent, send = [], manager.provisioner.send_signal

        async def record(number):
            sent.append(number)
            await send(number)
        manager.provisioner.send_signal = record
        await manager.shutdown_kernel()
        assert not await manager.is_alive()
        return sent
    assert (signal.SIGINT in asyncio.run(signals())) != ours


def test_lists_fit_the_terminal(capsys, monkeypatch):
    "Folded, with every word kept; without a terminal a row is a line."
    for command in ("studies", "weights list", "datasets list"):
        texts = []
        for columns in ("0", "80"):
            monkeypatch.setenv("COLUMNS", columns)
            assert cli.main(command.split()) == 0
            texts.append(capsys.readouterr().out)
        plain, folded = texts
        assert max(map(len, folded.splitlines())) <= 80 < max(map(len, plain.splitlines()))
        assert sorted("".join(plain.split())) == sorted("".join(folded.split()))


def test_reproduce_without_papermill(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "papermill" else find(name, *a))
    assert cli.main(["reproduce", "--device", "cpu"]) == 2
    assert "pip install 'mrbook[studies]'" in one_line(capsys)


def test_the_first_results_come_early():
    "The shortest tables, then the longest studies; a few studies run the longest first."
    study = lambda name, minutes: cli.StudyInfo(name, Path(name), "", "", "", "", dict(quick=minutes), 1)
    many = [study(f"{k}_{i}", i) for i in range(1, 6) for k in ("table", "figure")]
    assert [s.name for s in cli._in_order(many, 2, "quick")][:4] == ["table_1", "table_2", "table_5", "figure_5"]
    assert sorted(map(id, cli._in_order(many, 2, "quick"))) == sorted(map(id, many))
    assert [s.minutes["quick"] for s in cli._in_order(many[:3], 2, "quick")] == [2, 1, 1]


def test_phantom_keeps_what_is_there(tmp_path, capsys):
    out = tmp_path / "scan.nii"
    arguments = ["phantom", str(out), "--contrast", "t1w", "--field", "3", "--spacing", "8", "--truth"]
    assert cli.main(arguments) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scan.json", "scan.nii", "scan_truth.nii"]
    out.unlink(); (tmp_path / "scan.json").unlink(); capsys.readouterr()
    assert cli.main(arguments) == 2 and "scan_truth.nii exists already" in one_line(capsys) and not out.exists()
