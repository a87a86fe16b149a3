#!/usr/bin/env python3
"""Tests of scripts/bench_elbo: bench_elbo_test.py [FOLDER OF vae AND vae_step_bench].

What it concludes from numbers, the data that it writes, what it refuses; and, with the programs and
PyTorch, all of it on the CPU: with the peer as it is, and with peers that learn at another rate,
minimise another loss or evaluate by another definition.
"""

import contextlib
import gzip
import importlib.util
import io
import json
import pathlib
import random
import sys
import tempfile
import textwrap
import unittest
from unittest import mock

sys.dont_write_bytecode = True
from script_module import ROOT, load  # noqa: E402

bench = load("bench_elbo")
machine, workload = bench.machine, bench.workload
import equal_work  # noqa: E402  # pylint: disable=wrong-import-position
import image_data  # noqa: E402  # pylint: disable=wrong-import-position
import peers  # noqa: E402  # pylint: disable=wrong-import-position
import student  # noqa: E402  # pylint: disable=wrong-import-position
PROGRAMS = pathlib.Path(sys.argv.pop(1)) if len(sys.argv) > 1 else None
HAS_TORCH = importlib.util.find_spec("torch") is not None


def side(name, *finals, seconds=(1.0, 2.0), status="ok", why=""):
    """Of two epochs, in which −elbo falls by ten to the final one."""
    runs = [{"seed": i + 1, "seconds": list(seconds), "elbo": [final + 10, final],
             "recon": [final, final - 10], "kl": [10, 10], "steps": 20, "examples": 5,
             "apart_seconds": 0.5} for i, final in enumerate(finals)]
    return equal_work.new_side(name) | {"runs": runs, "status": status, "why": why}


def record(*sides, target=None):
    return equal_work.summarize({
        "gpu": {}, "device": "cpu", "cpu": "a CPU", "threads": 1, "commit": "c", "date": "d",
        "versions": {}, "workload": "S", "precision": "fp32", "epochs": 2, "seeds": 3, "data": "x",
        "test_examples": 5, "asked_target": target, "is_complete": True, "why": "",
        "steps_per_epoch": None, "sides": list(sides)})


