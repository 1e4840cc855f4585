"""In-tree build backend: setuptools' own, with a `build_ext` that

- writes the cffi glue of `sandbox._native` and of `gateway._native` from the marked lines of their headers in include/,
- compiles the vendored nghttp2 into the latter,
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
VENDOR = NATIVE / "vendor" / "nghttp2"
FOLDERS = {"sandbox._native": "src", "gateway._native": "door", "sandbox.guests.python._native": "guest"}
VENDOR_MACROS = [
    *("NGHTTP2_STATICLIB", "HAVE_ARPA_INET_H", "HAVE_NETINET_IN_H"),
    *("HAVE_CLOCK_GETTIME", "HAVE_DECL_CLOCK_MONOTONIC"),
]
# Through cffi: the headers whose marked parts are what Python sees, in this order.
HEADERS = {
    "sandbox._native": [NATIVE / "include" / "sandbox_native.h"],
    "gateway._native": [NATIVE / "include" / "fast_path.h", NATIVE / "include" / "http2.h"],
}
WARNINGS = [
    *("-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes"),
    *("-Wformat=2", "-Wswitch-enum", "-Wvla"),
]
HARDENING = ["-O2", "-D_FORTIFY_SOURCE=3", "-fstack-protector-strong", "-fstack-clash-protection"]
LINK_HARDENING = ["-Wl,-z,relro,-z,now,-z,noexecstack"]
LANGUAGE = ["-std=gnu11", "-D_GNU_SOURCE", "-fvisibility=hidden"]


def public_declarations(header: Path) -> str:
    """The part of the header that is also the cffi cdef."""
    _, _, rest = header.read_text().partition("/* cdef begin */")
    declarations, end, _ = rest.partition("/* cdef end */")
    if not end:
        raise SystemExit(f"forklight: {header}: the cdef markers are missing")
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
            headers = HEADERS.get(extension.name, [])
            extension.sources = [_relative(source) for source in sorted(folder.glob("*.c"))]
            extension.depends = [
                _relative(header) for header in [*folder.glob("*.h"), *headers, Path(__file__)]
            ]
            if headers:
                self._add_glue(extension, headers)
            if extension.name == "gateway._native":
                extension.extra_objects = self._vendored()
        super().build_extensions()

    def _vendored(self) -> list[str]:
        """nghttp2's objects, compiled as its authors do: its warnings are not ours to answer."""
        folder = Path(self.build_temp).absolute()
        objects = self.compiler.compile(
            [_relative(source) for source in sorted(VENDOR.glob("*.c"))],
            output_dir=str(folder),
            include_dirs=[str(VENDOR)],
            macros=[(name, "1") for name in VENDOR_MACROS],
            extra_preargs=["-std=gnu11", "-D_GNU_SOURCE", "-fvisibility=hidden", *HARDENING],
            depends=[_relative(header) for header in VENDOR.glob("*.h")],
        )
        return list(objects)

    def _add_glue(self, extension: Extension, headers: list[Path]) -> None:
        ffi = cffi.FFI()
        for header in headers:
            ffi.cdef(public_declarations(header))
        ffi.set_source(extension.name, "".join(f'#include "{header.name}"\n' for header in headers))
        folder = Path(self.build_temp).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        glue = folder / f"{extension.name.partition('.')[0]}_glue.c"
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
