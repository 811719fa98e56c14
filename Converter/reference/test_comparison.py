"""The comparator must fail what is wrong. Run: python -m unittest test_comparison"""
import math
import os
import tempfile
import unittest

import numpy as np

import comparison


class ComparisonTests(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.reference, self.found = (os.path.join(self.folder.name, name) for name in ("reference", "found"))
        random = np.random.default_rng(0)
        self.stages = {
            "fbank": random.normal(size=(20, 4)).astype(np.float32),
            "token_ids": np.arange(77),
            "noise": random.normal(size=(4, 2, 3)).astype(np.float32),
            "audio_features": random.normal(size=(6, 9)).astype(np.float32),
            "audio_token": random.normal(size=8).astype(np.float32),
            "prompt_embeddings": random.normal(size=(77, 8)).astype(np.float32),
            "eps_first": random.normal(size=(2, 4, 2, 3)).astype(np.float32),
            "image": random.uniform(size=(16, 24, 3)).astype(np.float32),
        }
        for folder in (self.reference, self.found):
            os.makedirs(folder)
            for name, array in self.stages.items():
                np.save(os.path.join(folder, name), array)

    def tearDown(self):
        self.folder.cleanup()

    def change(self, name, array):
        np.save(os.path.join(self.found, name), array)

    def failed(self, weights="f32", size="tiny"):
        rows = comparison.compare(self.reference, self.found, comparison.limits(weights, size))
        self.assertEqual(len(rows), len(self.stages))
        return [row[0] for row in rows if not row[4]]

    def test_equal_runs_pass(self):
        self.assertEqual(self.failed(), [])
        self.assertEqual(self.failed("int8", "small"), [])

    def test_every_stage_fails_when_wrong(self):
        for name, array in self.stages.items():
            with self.subTest(name):
                self.change(name, array[::-1])
                self.assertEqual(self.failed("int8"), [name])
                self.change(name, array)

    def test_one_value_that_is_not_finite_fails(self):
        for value in (math.nan, math.inf):
            for name, array in self.stages.items():
                if name == "token_ids":
                    continue
                changed = array.copy()
                changed.flat[3] = value
                self.change(name, changed)
                self.assertEqual(self.failed("int8"), [name])
                self.change(name, array)

    def test_missing_and_misshapen_stages_fail(self):
        os.remove(os.path.join(self.found, "noise.npy"))
        self.change("eps_first", self.stages["eps_first"][:1])
        self.change("image", self.stages["image"].transpose(2, 0, 1))
        self.assertEqual(self.failed(), ["noise", "eps_first", "image"])

    def test_one_different_token_fails(self):
        tokens = self.stages["token_ids"].copy()
        tokens[4] += 1
        self.change("token_ids", tokens)
        self.assertEqual(self.failed(), ["token_ids"])

    def test_errors_just_above_a_limit_fail_and_just_below_pass(self):
        scale = {"audio_features": 1e-3, "audio_token": 1e-3, "prompt_embeddings": 1e-3, "eps_first": 1e-3}
        for name, limit in scale.items():
            for factor, expected in ((1.05, [name]), (0.95, [])):
                self.change(name, (self.stages[name].astype(np.float64) * (1 + factor * limit)))
                self.assertEqual(self.failed(), expected)
            self.change(name, self.stages[name])
        for factor, expected in ((1.05, ["image"]), (0.95, [])):
            self.change("image", self.stages["image"].astype(np.float64) + factor * 1e-3)
            self.assertEqual(self.failed(), expected)

    def test_the_limit_of_noise_predictions_depends_on_the_size(self):
        self.change("eps_first", self.stages["eps_first"].astype(np.float64) * 1.035)
        self.assertEqual(self.failed("int8", "tiny"), [])
        self.assertEqual(self.failed("int8", "small"), ["eps_first"])


if __name__ == "__main__":
    unittest.main()