class Conclusions(unittest.TestCase):
    def test_two_samples(self):
        ours = [240.0, 240.2, 239.8, 240.1, 239.9]
        result = equal_work.compare(ours, [value + 0.15 for value in ours], 0.04)
        self.assertTrue(result["is_equal"])
        self.assertAlmostEqual(result["difference"], 0.15)
        self.assertAlmostEqual(result["standard_error"], (2 * 0.025 / 5) ** 0.5)
        self.assertAlmostEqual(result["pooled_deviation"], 0.025 ** 0.5)
        self.assertAlmostEqual(result["allowed"], 0.2449, places=4)  # 2.449 of 8 degrees of freedom
        for shift in (0.25, -0.25, float("nan")):
            theirs = [value + shift for value in ours]
            self.assertFalse(equal_work.compare(ours, theirs, 0.04)["is_equal"])
        # With so many seeds a small part of the deviation over them, 0.16, is a difference.
        self.assertFalse(equal_work.compare(ours * 40, [value + 0.05 for value in ours] * 40, 0.04)
                         ["is_equal"])

    def test_quantiles_of_student(self):
        for freedom, at_5, at_1 in ((1, 12.706, 63.657), (2, 4.303, 9.925), (3, 3.182, 5.841),
                                    (4, 2.776, 4.604), (7, 2.365, 3.499), (8, 2.306, 3.355),
                                    (30, 2.042, 2.750)):  # as printed in tables
            self.assertAlmostEqual(student.quantile(0.05, freedom), at_5, delta=6e-4)
            self.assertAlmostEqual(student.quantile(0.01, freedom), at_1, delta=6e-4)

    def drawn(self, draw, *shifts):
        """A run of five seeds whose sides, after ours, differ by so many deviations over seeds of
        recon."""
        sides = []
        for i, shift in enumerate((0, *shifts)):
            recons = [draw.gauss(230 + shift, 1) for _ in range(5)]
            kls = [draw.gauss(10, 0.5) for _ in recons]
            sides.append(side(f"{i}" if i else "vae", *map(sum, zip(recons, kls))))
            for run, recon, kl in zip(sides[-1]["runs"], recons, kls):
                run["recon"], run["kl"] = [recon, recon], [kl, kl]
        return record(*sides)

    def test_of_equal_sides_a_whole_run_seldom_says_that_they_are_not(self):
        draw = random.Random(11)
        for others in (1, 8):
            wrong = sum(not bench.is_equal_work(self.drawn(draw, *[0] * others))
                        for _ in range(400))
            # Of 400 runs 20 if it is 5 %: with three of their deviations more it is too many.
            self.assertLessEqual(wrong, 33, others)

    def test_one_that_differs_among_eight_is_found(self):
        draw = random.Random(12)
        found = [self.drawn(draw, 6, *[0] * 7)["sides"][1]["summary"]["against_ours"]
                 for _ in range(50)]
        self.assertFalse(any(one["elbo"]["is_equal"] for one in found))

    def test_time_to_a_target(self):
        seconds, values = [2.0, 4.0, 6.0, 8.0], [260.0, 250.0, 255.0, 240.0]
        for target, time in ((270, 2.0), (260, 2.0), (255, 3.0), (250, 4.0), (247.5, 7.0),
                             (240, 8.0), (239, None), (float("nan"), None)):
            self.assertEqual(equal_work.time_to(target, seconds, values), time, target)

    def test_evaluating_our_parameters(self):
        ours = {"recon": 230.0, "kl": 12.0}

        def theirs(recon, kl):
            return {"passes": 2, "recon": {"mean": recon, "error": 0.05},
                    "kl": {"mean": kl, "error": 0.0}}

        self.assertIsNone(equal_work.disagreement(ours, theirs(230.2, 12.0005), "fp32"))
        for recon, kl in ((230.3, 12.0), (230.0, 12.01), (float("nan"), 12.0),
                          (230.0, float("nan"))):
            self.assertIn("of our parameters", equal_work.disagreement(
                ours, theirs(recon, kl), "fp32"))

    def test_a_side_that_ends_elsewhere_shows_and_sets_no_target(self):
        done = record(side("vae", 240.0, 240.4), side("A", 240.1, 240.3, seconds=(2, 4)),
                      side("B", 250.0, 250.2))
        self.assertAlmostEqual(done["target"], 240.2 + 0.2 * 2 ** 0.5)
        a, b = (one["summary"] for one in done["sides"][1:])
        self.assertTrue(equal_work.is_equal(a["against_ours"]))
        self.assertFalse(b["against_ours"]["elbo"]["is_equal"])
        self.assertIsNone(b["time_to_target"])
        self.assertAlmostEqual(a["time_to_target"],
                               2 * done["sides"][0]["summary"]["time_to_target"])
        self.assertEqual(a["step_microseconds"], 2e6 / 10)
        text = equal_work.markdown(done)
        self.assertIn("| A | 240.20 ± 0.14 | 230.20 ± 0.14 | 10.00 ± 0.00 | +0.000 ± 0.224; "
                      "+0.000 ± 0.224; +0.000 ± 0.000 | equal within the spread | 2 |", text)
        self.assertIn("| NOT EQUAL: −elbo, recon | 2 |", text)
        self.assertIn("| never | – |", text)
        self.assertIn("| 2 | 2.000, 240.20 | 4.000, 240.20 | 2.000, 250.10 |", text)
        self.assertFalse(bench.is_equal_work(done))

    def test_the_same_elbo_by_other_terms_is_not_equal(self):
        other = side("A", 240.1, 240.3)
        for i, run in enumerate(other["runs"]):
            run["recon"], run["kl"] = [225.0, 225.0 + i / 10], [15.0, 15.1 + i / 10]
        done = record(side("vae", 240.0, 240.4), other)
        self.assertTrue(other["summary"]["against_ours"]["elbo"]["is_equal"])
        self.assertIn("| NOT EQUAL: recon, kl | 2 |", equal_work.markdown(done))
        self.assertFalse(bench.is_equal_work(done))

    def test_what_is_equal_work(self):
        ours = side("vae", 240.0, 240.4)
        self.assertTrue(bench.is_equal_work(record(ours, side("A", 240.1, 240.3))))
        self.assertTrue(bench.is_equal_work(record(ours, side("A", 240.1, 240.3),
                                                   side("B", status="skipped"))))
        self.assertFalse(bench.is_equal_work(  # one was skipped for want of time
            record(ours, side("A", 240.1, 240.3), side("B", status="skipped"))
            | {"is_complete": False}))
        for others in ([], [side("A", 240.1)],
                       [side("A", 240.1, 240.3), side("B", status="failed")],
                       [side("A", 240.1, 240.3, status="different definition")]):
            self.assertFalse(bench.is_equal_work(record(ours, *others)), others)

    def test_other_work_has_no_numbers(self):
        done = record(side("vae", 240.0, 240.4),
                      side("A", 1.0, 1.1, status="different definition", why="kl"))
        self.assertNotIn("summary", done["sides"][1])
        self.assertIn("| A | different definition: kl |", equal_work.markdown(done))

    def test_whatever_is_said_is_one_row(self):
        done = record(side("vae", 240.0, 240.4), side("A"),
                      side("B", status="failed", why=" a | b\n\n  c "),
                      side("C", 240.1, 240.3, status="timed out", why="x|y"))
        text = equal_work.markdown(done)
        self.assertEqual(text.count("| A | no run |\n"), 2)
        self.assertEqual(text.count("| B | failed: a \\| b c |\n"), 2)
        self.assertEqual(text.count("| C (timed out: x\\|y) | "), 2)

    def test_ours_that_did_other_work_is_compared_with_nobody(self):
        done = record(side("vae", 240.0, 240.4, status="different work"), side("A", 240.1, 240.3))
        self.assertIsNone(done["sides"][1]["summary"]["against_ours"])
        self.assertIn("| not compared | 2 |", equal_work.markdown(done))
        self.assertFalse(bench.is_equal_work(done))

    def test_a_target_that_was_asked_for(self):
        done = record(side("vae", 240.0, 243.0), side("A", 250.0, 250.1), target=242.0)
        self.assertEqual(done["target"], 242.0)
        self.assertEqual(done["sides"][0]["summary"]["times_to_target"], [1.8, None])
        self.assertIn("1.800 (1 of 2)", equal_work.markdown(done))

    def test_nothing_was_measured(self):
        done = record(side("vae", status="failed", why="no dump"))
        self.assertIsNone(done["target"])
        self.assertIn("| vae | failed: no dump |", equal_work.markdown(done))


