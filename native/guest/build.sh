#!/bin/sh
# Compiles the guest's extension in place without the package build: for work on native/guest alone.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
include=$("${PYTHON:-python3}" -c 'import sysconfig; print(sysconfig.get_path("include"))')
exec "${CC:-cc}" -std=gnu11 -D_GNU_SOURCE -DPy_LIMITED_API=0x030B0000 -O2 -fPIC -shared -fvisibility=hidden \
    -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wvla \
    -D_FORTIFY_SOURCE=2 -fstack-protector-strong -Wl,-z,relro,-z,now,-z,noexecstack \
    -I"$include" "$here"/*.c -o "$here/../../sandbox/guests/python/_native.abi3.so"
