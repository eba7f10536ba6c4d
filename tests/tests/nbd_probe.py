"""What an NBD server answers to all that the specification has, and to some things that it has not.

Prints JSON: a question's name, and the answer.

    nbd_probe.py SOCKET EXPORT SOCKET-OF-A-READ-ONLY-ONE EXPORT

The export has 64 MiB: at least 1 MiB of data, then a hole, and at least another 1 MiB of data at 32
MiB. It is written to. Each question that could leave a connection in disorder has one of its own.
No client of NBD is used: they refuse to ask for what is wrong.
"""

import json
import socket
import struct
import sys

OPTIONS = {
    1: "EXPORT_NAME",
    2: "ABORT",
    3: "LIST",
    4: "PEEK_EXPORT",
    5: "STARTTLS",
    6: "INFO",
    7: "GO",
    8: "STRUCTURED_REPLY",
    9: "LIST_META_CONTEXT",
    10: "SET_META_CONTEXT",
    11: "EXTENDED_HEADERS",
}
REPLIES = {1: "ACK", 2: "SERVER", 3: "INFO", 4: "META_CONTEXT"}
REFUSALS = {
    1: "ERR_UNSUP",
    2: "ERR_POLICY",
    3: "ERR_INVALID",
    4: "ERR_PLATFORM",
    5: "ERR_TLS_REQD",
    6: "ERR_UNKNOWN",
    7: "ERR_SHUTDOWN",
    8: "ERR_BLOCK_SIZE_REQD",
    9: "ERR_TOO_BIG",
    10: "ERR_EXT_HEADER_REQD",
}
INFOS = {0: "EXPORT", 1: "NAME", 2: "DESCRIPTION", 3: "BLOCK_SIZE"}
FLAGS = [
    "HAS_FLAGS",
    "READ_ONLY",
    "SEND_FLUSH",
    "SEND_FUA",
    "ROTATIONAL",
    "SEND_TRIM",
    "SEND_WRITE_ZEROES",
    "SEND_DF",
    "CAN_MULTI_CONN",
    "SEND_RESIZE",
    "SEND_CACHE",
    "SEND_FAST_ZERO",
    "BLOCK_STATUS_PAYLOAD",
]
COMMANDS = {
    0: "READ",
    1: "WRITE",
    3: "FLUSH",
    4: "TRIM",
    5: "CACHE",
    6: "WRITE_ZEROES",
    7: "BLOCK_STATUS",
    8: "RESIZE",
}
READ, WRITE, FLUSH, TRIM, CACHE, ZEROES, STATUS = 0, 1, 3, 4, 5, 6, 7
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (1 << bit for bit in range(6))
CHUNKS = {
    0: "NONE",
    1: "OFFSET_DATA",
    2: "OFFSET_HOLE",
    5: "BLOCK_STATUS",
    6: "BLOCK_STATUS_EXT",
    0x8001: "ERROR",
    0x8002: "ERROR_OFFSET",
}
ERRORS = {
    1: "EPERM",
    5: "EIO",
    12: "ENOMEM",
    22: "EINVAL",
    28: "ENOSPC",
    75: "EOVERFLOW",
    95: "ENOTSUP",
    108: "ESHUTDOWN",
}
NO = "–"
HANGUP = "hangs up"
MIB = 1 << 20
SIZE = 64 * MIB


class Gone(Exception):
    """The server has hung up."""


