"""As much of Kafka's protocol as costs nothing: for the time to a first acknowledgement, and for a reader that only reads.

Standard library only. Versions that every broker here serves: Metadata 4, Produce 3, Fetch 4, ListOffsets 1.
"""

import socket
import struct
import time

PRODUCE, FETCH, LIST_OFFSETS, METADATA = 0, 1, 2, 3
BATCH_HEADER = 61


def text(value):
    raw = value.encode()
    return struct.pack(">h", len(raw)) + raw


def crc32c(data):
    """Castagnoli's, bit by bit: for a few hundred bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def zigzag(value):
    value = value << 1 ^ value >> 63
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def batch(value):
    """A record batch of one record without a key."""
    body = b"\0" + zigzag(0) + zigzag(0) + zigzag(-1) + zigzag(len(value)) + value + zigzag(0)
    now = int(time.time() * 1000)
    checked = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + zigzag(len(body)) + body
    return struct.pack(">qiibI", 0, len(checked) + 9, -1, 2, crc32c(checked)) + checked


class Refused(Exception):
    """The broker answered with an error code."""


class Connection:
    def __init__(self, address, timeout=60):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(1 << 20)

    def close(self):
        self.socket.close()

    def ask(self, key, version, body):
        """The answer without its size and correlation id, as a view that the next call overwrites."""
        message = struct.pack(">hhi", key, version, 1) + text("bench") + body
        self.socket.sendall(struct.pack(">i", len(message)) + message)
        (size,) = struct.unpack(">i", self.take(4))
        return self.take(size)[4:]

    def take(self, size):
        if size > len(self.buffer):
            self.buffer = bytearray(size)
        view, got = memoryview(self.buffer)[:size], 0
        while got < size:
            count = self.socket.recv_into(view[got:])
            if not count:
                raise ConnectionError("the broker closed the connection")
            got += count
        return view

    def create(self, topic):
        """By asking for it, as clients do."""
        self.ask(METADATA, 4, struct.pack(">i", 1) + text(topic) + b"\1")

    def produce(self, topic, records, partition=0):
        body = struct.pack(">hhii", -1, -1, 30_000, 1) + text(topic)
        body += struct.pack(">iii", 1, partition, len(records)) + records
        answer = self.ask(PRODUCE, 3, body)
        (error,) = struct.unpack_from(">h", answer, 4 + 2 + len(topic.encode()) + 4 + 4)
        if error:
            raise Refused(error)

    def fetch(self, topic, partition, offset, bytes_max):
        """The bytes of the batches from the offset on, the offset after them, and the high watermark."""
        # Nothing is waited for: a partition may be empty.
        body = struct.pack(">iiiibi", -1, 0, 1, bytes_max, 0, 1) + text(topic)
        body += struct.pack(">iiqi", 1, partition, offset, bytes_max)
        answer = self.ask(FETCH, 4, body)
        at = 4 + 4 + 2 + len(topic.encode()) + 4
        (error,) = struct.unpack_from(">h", answer, at + 4)
        if error:
            raise Refused(error)
        (high_watermark,) = struct.unpack_from(">q", answer, at + 6)
        at += 4 + 2 + 8 + 8
        (aborted,) = struct.unpack_from(">i", answer, at)
        at += 4 + 16 * max(aborted, 0)
        (size,) = struct.unpack_from(">i", answer, at)
        return size, self.after(answer[at + 4:at + 4 + max(size, 0)], offset), high_watermark

    @staticmethod
    def after(batches, offset):
        at = 0
        while at + BATCH_HEADER <= len(batches):
            base, length = struct.unpack_from(">qi", batches, at)
            if at + 12 + length > len(batches):
                break
            (last,) = struct.unpack_from(">i", batches, at + 23)
            offset, at = base + last + 1, at + 12 + length
        return offset


def first_acknowledgement(address, topic, seconds, ended):
    """Tries from now on until a record is acknowledged, or the broker has `ended`; the connection is closed again."""
    records, until = batch(b"x" * 100), time.monotonic() + seconds
    while True:
        try:
            connection = Connection(address, timeout=seconds)
            break
        except OSError:
            if time.monotonic() > until or ended():
                raise
            time.sleep(0.0005)
    while True:
        try:
            connection.create(topic)
            connection.produce(topic, records)
            return connection.close()
        # A broker that listens before it serves closes, or refuses until its topic has a leader.
        except (Refused, ConnectionError, struct.error):
            if time.monotonic() > until:
                raise
            connection.close()
            time.sleep(0.002)
            connection = Connection(address, timeout=seconds)
