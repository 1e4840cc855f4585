"""In-tree build backend: setuptools' own, with a `build_ext` that

- writes the cffi glue of `sandbox._native` from the marked lines of include/sandbox_native.h,
- compiles the static program `sandbox/bin/forklight-init`, the first process of every sandbox,
- says in one line what the machine lacks when it cannot compile.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path

import cffi
from setuptools import Extension
from setuptools.build_meta import *  # noqa: F403 - a build backend is this module's names
from setuptools.command.build_ext import build_ext as setuptools_build_ext

NATIVE = Path(__file__).resolve().parent
HEADER = NATIVE / "include" / "sandbox_native.h"
FOLDERS = {"sandbox._native": "src", "sandbox.guests.python._native": "guest"}
WARNINGS = [
    *("-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes"),
    *("-Wformat=2", "-Wswitch-enum", "-Wvla"),
]
HARDENING = ["-O2", "-D_FORTIFY_SOURCE=3", "-fstack-protector-strong", "-fstack-clash-protection"]
LINK_HARDENING = ["-Wl,-z,relro,-z,now,-z,noexecstack"]
LANGUAGE = ["-std=gnu11", "-D_GNU_SOURCE", "-fvisibility=hidden"]


def public_declarations() -> str:
    """The part of the header that is also the cffi cdef."""
    _, _, rest = HEADER.read_text().partition("/* cdef begin */")
    declarations, end, _ = rest.partition("/* cdef end */")
    if not end:
        raise SystemExit(f"forklight: {HEADER}: the cdef markers are missing")
    return declarations


def require_compiler(compiler: list[str], include: str) -> None:
    """End the build with one sentence when there is no compiler, no static C library or no Python.h."""
    probes = (
        ("", [], "no working C compiler (" + shlex.join(compiler) + "): sudo apt-get install gcc libc6-dev"),
        ("", ["-static"], "no static C library: sudo apt-get install libc6-dev"),
        (
            "#include <Python.h>\n",
            ["-I", include],
            f"no Python.h in {include}: sudo apt-get install python3-dev",
        ),
    )
    for source, flags, complaint in probes:
        command = [*compiler, *flags, "-x", "c", "-", "-o", "/dev/null"]
        program = source + "int main(void) { return 0; }\n"
        try:
            answer = subprocess.run(command, input=program, text=True, capture_output=True, check=False)
        except OSError:
            raise SystemExit(f"forklight: {complaint}") from None
        if answer.returncode:
            raise SystemExit(f"forklight: {complaint}")


class build_ext(setuptools_build_ext):
    def run(self) -> None:
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        require_compiler(compiler, sysconfig.get_path("include"))
        super().run()
        # Only here does `inplace` hold the truth: setuptools clears it while extensions are built.
        self._build_init(compiler)

    def build_extensions(self) -> None:
        for extension in self.extensions:
            extension.extra_compile_args = [*LANGUAGE, *WARNINGS, *HARDENING, *extension.extra_compile_args]
            extension.extra_link_args = [*LINK_HARDENING, *extension.extra_link_args]
            folder = NATIVE / FOLDERS[extension.name]
            extension.sources = [_relative(source) for source in sorted(folder.glob("*.c"))]
            extension.depends = [
                _relative(header) for header in [*folder.glob("*.h"), HEADER, Path(__file__)]
            ]
            if extension.name == "sandbox._native":
                self._add_glue(extension)
        super().build_extensions()

    def _add_glue(self, extension: Extension) -> None:
        ffi = cffi.FFI()
        ffi.cdef(public_declarations())
        ffi.set_source(extension.name, '#include "sandbox_native.h"\n')
        folder = Path(self.build_temp).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        glue = folder / "native_glue.c"
        ffi.emit_c_code(str(glue))
        extension.sources.append(str(glue))

    def _build_init(self, compiler: list[str]) -> None:
        program = self._init_path()
        program.parent.mkdir(parents=True, exist_ok=True)
        sources = [str(source) for source in sorted((NATIVE / "init").glob("*.c"))]
        sources.append(str(NATIVE / "src" / "error.c"))
        includes = ["-I", str(NATIVE / "include"), "-I", str(NATIVE / "src")]
        unfinished = program.with_suffix(".new")
        flags = [*LANGUAGE, *WARNINGS, *HARDENING, "-ffunction-sections", "-fdata-sections"]
        link = [*LINK_HARDENING, "-static", "-Wl,--gc-sections", "-s"]
        command = [*compiler, *flags, *includes, *sources, *link, "-o", str(unfinished)]
        self.announce("building forklight-init")
        if subprocess.run(command, check=False).returncode:
            raise SystemExit("forklight: the compiler could not build forklight-init (messages above)")
        # A running supervisor keeps executing the old file; writing into it would be refused (ETXTBSY).
        unfinished.replace(program)

    def _init_path(self) -> Path:
        base = NATIVE.parent if self.inplace else Path(self.build_lib)
        return base / "sandbox" / "bin" / "forklight-init"

    def get_outputs(self) -> list[str]:
        return [*super().get_outputs(), str(self._init_path())]


def _relative(path: Path) -> str:
    """setuptools wants sources relative to the project."""
    return str(path.relative_to(NATIVE.parent))
