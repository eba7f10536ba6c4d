"""Every flag and error that libnbd can see, against a server whose NBD socket is the argument.

It serves `disk` (1 MiB, writable), `fixed` (the same, read-only), and has a directory `folder`."""

import errno
import socket
import sys

import nbd


def connection(name, structured=True, contexts=(nbd.CONTEXT_BASE_ALLOCATION, "x-umbra:sharing")):
    handle = nbd.NBD()
    handle.set_request_structured_replies(structured)
    handle.set_export_name(name)
    # What is wrong on purpose must reach the server.
    handle.set_strict_mode(0)
    if structured:
        for context in contexts:
            handle.add_meta_context(context)
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    plain.connect(sys.argv[1])
    handle.connect_socket(plain.detach())
    return handle


def fails(expected, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except nbd.Error as error:
        assert error.errnum == expected, (error.errno, error.string, arguments)
    else:
        raise AssertionError((errno.errorcode[expected], call, arguments))


SIZE = 1 << 20

for structured in (True, False):
    disk = connection("disk", structured)
    assert disk.get_size() == SIZE and disk.get_protocol() == "newstyle-fixed"
    assert disk.get_structured_replies_negotiated() == structured
    assert not disk.is_read_only() and not disk.is_rotational()
    for can in (
        disk.can_flush,
        disk.can_fua,
        disk.can_trim,
        disk.can_zero,
        disk.can_fast_zero,
        disk.can_multi_conn,
        disk.can_cache,
    ):
        assert can(), can
    assert disk.can_df() == structured
    assert disk.get_block_size(nbd.SIZE_MINIMUM) == 1
    assert disk.get_block_size(nbd.SIZE_PREFERRED) == 4096
    assert disk.get_block_size(nbd.SIZE_MAXIMUM) == 32 << 20

    # Every command, with its flags.
    disk.pwrite(b"a" * 10000, 5, nbd.CMD_FLAG_FUA)
    assert disk.pread(10002, 4) == b"\0" + b"a" * 10000 + b"\0"
    if structured:
        pieces = []
        disk.pread_structured(
            20000, 0, lambda data, offset, status, error: pieces.append((offset, len(data)))
        )
        assert sum(size for _, size in pieces) >= 10000, pieces
        whole = []
        disk.pread_structured(
            20000,
            0,
            lambda data, offset, status, error: whole.append((offset, len(data))),
            nbd.CMD_FLAG_DF,
        )
        assert whole == [(0, 20000)], whole
    disk.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE)
    disk.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_FUA)
    assert disk.pread(8192, 0) == bytes(8192)
    disk.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
    disk.trim(8192, 0, nbd.CMD_FLAG_FUA)
    disk.cache(65536, 0)
    disk.flush()
    if structured:
        seen = {}

        def status(context, offset, entries, error):
            seen.setdefault(context, []).extend(entries)

        disk.block_status(SIZE, 0, status)
        assert set(seen) == {"base:allocation", "x-umbra:sharing"}, seen
        assert sum(seen["base:allocation"][::2]) == SIZE, seen
        one = {}
        disk.block_status(
            SIZE,
            0,
            lambda name, offset, entries, error: one.update({name: entries}),
            nbd.CMD_FLAG_REQ_ONE,
        )
        assert all(len(entries) == 2 for entries in one.values()), one

    # Errors, and the connection goes on.
    fails(errno.EINVAL, disk.pread, 2, SIZE - 1)
    fails(errno.ENOSPC, disk.pwrite, b"xx", SIZE - 1)
    fails(errno.EINVAL, disk.trim, 2, SIZE - 1)
    fails(errno.ENOSPC, disk.zero, 2, SIZE - 1)
    fails(errno.EINVAL, disk.flush, 1 << 10)
    fails(errno.EINVAL, disk.pread, 512, 0, 1 << 10)
    assert disk.pread(1, 0) == b"\0"

    # Many at once, answered in whatever order, each right.
    buffers = [bytes([i]) * 512 for i in range(200)]
    cookies = [
        disk.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), 65536 + i * 512)
        for i, data in enumerate(buffers)
    ]
    while cookies:
        disk.poll(-1)
        cookies = [cookie for cookie in cookies if not disk.aio_command_completed(cookie)]
    assert disk.pread(200 * 512, 65536) == b"".join(buffers)

    # All connections see one disk, and a flush covers all.
    other = connection("disk", structured)
    disk.pwrite(b"seen", 300000)
    assert other.pread(4, 300000) == b"seen"
    other.flush()
    other.shutdown()
    disk.shutdown()

fixed = connection("fixed")
assert fixed.is_read_only()
assert fixed.pread(4, 300000) == b"seen"
fails(errno.EPERM, fixed.pwrite, b"x", 0)
fails(errno.EPERM, fixed.trim, 4096, 0)
fails(errno.EPERM, fixed.zero, 4096, 0)
fixed.shutdown()

# Names that nothing is served under.
for name in ("nothing", "nvdimm:7"):
    fails(errno.ENOENT, connection, name)
try:
    connection("folder")
except nbd.Error as error:
    assert "policy" in error.string, error.string
else:
    raise AssertionError("a directory is served")

# A connection that chooses only after it has looked.
handle = nbd.NBD()
handle.set_opt_mode(True)
plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
plain.connect(sys.argv[1])
handle.connect_socket(plain.detach())
names = []
handle.opt_list(lambda name, description: names.append(name))
assert sorted(names) == ["disk", "fixed"], names
handle.set_export_name("disk")
handle.opt_info()
assert handle.get_size() == SIZE
contexts = []
handle.opt_list_meta_context(contexts.append)
assert "base:allocation" in contexts, contexts
handle.opt_go()
assert handle.pread(4, 300000) == b"seen"
handle.shutdown()

# TLS is not there, and is refused as the specification has it.
handle = nbd.NBD()
if handle.supports_tls():
    handle.set_tls(nbd.TLS_REQUIRE)
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    plain.connect(sys.argv[1])
    try:
        handle.connect_socket(plain.detach())
    except nbd.Error:
        pass
    else:
        raise AssertionError("TLS was accepted")

print("all seen")
