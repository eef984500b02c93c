"""Compile winograd.cpp while the package is built: on Linux, for x86, if there is a C++ compiler.

Without one, the package works in the same way, but trains more slowly. The library needs no headers
of Python or PyTorch, so it fits every version of them.
"""

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("src", "hundredfold", "native", "winograd.cpp")
LIBRARY = SOURCE.with_name("libwinograd.so")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp", "-Wno-psabi")


class CompileWinograd(BuildHookInterface):  # type: ignore[type-arg]
    """Put the compiled library beside its source, for wheels and for editable installations."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one for this platform."""
        if sysconfig.get_platform() != "linux-x86_64":
            return
        source = Path(self.root, SOURCE)
        library = Path(self.root, LIBRARY)
        library.unlink(missing_ok=True)
        compiler = shlex.split(os.environ.get("CXX", "c++"))
        try:
            subprocess.run([*compiler, *FLAGS, "-o", str(library), str(source)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"{SOURCE} is not compiled, so training is slower: {error}")
            return
        build_data["tag"] = "py3-none-linux_x86_64"
        build_data["pure_python"] = False
        build_data["artifacts"].append(str(LIBRARY))