class Data(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def test_arrays(self):
        path = self.folder / "x"
        workload.write_idx(path, (2, 2, 3), bytes(range(12)))
        self.assertEqual(workload.read_array(path), ((2, 2, 3), bytearray(range(12))))
        path.write_bytes(gzip.compress(path.read_bytes()))
        self.assertEqual(workload.read_array(path), ((2, 2, 3), bytearray(range(12))))
        for wrong in (b"", b"text", b"\0\0\x08\x03\0\0", b"\0\0\x08\x02\0\0\0\2\0\0\0\2abc",
                      b"\x93NUMPY\1\0\4\0{(:}", b"\x93NUMPY"):
            path.write_bytes(wrong)
            with self.assertRaises(ValueError) as caught:
                workload.read_array(path)
            self.assertIn(str(path), str(caught.exception))

    def test_the_test_split_is_binarised_once(self):
        values = bytes(random.Random(3).randrange(256) for _ in range(40 * 25))
        workload.write_images(self.folder / "x.npy", (40, 5, 5, 1), values)
        paths, sizes = image_data.write_splits(f"{self.folder}/x.npy", self.folder, True)
        self.assertEqual(sizes, [36, 4])
        (shape, train), (test_shape, test) = map(workload.read_array, paths)
        self.assertEqual((shape, test_shape), ((36, 5, 5, 1), (4, 5, 5, 1)))
        self.assertEqual(train, values[:900])
        self.assertEqual(set(test), {0, 255})
        self.assertEqual(test, image_data.binarized(values[900:]))
        self.assertEqual(image_data.splits_of(f"mnist:{self.folder}")[1], ((4, 5, 5, 1), test))
        image_data.write_splits(f"{self.folder}/x.npy", self.folder, False)
        self.assertEqual(workload.read_array(paths[1])[1], values[900:])

    def test_binarising_keeps_the_mean(self):
        drawn = image_data.binarized(bytes([0, 51, 255]) * 10000)
        self.assertEqual((set(drawn[::3]), set(drawn[2::3])), ({0}, {255}))
        self.assertAlmostEqual(drawn[1::3].count(255) / 10000, 0.2, delta=0.02)


def this_python():
    """Has PyTorch, and is not asked for it each time."""
    return mock.patch.object(machine, "find_torch", return_value=sys.executable)


class Refusals(unittest.TestCase):
    def refused(self, *options):
        error = io.StringIO()
        with contextlib.redirect_stderr(error):
            try:
                status = bench.main(list(options))
            except SystemExit as ended:
                status = ended.code
        self.assertEqual(status, 2, error.getvalue())
        self.assertEqual(error.getvalue().count("\n"), 1, error.getvalue())
        self.assertTrue(error.getvalue().startswith("bench_elbo: "))
        return error.getvalue()

    def test_options(self):
        for options in (["--seeds", "0"], ["--epochs", "x"], ["--workload", "M"],
                        ["--budget", "-1"], ["--device", "cpu", "--precision", "tf32"],
                        ["--variants", "eager"], ["--out", "x.md"], ["--nothing"]):
            self.refused(*options)
        self.assertIn("there are eager, foreach Adam", self.refused(
            "--device", "cpu", "--variants", "eager, captured"))

    def test_no_gpu_and_no_programs(self):
        with mock.patch.object(machine, "find_folder", return_value=None):
            self.assertIn("vae_step_bench are not there", self.refused())
        with mock.patch.object(machine, "find_folder", return_value=ROOT), \
                mock.patch.object(machine, "has_gpu", return_value=False):
            self.assertIn("no NVIDIA GPU", self.refused())
            self.assertIn("/bin/false has no PyTorch",
                          self.refused("--device", "cpu", "--python", "/bin/false"))

    @unittest.skipIf(PROGRAMS is None or not HAS_TORCH, "needs the programs and PyTorch")
    def test_data_and_settings(self):
        usual = ["--device", "cpu", "--bin", str(PROGRAMS)]
        with this_python():
            self.assertIn("No such file", self.refused(*usual, "--data", "/nowhere/x.npy"))
            self.assertIn("neither an .npy nor", self.refused(*usual, "--data", __file__))
            self.assertIn("no train-images", self.refused(*usual, "--data", "mnist:/"))
            self.assertIn("sets train.seed itself", self.refused(*usual, "--set", "train.seed=3"))
            for wrong, said in (("train.foo=3", "unknown setting train.foo"),
                                ("train.batch=x", "must be an integer"),
                                ("nonsense", "want key=value")):
                self.assertIn(said, self.refused(*usual, "--set", "train.ema=0.5", "--set", wrong))
            with mock.patch.dict("os.environ", VAE_DATA="/nowhere"):
                self.assertIn("VAE_DATA", self.refused(*usual))


PLANTED = {
    "another learning rate": """
        class Other(workload.Workload):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                self.learning_rate /= 10
        workload.Workload = Other""",
    "another loss": """
        class Other(workload.Workload):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                self.beta *= 1.1
        workload.Workload = Other""",
    "another definition": """
        import torch
        import pytorch_network
        terms = pytorch_network.Network.terms
        pytorch_network.Network.terms = lambda *of: terms(*of) * torch.tensor([[1.0], [1.01]])""",
}


@unittest.skipIf(PROGRAMS is None or not HAS_TORCH, "needs the programs and PyTorch")
class OnTheCpu(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        draw = random.Random(7)
        images = bytearray()
        for _ in range(660):  # a bright row or column, so that there is something to learn
            at, is_row = draw.randrange(8), draw.random() < 0.5
            images += bytes(draw.randrange(200, 256) if at == (i // 8 if is_row else i % 8)
                            else draw.randrange(56) for i in range(64))
        workload.write_images(self.folder / "x.npy", (660, 8, 8, 1), images)

    def measure(self, *options, planted=None):
        """(exit status, the record)."""
        patch = contextlib.nullcontext()
        if planted is not None:
            (self.folder / "pytorch.py").write_text(
                f"import runpy, sys\nsys.path.insert(0, {str(peers.PEERS)!r})\nimport workload\n"
                + textwrap.dedent(PLANTED[planted]).lstrip()
                + f"\nrunpy.run_path({str(peers.PEERS / 'pytorch.py')!r}, run_name='__main__')\n")
            patch = mock.patch.object(peers, "PEERS", self.folder)
        out = self.folder / "record.json"
        with patch, this_python(), contextlib.redirect_stderr(io.StringIO()), \
                contextlib.redirect_stdout(io.StringIO()):
            status = bench.main([
                "--device", "cpu", "--bin", str(PROGRAMS), "--data", str(self.folder / "x.npy"),
                "--trial", "0", "--threads", "1", "--seeds", "3", "--epochs", "4",
                "--set", "train.batch=32", "--out", str(out), *options])
        self.assertTrue(out.with_suffix(".md").exists())
        return status, json.loads(out.read_text())

    def test_equal_work_is_equal(self):
        status, done = self.measure()
        ours, theirs = done["sides"]
        self.assertEqual((ours["status"], theirs["status"]), ("ok", "ok"), theirs["why"])
        self.assertTrue(done["is_complete"])
        self.assertEqual(done["steps_per_epoch"], 19)  # 594 examples: the last batch has 18
        for one in (ours, theirs):
            self.assertEqual([run["seed"] for run in one["runs"]], [1, 2, 3])
            for run in one["runs"]:
                self.assertEqual((run["steps"], run["examples"]), (76, 66))
                self.assertEqual(sorted(run["seconds"]), run["seconds"])
                self.assertLess(run["elbo"][-1], run["elbo"][0])
        # The statement itself may fail by chance; the means are far closer than those below.
        against = theirs["summary"]["against_ours"]
        self.assertLess(abs(against["elbo"]["difference"]), 0.3)
        self.assertEqual(status, 0 if equal_work.is_equal(against) else 1)
        # Each pair began alike.
        self.assertNotEqual(ours["runs"][0]["elbo"], ours["runs"][1]["elbo"])

    def test_binarised_and_importance_weighted(self):
        _, done = self.measure("--workload", "I50", "--set", "objective.samples=5", "--seeds", "1",
                               "--set", "model.encoder_hidden=16", "--epochs", "2")
        self.assertEqual([one["status"] for one in done["sides"]], ["ok", "ok"], done["sides"])
        self.assertIsNone(done["sides"][1]["summary"]["against_ours"])

    def test_another_learning_rate_is_not_equal(self):
        status, done = self.measure(planted="another learning rate")
        against = done["sides"][1]["summary"]["against_ours"]
        self.assertEqual((status, done["sides"][1]["status"]), (1, "ok"))
        self.assertGreater(against["elbo"]["difference"], 0.3)
        self.assertIn("NOT EQUAL: −elbo", (self.folder / "record.md").read_text())

    def test_another_loss_or_definition_is_other_work(self):
        for planted, said in (("another loss", "different loss"),
                              ("another definition", "different definition")):
            status, done = self.measure("--seeds", "1", planted=planted)
            self.assertEqual((status, done["sides"][1]["status"]), (1, said))
            self.assertNotIn("summary", done["sides"][1])

    def test_what_has_no_time_is_not_begun(self):
        status, done = self.measure("--budget", "0.1", "--limit", "100")
        self.assertEqual(status, 1)
        self.assertFalse(done["is_complete"])
        status, done = self.measure("--limit", "0.2")
        self.assertFalse(done["is_complete"])
        self.assertIn("timed out", [one["status"] for one in done["sides"]])


if __name__ == "__main__":
    unittest.main()