class Connection:
    """Greeted, and no option sent yet."""

    def __init__(self, where):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(where[0])
        self.name = where[1].encode()
        self.style = "simple"
        self.cookie = 0
        magic, option, flags = struct.unpack(">QQH", self.take(18))
        assert (magic, option) == (
            0x4E42444D41474943,
            0x49484156454F5054,
        ) and flags & 3 == 3, "fixed newstyle"
        self.send(struct.pack(">I", 3))

    def take(self, count):
        data = b""
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionError:
                raise Gone from None
            if not piece:
                raise Gone
            data += piece
        return data

    def send(self, data):
        try:
            self.socket.sendall(data)
        except ConnectionError:
            raise Gone from None

    def option(self, number, data=b""):
        """The replies: their codes and data. The last one is an ACK or a refusal."""
        self.send(struct.pack(">QII", 0x49484156454F5054, number, len(data)) + data)
        replies = []
        while True:
            magic, option, code, length = struct.unpack(">QIII", self.take(20))
            assert (magic, option) == (0x3E889045565A9, number)
            replies.append((code, self.take(length)))
            if code == 1 or code >> 31:
                return replies

    def accepts(self, number, data=b""):
        """Yes, or how it is refused."""
        try:
            code = self.option(number, data)[-1][0]
        except Gone:
            return f"{NO} ({HANGUP})"
        return "yes" if code == 1 else f"{NO} ({REFUSALS.get(code & 0x7fffffff, hex(code))})"

    def string(self, text=None):
        text = self.name if text is None else text
        return struct.pack(">I", len(text)) + text

    def infos(self, wanted, option=7):
        """The pieces of information that come."""
        data = (
            self.string()
            + struct.pack(">H", len(wanted))
            + b"".join(struct.pack(">H", it) for it in wanted)
        )
        replies = self.option(option, data)
        assert replies[-1][0] == 1, replies
        return {struct.unpack(">H", data[:2])[0]: data[2:] for code, data in replies if code == 3}

    def contexts(self, option, *queries):
        """Names of the contexts that are listed or chosen, each with its number."""
        data = (
            self.string()
            + struct.pack(">I", len(queries))
            + b"".join(self.string(it) for it in queries)
        )
        return {
            data[4:].decode(): data[:4] for code, data in self.option(option, data) if code == 4
        }

    def start(self, style, *contexts):
        """Transmits from now on; returns the transmission flags."""
        self.style = style
        if style != "simple":
            assert self.option(8 if style == "structured" else 11)[-1][0] == 1
        if contexts:
            self.chosen = self.contexts(10, *contexts)
            assert self.chosen
        return struct.unpack(">QH", self.infos([])[0])[1]

    def ask(self, command, offset=0, length=4096, flags=0, payload=b""):
        """The answer to a request: `yes` or the error, then the chunks that came."""
        self.cookie += 1
        head = struct.pack(">HHQQ", flags, command, self.cookie, offset)
        if self.style == "extended":
            self.send(struct.pack(">I", 0x21E41C71) + head + struct.pack(">Q", length) + payload)
        else:
            self.send(struct.pack(">I", 0x25609513) + head + struct.pack(">I", length) + payload)
        chunks, answer = [], "yes"
        while True:
            (magic,) = struct.unpack(">I", self.take(4))
            if magic == 0x67446698:
                error, cookie = struct.unpack(">IQ", self.take(12))
                if command == READ and not error:
                    self.take(length)
                return ("yes" if not error else ERRORS.get(error, str(error))), chunks
            if magic == 0x668E33EF:
                flags, kind, cookie, size = struct.unpack(">HHQI", self.take(16))
            else:
                assert magic == 0x6E8A278C, hex(magic)
                flags, kind, cookie, _, size = struct.unpack(">HHQQQ", self.take(28))
            data = self.take(size)
            chunks.append((kind, data))
            if kind >> 15:
                answer = ERRORS.get(struct.unpack(">I", data[:4])[0], "?")
            if flags & 1:
                return answer, chunks


