#!/usr/bin/env python3
"""Each tidy check finds an offence that is planted for it, and accepts a clean file."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import source  # noqa: E402
import tidy  # noqa: E402

CLEAN = "#pragma once\n\nnamespace troupe {\n\nint answer();\n\n} // namespace troupe\n"


class Planted(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        house = pathlib.Path(__file__).resolve().parents[2]
        (self.root / ".clang-format").write_text((house / ".clang-format").read_text())
        self.put("base/README.md", "base\n")
        self.put("base/include/troupe/base/clean.hpp", CLEAN)

    def tearDown(self):
        self.folder.cleanup()

    def put(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def offences(self, check):
        return tidy.CHECKS[check](self.root)

    def test_a_clean_tree_passes_every_check(self):
        for name in tidy.CHECKS:
            self.assertEqual(self.offences(name), [], name)

    def test_an_include_to_the_right_is_found(self):
        self.put("actors/node/node.hpp", CLEAN)
        self.put("engine/kv/pool.cpp", '#include "actors/node/node.hpp"\n')
        self.assertIn("engine/kv may not include", self.offences("layers")[0])

    def test_a_public_header_to_the_right_is_found(self):
        self.put("base/log.cpp", '#include "troupe/config/load.hpp"\n')
        self.assertEqual(len(self.offences("layers")), 1)

    def test_a_sibling_of_the_same_layer_is_found(self):
        self.put("kernels/cpu/ops.hpp", CLEAN)
        self.put("config/load.cpp", '#include "kernels/cpu/ops.hpp"\n')
        self.assertEqual(len(self.offences("layers")), 1)

    def test_a_third_party_header_in_the_wrong_room_is_found(self):
        for header in ("caf/all.hpp", "boost/asio.hpp", "ucp/api/ucp.h", "thread", "cuda_runtime.h"):
            self.put("engine/sched/scheduler.cpp", f"#include <{header}>\n")
            self.assertEqual(len(self.offences("layers")), 1, header)

    def test_a_file_without_a_layer_is_found(self):
        self.put("attic/old.cpp", "int x;\n")
        self.assertEqual(len(self.offences("layers")), 1)

    def test_a_long_file_is_found(self):
        self.put("base/long.cpp", "int x;\n" * 401)
        self.assertIn("401 lines", self.offences("limits")[0])

    def test_a_long_function_is_found(self):
        body = "  ++x;\n" * 80
        self.put("base/f.cpp", f"namespace a {{\nint f(int x) {{\n{body}  return x;\n}}\n}}\n")
        self.assertIn("limit 70", self.offences("limits")[0])

    def test_a_function_with_six_parameters_is_found(self):
        self.put("base/f.cpp", "int f(int a, int b, int c, int d, int e, int g) {\n  return a;\n}\n")
        self.assertIn("6 parameters", self.offences("limits")[0])

    def test_commas_of_a_template_argument_are_no_parameters(self):
        self.put("base/f.cpp", "int f(map<int, map<int, int>> a, pair<int, int> b, int c) { return c; }\n")
        self.assertEqual(self.offences("limits"), [])

    def test_deep_nesting_is_found(self):
        self.put("base/f.cpp", "int f(int a) {\n for (;;) { if (a) { while (a) { if (a) { ++a; } } } }\n"
                               " return a;\n}\n")
        self.assertIn("nesting 4", self.offences("limits")[0])

    def test_bad_formatting_is_found(self):
        self.put("base/f.cpp", "int   f( int a ){return a ;}\n")
        self.assertNotEqual(self.offences("format"), [])

    def test_an_unfinished_mark_is_found(self):
        self.put("base/f.cpp", "// TO" "DO: the rest\n")
        self.assertEqual(len(self.offences("marks")), 1)

    def test_a_folder_without_a_readme_is_found(self):
        self.put("kernels/cpu/ops.cpp", "int x;\n")
        self.assertEqual(len(self.offences("readmes")), 1)

    def test_getenv_outside_config_is_found(self):
        self.put("base/f.cpp", 'auto* x = std::getenv("HOME");\n')
        self.assertEqual(len(self.offences("getenv")), 1)

    def test_a_public_header_that_needs_another_is_found(self):
        self.put("base/include/troupe/base/bad.hpp", "#pragma once\nstd::string f();\n")
        self.assertIn("does not compile alone", self.offences("headers")[0])

    def test_strings_and_comments_do_not_confuse_the_reader(self):
        text = 'int f() { // } }\n  const char* s = "{{{"; char c = \'{\';\n  return 0;\n}\nint g(int a) { return a; }\n'
        self.assertEqual([f.parameters() for f in source.functions(text)], [0, 1])


if __name__ == "__main__":
    unittest.main()
