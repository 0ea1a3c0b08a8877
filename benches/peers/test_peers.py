"""Tests of the comparison itself, with contenders made up: `python3 -m unittest discover -s benches/peers`."""

import array
import os
import pathlib
import sys
import tempfile
import unittest
import xml.etree.ElementTree

import measure
import report

# Speaks the protocol; takes MS milliseconds a run, gives the floats named last, and prints a line of its own.
FAKE = """
import array, sys
ms, floats = float(sys.argv[1]), list(map(float, sys.argv[2].split(",")))
print("some runtime says hello")
print("ready 2000000 1000000", flush=True)
for line in sys.stdin:
    words = line.split()
    if words[0] == "run":
        print(*[int(ms * 1e6)] * int(words[2]), flush=True)
    else:
        open(words[1], "wb").write(array.array("f", floats).tobytes())
        print("done", flush=True)
"""


def fake(ms, floats="1,2,3"):
    return [sys.executable, "-c", FAKE, str(ms), floats]


class Turns(unittest.TestCase):
    def run_fakes(self, commands):
        with tempfile.TemporaryDirectory() as folder:
            return measure.interleaved(commands, "ref f32", 4, 10, dict(os.environ), pathlib.Path(folder))

    def test_each_is_timed_and_what_fails_is_out(self):
        wrong = fake(1, "3,-2,1")
        results = self.run_fakes({
            "ref f32": fake(8),
            "daq": fake(4),
            "close": fake(2.5, "1.1,2,2.9"),
            "wrong": wrong,
            "broken": [sys.executable, "-c", "raise SystemExit('no such model')"],
        })
        self.assertEqual((results["daq"].min, results["daq"].median), (4, 4))
        self.assertEqual(results["close"].min, 2.5)
        self.assertEqual((results["daq"].load, results["daq"].first), (2, 1))
        self.assertEqual(results["wrong"].error, "its output is not the model's: cosine 0.14")
        self.assertEqual(results["broken"].error, "no such model")

    def test_far_slower_ones_take_fewer_turns(self):
        results = self.run_fakes({"ref f32": fake(1), "daq": fake(1), "slow": fake(50)})
        self.assertLess(results["slow"].turns, results["daq"].turns)

    def test_disturbed_turns_count_only_where_someone_had_no_quiet_ones(self):
        times = measure.Times()
        for runs, quiet in (([9.0], False), ([3.0], True), ([1.0, 8.0, 9.0], False)):
            times.add(runs, quiet)
        self.assertFalse(times.enough_quiet)
        times.add([4.0], True)
        self.assertTrue(times.enough_quiet)
        self.assertEqual((times.min, times.median), (1, 3.5))
        times.only_quiet = False
        self.assertEqual((times.min, times.median), (1, 6))

    def test_memory_of_a_process_is_its_own(self):
        big = bytearray(200 << 20)  # resident in this process, not in the child
        child = [sys.executable, "-S", "-c", "x = b'x' * (50 << 20)"]
        results = measure.cold({"ok": child, "fails": [sys.executable, "-c", "exit(3)"]}, 2, dict(os.environ))
        self.assertTrue(50 < results["ok"]["mib"] < 150, results)
        self.assertIsNone(results["fails"])
        del big

    def test_a_fresh_process_says_what_loading_took(self):
        results = measure.cold({"fake": fake(1)}, 2, dict(os.environ))
        self.assertEqual((results["fake"]["load"], results["fake"]["first"]), (2, 1))
        self.assertGreaterEqual(results["fake"]["median"], results["fake"]["min"])

    def test_cosine(self):
        with tempfile.TemporaryDirectory() as folder:
            a, b = pathlib.Path(folder, "a"), pathlib.Path(folder, "b")
            a.write_bytes(array.array("f", [3, 4]).tobytes())
            b.write_bytes(array.array("f", [4, 3]).tobytes())
            self.assertAlmostEqual(measure.cosine(a, b), 0.96)
            b.write_bytes(array.array("f", [1]).tobytes())
            self.assertEqual(measure.cosine(a, b), 0)


class Page(unittest.TestCase):
    def results(self):
        def times(low, median):
            return {"min": low, "median": median, "load": 1.0, "first": 2.0, "runs": 9, "turns": 3, "quiet": 3}

        measured = {"daq": times(2.0, 3.0), "onnxruntime f32": times(4.0, 4.5),
                    "A int8": times(1.0, 4.0), "B int8": times(1.6, 2.0)}
        return {"date": "2026-01-01", "isa": None, "machine": {"cpu": "X", "cpus": 2, "flags": ["avx2"]},
                "versions": {"daq": "0.1.0"},
                "models": {"net": {"times": {"1": measured}, "errors": {"C int8": "no"}, "cold": {
                    "daq": {"min": 10.0, "median": 20.0, "mib": 7.0},
                    "daq in a process": {"min": 9.0, "median": 9.0, "mib": 6.0, "load": 1.0, "first": 2.0}}}}}

    def test_ratios_are_to_the_best_of_each_kind(self):
        page = report.markdown(self.results())
        self.assertIn("| net | 1 | 2.00 / 3.00 | 1.00 / 2.00 (A int8 / B int8) | 2.00 / 1.50 | 4.00 / 4.50 | 2.00 / 1.50 |", page)
        self.assertIn("- C int8 on net: no.", page)
        self.assertIn("| net | daq | 1.0 | 2.0 | 10 | 20 | 7 |", page)

    def test_under_an_isa_the_best_is_one_that_it_holds(self):
        times = {"daq": {"min": 2}, "onnxruntime QDQ": {"min": 1}, "OpenVINO A": {"min": 3}, "OpenVINO B": {"min": 4}}
        self.assertEqual(report.best(times, "min"), "onnxruntime QDQ")
        self.assertEqual(report.best(times, "min", "avx2"), "OpenVINO A")

    def test_the_chart_is_xml_and_to_scale(self):
        svg = xml.etree.ElementTree.fromstring(report.chart(self.results()))
        bars = [r for r in svg.iter("{http://www.w3.org/2000/svg}rect") if r.get("height") == "14"]
        ours, theirs = (float(r.get("width")) for r in bars)
        self.assertAlmostEqual(theirs / ours, 2.0, places=2)


if __name__ == "__main__":
    unittest.main()