def probe(where, read_only):
    facts = {}

    def says(name, ask):
        try:
            facts[name] = ask()
        except Gone:
            facts[name] = HANGUP

    def export_name():
        it = Connection(where)
        it.send(struct.pack(">QII", 0x49484156454F5054, 1, len(it.name)) + it.name)
        return "yes" if struct.unpack(">QH", it.take(10))[0] == SIZE else "?"

    says("option EXPORT_NAME (1)", export_name)
    for number, name in OPTIONS.items():
        it = Connection(where)
        if number in (6, 7):
            facts[f"option {name} ({number})"] = it.accepts(number, it.string() + b"\0\0")
        elif number in (9, 10):
            it.option(8)
            facts[f"option {name} ({number})"] = it.accepts(
                number, it.string() + struct.pack(">I", 1) + it.string(b"base:allocation")
            )
        elif number != 1:
            facts[f"option {name} ({number})"] = it.accepts(number, it.name if number == 4 else b"")
    facts["option an unknown one"] = Connection(where).accepts(77)
    it = Connection(where)
    facts["option GO of a name that nothing has"] = it.accepts(
        7, it.string(b"no such name") + b"\0\0"
    )
    it = Connection(where)
    facts["option LIST with data"] = Connection(where).accepts(3, b"x")
    facts["option SET_META_CONTEXT without structured replies"] = it.accepts(
        10, it.string() + struct.pack(">I", 1) + it.string(b"base:allocation")
    )
    it.option(8)
    facts["option STRUCTURED_REPLY twice"] = it.accepts(8)
    facts["information contexts that are listed"] = ", ".join(sorted(it.contexts(9))) or NO

    unasked, asked = Connection(where).infos([], 6), Connection(where).infos([1, 2, 3], 6)
    for number, name in INFOS.items():
        facts[f"information {name}"] = (
            "yes" if number in unasked else "if asked for" if number in asked else NO
        )
    sizes = asked.get(3)
    facts["information block sizes: least, preferred, most"] = (
        ", ".join(map(str, struct.unpack(">III", sizes))) if sizes else NO
    )

    plain, chunked = Connection(where).start("simple"), Connection(where).start(
        "structured", b"base:allocation"
    )
    refused = Connection(read_only).start("structured")
    has_extended = facts["option EXTENDED_HEADERS (11)"] == "yes"
    extended = Connection(where).start("extended", b"base:allocation") if has_extended else 0
    for bit, name in enumerate(FLAGS[1:], 1):
        have = [flags >> bit & 1 for flags in (plain, chunked, refused, extended)]
        facts[f"flag {name}"] = (
            "yes"
            if have[0] and have[1]
            else (
                "with structured replies"
                if have[1]
                else (
                    "of exports that are" if have[2] else "with extended headers" if have[3] else NO
                )
            )
        )

    disk = Connection(where)
    disk.start("structured", b"base:allocation")

    def on_disk(*arguments, **options):
        """A question after which the connection may be in disorder."""
        nonlocal disk
        try:
            return disk.ask(*arguments, **options)
        except Gone:
            disk = Connection(where)
            disk.start("structured", b"base:allocation")
            return HANGUP, []

    page = b"p" * 4096
    for number, name in COMMANDS.items():
        length = 0 if number == FLUSH else 4096
        facts[f"command {name} ({number})"] = on_disk(
            number, length=length, payload=page if number == WRITE else b""
        )[0]
        if name != "RESIZE":
            facts[f"flags FUA with {name}"] = on_disk(
                number, length=length, flags=FUA, payload=page if number == WRITE else b""
            )[0]
    leaving = Connection(where)
    leaving.start("simple")
    try:
        leaving.ask(2)
    except Gone:
        facts["command DISC (2)"] = "yes"
    facts["command an unknown one"] = on_disk(99)[0]
    facts["flags NO_HOLE with WRITE_ZEROES"] = on_disk(ZEROES, flags=NO_HOLE)[0]
    # nbdkit 1.32 ends as a whole when it is asked for what its plugin did not offer.
    for flags, name in ((FAST_ZERO, "FAST_ZERO"), (FAST_ZERO | NO_HOLE, "FAST_ZERO and NO_HOLE")):
        offered = facts["flag SEND_FAST_ZERO"] != NO
        facts[f"flags {name} with WRITE_ZEROES"] = (
            on_disk(ZEROES, flags=flags)[0] if offered else NO
        )
    facts["flags DF with READ"] = on_disk(READ, flags=DF)[0]
    count = lambda chunks: sum(len(data) // 8 for kind, data in chunks if kind == 5)
    many, one = (count(on_disk(STATUS, length=SIZE, flags=flags)[1]) for flags in (0, REQ_ONE))
    facts["flags REQ_ONE with BLOCK_STATUS"] = (
        "yes" if many > one == 1 else f"{one} instead of {many} runs"
    )
    facts["flags an unknown one with READ"] = on_disk(READ, flags=1 << 15)[0]

    def kinds(chunks):
        names = [CHUNKS.get(kind, hex(kind)) for kind, _ in chunks]
        # Others may be followed by one that only says that they were all.
        return ", ".join(dict.fromkeys(it for it in names if it != "NONE" or len(names) == 1)) or NO

    facts["chunk READ of data and a hole"] = kinds(on_disk(READ, length=16 * MIB)[1])
    for name, flags in ("READ of 1 MiB of data", 0), ("READ of 16 MiB with DF", DF):
        pieces = sum(
            kind in (1, 2)
            for kind, _ in on_disk(READ, length=(16 if flags else 1) * MIB, flags=flags)[1]
        )
        facts[f"chunk {name}: pieces"] = "one" if pieces == 1 else "several"
    facts["chunk WRITE"] = kinds(on_disk(WRITE, payload=page)[1])
    facts["chunk BLOCK_STATUS"] = kinds(on_disk(STATUS)[1])
    answer, chunks = on_disk(READ, offset=SIZE)
    facts["chunk an error"] = kinds(chunks)
    facts["chunk an error has a text"] = (
        "yes" if any(kind >> 15 and len(data) > 6 for kind, data in chunks) else NO
    )
    if has_extended:
        wide = Connection(where)
        wide.start("extended", b"base:allocation")
        facts["chunk BLOCK_STATUS with extended headers"] = kinds(wide.ask(STATUS)[1])
        facts["flags PAYLOAD_LEN with WRITE"] = wide.ask(WRITE, flags=PAYLOAD_LEN, payload=page)[0]
        choice = struct.pack(">Q", 4096) + wide.chosen["base:allocation"]
        facts["flags PAYLOAD_LEN with BLOCK_STATUS"] = wide.ask(
            STATUS, length=len(choice), flags=PAYLOAD_LEN, payload=choice
        )[0]
        facts["command WRITE_ZEROES of 5 GiB, beyond the end"] = wide.ask(ZEROES, length=5 << 30)[0]
    else:
        for name in (
            "chunk BLOCK_STATUS with extended headers",
            "flags PAYLOAD_LEN with WRITE",
            "flags PAYLOAD_LEN with BLOCK_STATUS",
            "command WRITE_ZEROES of 5 GiB, beyond the end",
        ):
            facts[name] = NO

    facts["error READ beyond the end"] = answer
    facts["error WRITE beyond the end"] = on_disk(WRITE, offset=SIZE, payload=page)[0]
    facts["error WRITE_ZEROES beyond the end"] = on_disk(ZEROES, offset=SIZE)[0]
    facts["error TRIM beyond the end"] = on_disk(TRIM, offset=SIZE)[0]
    facts["error CACHE beyond the end"] = on_disk(CACHE, offset=SIZE)[0]
    facts["error BLOCK_STATUS beyond the end"] = on_disk(STATUS, offset=SIZE)[0]
    facts["error FLUSH with a range"] = on_disk(FLUSH, offset=4096, length=4096)[0]
    facts["error READ with DF of 33 MiB"] = on_disk(READ, length=33 * MIB, flags=DF)[0]
    facts["error READ of 33 MiB"] = on_disk(READ, length=33 * MIB)[0]
    facts["error WRITE of 33 MiB"] = on_disk(WRITE, length=33 * MIB, payload=b"w" * (33 * MIB))[0]
    facts["error READ of nothing"] = on_disk(READ, length=0)[0]
    blind = Connection(where)
    blind.start("structured")
    says("error BLOCK_STATUS without a context", lambda: blind.ask(STATUS)[0])
    kept = Connection(read_only)
    kept.start("structured")
    says("error WRITE to a read-only export", lambda: kept.ask(WRITE, payload=page)[0])
    return facts


if __name__ == "__main__":
    print(json.dumps(probe(tuple(sys.argv[1:3]), tuple(sys.argv[3:5])), ensure_ascii=False))
